//! Programs with the environment of the user's shell, without what cargo adds.
//!
//! `cargo lab` is `cargo run`, which sets `CARGO_MANIFEST_DIR`, `CARGO_PKG_NAME` and more for the
//! program that it starts. A cargo that inherits them compiles ring, rustls and everything that
//! depends on them again, because ring's build script asks to be run again when they change; the
//! next cargo that is run from a shell does the same once more.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

/// What cargo sets for a program that it runs, by name and by how a name begins.
const NAMES: [&str; 5] = [
    "CARGO",
    "CARGO_CRATE_NAME",
    "CARGO_PRIMARY_PACKAGE",
    "CARGO_RUSTC_CURRENT_DIR",
    "CARGO_TARGET_TMPDIR",
];
const PREFIXES: [&str; 3] = ["CARGO_BIN_", "CARGO_MANIFEST_", "CARGO_PKG_"];

/// `program`, to be started as from a shell.
pub fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let Some(name) = name.to_str() else { continue };
        if NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    // Cargo puts its own folders in front: the build's, and those of the standard library.
    for name in ["LD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH"] {
        let Some(paths) = std::env::var_os(name) else { continue };
        let rest = without_cargos(&paths);
        match rest.is_empty() {
            true => command.env_remove(name),
            false => command.env(name, rest),
        };
    }
    command
}

fn without_cargos(paths: &OsString) -> OsString {
    let exe = std::env::current_exe().unwrap_or_default();
    let of_cargo = |path: &Path| {
        let built = exe.parent().is_some_and(|folder| path.starts_with(folder));
        // target/release/deps lies around a test's program, target/release around `lab`'s.
        let around = exe.ancestors().skip(1).take(2).any(|folder| path == folder);
        let std = path.ends_with("lib") && path.join("rustlib").is_dir();
        let std = std || path.components().any(|part| part.as_os_str() == "rustlib");
        built || around || std
    };
    let rest = std::env::split_paths(paths).filter(|path| !of_cargo(path));
    std::env::join_paths(rest).unwrap_or_default()
}
