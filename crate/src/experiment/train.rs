//! The training loop, one for all methods.

use super::checkpoint;
use super::config::Experiment;
use super::data::Data;
use super::folder::{RunFolder, provenance};
use super::machine::Machine;
use super::monitor::{Monitor, Progress};
use super::rows::{Rows, Split};
use super::teacher::{Found, finished};
use super::trained::Trained;
use crate::device::{allow_tf32, device};
use crate::method::{self, Averages, LearningRate, Losses, Setting, Trainer, Weights};
use crate::model::{ConvNetConfig, NetworkConfig};
use crate::nn::{Precision, memory};
use crate::record::Table;
use crate::rng::Key;
use crate::{Context, Result, bail, bar::Bar, ensure, interrupt};
use candle_core::Device;
use std::path::Path;
use std::time::{Duration, Instant};

/// A step that takes longer is stopped in its midst.
const LONG: Duration = Duration::from_secs(1);

/// Train `experiment` in its folder below `runs`, from its last checkpoint if there is
/// one, on `threads` threads (0: all cores). A finished run is loaded.
///
/// Every random number depends on the seed and the step alone: killed and resumed or
/// not, on any number of threads, the bits are the same.
///
/// # Errors
/// A loss or a gradient that is not finite, a loss that its method calls diverged (the step and the
/// learning rate are named and the last checkpoint stays), a stop that was asked for (by the
/// monitor, or in a cell of a notebook by the stop button), or a folder that cannot be written.
pub fn train(
    experiment: &Experiment,
    runs: &Path,
    monitor: &Monitor,
    threads: usize,
) -> Result<Trained> {
    let folder = RunFolder::create(runs, experiment)?;
    let ended = on_threads(threads, || run(experiment, &folder, runs, monitor));
    memory::give_back();
    ended?;
    folder.trained()
}

/// Do `work` on `threads` threads of its own (0: all cores): two trainings at once on two cores are
/// fastest on one thread each.
///
/// ```
/// use consistency::prelude::*;
/// let z = on_threads(1, || Key::new(0).normal(0..8, &[2], DType::F32, &Device::Cpu))?;
/// assert_eq!(z.dims(), [8, 2]);
/// # Ok::<(), consistency::Error>(())
/// ```
///
/// # Errors
/// Threads that cannot be started; what `work` gives.
pub fn on_threads<T: Send>(threads: usize, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    // A separate thread pool fixes the number of threads, does not hand work from thread to thread
    // at every operation, and does not hold up other work in the process.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = pool.map_err(|e| crate::Error::new(format!("starting {threads} threads: {e}")))?;
    // A cell waits for it, if only by a thread of its own, and can be stopped.
    let for_the_cell = !interrupt::works_in_the_background();
    pool.install(|| interrupt::for_the_cell(for_the_cell, work))
}

fn run(experiment: &Experiment, folder: &RunFolder, runs: &Path, monitor: &Monitor) -> Result<()> {
    let device = device(&experiment.training.device)?;
    if !device.is_cpu() {
        allow_tf32(experiment.training.precision == Precision::Tf32);
    }
    let key = Key::new(experiment.seed);
    let data = experiment.data.load(&device)?;
    check_classes(experiment, &data)?;
    let split = Split::of(experiment, &data, &key)?;
    let mut trainer = build(experiment, (&data, &split), key, runs, &device)?;
    let mut losses = Losses::of(trainer.as_ref());
    let mut table = Table::new();
    let mut step = 0;

    // ---- resume
    let hash = experiment.hash()?;
    if let Some(mut saved) = checkpoint::newest(folder.path(), &hash, &device)? {
        saved.restore(trainer.as_mut()).with_context(|| {
            format!("the checkpoint {} (delete it to start before it)", saved.path.display())
        })?;
        (step, table, losses) = (saved.step, saved.table, saved.losses);
    }

    let total = experiment.training.iterations;
    let origin = provenance(experiment)?;
    let mut machine = Machine::open(folder.path(), step)?;
    let (start, first) = (Instant::now(), step);
    monitor.record(&table);
    monitor.report(Progress { step, total, ..Progress::default() });
    let mut bar = Bar::new(&experiment.name, total).starting_at(step);
    let mut timed = start;
    while step < total {
        // ---- a batch; for each player its loss, its gradients, its step
        let batch = Rows::of_step(experiment, &data, &split, &key, step);
        // A cell's training is stopped after a step, with a checkpoint, unless a step takes long.
        let short = timed.elapsed() < LONG || step == first;
        timed = Instant::now();
        let seen = interrupt::works_for_the_cell() && !short;
        interrupt::for_the_cell(seen, || {
            method::step(trainer.as_mut(), step, &mut losses, || batch.parts())
        })
        .map_err(|e| {
            let (name, place) = (&experiment.name, folder.path().display());
            e.reworded(|e| format!("{name}: {e}; the last checkpoint in {place} stays as it is"))
        })?;
        let every = experiment.training.record_every;
        let recorded = (step + 1).is_multiple_of(every) || step + 1 == total;
        let held_out = recorded.then(|| Rows::held_out(experiment, &data, &split, &key)).flatten();
        let held_out = held_out.map(|rows| mean_loss(trainer.as_ref(), step, &rows)).transpose()?;

        // ---- what follows; record row, checkpoint
        trainer.follow(step)?;
        step += 1;
        let (loss, elapsed) = (losses[0].last(), start.elapsed());
        monitor.report(Progress { step, total, loss, elapsed, steps_here: step - first });
        if recorded {
            let mut row = row(trainer.as_ref(), step, &mut losses);
            row.extend(held_out.map(|loss| ("held_out_loss".to_string(), loss)));
            table.push(
                &row.iter().map(|(name, value)| (name.as_str(), *value)).collect::<Vec<_>>(),
            )?;
            machine.add(step, experiment.training.batch)?;
            monitor.record(&table);
        }
        let interrupted = bar.at(step).is_err();
        let stopping = (monitor.stopping() || interrupted) && step < total;
        if step.is_multiple_of(experiment.training.checkpoint_every) || step == total || stopping {
            let (path, keep) = (folder.path(), experiment.training.keep_checkpoints);
            checkpoint::save(path, (&hash, keep), step, trainer.as_ref(), &table, &losses)
                .with_context(|| experiment.name.clone())?;
            table.write(folder.path(), "metrics", &origin)?;
        }
        if stopping {
            let name = &experiment.name;
            bail!(stopped: "{name} was stopped at step {step} of {total}; it resumes there");
        }
    }
    Ok(())
}

