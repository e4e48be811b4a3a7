//! Long work in the background, with a handle.

use super::live::{self, Live};
use crate::bar::Bar;
use crate::experiment::{Experiment, Monitor, Progress, RunFolder, Trained, train};
use crate::interrupt::{self, check_interrupt};
use crate::plot::Figure;
use crate::{Context, Error, Result, bail};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often a watched run's bar and its curve move; the training is not to feel it.
const BAR_EVERY: Duration = Duration::from_millis(500);
const CURVE_EVERY: Duration = Duration::from_secs(1);
/// The curve takes at most one part in so many of the time, and has at most so many points while it moves.
const CURVE_SHARE: u32 = 100;
const CURVE_POINTS: usize = 400;
/// The first picture takes longest, because it loads the font.
const CURVE_AT_LEAST: Duration = Duration::from_secs(6);

/// A training run in a thread of its own. It writes checkpoints, prints nothing, and goes
/// on while other cells run, fail or are stopped; after a restart, start it again and it resumes.
///
/// Only one handle to it exists: it cannot be cloned.
///
/// ```no_run
/// use consistency::prelude::*;
/// # let experiment = Experiment::parse("")?;
/// let run = Run::start(&experiment, 1)?; // other cells can run meanwhile
/// run.watch()?; // a bar and the loss curve, until it ends or the stop button is pressed
/// let teacher = run.join()?.denoiser()?;
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Debug)]
pub struct Run {
    name: String,
    folder: PathBuf,
    monitor: Arc<Monitor>,
    outcome: Mutex<Outcome>,
}

#[derive(Debug)]
enum Outcome {
    Running(JoinHandle<Result<Trained>>),
    Ended(Box<Result<Trained>>),
    Taken,
}

impl Run {
    /// Start `experiment` on `threads` threads (0: all cores), or resume it.
    ///
    /// Two runs at once on two cores are fastest with one thread each.
    ///
    /// ```no_run
    /// # use consistency::prelude::*;
    /// # let experiment = Experiment::parse("")?;
    /// let run = Run::start(&experiment, 1)?;
    /// run.watch()?;
    /// let trained = run.join()?;
    /// # Ok::<(), consistency::Error>(())
    /// ```
    ///
    /// # Errors
    /// An experiment whose values make no sense, or a thread that cannot be started.
    pub fn start(experiment: &Experiment, threads: usize) -> Result<Self> {
        experiment.check()?;
        let monitor = Arc::new(Monitor::default());
        let folder = runs_folder().join(experiment.folder()?);
        let (experiment, shared) = (experiment.clone(), Arc::clone(&monitor));
        let name = experiment.name.clone();
        let thread = std::thread::Builder::new()
            .name(name.clone())
            .spawn(move || {
                let runs = runs_folder();
                interrupt::for_the_cell(false, || train(&experiment, &runs, &shared, threads))
            })
            .context("starting a thread for the run")?;
        Ok(Self { name, folder, monitor, outcome: Mutex::new(Outcome::Running(thread)) })
    }

    /// Where it is: step, loss, rate, time left.
    pub fn progress(&self) -> Progress {
        self.monitor.progress()
    }

    /// The loss so far.
    pub fn plot(&self) -> Figure {
        let table = self.monitor.table();
        self.figure(table.column("step"), table.column("loss"))
    }

    fn figure(&self, steps: &[f64], losses: &[f64]) -> Figure {
        Figure::new(&self.name).x("iteration k").y("loss").log_y().line(&self.name, steps, losses)
    }

    // The curve so far, each of its points the mean over as many rows as it takes to have few.
    fn short_curve(&self) -> Figure {
        let table = self.monitor.table();
        let each = table.rows().div_ceil(CURVE_POINTS).max(1);
        let means = |name: &str| -> Vec<f64> {
            let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
            table.column(name).chunks(each).map(mean).collect()
        };
        self.figure(&means("step"), &means("loss"))
    }

    /// Ask it to write a checkpoint and end; `join` then gives its state as an error.
    pub fn stop(&self) {
        self.monitor.stop();
    }

    /// Show a progress bar and the loss curve below the cell, both moving, until the run ends; the
    /// last state stays. The stop button ends the watching, and the run goes on: watch it again,
    /// [`Run::join`] it or [`Run::stop`] it in a later cell.
    ///
    /// # Errors
    /// What stopped the run, which [`Run::join`] then gives too; the stop button.
    pub fn watch(&self) -> Result<()> {
        let figure = |last: bool| {
            let there = self.monitor.table().rows() > 1;
            Ok(there.then(|| if last { self.plot() } else { self.short_curve() }))
        };
        self.watch_figure(CURVE_SHARE, figure)
    }

