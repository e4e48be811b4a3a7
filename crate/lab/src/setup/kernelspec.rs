//! The kernelspecs `consistency` and `consistency-cuda`, inside the venv and nowhere else.

use super::kind::Kind;
use crate::Result;
use crate::files;
use crate::place::Place;

/// The launcher and what it is made of.
static FILES: [(&str, &str); 10] = [
    ("launch.py", include_str!("../python/kernel/launch.py")),
    ("relay.py", include_str!("../python/kernel/relay.py")),
    ("evcxr.py", include_str!("../python/kernel/evcxr.py")),
    ("library.py", include_str!("../python/kernel/library.py")),
    ("outputs.py", include_str!("../python/kernel/outputs.py")),
    ("failures.py", include_str!("../python/kernel/failures.py")),
    ("missed.py", include_str!("../python/kernel/missed.py")),
    ("pool.py", include_str!("../python/kernel/pool.py")),
    ("shift_tab.py", include_str!("../python/kernel/shift_tab.py")),
    ("wire.py", include_str!("../python/kernel/wire.py")),
];

/// Write the launcher and the kernelspec that starts it.
pub fn ensure(place: &Place, kind: Kind) -> Result<()> {
    // The name by which notebooks ask for the kernel, and the one that people read.
    let (name, shown) = match kind {
        Kind::Cpu => ("consistency", "Rust (Consistency Lab)"),
        Kind::Cuda => ("consistency-cuda", "Rust (Consistency Lab, CUDA)"),
    };
    let kernel = place.shared.join("kernel");
    for (file, content) in FILES {
        files::write_if_changed(&kernel.join(file), content.as_bytes())?;
    }
    let launcher = kernel.join("launch.py");
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
