//! `reproduce NAME` and `report`: the experiments of `reproductions/`, run and set out.

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use consistency::record::Budget;
use consistency::reproduce::{Options, Reproduction, folder, report, reproduce};
use consistency::{Result, bail};

/// The command line of `reproduce`.
pub fn command() -> Command {
    let option = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    Command::new("reproduce")
        .about("Train, sample, evaluate and record an experiment of reproductions/")
        .arg(
            Arg::new("NAME")
                .num_args(0..)
                .help("A folder of reproductions/, or FOLDER.VARIANT; none: list them"),
        )
        .arg(
            Arg::new("variants")
                .long("variants")
                .action(ArgAction::SetTrue)
                .help("Also the variants of each NAME"),
        )
        .arg(
            Arg::new("resume")
                .long("resume")
                .action(ArgAction::SetTrue)
                .help("Resume an interrupted run; this happens even without the flag"),
        )
        .arg(option("device", "DEVICE", "cpu, cuda or cuda:N").default_value("cpu"))
        .arg(
            option("budget", "BUDGET", "How many of its steps and samples: a fiftieth, a quarter, all")
                .value_parser(Budget::ALL.map(Budget::name))
                .default_value(Budget::Full.name()),
        )
        .arg(
            option("seeds", "S,..", "These seeds in place of the experiment's")
                .value_delimiter(',')
                .value_parser(value_parser!(u64)),
        )
        .arg(option(
            "weights",
            "ID",
            "Sample and measure a released network in place of a run: OWNER/NAME[@REVISION], a \
             folder in diffusers' layout, or a flax file",
        ))
        .after_help(
            "A run that was interrupted resumes; one that is finished is not repeated.\n\n\
             Example:\n  cargo lab reproduce digits-teacher digits-cd --budget quick\n  cargo lab reproduce digits-cd --variants",
        )
}

/// The command line of `report`.
pub fn report_command() -> Command {
    Command::new("report")
        .about("Write reproductions/REPORT.md and report.html: what was reproduced, beside the paper's tables")
        .after_help("Example:\n  cargo lab report")
}

/// Run what the command line names.
pub fn run(matches: &ArgMatches) -> Result<()> {
    let folder = folder();
    let names: Vec<&String> = matches.get_many("NAME").unwrap_or_default().collect();
    if names.is_empty() {
        for name in Reproduction::names(&folder)? {
            let reproduction = Reproduction::read(&folder, &name)?;
            println!("{name:<22} {}", reproduction.title);
            for variant in reproduction.variants() {
                println!("  {variant:<20} {}", Reproduction::read(&folder, &variant)?.title);
            }
        }
        return Ok(());
    }
    let text = |name: &str| matches.get_one::<String>(name).cloned().unwrap_or_default();
    let options = Options {
        folder,
        runs: consistency::notebook::runs_folder().join("reproductions"),
        budget: Budget::named(&text("budget"))?,
        device: text("device"),
        seeds: matches.get_many("seeds").unwrap_or_default().copied().collect(),
        weights: matches.get_one("weights").cloned(),
    };
    let mut all = Vec::new();
    for name in names {
        all.push(name.clone());
        if matches.get_flag("variants") {
            all.extend(Reproduction::read(&options.folder, name)?.variants());
        }
    }
    for name in &all {
        if reproduce(name, &options, &mut |line| println!("{line}"))?.is_empty() {
            bail!("{name} gave no number");
        }
    }
    Ok(())
}

/// Write the report.
pub fn write_report(_: &ArgMatches) -> Result<()> {
    let folder = std::path::absolute(folder())?;
    let report = report(&folder)?;
    report.left_out().iter().for_each(|what| eprintln!("left out: {what}"));
    for page in report.write(&folder)? {
        println!("{}", page.display());
    }
    Ok(())
}
