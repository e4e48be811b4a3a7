//! evcxr_jupyter, the Rust kernel, at a pinned version.

use super::toolchain::Toolchain;
use crate::Result;
use crate::files;
use crate::place::{Place, Turn};
use crate::process::{Logged, answer};
use crate::say::Step;

/// The version that the kernel's design was measured with.
pub const VERSION: &str = "0.22.0";

/// What evcxr links and hardly calls, compiled without optimisation: parts of rust-analyzer
/// that only an editor asks for, and what reads debugging symbols.
const IDLE: [&str; 13] = [
    "addr2line",
    "backtrace",
    "gimli",
    "icu_locale_core",
    "notify",
    "object",
    "ra_ap_ide",
    "ra_ap_ide_assists",
    "ra_ap_ide_completion",
    "ra_ap_ide_diagnostics",
    "ra_ap_ide_ssr",
    "ra_ap_test_utils",
    "zerovec",
];

/// What it calls now and then: compiled with little optimisation. (All of it at this level would
/// save another tenth, and a kernel would be ready after 8 s instead of 6.)
const SELDOM: [&str; 4] = ["regex-automata", "regex-syntax", "tokio", "zeromq"];

/// Whether this version is there.
pub fn is_installed(place: &Place) -> bool {
    let stamp = place.shared.join("evcxr").join("version");
    files::stamped(&stamp, VERSION) && place.evcxr().is_file()
}

/// Install evcxr_jupyter, unless this version is there.
pub fn ensure(place: &Place, turn: &Turn, toolchain: &Toolchain) -> Result<()> {
    if is_installed(place) {
        return Ok(());
    }
    let root = place.shared.join("evcxr");
    let stamp = root.join("version");
    let mut step =
        Step::start(format!("evcxr_jupyter {VERSION}: the Rust kernel, compiled once (minutes)"));
    let target = root.join("build");
    // The toolchain in use, not rustup's choice for this folder.
    let mut install = Logged::new(place, "evcxr", &toolchain.cargo);
    let command = install.command();
    command
        .current_dir(&place.shared)
        .args(["install", "--locked", "--force", "evcxr_jupyter", "--version", VERSION])
        .arg("--root")
        .arg(&root)
        .arg("--target-dir")
        .arg(&target);
    command.arg("--config").arg("profile.release.lto=\"off\"");
    let levels = IDLE.map(|name| (name, 0)).into_iter().chain(SELDOM.map(|name| (name, 1)));
    for (name, level) in levels {
        command.arg("--config").arg(format!("profile.release.package.{name}.opt-level={level}"));
    }
    let mut count = 0;
    let result = install.run(turn, |line| {
        if let Some(name) = line.trim_start().strip_prefix("Compiling ") {
            count += 1;
            step.progress(&format!("crate {count} of about 275: {name}"));
        }
    });
    if let Err(error) = result {
        step.failed();
        return Err(error);
    }
    // If it does not answer, it is not installed.
    answer(place.evcxr(), &["--help"])
        .map_err(|e| format!("evcxr_jupyter was installed and does not run: {e}"))?;
    files::write(&stamp, VERSION.as_bytes())?;
    // What remains is only of use to a second installation.
    files::remove(&target)?;
    step.done("installed");
    Ok(())
}
