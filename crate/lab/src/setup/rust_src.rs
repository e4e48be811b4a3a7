//! The standard library's source, from which evcxr infers the types of variables.

use super::toolchain::Toolchain;
use crate::process::answer;
use crate::say::{self, Step};

/// Whether it is missing.
pub fn missing(toolchain: &Toolchain) -> bool {
    let inside = "lib/rustlib/src/rust/library/std/src/lib.rs";
    !toolchain.sysroot.join(inside).is_file()
}

/// Install it by rustup where it is missing; where it cannot be had, say what that means.
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
                "rust-src is missing and could not be had ({error}). Notebooks run, but a `let` \
                 of a type of the standard library needs its type written out. With a network: \
                 rustup component add rust-src"
            ));
        }
    }
}
