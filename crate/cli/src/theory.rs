//! `theory NAME ..`: a theorem measured on a mixture, as a table.

use clap::{Arg, ArgMatches, Command, value_parser};
use consistency::bounds::within;
use consistency::loss::{Distance, Metric};
use consistency::polars::prelude::{CsvWriter, DataFrame, SerWriter};
use consistency::process::{GaussianMixture, NoiseRange, Solver, TimeGrid};
use consistency::record::write_atomically;
use consistency::rng::Key;
use consistency::theory::{
    Limit, Source, TanhModel, limit_table, loss_table, score_errors, spread_points,
    zero_loss_errors,
};
use consistency::{Context, Result, ensure};
use std::path::Path;

/// The largest a, b and c of a model function.
const STEEPEST: f64 = 100.0;

fn option(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

fn numbers(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    option(name, value, help)
        .value_delimiter(',')
        .allow_hyphen_values(true)
        .value_parser(value_parser!(f64))
}

fn counts(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    option(name, value, help).value_delimiter(',').value_parser(value_parser!(usize))
}

fn range(command: Command) -> Command {
    let number = |name, help, default| {
        option(name, "X", help)
            .allow_negative_numbers(true)
            .value_parser(value_parser!(f64))
            .default_value(default)
    };
    command
        .arg(number("eps", "The smallest noise level", "0.002"))
        .arg(number("tmax", "The largest noise level, T", "80"))
        .arg(number("rho", "The exponent of the Karras grid", "7"))
}

fn common(command: Command) -> Command {
    command
        .arg(
            option("mixture", "M.toml", "weights = [..], means = [[..], ..], std = [..]")
                .required(true),
        )
        .arg(option("csv", "OUT", "Write the table there; without it, it is printed"))
}

/// The command line of `theory`.
pub fn command() -> Command {
    let points =
        || counts("points", "N,..", "Points of each grid, a row each").default_value("9,17,33,65");
    let theta = |name, help| numbers(name, "A,B,C", help).default_value("0.8,0.2,0.1");
    Command::new("theory")
        .about("Measure a theorem on a Gaussian mixture")
        .subcommand_required(true)
        .subcommand_value_name("NAME")
        .subcommand(
            range(common(Command::new("theorem1")))
                .about("The sup error of the function of zero consistency loss, by grid")
                .arg(points())
                .arg(
                    option("grid", "GRID", "Where the points lie")
                        .value_parser(["karras", "uniform"])
                        .default_value("karras"),
                )
                .arg(
                    option("solver", "SOLVER", "Of order 1, 2 or 3")
                        .value_parser(["euler", "heun", "kutta3"])
                        .default_value("heun"),
                )
                .after_help("Example:\n  cargo lab theory theorem1 --mixture M.toml --solver euler --points 9,17,33 --csv out.csv"),
        )
        .subcommand(
            range(common(Command::new("theorem2")))
                .about("The losses of distillation and training, and their difference, by grid")
                .arg(points())
                .arg(
                    option("metric", "METRIC", "The distance d")
                        .value_parser(["l2-squared", "l2", "l1", "huber"])
                        .default_value("l2-squared"),
                )
                .arg(
                    option("huber-c", "C", "c of the pseudo-Huber distance")
                        .allow_negative_numbers(true)
                        .value_parser(value_parser!(f64))
                        .default_value("0.03"),
                )
                .arg(theta("theta", "f = c_skip x + c_out tanh(a c_in x + b ln t + c)"))
                .arg(numbers("theta-minus", "A,B,C", "The target's; without it, theta"))
                .after_help("Example:\n  cargo lab theory theorem2 --mixture M.toml --theta 0.8,0.2,0.1 --theta-minus 0.7,0.3,0 --csv out.csv"),
        )
        .subcommand(
            range(common(Command::new("limits")))
                .about("Losses and gradients beside their continuous-time limits, by grid")
                .arg(points())
                .arg(
                    option("theorem", "K", "3, 4 (l1), 5 or 6 (by b, stop-gradient)")
                        .value_parser(["3", "4", "5", "6"])
                        .required(true),
                )
                .arg(theta("theta", "The parameters of f and of its target"))
                .after_help("Example:\n  cargo lab theory limits --theorem 3 --mixture M.toml --points 65,129,257 --csv out.csv"),
        )
        .subcommand(
            common(Command::new("lemma1"))
                .about("Bias and variance of score estimators at points drawn from p_t")
                .arg(numbers("times", "T,..", "Noise levels").default_value("0.1,0.5,2,10"))
                .arg(counts("batch", "B,..", "Data in a minibatch, x_0 among them").default_value("16"))
                .arg(counts("samples", "N", "Draws of x_t").default_value("10000"))
                .arg(
                    option("seed", "SEED", "The root of the random numbers")
                        .value_parser(value_parser!(u64))
                        .default_value("0"),
                )
                .after_help("Example:\n  cargo lab theory lemma1 --mixture M.toml --times 0.5,2 --batch 16,64 --csv out.csv"),
        )
}

/// Measure what the command line asks for.
pub fn run(matches: &ArgMatches) -> Result<()> {
    let Some((name, matches)) = matches.subcommand() else {
        consistency::bail!("name a theorem: theorem1, theorem2, limits or lemma1");
    };
    let csv = matches.get_one::<String>("csv").map(Path::new);
    // Before the work starts: a table that cannot be written is reported at once.
    if let Some(folder) = csv.and_then(Path::parent) {
        let there = folder.as_os_str().is_empty() || folder.is_dir();
        ensure!(there, "--csv: there is no folder {}", folder.display());
    }
    let mixture = GaussianMixture::read(one::<String>(matches, "mixture")?)?;
    let table = match name {
        "theorem1" => theorem1(matches, &mixture)?,
        "theorem2" => theorem2(matches, &mixture)?,
        "limits" => limits(matches, &mixture)?,
        _ => lemma1(matches, &mixture)?,
    };
    show(table, csv)
}

fn theorem1(matches: &ArgMatches, mixture: &GaussianMixture) -> Result<DataFrame> {
    let noise = noise(matches)?;
    let solver = match one::<String>(matches, "solver")?.as_str() {
        "euler" => Solver::Euler,
        "heun" => Solver::Heun,
        _ => Solver::Kutta3,
    };
    let uniform = one::<String>(matches, "grid")? == "uniform";
    let grid = |n: usize| if uniform { noise.uniform(n) } else { noise.karras(n) };
    let grids = many::<usize>(matches, "points")?.into_iter().map(grid);
    let grids = grids.collect::<Result<Vec<TimeGrid>>>()?;
    let points = |t: f64| spread_points(mixture, t, &[-2.0, -1.0, 0.0, 1.0, 2.0]);
    zero_loss_errors(mixture, solver, &grids, &points)
}

fn theorem2(matches: &ArgMatches, mixture: &GaussianMixture) -> Result<DataFrame> {
    let noise = noise(matches)?;
    let metric = match one::<String>(matches, "metric")?.as_str() {
        "l2-squared" => Metric::L2Squared,
        "l2" => Metric::L2,
        "l1" => Metric::L1,
        _ => {
            let c = *one::<f64>(matches, "huber-c")?;
            let metric = Metric::PseudoHuber { c };
            Distance::new(metric).check().context("--huber-c")?;
            metric
        }
    };
    let points = many::<usize>(matches, "points")?;
    let grids = points.into_iter().map(|n| noise.karras(n)).collect::<Result<Vec<_>>>()?;
    let student = model(matches, "theta", &noise)?;
    let target = match matches.contains_id("theta-minus") {
        true => model(matches, "theta-minus", &noise)?,
        false => student,
    };
    loss_table(mixture, &student, &target, metric, &grids)
}

fn limits(matches: &ArgMatches, mixture: &GaussianMixture) -> Result<DataFrame> {
    let noise = noise(matches)?;
    let b = 1; // of theta = (a, b, c)
    let (limit, metric) = match one::<String>(matches, "theorem")?.as_str() {
        "3" => (Limit::Theorem3, Metric::L2Squared),
        "4" => (Limit::Theorem4, Metric::L1),
        "5" => (Limit::Theorem5 { i: b }, Metric::L2Squared),
        _ => (Limit::Theorem6 { i: b }, Metric::L2Squared),
    };
    let points = many::<usize>(matches, "points")?;
    limit_table(limit, mixture, &model(matches, "theta", &noise)?, metric, &noise, &points)
}

fn lemma1(matches: &ArgMatches, mixture: &GaussianMixture) -> Result<DataFrame> {
    let (times, batches) = (many::<f64>(matches, "times")?, many::<usize>(matches, "batch")?);
    let samples = *one::<usize>(matches, "samples")?;
    let key = Key::new(*one::<u64>(matches, "seed")?);
    score_errors(&Source::Mixture(mixture.clone()), &times, &batches, samples, &key)
}

fn noise(matches: &ArgMatches) -> Result<NoiseRange> {
    let noise = NoiseRange {
        eps: *one::<f64>(matches, "eps")?,
        t_max: *one::<f64>(matches, "tmax")?,
        rho: *one::<f64>(matches, "rho")?,
    };
    noise.check()?;
    Ok(noise)
}

fn model(matches: &ArgMatches, name: &str, noise: &NoiseRange) -> Result<TanhModel> {
    let theta = many::<f64>(matches, name)?;
    let Ok(theta) = <[f64; 3]>::try_from(theta.as_slice()) else {
        consistency::bail!("--{name} has {} numbers: give three, a,b,c", theta.len());
    };
    // Beyond this, tanh is a step, whose derivatives no quadrature resolves.
    for (value, number) in theta.iter().zip(["a", "b", "c"]) {
        within(number, *value, -STEEPEST..=STEEPEST).with_context(|| format!("--{name}"))?;
    }
    Ok(TanhModel::new(theta, noise))
}

fn one<'a, T: Clone + Send + Sync + 'static>(matches: &'a ArgMatches, name: &str) -> Result<&'a T> {
    matches
        .get_one::<T>(name)
        .ok_or_else(|| consistency::Error::new(format!("--{name} is missing")))
}

fn many<T: Clone + Send + Sync + 'static>(matches: &ArgMatches, name: &str) -> Result<Vec<T>> {
    let values: Vec<T> = matches.get_many::<T>(name).unwrap_or_default().cloned().collect();
    ensure!(!values.is_empty(), "--{name} is missing");
    Ok(values)
}

// As CSV in a file, written whole or not at all; or as a table to read.
fn show(mut table: DataFrame, csv: Option<&Path>) -> Result<()> {
    let Some(path) = csv else {
        println!("{table}");
        return Ok(());
    };
    let mut bytes = Vec::new();
    CsvWriter::new(&mut bytes).finish(&mut table)?;
    // `out.csv` alone is in the current folder.
    let path = std::path::absolute(path).with_context(|| path.display().to_string())?;
    write_atomically(&path, &bytes)
}
