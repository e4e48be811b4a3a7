//! The command line.

use crate::execute::{self, Request};
use crate::place::{Place, Turn};
use crate::{Result, bench, clean, commands, doctor, open, pack, say, setup, template};
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::process::ExitCode;

/// The commands of the program that is built with the library, which reads their arguments.
const LIBRARY_COMMANDS: [(&str, &str); 7] = [
    ("data", "List, fetch and show datasets: data --help"),
    ("sample", "Draw samples from a checkpoint of the Hub or a folder: sample --help"),
    ("export", "Write a trained run as a diffusers folder: export --help"),
    ("push", "Upload an exported model to the Hub: push --help"),
    ("reproduce", "Train, sample and evaluate an experiment of reproductions/: reproduce --help"),
    (
        "report",
        "Write reproductions/REPORT.md and report.html: what was reproduced, beside the paper's tables",
    ),
    ("theory", "Measure a theorem on a Gaussian mixture: theory --help"),
];

fn command() -> Command {
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).help(help).action(ArgAction::SetTrue)
    };
    let all = || flag("all", "Every notebook in notebooks/");
    let force = || flag("force", "Run them even where nothing has changed");
    let write = || flag("write", "Write the outputs into the notebooks themselves, to commit them");
    Command::new("cargo lab")
        .about(
            "Consistency Lab: sets up the environment and runs the notebooks.\n\
             Alone it sets up what is missing, runs notebooks 00 and 01 and writes a report.",
        )
        .after_help(
            "LAB_BUDGET (quick, standard, full) sets the size of everything in the notebooks.\n\
             LAB_HOME moves the state out of .lab, where several clones can share it.\n\n\
             Example:\n  cargo lab\n  LAB_BUDGET=standard cargo lab run 01",
        )
        .version(env!("CARGO_PKG_VERSION"))
        .arg(all())
        .arg(force())
        .subcommand_value_name("COMMAND")
        .subcommand(
            Command::new("setup")
                .about("Set up the kernel: library, venv, evcxr_jupyter, kernelspec")
                .arg(
                    Arg::new("features")
                        .long("features")
                        .value_parser(["cuda"])
                        .help("cuda: a second kernel, consistency-cuda, that also runs on NVIDIA GPUs"),
                )
                .after_help("After a change to the crate, a restarted kernel has it:\n\nExample:\n  cargo lab setup"),
        )
        .subcommand(
            Command::new("run")
                .about("Run notebooks; executed copies go to .lab/out")
                .arg(
                    Arg::new("NAME")
                        .num_args(0..)
                        .help("A name (01, 01-consistency-models) or a path of an .ipynb file; none: 00 and 01"),
                )
                .arg(all())
                .arg(force())
                .arg(write())
                .arg(
                    Arg::new("timeout")
                        .long("timeout")
                        .value_name("SECONDS")
                        .value_parser(clap::value_parser!(u32).range(1..))
                        .help(
                            "The most time that a cell may take, compiling included; a slower one \
                             is ended with its kernel, and the notebook fails (default: no limit)",
                        ),
                )
                .after_help(
                    "Example:\n  cargo lab run 01 --force\n  \
                     cargo lab run my/experiment.ipynb --timeout 600",
                ),
        )
        .subcommand(
            Command::new("open")
                .about("Open JupyterLab on 127.0.0.1, with its token")
                .arg(
                    Arg::new("port")
                        .long("port")
                        .value_parser(clap::value_parser!(u16))
                        .default_value("8888")
                        .help("The first port to try"),
                )
                .arg(flag("no-browser", "Do not start a browser"))
                .arg(flag("no-pool", "Keep no kernel ready for the next notebook (0.8 GB)"))
                .after_help("Example:\n  cargo lab open --no-browser --port 9000"),
        )
        .subcommand(
            Command::new("new")
                .about("Write a notebook to begin with, which runs as it is")
                .arg(Arg::new("NAME").required(true).help("Its name, for notebooks/, or a path"))
                .after_help("Example:\n  cargo lab new 14-my-claim"),
        )
        .subcommand(
            Command::new("doctor")
                .about("Check every requirement and name the remedy for what is missing")
                .after_help("Example:\n  cargo lab doctor"),
        )
        .subcommands(LIBRARY_COMMANDS.map(|(name, about)| library_command(name, about)))
        .subcommand(
            Command::new("bench")
                .about("Measure the environment, the engine beside PyTorch, the exact denoiser, the reader")
                .subcommand_required(true)
                .subcommand(
                    Command::new("kernel")
                        .about("Time the kernel from a real client: start, cells, memory")
                        .arg(flag("stock", "Also stock evcxr with `:dep`, compiled for it (20 minutes)"))
                        .arg(flag("profile", "Instead: where the time of a warm cell goes"))
                        .after_help("Example:\n  cargo lab bench kernel"),
                )
                .subcommand(engine(
                    Command::new("train").about(
                        "Time one training step of the networks, and layers forward and backward",
                    ),
                ))
                .subcommand(engine(
                    Command::new("sample")
                        .about("Time one-step sampling of the networks, and layers forward"),
                ))
                .subcommand(
                    Command::new("lemma1")
                        .about(
                            "Time the exact denoiser of 60000 x 784 numbers (Fashion-MNIST once \
                             fetched) beside the machine's f64 matrix products",
                        )
                        .arg(
                            Arg::new("threads")
                                .long("threads")
                                .value_name("N")
                                .value_parser(clap::value_parser!(u16).range(1..))
                                .help("Threads of both sides (default: all cores)"),
                        )
                        .after_help("Example:\n  cargo lab bench lemma1 --threads 2"),
                )
                .subcommand(
                    Command::new("tangent")
                        .about("Time a network's Jacobian-vector product beside its answer alone")
                        .after_help("Example:\n  cargo lab bench tangent"),
                )
                .subcommand(
                    Command::new("data")
                        .about("Time the reader of datasets, from Parquet to bytes in memory")
                        .arg(Arg::new("NAME").num_args(0..).help(
                            "Datasets or Parquet files; none: fashion_mnist and cifar10, once fetched",
                        ))
                        .arg(
                            Arg::new("python")
                                .long("python")
                                .value_name("PATH")
                                .help("An interpreter that has pyarrow, numpy and Pillow, to compare with"),
                        )
                        .after_help("Example:\n  cargo lab bench data --python ~/torch/bin/python"),
                ),
        )
        .subcommand(
            Command::new("pack")
                .about("Write the lab that is set up into one file, for machines of the same kind")
                .arg(Arg::new("FILE").help("Default: consistency-lab-SYSTEM.tar, such as consistency-lab-linux-x86_64.tar"))
                .after_help("Example:\n  cargo lab pack class.tar"),
        )
        .subcommand(
            Command::new("unpack")
                .about("Set up from a file of `cargo lab pack`, without compiling")
                .arg(Arg::new("FILE").required(true).help("The file that `cargo lab pack` wrote"))
                .after_help(
                    "It holds programs: unpack what comes from someone you trust. It is refused where \
                     the system, the C library (an older one), the processor, the compiler, Python or \
                     the library's sources are not those that it was made with.\n\n\
                     Example:\n  cargo lab unpack class.tar",
                ),
        )
        .subcommand(
            Command::new("clean")
                .about("Remove outputs, runs and libraries of this clone")
                .arg(all().help("Also the venv and evcxr_jupyter, which take minutes to make"))
                .after_help("Example:\n  cargo lab clean --all"),
        )
}

