//! One reproduction: each seed trained, sampled, judged and recorded.

use super::config::{Effort, Reproduction};
use super::results::{self, Row};
use crate::evaluate::Statistics;
use crate::experiment::{Experiment, Method, Monitor, Trained, train};
use crate::plot::Figure;
use crate::process::Solver;
use crate::record::write_atomically;
use crate::rng::Key;
use crate::sample::{Multistep, pf_ode};
use crate::seam::Counted;
use crate::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// What is judged by: the Frechet distance between Gaussians fitted to pixels.
const METRIC: &str = "Frechet distance on pixels";
/// The covariance of more pixels takes too long to take apart.
const PIXELS: usize = 1024;
/// Samples drawn at a time.
const BATCH: usize = 500;
/// Samples in the picture that is kept.
const SHOWN: usize = 100;

/// How a reproduction is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// `reproductions/`.
    pub folder: PathBuf,
    /// Where runs are kept; they resume there.
    pub runs: PathBuf,
    /// How much of it.
    pub effort: Effort,
    /// `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// The seeds; those of the reproduction where none is given.
    pub seeds: Vec<u64>,
}

/// Run the reproduction `name` and keep its numbers in its folder, which it returns. A run that
/// was interrupted goes on from its last checkpoint; one that is finished is not repeated.
/// `tell` hears what is going on.
///
/// # Errors
/// No such reproduction; training, sampling or writing that fails.
pub fn reproduce(name: &str, options: &Options, tell: &mut dyn FnMut(String)) -> Result<Vec<Row>> {
    let reproduction = Reproduction::read(&options.folder, name)?;
    let seeds = match options.seeds.is_empty() {
        true => reproduction.seeds.clone(),
        false => options.seeds.clone(),
    };
    let mut all = Vec::new();
    for seed in seeds {
        let trained = trained(&reproduction, options, seed, tell)?;
        let rows = judge(&reproduction, &trained, options, seed)
            .with_context(|| format!("{name}, seed {seed}"))?;
        for row in &rows {
            tell(format!("{name}, seed {seed}: {}, {}: {:.4}", row.sampler, row.metric, row.value));
        }
        results::add(&options.folder.join(name), &rows)?;
        all.extend(rows);
    }
    Ok(all)
}

/// The run of one seed, its teacher's first.
fn trained(
    reproduction: &Reproduction,
    options: &Options,
    seed: u64,
    tell: &mut dyn FnMut(String),
) -> Result<Trained> {
    let Reproduction { name, teacher, .. } = reproduction;
    let teacher = match teacher {
        Some(teacher) => {
            ensure!(teacher != name, "{name} is its own teacher");
            let teacher = Reproduction::read(&options.folder, teacher)?;
            ensure!(teacher.teacher.is_none(), "{}: a teacher that has a teacher", teacher.name);
            Some(trained(&teacher, options, seed, tell)?.folder())
        }
        None => None,
    };
    let Options { effort, device, .. } = options;
    let experiment = reproduction.experiment(seed, *effort, device, teacher.as_deref())?;
    let steps = experiment.training.iterations;
    tell(format!("{name}, seed {seed}: {steps} steps on {device}"));
    train(&experiment, &options.runs, &Monitor::default(), 0)
}

fn judge(
    reproduction: &Reproduction,
    trained: &Trained,
    options: &Options,
    seed: u64,
) -> Result<Vec<Row>> {
    let experiment = trained.experiment();
    let real = experiment.data.images()?;
    let reference = fit(&real.all(DType::F32)?)?;
    let count = reproduction.samples(options.effort);
    let mut rows = Vec::new();
    let key = Key::new(seed).stream("reproduce");
    for (sampler, draw) in samplers(reproduction, trained, real.shape(), key)? {
        let (samples, nfe) = drawn(count, &*draw)?;
        let mut name = sampler.replace(", ", "-").replace(' ', "-") + &format!("-{seed}");
        if options.effort != Effort::Full {
            name = format!("{name}-{}", options.effort.name());
        }
        let path = options.folder.join(&reproduction.name).join(format!("{name}.png"));
        picture(&path, &format!("{}: {sampler}, seed {seed}", reproduction.name), &samples)?;
        rows.push(Row {
            sampler,
            nfe: nfe as u64,
            metric: METRIC.to_string(),
            value: fit(&samples)?.frechet_distance(&reference)?,
            samples: count as u64,
            iterations: experiment.training.iterations,
            budget: options.effort.name().to_string(),
            provenance: trained.provenance()?,
        });
    }
    Ok(rows)
}

