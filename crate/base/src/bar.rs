//! Progress of long calls, for whoever shows it.
//!
//! A long loop makes a [`Bar`] and counts. In a notebook it becomes a bar below the cell; elsewhere
//! nothing happens. Each count also looks at the stop button.

use crate::interrupt::{check_interrupt, works_for_the_cell};
use crate::{Error, Result};
use std::cell::Cell;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Shorter calls have no bar.
const SOON: Duration = Duration::from_millis(700);
/// Between two states that are shown.
const BETWEEN: Duration = Duration::from_millis(200);

/// Where a long call is.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// A number of this bar's own.
    pub id: u64,
    /// What is done: "sampling".
    pub what: String,
    /// How much is done.
    pub done: u64,
    /// How much was done before: by an earlier run that this one resumes.
    pub from: u64,
    /// How much there is to do; 0 where that is not known.
    pub total: u64,
    /// The time it has taken.
    pub elapsed: Duration,
    /// Whether it has ended, by itself (`Some(true)`) or not.
    pub ended: Option<bool>,
}

static SHOWN_BY: OnceLock<fn(&State)> = OnceLock::new();

thread_local! {
    // A long call within a long call has no bar of its own.
    static ACTIVE: Cell<bool> = const { Cell::new(false) };
}

/// Let `show` show the bars of this process's cells. The first call counts.
pub fn show_with(show: fn(&State)) {
    let _ = SHOWN_BY.set(show);
}

/// A long call's progress. It ends when it is dropped.
#[derive(Debug)]
pub struct Bar {
    // None: nobody is to see it.
    state: Option<State>,
    start: Instant,
    shown: Option<Instant>,
}

impl Bar {
    /// A bar over `total` counts (0: unknown), shown once the call has taken a while.
    pub fn new(what: impl Into<String>, total: u64) -> Self {
        use std::sync::atomic::{AtomicU64, Ordering};
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let seen = SHOWN_BY.get().is_some() && works_for_the_cell() && !ACTIVE.replace(true);
        let state = seen.then(|| State {
            id: COUNT.fetch_add(1, Ordering::Relaxed),
            what: what.into(),
            done: 0,
            from: 0,
            total,
            elapsed: Duration::ZERO,
            ended: None,
        });
        Self { state, start: Instant::now(), shown: None }
    }

    /// The same, with `done` done before.
    #[must_use]
    pub fn starting_at(mut self, done: u64) -> Self {
        if let Some(state) = &mut self.state {
            (state.done, state.from) = (done, done);
        }
        self
    }

    /// How much there is to do, where that is known only now.
    pub fn within(&mut self, total: u64) {
        if let Some(state) = &mut self.state {
            state.total = total;
        }
    }

    /// Whether somebody is shown it.
    pub fn is_seen(&self) -> bool {
        self.state.is_some()
    }

    /// `count` more are done.
    ///
    /// # Errors
    /// The stop button was pressed.
    pub fn add(&mut self, count: u64) -> Result<(), Error> {
        let done = self.state.as_ref().map_or(0, |state| state.done) + count;
        self.at(done)
    }

    /// `done` are done in all.
    ///
    /// # Errors
    /// The stop button was pressed.
    pub fn at(&mut self, done: u64) -> Result<(), Error> {
        if let Some(state) = &mut self.state {
            state.done = done;
            state.elapsed = self.start.elapsed();
            let due = match self.shown {
                None => state.elapsed >= SOON,
                Some(last) => last.elapsed() >= BETWEEN,
            };
            if due && let Some(show) = SHOWN_BY.get() {
                show(state);
                self.shown = Some(Instant::now());
            }
        }
        check_interrupt()
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        let Some(mut state) = self.state.take() else { return };
        ACTIVE.set(false);
        if self.shown.is_some()
            && let Some(show) = SHOWN_BY.get()
        {
            state.elapsed = self.start.elapsed();
            state.ended = Some(state.total == 0 || state.done >= state.total);
            show(&state);
        }
    }
}
