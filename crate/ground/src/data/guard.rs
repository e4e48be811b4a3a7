//! Decoders of other libraries, fed with damaged files: a panic in one is an error.

use crate::{Result, bail};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    // A decoder at work on this thread: what it panics on goes into the error, and nowhere else.
    static AT_WORK: Cell<bool> = const { Cell::new(false) };
}

/// What `decode` gives; its panic as an error: `damaged` (what it means for what is decoded),
/// and the panic's message.
///
/// It must do its work on this thread.
pub(super) fn caught<T>(
    damaged: impl FnOnce() -> String,
    decode: impl FnOnce() -> Result<T>,
) -> Result<T> {
    static SILENCED: Once = Once::new();
    SILENCED.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |panic| {
            if !AT_WORK.get() {
                before(panic);
            }
        }));
    });
    let outer = AT_WORK.replace(true);
    // Nothing that `decode` borrows is looked at again after a panic: the error goes up.
    let result = catch_unwind(AssertUnwindSafe(decode));
    AT_WORK.set(outer);
    match result {
        Ok(result) => result,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            let line = text.and_then(|text| text.lines().next()).unwrap_or("no message");
            bail!("{}: its decoder gave up ({line})", damaged())
        }
    }
}
