//! The training loop, one for all methods.

use super::checkpoint::{self, Parts, Since};
use super::config::Experiment;
use super::monitor::{Monitor, Progress};
use super::objective::{Objective, grid, mu};
use super::run::{RunFolder, Trained, provenance};
use crate::data::{batch_rows, select};
use crate::nn::{Ema, Optimizer, Params};
use crate::record::Table;
use crate::rng::Key;
use crate::{Result, bail};
use candle_core::{DType, Device};
use std::path::Path;
use std::time::Instant;

/// Train `experiment` in its folder below `runs`, from its last checkpoint if there is
/// one, on `threads` threads (0: all cores). A finished run is loaded.
///
/// Every random number depends on the seed and the step alone: killed and resumed or
/// not, on any number of threads, the bits are the same.
///
/// # Errors
/// A loss or a gradient that is not finite (the step and the learning rate are named and
/// the last checkpoint stays), a stop that was asked for, or a folder that cannot be
/// written.
pub fn train(
    experiment: &Experiment,
    runs: &Path,
    monitor: &Monitor,
    threads: usize,
) -> Result<Trained> {
    // A pool of the run's own: work does not wait for a crossing of threads at every
    // operation, and other work in the process is not held up.
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|e| crate::Error::new(format!("starting {threads} threads: {e}")))?;
    let folder = RunFolder::create(runs, experiment)?;
    pool.install(|| run(experiment, &folder, runs, monitor))?;
    folder.trained()
}

fn run(experiment: &Experiment, folder: &RunFolder, runs: &Path, monitor: &Monitor) -> Result<()> {
    let device = Device::Cpu;
    let key = Key::new(experiment.seed);
    let data = experiment.data.load(DType::F32, &device)?;
    let rows = data.samples.dims()[0];
    let mut params = Params::new(DType::F32, &device);
    let objective = Objective::new(experiment, &mut params, &data.samples.dims()[1..], &key, runs)?;
    let mut optimizer = Optimizer::new(experiment.optimizer, &params)?;
    let ema = Ema::new(&params)?;
    let mut table = Table::new();
    let mut since = Since::default();
    let mut step = 0;

    // ---- resume
    let hash = experiment.hash()?;
    if let Some(mut saved) = checkpoint::newest(folder.path(), &hash, &device)? {
        let mut group = |name: &str| saved.groups.remove(name).unwrap_or_default();
        params.assign_tensors(&group("params"))?;
        ema.params().assign_tensors(&group("ema"))?;
        if let Some(target) = objective.target() {
            target.params().assign_tensors(&group("target"))?;
        }
        optimizer.restore(saved.step, &group("optimizer"))?;
        (step, table, since) = (saved.step, saved.table, saved.since);
    }

    let total = experiment.training.iterations;
    let origin = provenance(experiment)?;
    let (start, first) = (Instant::now(), step);
    let order = key.stream("order");
    monitor.record(&table);
    monitor.report(Progress { step, total, ..Progress::default() });
    while step < total {
        // ---- a batch and its loss
        let batch = batch_rows(rows, experiment.training.batch, step, &order);
        let x0 = select(&data.samples, &batch)?;
        let loss = objective.loss(experiment, step, &x0, &key.stream("step").step(step))?;
        let value = f64::from(loss.to_scalar::<f32>()?);
        let rate = learning_rate(experiment, step);

        // ---- gradients
        let grads = params.gradients(&loss)?;
        let norm = grads.norm()?;
        if !value.is_finite() || !norm.is_finite() {
            bail!(
                "{}: at step {step} the loss is {value} and the norm of the gradient {norm} \
                 (learning rate {:e}); the last checkpoint in {} stays as it is",
                experiment.name,
                rate * experiment.optimizer.learning_rate,
                folder.path().display()
            );
        }

        // ---- optimizer, target, average
        optimizer.step(&params, &grads, rate)?;
        if let Some(target) = objective.target() {
            target.update(&params, mu(experiment, step))?;
        }
        // Early on a slow average would remember the start.
        let warm = (1.0 + step as f64) / (10.0 + step as f64);
        ema.update(&params, experiment.training.ema.min(warm))?;
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
            monitor.record(&table);
        }
        let stopping = monitor.stopping() && step < total;
        if step.is_multiple_of(experiment.training.checkpoint_every) || step == total || stopping {
            let parts = Parts {
                step,
                params: &params,
                ema: ema.params(),
                target: objective.target().map(Ema::params),
                optimizer: optimizer.tensors(),
                table: &table,
                since,
            };
            checkpoint::save(folder.path(), &hash, &parts)?;
            table.write(folder.path(), "metrics", &origin)?;
        }
        if stopping {
            bail!("{} was stopped at step {step} of {total}; it resumes there", experiment.name);
        }
    }
    Ok(())
}

// The factor on the learning rate: 1, then linearly to 0 over the last steps.
fn learning_rate(experiment: &Experiment, step: u64) -> f64 {
    let total = experiment.training.iterations as f64;
    let falling = experiment.training.decay * total;
    if falling > 0.0 { ((total - step as f64) / falling).min(1.0) } else { 1.0 }
}