fn build(
    experiment: &Experiment,
    (data, split): (&Data, &Split),
    key: Key,
    runs: &Path,
    device: &Device,
) -> Result<Box<dyn Trainer>> {
    let training = &experiment.training;
    let init = experiment.init.as_deref().map(|name| init(experiment, runs, name)).transpose()?;
    let trainer = experiment.method.build(&Setting {
        init,
        shape: data.shape(),
        network: &experiment.network,
        noise: experiment.noise,
        sigma_data: experiment.sigma_data,
        optimizer: experiment.optimizer,
        schedule: LearningRate::new(training.iterations, training.decay)
            .shaped(training.decay_shape)
            .warming_up(training.warm_up),
        averages: Averages { rates: training.ema.all(), warm_up: training.ema_warm_up },
        settings: training.settings(),
        device,
        key,
        teachers: &Found { student: experiment, data, split, runs, device },
    })?;
    ensure!(
        training.accumulate == 1 || trainer.splits(),
        "training.accumulate = {}: a batch of {} cannot be split",
        training.accumulate,
        experiment.method.name()
    );
    Ok(trainer)
}

// The weights of the run `name`.
fn init(experiment: &Experiment, runs: &Path, name: &str) -> Result<Weights> {
    let context = || format!("init = '{name}'");
    let trained = finished(runs, name).with_context(context)?;
    trained.check_beginning_of(experiment, "run").with_context(context)?;
    Ok(Weights(trained.params().clone()))
}

// A row of the record after `step` steps: the losses of each player and the method's columns. The
// first player's columns have plain names.
fn row(trainer: &dyn Trainer, step: u64, losses: &mut [Losses]) -> Vec<(String, f64)> {
    let mut row = vec![("step".to_string(), step as f64)];
    for (i, (player, losses)) in trainer.players().iter().zip(losses).enumerate() {
        let (loss, norm, rate) = losses.take();
        for (column, value) in [("loss", loss), ("gradient_norm", norm), ("learning_rate", rate)] {
            let prefix = if i == 0 { String::new() } else { format!("{}_", player.name()) };
            row.push((format!("{prefix}{column}"), value));
        }
    }
    row.extend(
        trainer.columns(step - 1).into_iter().map(|(name, value)| (name.to_string(), value)),
    );
    row
}

// The mean loss of the first player at step `step` on rows that it takes no step on.
fn mean_loss(trainer: &dyn Trainer, step: u64, rows: &Rows) -> Result<f64> {
    let mut sum = 0.0;
    for part in rows.parts() {
        let (part, share) = part?;
        sum += share * f64::from(trainer.loss(0, step, &part)?.to_scalar::<f32>()?);
    }
    Ok(sum)
}

// A network that is conditioned on classes, or predicts them, needs data with classes.
fn check_classes(experiment: &Experiment, data: &Data) -> Result<()> {
    if let NetworkConfig::Convnet(ConvNetConfig { classes }) = experiment.network {
        ensure!(
            data.classes() == Some(classes),
            "network.classes = {classes}: the data of {} have {}",
            experiment.name,
            data.classes().map_or_else(|| "no classes".to_string(), |count| count.to_string())
        );
    }
    if let Some(known) = experiment.network.classes() {
        let Some(count) = data.classes() else {
            bail!(
                "network.num_class_embeds = {known}: the data of {} have no classes; leave it out",
                experiment.name
            );
        };
        ensure!(
            count <= known,
            "network.num_class_embeds = {known}: the data have {count} classes, give at least as many"
        );
        ensure!(
            experiment.classes() == Some(known) || known == count + 1,
            "network.num_class_embeds = {known} with training.unlabelled: the data have {count} \
             classes, give {}",
            count + 1
        );
    }
    Ok(())
}
