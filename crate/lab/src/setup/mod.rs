//! From a fresh machine to a kernel: each step is done once, and again when its inputs
//! change.

mod build;
mod evcxr;
mod headers;
mod kernelspec;
mod library;
mod rust_src;
mod toolchain;
mod venv;

pub use evcxr::VERSION as EVCXR_VERSION;
pub use library::{Library, built_by, current, sweep};
pub use rust_src::missing as rust_src_missing;
pub use toolchain::Toolchain;
pub use venv::system_python;

use crate::Result;
use crate::place::{Place, Turn};

/// Everything a kernel needs: the library of this clone, the venv, evcxr_jupyter, the
/// kernelspec. Answers the library that is now current.
pub fn all(place: &Place, turn: &Turn) -> Result<Library> {
    let toolchain = Toolchain::find()?;
    // The venv comes over the network while the compiler has the processors.
    let (library, venv) = std::thread::scope(|scope| {
        let venv = scope.spawn(|| venv::ensure(place, turn));
        let library = library::ensure(place, turn, &toolchain)
            .and_then(|library| evcxr::ensure(place, turn).map(|()| library));
        let venv = venv.join().unwrap_or_else(|_| Err("setting up the venv panicked".into()));
        (library, venv)
    });
    let library = library?;
    venv?;
    rust_src::ensure(&toolchain);
    rust_src::fetch(place, turn, &toolchain)?;
    kernelspec::ensure(place)?;
    Ok(library)
}