    /// [`Run::watch`] with a figure of your own in place of the curve: `draw` gets the number of
    /// iterations and the run as it stood then, whenever a checkpoint is written
    /// (`training.checkpoint_every`). The samples of one noise show how a model forms:
    ///
    /// ```no_run
    /// # use consistency::prelude::*;
    /// # let run = Run::start(&Experiment::parse("")?, 1)?;
    /// let z = Key::new(1).normal(0..12, &[1, 8, 8], DType::F32, &Device::Cpu)?;
    /// run.watch_with(|k, trained| {
    ///     let x = sample::one_step(&trained.consistency_model()?, &z, 80.0)?;
    ///     Figure::images(format!("after {k} iterations"), &x, 12)
    /// })?;
    /// # Ok::<(), consistency::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Run::watch`]; what `draw` gives.
    pub fn watch_with(&self, mut draw: impl FnMut(u64, &Trained) -> Result<Figure>) -> Result<()> {
        let mut seen = 0;
        self.watch_figure(0, |_| {
            let folder = match RunFolder::open(&self.folder) {
                Err(error) if error.is_not_found() => return Ok(None), // it only begins
                opened => opened?,
            };
            match folder.after(seen)? {
                Some((step, trained)) => {
                    seen = step;
                    draw(step, &trained).map(Some)
                }
                None => Ok(None),
            }
        })
    }

    // `figure` gives what is to be shown now, or as the last state; it takes at most one part in
    // `share` of the time.
    fn watch_figure(
        &self,
        share: u32,
        mut figure: impl FnMut(bool) -> Result<Option<Figure>>,
    ) -> Result<()> {
        let (bar, view) = (Live::new("bar"), Live::new("curve"));
        let (mut moved, mut drawn, mut cost) = (None::<Instant>, None::<Instant>, Duration::ZERO);
        let due = |last: Option<Instant>, every| last.is_none_or(|last| last.elapsed() >= every);
        while self.running() {
            if let Err(stopped) = check_interrupt() {
                if drawn.is_some()
                    && let Ok(Some(last)) = figure(true)
                {
                    view.end(&last);
                }
                return Err(stopped);
            }
            if due(moved, BAR_EVERY) {
                let now = self.progress();
                let text = format!("{}: {now}", self.name);
                bar.put(&live::bar(now.step, now.total, &text));
                moved = Some(Instant::now());
            }
            if due(drawn, CURVE_EVERY.max((share * cost).min(CURVE_AT_LEAST))) {
                let start = Instant::now();
                if let Some(now) = figure(false)? {
                    view.show(&now)?;
                    (drawn, cost) = (Some(Instant::now()), start.elapsed());
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let now = self.progress();
        let took = live::span(now.elapsed.as_secs_f64());
        let text = format!("{}: {} of {} steps, {took}", self.name, now.step, now.total);
        bar.put(&[("text/plain", text)]);
        if let Some(last) = figure(true)? {
            view.end(&last);
        }
        match &*self.outcome() {
            Outcome::Ended(result) => match &**result {
                Err(error) => Err(error.again()),
                Ok(_) => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Wait for its end and take its result, with a progress bar meanwhile. If the stop button ends
    /// the waiting, the run goes on, and a later cell can join it.
    ///
    /// ```no_run
    /// # use consistency::prelude::*;
    /// # let experiment = Experiment::parse("")?;
    /// let run = Run::start(&experiment, 0)?;
    /// match run.join() {
    ///     Ok(trained) => println!("{}", trained.folder()),
    ///     Err(error) if error.is_diverged() => println!("too large a learning rate: {error}"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok::<(), consistency::Error>(())
    /// ```
    ///
    /// # Errors
    /// What stopped it ([`Error::is_stopped`] after [`Run::stop`], [`Error::is_diverged`]); a
    /// result that was already taken; the stop button.
    pub fn join(&self) -> Result<Trained> {
        let now = self.progress();
        let mut bar = Bar::new(&self.name, now.total).starting_at(now.step);
        while self.running() {
            let Progress { step, total, .. } = self.progress();
            bar.within(total);
            bar.at(step)?;
            std::thread::sleep(Duration::from_millis(20));
        }
        bar.at(self.progress().step)?;
        match std::mem::replace(&mut *self.outcome(), Outcome::Taken) {
            Outcome::Ended(result) => *result,
            _ => bail!("the result of {} was already taken by an earlier join()", self.name),
        }
    }

    // Whether it still trains. What it gave is kept once it does not.
    fn running(&self) -> bool {
        let mut outcome = self.outcome();
        match std::mem::replace(&mut *outcome, Outcome::Taken) {
            Outcome::Running(thread) if thread.is_finished() => {
                let ended = thread.join().unwrap_or_else(|panic| {
                    let message = panic
                        .downcast_ref::<String>()
                        .map(String::as_str)
                        .or_else(|| panic.downcast_ref::<&str>().copied());
                    let message = message.unwrap_or("no message");
                    Err(Error::new(format!("{} panicked: {message}", self.name)))
                });
                *outcome = Outcome::Ended(Box::new(ended));
                false
            }
            other => {
                *outcome = other;
                matches!(*outcome, Outcome::Running(_))
            }
        }
    }

    fn outcome(&self) -> MutexGuard<'_, Outcome> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where runs are kept: `LAB_RUNS`, which `cargo lab` sets, or `.lab/runs` below the
/// working folder.
pub fn runs_folder() -> PathBuf {
    match std::env::var_os("LAB_RUNS") {
        Some(path) if !path.is_empty() => path.into(),
        _ => Path::new(".lab").join("runs"),
    }
}
