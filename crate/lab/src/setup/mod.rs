//! From a fresh machine to a kernel: each step is done once, and again when its inputs
//! change.

mod build;
mod evcxr;
mod headers;
mod kernelspec;
mod kind;
mod library;
mod link;
mod no_async;
mod rust_src;
mod sources;
mod toolchain;
pub mod unpacked;
mod venv;

pub use evcxr::VERSION as EVCXR_VERSION;
pub use kind::Kind;
pub use library::{Library, PROGRAM, built_by, current, sweep};
pub use rust_src::{cargo_home, missing as rust_src_missing};
pub use sources::Sources;
pub use toolchain::{Toolchain, nvcc};
pub use venv::system_python;

use crate::Result;
use crate::place::{Place, Turn};
use crate::say;

/// Everything a kernel needs: the library of this clone, the venv, evcxr_jupyter, the kernelspec.
/// Returns the library that is now current.
pub fn all(place: &Place, turn: &Turn) -> Result<Library> {
    let toolchain = Toolchain::find()?;
    // The venv is downloaded while the compiler has the processors; with more than two of them,
    // both builds run at once, because each ends in a long tail on one.
    let many = std::thread::available_parallelism().is_ok_and(|count| count.get() > 2);
    let panicked = |what: &str| Err(format!("setting up {what} panicked"));
    let (library, evcxr, venv) = std::thread::scope(|scope| {
        let venv = scope.spawn(|| venv::ensure(place, turn));
        let evcxr = || evcxr::ensure(place, turn, &toolchain);
        let beside = many.then(|| scope.spawn(evcxr));
        let library = library(place, turn, &toolchain);
        let evcxr = match beside {
            Some(beside) => beside.join().unwrap_or_else(|_| panicked("evcxr_jupyter")),
            None if library.is_ok() => evcxr(),
            None => Ok(()),
        };
        (library, evcxr, venv.join().unwrap_or_else(|_| panicked("the venv")))
    });
    let library = library?;
    evcxr?;
    venv?;
    rust_src::ensure(&toolchain);
    rust_src::fetch(place, turn, &toolchain)?;
    kernelspec::ensure(place, Kind::Cpu)?;
    Ok(library)
}

// The library of the CPU's kernel: from a pack, as long as it fits the sources, or compiled.
fn library(place: &Place, turn: &Turn, toolchain: &Toolchain) -> Result<Library> {
    if let Some(library) = unpacked::current(place, toolchain)? {
        say::line("==> library: from a pack that was built from these sources");
        return Ok(library);
    }
    library::ensure(place, turn, toolchain, Kind::Cpu)
}

/// The same, and a second kernel whose library also runs on NVIDIA GPUs.
///
/// # Errors
/// No CUDA toolkit; the message says what to install.
pub fn with_cuda(place: &Place, turn: &Turn) -> Result<Library> {
    let toolchain = Toolchain::find()?;
    // Minutes of work before this would only delay the message.
    toolchain::nvcc()?;
    all(place, turn)?;
    let library = library::ensure(place, turn, &toolchain, Kind::Cuda)?;
    kernelspec::ensure(place, Kind::Cuda)?;
    Ok(library)
}
