//! Commands that need the library: another program (crate/cli), built or unpacked with the library,
//! and run in the user's current folder.

use crate::place::{Place, Turn};
use crate::process::Logged;
use crate::say::Step;
use crate::setup::{Library, PROGRAM, Toolchain, unpacked};
use crate::{Result, shell};
use serde_json::Value;
use std::path::PathBuf;
use std::process::ExitCode;

/// Run `command` of that program with these arguments.
///
/// # Errors
/// No cargo. The program reports its own errors.
pub fn run(
    place: &Place,
    command: &str,
    arguments: impl Iterator<Item = String>,
) -> Result<ExitCode> {
    let toolchain = Toolchain::find()?;
    let unpacked = unpacked::current(place, &toolchain)?;
    let unpacked = unpacked.map(|library| library.folder.join(PROGRAM));
    let mut program = match unpacked.filter(|program| program.is_file()) {
        Some(program) => shell::command(program),
        None => {
            let mut cargo = shell::command(&toolchain.cargo);
            cargo
                .args(["run", "--quiet", "--release", "--package", PROGRAM, "--manifest-path"])
                .arg(place.project.join("Cargo.toml"))
                .arg("--");
            cargo
        }
    };
    let status = program
        .arg(command)
        .args(arguments)
        .env("LAB_PROJECT", &place.project)
        .env("LAB_RUNS", place.own.join("runs"))
        // Tables are shown whole.
        .env("POLARS_FMT_MAX_ROWS", "-1")
        .status()
        .map_err(|e| format!("starting {PROGRAM}: {e}"))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The program's file: the one that came with `library`, or built.
///
/// # Errors
/// It does not compile.
pub fn program(
    place: &Place,
    turn: &Turn,
    toolchain: &Toolchain,
    library: &Library,
) -> Result<PathBuf> {
    let unpacked = library.folder.join(PROGRAM);
    if unpacked.is_file() {
        return Ok(unpacked);
    }
    let step = Step::start("commands: the program of those that need the library");
    let mut build = Logged::new(place, "commands", &toolchain.cargo);
    build
        .command()
        .args(["build", "--release", "--package", PROGRAM])
        .arg("--message-format=json-render-diagnostics");
    let output = match build.run(turn, |_| {}) {
        Ok(output) => output,
        Err(error) => {
            step.failed();
            return Err(error);
        }
    };
    step.done("built");
    let messages = output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let file = messages
        .filter(|message| message["target"]["name"] == PROGRAM)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from));
    file.ok_or_else(|| format!("cargo built {PROGRAM} but did not report the file"))
}
