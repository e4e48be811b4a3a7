//! The lab's own Python programs, and how Jupyter's are started.

use crate::Result;
use crate::files;
use crate::place::Place;
use std::ffi::OsString;
use std::path::PathBuf;

/// The lab's Python program `name` as a file; `text` is what it says.
pub fn script(place: &Place, name: &str, text: &str) -> Result<PathBuf> {
    let path = place.own.join("tools").join(name);
    files::write_if_changed(&path, text.as_bytes())?;
    Ok(path)
}

/// The environment of Jupyter's programs: they look for kernelspecs in the venv before the user's
/// own, and keep their running state beside the lab's.
pub fn jupyter(place: &Place) -> [(&'static str, OsString); 2] {
    [
        ("JUPYTER_PREFER_ENV_PATH", "1".into()),
        ("JUPYTER_RUNTIME_DIR", place.own.join("jupyter").into()),
    ]
}
