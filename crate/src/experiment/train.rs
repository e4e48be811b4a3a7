//! The training loop, one for all methods.

use super::checkpoint::{self, Parts, Since};
use super::config::Experiment;
use super::data::Data;
use super::machine::Machine;
use super::monitor::{Monitor, Progress};
use super::objective::{Objective, grid, mu};
use super::run::{RunFolder, Trained, provenance};
use crate::data::batch_rows;
use crate::device::{allow_tf32, device};
use crate::nn::{Ema, Gradients, Optimizer, Params, Precision, memory};
use crate::record::Table;
use crate::rng::Key;
use crate::{Context, Result, bail, ensure};
use candle_core::DType;
use std::path::Path;
use std::time::Instant;

/// A loss so many times the first does not come back.
const DIVERGED: f64 = 1e6;

/// Train `experiment` in its folder below `runs`, from its last checkpoint if there is
/// one, on `threads` threads (0: all cores). A finished run is loaded.
///
/// Every random number depends on the seed and the step alone: killed and resumed or
/// not, on any number of threads, the bits are the same.
///
/// # Errors
/// A loss or a gradient that is not finite, a loss that is a million times that of the run's first
/// step (the step and the learning rate are named and the last checkpoint stays), a stop that was
/// asked for, or a folder that cannot be written. A checkpoint holds the first loss; a run that
/// resumes from an older one, which does not, is measured by its first loss after that.
pub fn train(
    experiment: &Experiment,
    runs: &Path,
    monitor: &Monitor,
    threads: usize,
) -> Result<Trained> {
    // A pool of the run's own says how many threads work: work does not cross threads at every
    // operation, and other work in the process is not held up.
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|e| crate::Error::new(format!("starting {threads} threads: {e}")))?;
    let folder = RunFolder::create(runs, experiment)?;
    let ended = pool.install(|| run(experiment, &folder, runs, monitor));
    memory::give_back();
    ended?;
    folder.trained()
}

fn run(experiment: &Experiment, folder: &RunFolder, runs: &Path, monitor: &Monitor) -> Result<()> {
    let device = device(&experiment.training.device)?;
    if !device.is_cpu() {
        allow_tf32(experiment.training.precision == Precision::Tf32);
    }
    let key = Key::new(experiment.seed);
    let data = experiment.data.load(&device)?;
    let rows = data.rows();
    check_classes(experiment, &data)?;
    let mut params = Params::new(DType::F32, &device).with(experiment.training.settings());
    let objective = Objective::new(experiment, &mut params, data.shape(), &key, runs)?;
    let mut optimizer = Optimizer::new(experiment.optimizer, &params)?;
    let rates = experiment.training.ema.all();
    let averages = rates.iter().map(|_| Ema::new(&params)).collect::<Result<Vec<Ema>>>()?;
    let mut table = Table::new();
    let mut since = Since::default();
    let mut first_loss = None;
    let mut step = 0;

    // ---- resume
    let hash = experiment.hash()?;
    if let Some(mut saved) = checkpoint::newest(folder.path(), &hash, &device)? {
        let mut group = |name: &str| saved.groups.remove(name).unwrap_or_default();
        let mut restore = || -> Result<()> {
            params.assign_tensors(&group("params"))?;
            for (i, ema) in averages.iter().enumerate() {
                ema.params().assign_tensors(&group(&checkpoint::average(i)))?;
            }
            if let Some(target) = objective.target() {
                target.params().assign_tensors(&group("target"))?;
            }
            optimizer.restore(saved.step, &group("optimizer"))
        };
        restore().with_context(|| {
            format!("the checkpoint {} (delete it to start before it)", saved.path.display())
        })?;
        (step, table, since) = (saved.step, saved.table, saved.since);
        first_loss = saved.first_loss;
    }

    let total = experiment.training.iterations;
    let origin = provenance(experiment)?;
    let mut machine = Machine::open(folder.path(), step)?;
    let (start, first) = (Instant::now(), step);
    let order = key.stream("order");
    monitor.record(&table);
    monitor.report(Progress { step, total, ..Progress::default() });
    while step < total {
        // ---- a batch, its loss and its gradients
        let batch = batch_rows(rows, experiment.training.batch, step, &order);
        let noise = key.stream("step").step(step);
        let found = gradients(experiment, &objective, &params, &data, &batch, step, &noise);
        let rate = learning_rate(experiment, step);
        let healthy = |(value, norm, gradients)| {
            not_diverged(value, *first_loss.get_or_insert(value)).map(|()| (value, norm, gradients))
        };
        let (value, norm, gradients) = found.and_then(healthy).with_context(|| {
            format!(
                "{}: at step {step} (learning rate {:e}; the last checkpoint in {} stays as it is)",
                experiment.name,
                rate * experiment.optimizer.learning_rate,
                folder.path().display()
            )
        })?;

        // ---- optimizer, target, averages
        optimizer.step(&params, &gradients, rate)?;
        drop(gradients);
        if let Some(target) = objective.target() {
            target.update(&params, mu(experiment, step))?;
        }
        // Early on a slow average would remember the start.
        let warm = (1.0 + step as f64) / (10.0 + step as f64);
        for (ema, rate) in averages.iter().zip(rates) {
            ema.update(&params, rate.min(warm))?;
        }
        step += 1;

        // ---- record row, checkpoint
        since.add(value);
        let elapsed = start.elapsed();
        monitor.report(Progress { step, total, loss: value, elapsed, steps_here: step - first });
        if step.is_multiple_of(experiment.training.record_every) || step == total {
            table.push(&[
                ("step", step as f64),
                ("loss", since.take()),
                ("gradient_norm", norm),
                ("learning_rate", rate * experiment.optimizer.learning_rate),
                ("points", grid(experiment, step - 1)?.points() as f64),
                ("mu", mu(experiment, step - 1)),
            ])?;
            machine.add(step, experiment.training.batch)?;
            monitor.record(&table);
        }
        let stopping = monitor.stopping() && step < total;
        if step.is_multiple_of(experiment.training.checkpoint_every) || step == total || stopping {
            let parts = Parts {
                step,
                params: &params,
                averages: &averages,
                target: objective.target().map(Ema::params),
                optimizer: optimizer.tensors(),
                table: &table,
                since,
                first_loss,
            };
            checkpoint::save(folder.path(), &hash, experiment.training.keep_checkpoints, &parts)
                .with_context(|| experiment.name.clone())?;
            table.write(folder.path(), "metrics", &origin)?;
        }
        if stopping {
            bail!("{} was stopped at step {step} of {total}; it resumes there", experiment.name);
        }
    }
    Ok(())
}

