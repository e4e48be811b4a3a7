//! One reproduction: each seed is trained, sampled, evaluated and recorded.

use super::config::Reproduction;
use super::draw::{BATCH, Draw, Source};
use super::evaluator::{Evaluator, Measurement};
use super::held_out::accuracies;
use super::released::Released;
use super::results::{self, Row};
use super::sampling::Sampling;
use crate::data::name_in_revision;
use crate::device::device;
use crate::experiment::{Cost, Experiment, Monitor, SHIPPED, Trained, train};
use crate::method::Gives;
use crate::plot::Figure;
use crate::record::{Budget, Provenance, write_atomically};
use crate::rng::Key;
use crate::{Context, Result, bail, ensure};
use candle_core::{Device, Tensor};
use std::path::PathBuf;

/// Samples in the picture that is kept.
const SHOWN: usize = 100;
/// The trained network, where it is shipped.
pub(super) const SHIPPED_FILE: &str = "model.safetensors";

/// How a reproduction is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// `reproductions/`.
    pub folder: PathBuf,
    /// Where runs are kept, and resumed.
    pub runs: PathBuf,
    /// How many of the steps and samples.
    pub budget: Budget,
    /// `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// The seeds; those of the reproduction where none is given.
    pub seeds: Vec<u64>,
    /// A released network, by its repository `OWNER/NAME[@REVISION]`, folder or flax file, which is
    /// sampled and measured in place of a run of ours.
    pub weights: Option<String>,
}

/// What is sampled and measured.
struct Subject<'a> {
    experiment: &'a Experiment,
    /// The run; none where the network was trained elsewhere.
    trained: Option<&'a Trained>,
    /// None for a classifier, which makes no samples.
    source: Option<Source<'a>>,
    provenance: Provenance,
    /// How many steps it was trained here.
    iterations: u64,
}

impl<'a> Subject<'a> {
    fn of(trained: &'a Trained) -> Result<Self> {
        let experiment = trained.experiment();
        let makes_samples = experiment.method.gives() != Gives::Classifier;
        Ok(Self {
            experiment,
            trained: Some(trained),
            source: makes_samples.then(|| Source::of(trained)).transpose()?,
            provenance: trained.provenance()?,
            iterations: experiment.training.iterations,
        })
    }
}

/// Run the reproduction `name` and keep its numbers in its folder, which it returns. A run that was
/// interrupted resumes from its last checkpoint; one that is finished is not repeated. `tell` is
/// called with each line of progress.
///
/// # Errors
/// No such reproduction; training, sampling or writing that fails.
pub fn reproduce(name: &str, options: &Options, tell: &mut dyn FnMut(String)) -> Result<Vec<Row>> {
    let reproduction = Reproduction::read(&options.folder, name)?;
    let seeds = match options.seeds.is_empty() {
        true => reproduction.seeds.clone(),
        false => options.seeds.clone(),
    };
    let device = device(&options.device)?;
    let (mut all, mut evaluator, mut released) = (Vec::new(), None, None);
    for seed in seeds {
        let (trained, experiment);
        let subject = match &options.weights {
            None => {
                trained = self::trained(&reproduction, options, seed, tell)?;
                Subject::of(&trained)?
            }
            Some(id) => {
                // Its own teacher trains nothing here.
                let teacher = Some("not-trained-here");
                experiment =
                    reproduction.experiment(seed, options.budget, &options.device, teacher)?;
                let data = is_of_its_dataset(&reproduction, &experiment)?;
                let released = match &released {
                    Some(released) => released,
                    None => released.insert(Released::open(id, &experiment, &device)?),
                };
                tell(format!("{name}, seed {seed}: {id} in place of a run"));
                Subject {
                    provenance: released.provenance(&reproduction, &experiment, data)?,
                    source: Some(released.source(&experiment, &device)?),
                    experiment: &experiment,
                    trained: None,
                    iterations: 0,
                }
            }
        };
        // The data and what they are compared by are the same for all seeds.
        let evaluator = match &evaluator {
            Some(evaluator) => evaluator,
            None => evaluator.insert(Evaluator::new(
                &reproduction.evaluate.by,
                subject.experiment,
                &device,
            )?),
        };
        let rows = evaluate(&reproduction, &subject, evaluator, options, seed)
            .with_context(|| format!("{name}, seed {seed}"))?;
        for row in &rows {
            tell(format!("{name}, seed {seed}: {}, {}: {:.4}", row.sampler, row.metric, row.value));
        }
        results::add(&reproduction.folder(&options.folder), &rows)?;
        all.extend(rows);
    }
    Ok(all)
}

// Whether the data are what the reproduction says that they are; their revision.
fn is_of_its_dataset(reproduction: &Reproduction, experiment: &Experiment) -> Result<String> {
    let revision = experiment.data.revision()?;
    // A substitute never bears the real one's name.
    if let Some(wanted) = reproduction.dataset() {
        let (name, got) = (&reproduction.name, name_in_revision(&revision));
        ensure!(
            got == wanted,
            "{name} is an experiment on the dataset '{wanted}', but what was read is '{got}': a \
             number measured on one is not a number of the other"
        );
    }
    Ok(revision)
}

