//! Commands that need the library: another program (crate/cli), built and then run where
//! the person stands.

use crate::Result;
use crate::place::Place;
use crate::setup::Toolchain;
use crate::shell;
use std::process::ExitCode;

const PACKAGE: &str = "consistency-cli";

/// Run `command` of that program with these arguments.
///
/// # Errors
/// No cargo. What the program says, it says itself.
pub fn run(
    place: &Place,
    command: &str,
    arguments: impl Iterator<Item = String>,
) -> Result<ExitCode> {
    let toolchain = Toolchain::find()?;
    let status = shell::command(&toolchain.cargo)
        .args(["run", "--quiet", "--release", "--package", PACKAGE, "--manifest-path"])
        .arg(place.project.join("Cargo.toml"))
        .args(["--", command])
        .args(arguments)
        .env("LAB_PROJECT", &place.project)
        .env("LAB_RUNS", place.own.join("runs"))
        // A table is shown whole.
        .env("POLARS_FMT_MAX_ROWS", "-1")
        .status()
        .map_err(|e| format!("starting {PACKAGE}: {e}"))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
