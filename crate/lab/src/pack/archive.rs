//! The file of a pack. A Python program reads and writes it: every machine of the lab has a Python,
//! and Python's tar archives need no crate.

use crate::Result;
use crate::place::Turn;
use crate::say::Step;
use crate::setup::system_python;
use crate::shell;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

static PACK: &str = include_str!("../python/pack.py");

/// Run its command with these arguments; returns its standard output.
///
/// # Errors
/// What the program says, as one message.
pub fn run(
    turn: Option<&Turn>,
    arguments: &[&OsStr],
    mut step: Option<&mut Step>,
) -> Result<String> {
    let failed = |e: std::io::Error| format!("running Python for a pack: {e}");
    let mut child = shell::command(system_python())
        .args(["-I", "-c", PACK])
        .args(arguments)
        .stdin(turn.map_or_else(Stdio::null, Turn::share))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let stdout = child.stdout.take();
    let reader =
        std::thread::spawn(move || stdout.map_or(Ok(String::new()), std::io::read_to_string));
    let mut said = Vec::new();
    for line in child.stderr.take().map(BufReader::new).into_iter().flat_map(BufRead::lines) {
        let line = line.map_err(failed)?;
        match (line.strip_prefix("LAB-PROGRESS "), step.as_mut()) {
            (Some(at), Some(step)) => step.progress(at),
            (Some(_), None) => {}
            (None, _) => said.push(line),
        }
    }
    let status = child.wait().map_err(failed)?;
    let output = reader.join().map_err(|_| "the answer about a pack could not be read")?;
    match status.success() {
        true => output.map_err(failed),
        false => Err(said.join("\n")),
    }
}
