//! The standard library's source, from which evcxr infers the types of variables.

use super::toolchain::Toolchain;
use crate::Result;
use crate::files;
use crate::place::{Place, Turn};
use crate::process::{Logged, answer};
use crate::say::{self, Step};
use std::path::PathBuf;

/// Whether it is missing.
pub fn missing(toolchain: &Toolchain) -> bool {
    let inside = "lib/rustlib/src/rust/library/std/src/lib.rs";
    !toolchain.sysroot.join(inside).is_file()
}

/// The cargo home of the kernels: nothing of the user's configuration, and the few crates
/// that the standard library is made of, so that a kernel starts without a network.
pub fn cargo_home(place: &Place) -> PathBuf {
    place.shared.join("kernel").join("cargo")
}

/// Whether it has them for this toolchain.
pub fn is_fetched(place: &Place, toolchain: &Toolchain) -> bool {
    files::stamped(&cargo_home(place).join("fetched-for"), &toolchain.version)
}

/// Fetch what rust-analyzer needs to read the standard library.
pub fn fetch(place: &Place, turn: &Turn, toolchain: &Toolchain) -> Result<()> {
    let manifest = toolchain.sysroot.join("lib/rustlib/src/rust/library/Cargo.toml");
    let home = cargo_home(place);
    if !manifest.is_file() || is_fetched(place, toolchain) {
        return Ok(());
    }
    let step = Step::start("std: the crates that the standard library is made of");
    let mut fetch = Logged::new(place, "std", &toolchain.cargo);
    fetch
        .command()
        .args(["fetch", "--locked", "--target", toolchain.host(), "--manifest-path"])
        .arg(manifest)
        .env("CARGO_HOME", &home)
        // The standard library's manifest uses what is not stable yet.
        .env("RUSTC_BOOTSTRAP", "1");
    if let Err(error) = fetch.run(turn, |_| {}) {
        step.failed();
        return Err(error);
    }
    files::write(&home.join("fetched-for"), toolchain.version.as_bytes())?;
    step.done("std: fetched");
    Ok(())
}

/// Install it with rustup if it is missing; if that fails, say what it means for cells.
pub fn ensure(toolchain: &Toolchain) {
    if !missing(toolchain) {
        return;
    }
    let step = Step::start("rust-src: the standard library's source, for types in cells");
    let name = toolchain.sysroot.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match answer("rustup", &["component", "add", "rust-src", "--toolchain", &name]) {
        Ok(_) => {
            step.done("installed");
        }
        Err(error) => {
            step.end("not installed");
            say::note(&format!(
                "rust-src is missing and could not be installed ({error}). Notebooks run, but a `let` \
                 of a type of the standard library needs its type written out. With a network: \
                 rustup component add rust-src"
            ));
        }
    }
}
