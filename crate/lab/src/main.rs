//! `cargo lab`: from a fresh machine to executed notebooks and a report.

mod bench;
mod clean;
mod cli;
mod commands;
mod doctor;
mod execute;
mod files;
mod notebooks;
mod open;
mod pack;
mod place;
mod process;
mod python;
mod report;
mod say;
mod setup;
mod shell;
mod template;

use std::process::ExitCode;

/// A result whose error is one message for the user at the terminal.
type Result<T, E = String> = std::result::Result<T, E>;

fn main() -> ExitCode {
    match cli::run() {
        Ok(code) => code,
        Err(message) => {
            say::error(&message);
            ExitCode::FAILURE
        }
    }
}