// One of them: what follows its name is passed on as it is.
fn library_command(name: &'static str, about: &'static str) -> Command {
    let rest = Arg::new("ARGUMENTS").num_args(0..).trailing_var_arg(true).allow_hyphen_values(true);
    Command::new(name).about(about).disable_help_flag(true).arg(rest)
}

fn engine(command: Command) -> Command {
    let option = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    command
        .arg(option(
            "python",
            "PATH",
            "An interpreter that has torch, to time the same networks in PyTorch",
        ))
        .arg(option("threads", "N", "Threads of both sides (default: all cores)"))
        .arg(option("only", "NAME", "The cases whose names contain this"))
        .arg(
            option("device", "DEVICE", "Where to run")
                .value_parser(["cpu", "cuda"])
                .default_value("cpu"),
        )
        .after_help("Example:\n  cargo lab bench train --python ~/torch/bin/python")
}

/// Do what the command line asks.
pub fn run() -> Result<ExitCode> {
    let matches = command().get_matches();
    match matches.subcommand() {
        None => notebooks(&matches, Vec::new(), false, None),
        Some(("run", matches)) => {
            let names = matches.get_many::<String>("NAME").unwrap_or_default().cloned().collect();
            let timeout = matches.get_one::<u32>("timeout").copied();
            notebooks(matches, names, matches.get_flag("write"), timeout)
        }
        Some(("setup", matches)) => {
            let place = Place::find()?;
            let turn = Turn::to_set_up(&place)?;
            let library = match matches.get_one::<String>("features") {
                Some(_) => setup::with_cuda(&place, &turn)?,
                None => setup::all(&place, &turn)?,
            };
            say::line(&format!("ready: kernels start with the library {}", library.id));
            Ok(ExitCode::SUCCESS)
        }
        Some(("open", matches)) => {
            let port = matches.get_one::<u16>("port").copied().unwrap_or(8888);
            let (browser, pool) = (!matches.get_flag("no-browser"), !matches.get_flag("no-pool"));
            open::open(&Place::find()?, port, browser, pool)
        }
        Some(("new", matches)) => {
            let name = matches.get_one::<String>("NAME").map(String::as_str).unwrap_or_default();
            let path = template::new(&Place::find()?, name)?;
            say::line(&format!("{}; cargo lab open shows it", path.display()));
            Ok(ExitCode::SUCCESS)
        }
        Some(("doctor", _)) => doctor::check(),
        Some(("bench", matches)) => match matches.subcommand() {
            Some(("kernel", matches)) => {
                let asked = |name: &&str| matches.get_flag(name.trim_start_matches('-'));
                let options: Vec<_> = ["--stock", "--profile"].into_iter().filter(asked).collect();
                bench::kernel(&Place::find()?, &options)
            }
            Some(("lemma1", matches)) => {
                let threads = matches.get_one::<u16>("threads");
                let arguments = threads.map(|n| vec!["--threads".to_string(), n.to_string()]);
                bench::library(&Place::find()?, "lemma1", &arguments.unwrap_or_default())
            }
            Some(("tangent", _)) => bench::library(&Place::find()?, "tangent", &[]),
            Some(("data", matches)) => {
                let files = matches.get_many::<String>("NAME").unwrap_or_default();
                let mut arguments: Vec<String> = files.cloned().collect();
                if let Some(python) = matches.get_one::<String>("python") {
                    arguments.extend(["--python".to_string(), python.clone()]);
                }
                bench::library(&Place::find()?, "data", &arguments)
            }
            Some((mode, matches)) => {
                let mut arguments = vec![mode.to_string()];
                for name in ["python", "threads", "only", "device"] {
                    if let Some(value) = matches.get_one::<String>(name) {
                        arguments.extend([format!("--{name}"), value.clone()]);
                    }
                }
                let cuda = matches.get_one::<String>("device").is_some_and(|d| d == "cuda");
                bench::engine(&Place::find()?, &arguments, cuda)
            }
            None => {
                Err("name what to measure: kernel, train, sample, lemma1, tangent or data"
                    .to_string())
            }
        },
        Some(("pack", matches)) => {
            pack::pack(&Place::find()?, matches.get_one::<String>("FILE").map(String::as_str))
        }
        Some(("unpack", matches)) => match matches.get_one::<String>("FILE") {
            Some(file) => pack::unpack(&Place::find()?, file),
            None => Err("name the file: cargo lab unpack FILE".to_string()),
        },
        Some(("clean", matches)) => clean::clean(&Place::find()?, matches.get_flag("all")),
        Some((name, matches)) if LIBRARY_COMMANDS.iter().any(|(known, _)| *known == name) => {
            let rest = matches.get_many::<String>("ARGUMENTS").unwrap_or_default().cloned();
            commands::run(&Place::find()?, name, rest)
        }
        Some((other, _)) => Err(format!("there is no command '{other}'; see cargo lab --help")),
    }
}

fn notebooks(
    matches: &ArgMatches,
    names: Vec<String>,
    write: bool,
    timeout: Option<u32>,
) -> Result<ExitCode> {
    let place = Place::find()?;
    // Before the wait for the lock: a wrong name or budget is reported at once.
    let request = Request {
        notebooks: crate::notebooks::choose(&place, &names, matches.get_flag("all"))?,
        force: matches.get_flag("force"),
        write,
        budget: budget()?,
        timeout,
    };
    let library = setup::all(&place, &Turn::to_set_up(&place)?)?;
    execute::run(&place, &Turn::to_run(&place)?, &library, &request)
}

// The library's `Budget` has the same names; this program is built without the library.
fn budget() -> Result<String> {
    let budget = std::env::var("LAB_BUDGET").unwrap_or_default();
    match budget.as_str() {
        "" => Ok("quick".to_string()),
        "quick" | "standard" | "full" => Ok(budget),
        other => Err(format!("LAB_BUDGET = '{other}': choose quick, standard or full")),
    }
}
