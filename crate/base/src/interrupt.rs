//! Stopping a cell of a notebook without losing its variables.
//!
//! A press of the stop button is a flag. The thread that runs the cell, and those that work for it,
//! look at it: the library's long loops with [`check_interrupt`], which is an error, and what a cell
//! prints or shows by unwinding. Other threads, a training run in the background among them, never
//! see it. Outside a notebook nobody sets it.

use crate::{Error, Result};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

static PRESSED: AtomicBool = AtomicBool::new(false);

thread_local! {
    // Some(true): it works for the cell; Some(false): for a run in the background.
    static WORKS_FOR: Cell<Option<bool>> = const { Cell::new(None) };
}

/// What a stopped cell unwinds with: no panic, so that nothing is printed.
#[derive(Clone, Copy, Debug)]
pub struct Interrupted;

/// Whether the cell that this thread works for was interrupted.
pub fn interrupted() -> bool {
    PRESSED.load(Ordering::Relaxed) && works_for_the_cell()
}

/// Look whether the stop button was pressed: write it into a long loop of your own, and the loop
/// can be stopped without losing the variables of earlier cells.
///
/// ```
/// use consistency::prelude::*;
/// let mut sum = 0;
/// for i in 0..1000 {
///     check_interrupt()?;
///     sum += i;
/// }
/// assert_eq!(sum, 499_500);
/// # Ok::<(), consistency::Error>(())
/// ```
///
/// # Errors
/// It was pressed ([`Error::is_stopped`]).
pub fn check_interrupt() -> Result<()> {
    if interrupted() {
        return Err(Error::stopped("Interrupted"));
    }
    Ok(())
}

/// End the cell if the stop button was pressed: it unwinds, without a message.
pub fn unwind_if_interrupted() {
    if interrupted() && !std::thread::panicking() {
        std::panic::resume_unwind(Box::new(Interrupted));
    }
}

/// The items of `iterator`, and the end of the cell once the stop button was pressed.
///
/// ```
/// use consistency::prelude::*;
/// let mut sum = 0;
/// for i in stoppable(0..1000) {
///     sum += i;
/// }
/// assert_eq!(sum, 499_500);
/// ```
pub fn stoppable<I: IntoIterator>(iterator: I) -> Stoppable<I::IntoIter> {
    Stoppable(iterator.into_iter())
}

/// An iterator that ends its cell when the stop button was pressed; made by [`stoppable`].
#[derive(Clone, Debug)]
pub struct Stoppable<I>(I);

impl<I: Iterator> Iterator for Stoppable<I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        unwind_if_interrupted();
        self.0.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

/// The stop button was pressed, or (`false`) a new cell begins.
pub fn press(pressed: bool) {
    PRESSED.store(pressed, Ordering::Relaxed);
}

/// From now on this thread is the one that runs the cells.
pub fn enter_cell() {
    WORKS_FOR.set(Some(true));
}

/// Whether this thread works for a cell.
pub fn works_for_the_cell() -> bool {
    WORKS_FOR.get() == Some(true)
}

/// Whether this thread works for a run in the background, which no stop button ends.
pub fn works_in_the_background() -> bool {
    WORKS_FOR.get() == Some(false)
}

/// Do `work` as part of the cell, or in the background. A thread that a cell starts is neither: what
/// hands work to one and waits for it says here what the work is for.
pub fn for_the_cell<T>(yes: bool, work: impl FnOnce() -> T) -> T {
    Purpose(Some(yes)).run(work)
}

/// What a thread works for: the cell, a run in the background, or neither.
#[derive(Clone, Copy, Debug)]
pub struct Purpose(Option<bool>);

impl Purpose {
    /// This thread's, for the threads that it shares its work out to.
    pub fn here() -> Self {
        Self(WORKS_FOR.get())
    }

    /// Do `work`, on whatever thread, for this purpose.
    pub fn run<T>(self, work: impl FnOnce() -> T) -> T {
        struct Back(Option<bool>);
        impl Drop for Back {
            fn drop(&mut self) {
                WORKS_FOR.set(self.0);
            }
        }
        let _back = Back(WORKS_FOR.replace(self.0));
        work()
    }
}
