//! Watching a run from another thread, and asking it to stop.

use crate::record::Table;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Where a run is.
///
/// ```
/// use consistency::prelude::*;
/// use std::time::Duration;
/// let elapsed = Duration::from_secs(10);
/// let now = Progress { step: 250, total: 1000, loss: 0.5, elapsed, steps_here: 250 };
/// assert_eq!((now.rate(), now.left()), (25.0, Duration::from_secs(30)));
/// assert_eq!(now.to_string(), "step 250 of 1000 (25 %), loss 0.5000, 25 steps/s, 30 s left");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Steps to do in all.
    pub total: u64,
    /// The loss of the last step.
    pub loss: f64,
    /// The time spent in this process.
    pub elapsed: Duration,
    /// The steps done in this process.
    pub steps_here: u64,
}

impl Progress {
    /// Steps per second.
    pub fn rate(&self) -> f64 {
        self.steps_here as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// The time left at this rate.
    pub fn left(&self) -> Duration {
        let steps = (self.total - self.step.min(self.total)) as f64;
        Duration::try_from_secs_f64(steps / self.rate().max(1e-9)).unwrap_or(Duration::MAX)
    }
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let percent = 100.0 * self.step as f64 / self.total.max(1) as f64;
        write!(f, "step {} of {} ({percent:.0} %)", self.step, self.total)?;
        if self.steps_here > 0 {
            write!(f, ", loss {:.4}, {:.0} steps/s", self.loss, self.rate())?;
            if self.step < self.total {
                write!(f, ", {:.0} s left", self.left().as_secs_f64())?;
            }
        }
        Ok(())
    }
}

/// What other threads read of a training loop, and how they stop it.
///
/// ```
/// use consistency::prelude::*;
/// let monitor = Monitor::default(); // `train` takes one, to be watched from another thread
/// assert_eq!((monitor.progress(), monitor.table().rows()), (Progress::default(), 0));
/// monitor.stop();
/// assert!(monitor.stopping());
/// ```
#[derive(Debug, Default)]
pub struct Monitor {
    stop: AtomicBool,
    progress: Mutex<Progress>,
    table: Mutex<Table>,
}

impl Monitor {
    /// Ask the run to write a checkpoint and end after its current step.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether it was asked to stop.
    pub fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Where the run is.
    pub fn progress(&self) -> Progress {
        *lock(&self.progress)
    }

    /// The rows recorded so far.
    pub fn table(&self) -> Table {
        lock(&self.table).clone()
    }

    pub(super) fn report(&self, progress: Progress) {
        *lock(&self.progress) = progress;
    }

    pub(super) fn record(&self, table: &Table) {
        *lock(&self.table) = table.clone();
    }
}

// A reader that panicked leaves the value as it was: it is still valid.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