/// The run of one seed, those of its teachers first.
fn trained(
    reproduction: &Reproduction,
    options: &Options,
    seed: u64,
    tell: &mut dyn FnMut(String),
) -> Result<Trained> {
    let (mut run, mut costs) = (None, Vec::new());
    for teacher in reproduction.teachers(&options.folder)?.iter().rev() {
        let trained = trained_by(teacher, run.as_deref(), options, seed, tell)?;
        costs.extend(built_on(trained.experiment())?);
        costs.push(trained.cost()?);
        run = Some(trained.folder());
    }
    let trained = trained_by(reproduction, run.as_deref(), options, seed, tell)?;
    if reproduction.ship && options.budget == Budget::Full && reproduction.seeds[0] == seed {
        costs.extend(built_on(trained.experiment())?);
        let path = reproduction.folder(&options.folder).join(SHIPPED_FILE);
        trained.pack(&path, &costs)?;
        tell(format!("{}, seed {seed}: {} is what is shipped", reproduction.name, path.display()));
    }
    Ok(trained)
}

// What the networks cost that come with the lab and that `experiment` builds on.
fn built_on(experiment: &Experiment) -> Result<Vec<Cost>> {
    let names = experiment.init.as_deref().into_iter().chain(experiment.method.teacher());
    let mut costs: Vec<Cost> = Vec::new();
    for name in names.filter_map(|name| name.strip_prefix(SHIPPED)) {
        let shipped = Trained::shipped(name)?;
        let new: Vec<Cost> =
            shipped.costs().iter().filter(|cost| !costs.contains(cost)).cloned().collect();
        costs.extend(new);
    }
    Ok(costs)
}

/// The run of one seed, with its teacher's run.
fn trained_by(
    reproduction: &Reproduction,
    teacher: Option<&str>,
    options: &Options,
    seed: u64,
    tell: &mut dyn FnMut(String),
) -> Result<Trained> {
    let (name, Options { budget, device, .. }) = (&reproduction.name, options);
    let experiment = reproduction.experiment(seed, *budget, device, teacher)?;
    let steps = experiment.training.iterations;
    is_of_its_dataset(reproduction, &experiment)?;
    tell(format!("{name}, seed {seed}: {steps} steps on {device}"));
    train(&experiment, &options.runs, &Monitor::default(), 0)
}

fn evaluate(
    reproduction: &Reproduction,
    subject: &Subject,
    evaluator: &Evaluator,
    options: &Options,
    seed: u64,
) -> Result<Vec<Row>> {
    let experiment = subject.experiment;
    let count = reproduction.samples(options.budget);
    let mut rows = Vec::new();
    let key = Key::new(seed).stream("reproduce");
    for sampling in reproduction.samplings() {
        let (measured, nfe, count) = match &sampling {
            Sampling::HeldOut => {
                let Some(trained) = subject.trained else { bail!("a classifier is trained here") };
                (accuracies(trained)?, 1, experiment.data.held_out()?.len())
            }
            Sampling::FromImages(of) => {
                let mut accumulated = evaluator.start()?;
                let images = of.draw(&experiment.data.images()?, count)?;
                for first in (0..count).step_by(BATCH) {
                    let many = BATCH.min(count - first);
                    accumulated.add(&images.narrow(0, first, many)?)?;
                }
                (accumulated.finish()?, 0, count)
            }
            sampling => {
                let Some(source) = &subject.source else { bail!("a classifier makes no samples") };
                let draw = Draw::new(source, sampling, evaluator.shape(), count, key)?;
                let (mut accumulated, mut nfe) = (evaluator.start()?, 0);
                for first in (0..count).step_by(BATCH) {
                    let (samples, evaluations) =
                        draw.draw(first as u64..(first + BATCH).min(count) as u64)?;
                    nfe = evaluations;
                    accumulated.add(&samples)?;
                    // The pictures of a reproduction are of its runs.
                    if first == 0 && subject.trained.is_some() {
                        let cpu = samples.to_device(&Device::Cpu)?;
                        picture(reproduction, options, seed, sampling, &cpu)?;
                    }
                }
                (accumulated.finish()?, nfe, count)
            }
        };
        for Measurement { metric, value, judge, reference } in measured {
            rows.push(Row {
                sampler: sampling.name(),
                nfe: nfe as u64,
                metric: metric.to_string(),
                value,
                samples: count as u64,
                iterations: subject.iterations,
                budget: options.budget.name().to_string(),
                provenance: subject.provenance.clone(),
                judge: Some(judge),
                reference: Some(reference),
            });
        }
    }
    Ok(rows)
}

fn picture(
    reproduction: &Reproduction,
    options: &Options,
    seed: u64,
    sampling: &Sampling,
    samples: &Tensor,
) -> Result<()> {
    let Some(name) = reproduction.picture(sampling, seed, options.budget) else { return Ok(()) };
    let path = reproduction.folder(&options.folder).join(name);
    let shown = samples.narrow(0, 0, SHOWN.min(samples.dims()[0]))?;
    let title = format!("{}: {}, seed {seed}", reproduction.name, sampling.name());
    let figure = Figure::images(title, &shown.clamp(-1f32, 1f32)?, 20)?;
    write_atomically(&path, &figure.png()?)
}
