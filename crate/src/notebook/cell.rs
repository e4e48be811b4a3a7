//! A failing cell fails.
//!
//! evcxr reports a panic and an `Err` through `?` as success: the message is on stderr and
//! the reply says "ok". What it does in both cases is print a marker on stdout from code
//! that it generates into the cell. In a cell `println!` is ours (the kernel imports it by
//! name when it starts), which sees those two markers, token by token, and writes the
//! failure to the file that `LAB_FAILURES` names. `cargo lab run` reads it after each
//! cell. Everything else goes to the standard macro.

use super::budget;
use crate::Result;
use std::fmt::Display;
use std::io::Write;
use std::panic;
use std::sync::Mutex;

static LAST_PANIC: Mutex<String> = Mutex::new(String::new());
static LAST_ERROR: Mutex<String> = Mutex::new(String::new());

/// Make this process a notebook's: panics print one short message and are remembered.
/// The kernel calls it when it starts.
///
/// # Errors
/// A budget that does not exist, told before any cell runs. (The kernel's `?` on this call
/// is what makes evcxr compile every later cell for `?`: the first use costs a compile.)
pub fn start() -> Result<()> {
    panic::set_hook(Box::new(|info| {
        let message = info
            .payload()
            .downcast_ref::<&str>()
            .map(ToString::to_string)
            .or_else(|| info.payload().downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "a panic without a message".to_string());
        // A place in a cell is one in generated code; any other helps.
        let place = match info.location() {
            Some(at) if at.file() != "src/lib.rs" => format!(" ({}:{})", at.file(), at.line()),
            _ => String::new(),
        };
        let thread = std::thread::current();
        let who = match thread.name() {
            Some("main") | None => "panicked".to_string(),
            Some(name) => format!("the thread {name} panicked"),
        };
        eprintln!("{who}: {message}{place}");
        if let Ok(mut last) = LAST_PANIC.lock() {
            *last = format!("{message}{place}");
        }
    }));
    budget().map(|_| ())
}

/// Called by our `println!` where evcxr's generated code reports a failed cell.
#[doc(hidden)]
pub fn cell_failed(kind: &str) {
    let Some(path) = std::env::var_os("LAB_FAILURES").filter(|path| !path.is_empty()) else {
        return;
    };
    let last = if kind == "panic" { &LAST_PANIC } else { &LAST_ERROR };
    let message = last.lock().map(|m| m.clone()).unwrap_or_default();
    let line = serde_json::json!({ "kind": kind, "message": message });
    let written = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    if let Err(error) = written {
        // Nobody could learn of the failure any other way.
        eprintln!("the cell failed, and {} could not be written: {error}", path.display());
        std::process::exit(70);
    }
}

/// Called by our `eprintln!("{}", error)`, the form that evcxr generates for `?`.
#[doc(hidden)]
pub fn error_printed(error: &dyn Display) {
    if let Ok(mut last) = LAST_ERROR.lock() {
        *last = error.to_string();
    }
}

/// The macros that a cell uses in place of the standard ones.
pub mod macros {
    pub use crate::{__cell_eprintln as eprintln, __cell_println as println};
}

/// The standard `println!`, except for the two lines by which evcxr marks a failed cell.
#[doc(hidden)]
#[macro_export]
macro_rules! __cell_println {
    ("EVCXR_PANIC_NOTIFICATION") => {{
        $crate::notebook::cell_failed("panic");
        ::std::println!("EVCXR_PANIC_NOTIFICATION")
    }};
    ("{}", evcxr_internal_runtime::USER_ERROR_OCCURRED) => {{
        $crate::notebook::cell_failed("error");
        ::std::println!("{}", evcxr_internal_runtime::USER_ERROR_OCCURRED)
    }};
    ($($arg:tt)*) => { ::std::println!($($arg)*) };
}

/// The standard `eprintln!`, which also remembers the error that `?` is about to report.
#[doc(hidden)]
#[macro_export]
macro_rules! __cell_eprintln {
    ("{}", $error:ident) => {{
        $crate::notebook::error_printed(&$error);
        ::std::eprintln!("{}", $error)
    }};
    ($($arg:tt)*) => { ::std::eprintln!($($arg)*) };
}
