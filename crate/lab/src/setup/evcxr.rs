//! evcxr_jupyter, the Rust kernel, at a pinned version.

use super::toolchain::Toolchain;
use crate::Result;
use crate::files;
use crate::place::{Place, Turn};
use crate::process::{Logged, answer};
use crate::say::Step;

/// The version that the kernel's design was measured with.
pub const VERSION: &str = "0.22.0";

/// Parts of rust-analyzer that evcxr links and never calls: compiled without
/// optimisation they cost a minute less.
const IDLE: [&str; 3] = ["ra_ap_ide_assists", "ra_ap_ide_diagnostics", "ra_ap_ide_ssr"];

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
    // The toolchain that is at work, not rustup's choice for this folder.
    let mut install = Logged::new(place, "evcxr", &toolchain.cargo);
    let command = install.command();
    command
        .current_dir(&place.shared)
        .args(["install", "--locked", "--force", "evcxr_jupyter", "--version", VERSION])
        .arg("--root")
        .arg(&root)
        .arg("--target-dir")
        .arg(&target);
    for name in IDLE {
        command.arg("--config").arg(format!("profile.release.package.{name}.opt-level=0"));
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
    // It answers, or it is not installed.
    answer(place.evcxr(), &["--help"])
        .map_err(|e| format!("evcxr_jupyter was installed and does not run: {e}"))?;
    files::write(&stamp, VERSION.as_bytes())?;
    // What remains is only of use to a second installation.
    files::remove(&target)?;
    step.done("installed");
    Ok(())
}
