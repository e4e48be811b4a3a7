//! The kernelspec `consistency`, inside the venv and nowhere else.

use crate::Result;
use crate::files;
use crate::place::Place;

/// The name by which notebooks ask for the kernel.
pub const NAME: &str = "consistency";
static LAUNCHER: &str = include_str!("../python/launch.py");

/// Write the launcher and the kernelspec that starts it.
pub fn ensure(place: &Place) -> Result<()> {
    let launcher = place.shared.join("kernel").join("launch.py");
    files::write_if_changed(&launcher, LAUNCHER.as_bytes())?;
    // -I: nothing of the user's Python, neither its paths nor its variables.
    let spec = serde_json::json!({
        "argv": [place.python(), "-I", launcher, "{connection_file}"],
        "display_name": "Rust (Consistency Lab)",
        "language": "rust",
        "interrupt_mode": "message",
        "metadata": { "debugger": false },
    });
    let folder = place.venv().join("share").join("jupyter").join("kernels").join(NAME);
    files::write_if_changed(&folder.join("kernel.json"), format!("{spec:#}\n").as_bytes())
}
