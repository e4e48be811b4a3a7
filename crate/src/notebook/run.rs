//! Long work in the background, with a handle.

use super::macros::println;
use crate::experiment::{Experiment, Monitor, Progress, Trained, train};
use crate::plot::Figure;
use crate::{Context, Error, Result, bail};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A training run in a thread of its own. It writes checkpoints, prints nothing, and goes
/// on while other cells run or fail; after an interrupt or a restart, start it again and
/// it resumes.
///
/// Only one handle to it exists: it cannot be cloned.
///
/// ```no_run
/// use consistency::prelude::*;
/// # let experiment = Experiment::parse("")?;
/// let run = Run::start(&experiment, 1)?; // other cells can run meanwhile
/// println!("{}", run.progress());
/// run.plot();
/// let teacher = run.join()?.denoiser()?;
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Debug)]
pub struct Run {
    name: String,
    monitor: Arc<Monitor>,
    thread: Mutex<Option<JoinHandle<Result<Trained>>>>,
}

impl Run {
    /// Start `experiment` on `threads` threads (0: all cores), or resume it.
    ///
    /// Two runs at once on two cores are fastest with one thread each.
    ///
    /// # Errors
    /// An experiment whose values make no sense, or a thread that cannot be started.
    pub fn start(experiment: &Experiment, threads: usize) -> Result<Self> {
        experiment.check()?;
        let monitor = Arc::new(Monitor::default());
        let (experiment, shared) = (experiment.clone(), Arc::clone(&monitor));
        let name = experiment.name.clone();
        let thread = std::thread::Builder::new()
            .name(name.clone())
            .spawn(move || train(&experiment, &runs_folder(), &shared, threads))
            .context("starting a thread for the run")?;
        Ok(Self { name, monitor, thread: Mutex::new(Some(thread)) })
    }

    /// Where it is: step, loss, rate, time left.
    pub fn progress(&self) -> Progress {
        self.monitor.progress()
    }

    /// The loss so far.
    pub fn plot(&self) -> Figure {
        let table = self.monitor.table();
        Figure::new(&self.name).x("iteration k").y("loss").log_y().line(
            &self.name,
            table.column("step"),
            table.column("loss"),
        )
    }

    /// Ask it to write a checkpoint and end; `join` then gives its state as an error.
    pub fn stop(&self) {
        self.monitor.stop();
    }

    /// Wait for its end and take its result. Prints where it is every few seconds, except
    /// under `cargo lab run`, which shows progress itself.
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
    /// What stopped it ([`Error::is_stopped`] after [`Run::stop`], [`Error::is_diverged`]); or a
    /// result that was already taken.
    pub fn join(&self) -> Result<Trained> {
        let thread = self.thread.lock().ok().and_then(|mut thread| thread.take());
        let Some(thread) = thread else {
            bail!("the result of {} was already taken by an earlier join()", self.name);
        };
        let quiet = std::env::var_os("LAB_FAILURES").is_some();
        let mut shown = Instant::now();
        while !thread.is_finished() {
            std::thread::sleep(Duration::from_millis(20));
            if !quiet && shown.elapsed() > Duration::from_secs(5) {
                println!("{}: {}", self.name, self.progress());
                shown = Instant::now();
            }
        }
        thread.join().map_err(|panic| {
            let message = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied());
            Error::new(format!("{} panicked: {}", self.name, message.unwrap_or("no message")))
        })?
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
