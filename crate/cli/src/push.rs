//! `push FOLDER --to OWNER/NAME`: a model's folder to the Hub.

use clap::{Arg, ArgAction, ArgMatches, Command};
use consistency::Result;
use consistency::hub::{Hub, Upload};
use std::path::Path;

/// The command line of `push`.
pub fn command() -> Command {
    let option = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    Command::new("push")
        .about("Upload an exported model to the Hub, as one commit")
        .arg(Arg::new("FOLDER").required(true).help("The folder; all of its files are uploaded"))
        .arg(option("to", "OWNER/NAME", "The repository; created if missing").required(true))
        .arg(flag("private", "Make the repository private; a public one is refused"))
        .arg(option("message", "M", "The commit's message"))
        .arg(option("revision", "R", "The branch, which must exist (default: main)"))
        .arg(flag("dry-run", "Send nothing; list what would be sent, and how"))
        .after_help(
            "The token is that of HF_TOKEN, or of `hf auth login`; it must have the right to write.\n\n\
             Example:\n  cargo lab push exported/cifar10-ct --to me/cifar10-ct --private --dry-run",
        )
}

/// Upload what the command line names.
pub fn run(matches: &ArgMatches) -> Result<()> {
    let text = |name: &str| matches.get_one::<String>(name).cloned();
    let default = Upload::default();
    let upload = Upload {
        message: text("message").unwrap_or(default.message),
        private: matches.get_flag("private"),
        revision: text("revision").unwrap_or(default.revision),
        dry_run: matches.get_flag("dry-run"),
    };
    let (folder, id) = text("FOLDER").zip(text("to")).unwrap_or_default();
    let uploaded = Hub::from_env()?.upload(&id, Path::new(&folder), &upload)?;
    for (name, size, mode) in &uploaded.files {
        println!("{size:>14}  {mode:<7}  {name}");
    }
    let bytes: u64 = uploaded.files.iter().map(|(_, size, _)| size).sum();
    let files = match uploaded.files.len() {
        1 => "1 file".to_string(),
        n => format!("{n} files"),
    };
    match uploaded.commit {
        Some(commit) => println!("{files}, {bytes} bytes, commit {commit}"),
        None => println!("dry run, nothing was sent: {files}, {bytes} bytes would go to"),
    }
    println!("{}", uploaded.url);
    Ok(())
}
