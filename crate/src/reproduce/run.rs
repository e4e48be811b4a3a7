//! One reproduction: each seed trained, sampled, judged and recorded.

use super::config::{Effort, Reproduction};
use super::judges::Judges;
use super::results::{self, Row};
use super::sampling::Sampling;
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
use std::path::PathBuf;

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
    let mut judges = None;
    for seed in seeds {
        let trained = trained(&reproduction, options, seed, tell)?;
        // The data and the judges are the same for all seeds.
        let judges = match &judges {
            Some(judges) => judges,
            None => judges.insert(Judges::new(&reproduction.evaluate.by, &trained)?),
        };
        let rows = judge(&reproduction, &trained, judges, options, seed)
            .with_context(|| format!("{name}, seed {seed}"))?;
        for row in &rows {
            tell(format!("{name}, seed {seed}: {}, {}: {:.4}", row.sampler, row.metric, row.value));
        }
        results::add(&reproduction.folder(&options.folder), &rows)?;
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
    judges: &Judges,
    options: &Options,
    seed: u64,
) -> Result<Vec<Row>> {
    let experiment = trained.experiment();
    let count = reproduction.samples(options.effort);
    let mut rows = Vec::new();
    let key = Key::new(seed).stream("reproduce");
    for (sampling, draw) in samplers(reproduction, trained, judges.shape(), key)? {
        let (mut judged, mut nfe) = (judges.start()?, 0);
        for first in (0..count).step_by(BATCH) {
            let (samples, evaluations) = draw(first as u64..(first + BATCH).min(count) as u64)?;
            nfe = evaluations;
            judged.add(&samples)?;
            if first == 0 {
                picture(reproduction, options, seed, &sampling, &samples)?;
            }
        }
        for (metric, value) in judged.finish()? {
            rows.push(Row {
                sampler: sampling.name(),
                nfe: nfe as u64,
                metric: metric.to_string(),
                value,
                samples: count as u64,
                iterations: experiment.training.iterations,
                budget: options.effort.name().to_string(),
                provenance: trained.provenance()?,
            });
        }
    }
    Ok(rows)
}

/// Draws the samples of these indices: them, and the network evaluations of each.
type Draw<'a> = dyn Fn(Range<u64>) -> Result<(Tensor, usize)> + 'a;

fn samplers<'a>(
    reproduction: &'a Reproduction,
    trained: &'a Trained,
    shape: &'a [usize],
    key: Key,
) -> Result<Vec<(Sampling, Box<Draw<'a>>)>> {
    let experiment: &Experiment = trained.experiment();
    let noise = experiment.noise;
    let z =
        move |key: &Key, samples: Range<u64>| key.normal(samples, shape, DType::F32, &Device::Cpu);
    let start = key.stream("z");
    let teacher = matches!(experiment.method, Method::ScoreMatching(_));
    ensure!(
        !teacher || reproduction.evaluate.taus.is_empty(),
        "evaluate.taus: for a consistency model alone"
    );
    ensure!(
        teacher || reproduction.evaluate.points.is_empty(),
        "evaluate.points: for a teacher alone"
    );
    let mut all: Vec<(Sampling, Box<Draw>)> = Vec::new();
    for sampling in reproduction.samplings() {
        let draw: Box<Draw> = match &sampling {
            Sampling::Heun { points } => {
                let (denoiser, grid) = (trained.denoiser()?, noise.karras(*points)?);
                Box::new(move |samples: Range<u64>| {
                    let counted = Counted::new(&denoiser);
                    let samples = pf_ode(&counted, Solver::Heun, &z(&start, samples)?, &grid)?;
                    Ok((samples, counted.nfe()))
                })
            }
            Sampling::Multistep { taus } => {
                let f = trained.consistency_model()?;
                let sigmas: Vec<f64> =
                    std::iter::once(noise.t_max).chain(taus.iter().copied()).collect();
                let renoise = key.stream("renoise");
                Box::new(move |samples: Range<u64>| {
                    let counted = Counted::new(&f);
                    let chain =
                        Multistep { sigmas: &sigmas, eps: noise.eps, clip: false, s_noise: 1.0 };
                    // The noise of a sample is its own, in every batch.
                    let again = |n: usize, _: &Tensor| z(&renoise.step(n as u64), samples.clone());
                    let drawn = chain.sample(&counted, &z(&start, samples.clone())?, again)?;
                    Ok((drawn, counted.nfe()))
                })
            }
        };
        all.push((sampling, draw));
    }
    Ok(all)
}

// The first samples, of a reproduction and not of its variants.
fn picture(
    reproduction: &Reproduction,
    options: &Options,
    seed: u64,
    sampling: &Sampling,
    samples: &Tensor,
) -> Result<()> {
    if reproduction.name.contains('.') {
        return Ok(());
    }
    let name = sampling.picture(seed, options.effort);
    let path = reproduction.folder(&options.folder).join(name);
    let shown = samples.narrow(0, 0, SHOWN.min(samples.dims()[0]))?;
    let title = format!("{}: {}, seed {seed}", reproduction.name, sampling.name());
    let figure = Figure::images(title, &shown.clamp(-1f32, 1f32)?, 20)?;
    write_atomically(&path, &figure.png()?)
}
