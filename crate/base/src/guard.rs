//! Turns a panic in another library's decoder, on a damaged file, into an [`Error`].

use crate::{Error, Result};
use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    // How many guards this thread is inside of.
    static GUARDS: Cell<u32> = const { Cell::new(0) };
}

/// What `work` returns. If it panics, an error that says that `decoder` failed; nothing is printed.
///
/// Decoders are written for intact files, and some of them index out of bounds in a damaged one.
/// The message names no file: the caller puts it in front ([`Context`](crate::Context)). Whatever
/// `work` has changed outside itself must be thrown away after an error. A panic on another thread
/// that comes back to this one (as rayon's do) is an error as well, but that thread has already
/// printed it: put the guard inside the code that runs there.
///
/// ```
/// use consistency::{Error, Result, guard};
/// let read = |bytes: &[u8]| guard("the decoder", || Ok::<u8, Error>(bytes[4]));
/// assert_eq!(read(b"whole").unwrap(), b'e');
/// let error = read(b"cut").unwrap_err().to_string();
/// assert!(error.starts_with("the decoder fails on it (index out of bounds"), "{error}");
/// ```
///
/// # Errors
/// Those of `work`, and its panics. Running out of memory or stack is not among them: that ends the
/// process, so the sizes that a file claims are bounded before its decoder sees them.
pub fn guard<T, E: Into<Error>>(decoder: &str, work: impl FnOnce() -> Result<T, E>) -> Result<T> {
    silence();
    let inside = Inside::enter();
    let done = catch_unwind(AssertUnwindSafe(work));
    drop(inside);
    match done {
        Ok(result) => result.map_err(Into::into),
        Err(panic) => Err(Error::new(format!(
            "{decoder} fails on it ({}): the file is damaged, or has something that {decoder} does \
             not know; fetch or write it again",
            message(&*panic)
        ))),
    }
}

// Counts a guard of this thread, even while a panic passes through it.
struct Inside;

impl Inside {
    fn enter() -> Self {
        GUARDS.set(GUARDS.get() + 1);
        Self
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        GUARDS.set(GUARDS.get() - 1);
    }
}

// Panics outside guards go to the hook that was there when the first guard ran: a notebook sets its
// own before that, when its kernel starts.
fn silence() {
    static HOOK: Once = Once::new();
    // A thread that is unwinding must not touch the hook.
    if std::thread::panicking() {
        return;
    }
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |info| {
            if GUARDS.try_with(Cell::get).unwrap_or(0) == 0 {
                before(info);
            }
        }));
    });
}

// The first line of the panic's message.
fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or_default();
    text.lines()
        .next()
        .filter(|line| !line.trim().is_empty())
        .unwrap_or("a panic without a message")
}
