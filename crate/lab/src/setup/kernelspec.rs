//! The kernelspecs `consistency` and `consistency-cuda`, inside the venv and nowhere else.

use super::kind::Kind;
use crate::Result;
use crate::files;
use crate::place::Place;

static LAUNCHER: &str = include_str!("../python/launch.py");

/// Write the launcher and the kernelspec that starts it.
pub fn ensure(place: &Place, kind: Kind) -> Result<()> {
    // The name by which notebooks ask for the kernel, and the one that people read.
    let (name, shown) = match kind {
        Kind::Cpu => ("consistency", "Rust (Consistency Lab)"),
        Kind::Cuda => ("consistency-cuda", "Rust (Consistency Lab, CUDA)"),
    };
    let launcher = place.shared.join("kernel").join("launch.py");
    files::write_if_changed(&launcher, LAUNCHER.as_bytes())?;
    // -I: nothing of the user's Python, neither its paths nor its variables.
    let spec = serde_json::json!({
        "argv": [place.python(), "-I", launcher, kind.current(), "{connection_file}"],
        "display_name": shown,
        "language": "rust",
        "interrupt_mode": "message",
        "metadata": { "debugger": false },
    });
    let folder = place.venv().join("share").join("jupyter").join("kernels").join(name);
    files::write_if_changed(&folder.join("kernel.json"), format!("{spec:#}\n").as_bytes())
}
