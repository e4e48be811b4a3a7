//! Where the lines of standard output end.
//!
//! evcxr reads a cell's output line by line, and its own marks are lines. `print!` may leave a line
//! open: then its text never comes or, once it is flushed, evcxr does not recognise the mark. In a
//! cell `print!` and `println!` are ours, as the library's own are here, and know whether a line is
//! open.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

static OPEN: AtomicBool = AtomicBool::new(false);

/// Called by our `print!`.
#[doc(hidden)]
pub fn print(text: fmt::Arguments) {
    let text = text.to_string();
    std::print!("{text}");
    if !text.is_empty() {
        OPEN.store(!text.ends_with('\n'), Ordering::Relaxed);
    }
}

/// Called by our `println!`, which has ended its line.
#[doc(hidden)]
pub fn line_ended() {
    OPEN.store(false, Ordering::Relaxed);
}

/// End a line that is open: what comes next is for evcxr.
#[doc(hidden)]
pub fn end_line() {
    if OPEN.swap(false, Ordering::Relaxed) {
        std::println!();
    }
}
