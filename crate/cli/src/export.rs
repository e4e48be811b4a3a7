//! `export --run RUN_FOLDER --out DIR`: a trained consistency model as a diffusers folder.

use clap::{Arg, ArgMatches, Command};
use consistency::Result;
use consistency::experiment::{Card, RunFolder};
use std::path::Path;

/// The command line of `export`.
pub fn command() -> Command {
    let option = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    Command::new("export")
        .about("Write a trained consistency model as a diffusers folder")
        .arg(option("run", "RUN_FOLDER", "The folder of a finished run").required(true))
        .arg(option("out", "DIR", "The folder to write; an earlier export is replaced").required(true))
        .arg(option("license", "L", "The license of the weights, for the model card: mit"))
        .after_help("Example:\n  cargo lab export --run .lab/runs/digits-ct-0123abcd --out digits-ct --license mit")
}

/// Export what the command line names.
pub fn run(matches: &ArgMatches) -> Result<()> {
    let text = |name: &str| matches.get_one::<String>(name).cloned();
    let trained = RunFolder::open(Path::new(&text("run").unwrap_or_default()))?.trained()?;
    let out = text("out").unwrap_or_default();
    trained.export(Path::new(&out), &Card { license: text("license") })?;
    println!("{out}");
    Ok(())
}
