//! The commands of `cargo lab` that need the library.
//!
//! `lab` itself does not depend on the library, so that it can build it; it starts this
//! program for these commands.

mod data;
mod export;
mod push;
mod reproduce;
mod sample;
mod theory;

use clap::{ArgMatches, Command};
use std::process::ExitCode;

fn command() -> Command {
    Command::new("cargo lab")
        .about("The commands of `cargo lab` that need the library")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .subcommand(data::command())
        .subcommand(export::command())
        .subcommand(sample::command())
        .subcommand(push::command())
        .subcommand(reproduce::command())
        .subcommand(reproduce::report_command())
        .subcommand(theory::command())
}

fn run(matches: &ArgMatches) -> consistency::Result<()> {
    match matches.subcommand() {
        Some(("data", matches)) => data::run(matches),
        Some(("export", matches)) => export::run(matches),
        Some(("sample", matches)) => sample::run(matches),
        Some(("push", matches)) => push::run(matches),
        Some(("report", matches)) => reproduce::write_report(matches),
        Some(("reproduce", matches)) => reproduce::run(matches),
        Some(("theory", matches)) => theory::run(matches),
        _ => consistency::bail!("there is no such command; see cargo lab --help"),
    }
}

fn main() -> ExitCode {
    match run(&command().get_matches()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