// A network that an early step has thrown far away may stay there for good, every number finite.
fn not_diverged(loss: f64, first: f64) -> Result<()> {
    ensure!(
        first <= 0.0 || loss <= DIVERGED * first,
        "the loss is {loss:e}, and began at {first:e}: the training has diverged; lower \
         optimizer.learning_rate, set optimizer.clip, or choose optimizer.kind = 'adam' (the first \
         steps of RAdam are the gradient times the learning rate, however large it is)"
    );
    Ok(())
}

// The mean loss of a batch, the norm of its gradient, and the gradient, clipped where that is
// asked for: by parts where the batch is split, weighted by their sizes.
fn gradients(
    experiment: &Experiment,
    objective: &Objective,
    params: &Params,
    data: &Data,
    batch: &[u32],
    step: u64,
    key: &Key,
) -> Result<(f64, f64, Gradients)> {
    let size = batch.len().div_ceil(experiment.training.accumulate);
    let told = experiment.network.classes().is_some();
    let (mut value, mut sum) = (0.0, None::<Gradients>);
    for (i, part) in batch.chunks(size).enumerate() {
        let x0 = data.batch(part, (i * size) as u64, key)?;
        let labels = told.then(|| data.labels(part)).flatten();
        let share = part.len() as f64 / batch.len() as f64;
        let loss =
            objective.loss(experiment, step, (&x0, labels.as_deref()), (i * size) as u64, key)?;
        let loss = if share == 1.0 { loss } else { (loss * share)? };
        value += f64::from(loss.to_scalar::<f32>()?);
        let gradients = params.gradients(&loss)?;
        match &mut sum {
            Some(sum) => sum.add(gradients)?,
            None => sum = Some(gradients),
        }
    }
    let Some(mut gradients) = sum else { bail!("a batch of no samples") };
    // The parameter comes first: it says more than the loss.
    let norm = gradients.norm().with_context(|| format!("the loss is {value}"))?;
    ensure!(value.is_finite(), "the loss is {value}, the norm of the gradient {norm}");
    if let Some(clip) = experiment.optimizer.clip
        && norm > clip
    {
        gradients.scale(clip / norm)?;
    }
    Ok((value, norm, gradients))
}

// A network that is told classes needs them of the data.
fn check_classes(experiment: &Experiment, data: &Data) -> Result<()> {
    if let Some(known) = experiment.network.classes() {
        let Some(count) = data.classes() else {
            bail!(
                "network.num_class_embeds = {known}: the data of {} have no classes",
                experiment.name
            );
        };
        ensure!(
            count <= known,
            "network.num_class_embeds = {known}: the data have {count} classes"
        );
    }
    Ok(())
}

// The factor on the learning rate: 1, then linearly to 0 over the last steps.
fn learning_rate(experiment: &Experiment, step: u64) -> f64 {
    let total = experiment.training.iterations as f64;
    let falling = experiment.training.decay * total;
    if falling > 0.0 { ((total - step as f64) / falling).min(1.0) } else { 1.0 }
}