fn fit(images: &Tensor) -> Result<Statistics> {
    let pixels: usize = images.dims()[1..].iter().product();
    ensure!(pixels <= PIXELS, "{METRIC}: {pixels} pixels are more than {PIXELS}");
    Statistics::of(&images.clamp(-1f32, 1f32)?)
}

/// Draws the samples of these indices: them, and the network evaluations of each.
type Draw<'a> = dyn Fn(Range<u64>) -> Result<(Tensor, usize)> + 'a;

fn samplers<'a>(
    reproduction: &'a Reproduction,
    trained: &'a Trained,
    shape: &'a [usize],
    key: Key,
) -> Result<Vec<(String, Box<Draw<'a>>)>> {
    let experiment: &Experiment = trained.experiment();
    let noise = experiment.noise;
    let z =
        move |key: &Key, samples: Range<u64>| key.normal(samples, shape, DType::F32, &Device::Cpu);
    let start = key.stream("z");
    let mut all: Vec<(String, Box<Draw>)> = Vec::new();
    let evaluate = &reproduction.evaluate;
    if let Method::ScoreMatching(_) = experiment.method {
        ensure!(evaluate.taus.is_empty(), "evaluate.taus: for a consistency model alone");
        for points in &evaluate.points {
            let (denoiser, grid) = (trained.denoiser()?, noise.karras(*points)?);
            let draw = move |samples: Range<u64>| {
                let counted = Counted::new(&denoiser);
                let samples = pf_ode(&counted, Solver::Heun, &z(&start, samples)?, &grid)?;
                Ok((samples, counted.nfe()))
            };
            all.push((format!("Heun, {points} points"), Box::new(draw)));
        }
        return Ok(all);
    }
    ensure!(evaluate.points.is_empty(), "evaluate.points: for a teacher alone");
    for taus in &evaluate.taus {
        let f = trained.consistency_model()?;
        let sigmas: Vec<f64> = std::iter::once(noise.t_max).chain(taus.iter().copied()).collect();
        let renoise = key.stream("renoise");
        let draw = move |samples: Range<u64>| {
            let counted = Counted::new(&f);
            let chain = Multistep { sigmas: &sigmas, eps: noise.eps, clip: false, s_noise: 1.0 };
            // The noise of a sample is its own, in every batch.
            let again = |n: usize, _: &Tensor| z(&renoise.step(n as u64), samples.clone());
            let drawn = chain.sample(&counted, &z(&start, samples.clone())?, again)?;
            Ok((drawn, counted.nfe()))
        };
        let name = match taus.len() {
            0 => "one step".to_string(),
            count => format!("{} steps", count + 1),
        };
        all.push((name, Box::new(draw)));
    }
    Ok(all)
}

/// `count` samples on the CPU, and the network evaluations of each.
fn drawn(count: usize, draw: &Draw) -> Result<(Tensor, usize)> {
    let (mut parts, mut nfe) = (Vec::new(), 0);
    for first in (0..count).step_by(BATCH) {
        let (samples, evaluations) = draw(first as u64..(first + BATCH).min(count) as u64)?;
        nfe = evaluations;
        parts.push(samples);
    }
    Ok((Tensor::cat(&parts, 0)?, nfe))
}

fn picture(path: &Path, title: &str, samples: &Tensor) -> Result<()> {
    let shown = samples.narrow(0, 0, SHOWN.min(samples.dims()[0]))?;
    let figure = Figure::images(title, &shown.clamp(-1f32, 1f32)?, 20)?;
    write_atomically(path, &figure.png()?)
}
