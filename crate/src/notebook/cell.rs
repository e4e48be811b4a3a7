//! Makes a failing cell count as failed.
//!
//! evcxr reports a panic and an `Err` through `?` as success: the message is on stderr and
//! the reply says "ok". What it does in both cases is print a marker on stdout from code
//! that it generates into the cell. In a cell `println!` is ours (the kernel imports it by
//! name when it starts), which sees those two markers, token by token, and writes the
//! failure to the file that `LAB_FAILURES` names. `cargo lab run` reads it after each
//! cell. Everything else goes to the standard macro. `print!` is ours too (`lines.rs`).

use super::budget;
use super::lines::end_line;
use crate::{Error, Result};
use std::fmt::Display;
use std::io::Write;
use std::panic::{self, PanicHookInfo};
use std::sync::{Mutex, OnceLock};

static LAST_PANIC: Mutex<String> = Mutex::new(String::new());
static LAST_ERROR: Mutex<String> = Mutex::new(String::new());

/// Prepare this process for a notebook: panics print one short message and are remembered, and
/// standard input is at its end. The kernel calls it when it starts.
///
/// # Errors
/// A budget that does not exist, reported before any cell runs; or a kernel whose standard
/// input cannot be replaced. (The kernel's `?` on this call is what makes evcxr compile every
/// later cell for `?`: the first use costs a compile.)
pub fn start() -> Result<()> {
    prepare()?;
    budget().map(|_| ())
}

/// Called when a cell is loaded, before it runs: a process that evcxr has started anew, after
/// a crash or an interrupt, is prepared as the first one was.
#[doc(hidden)]
pub extern "C" fn cell_loaded() {
    if let Err(error) = prepare() {
        eprintln!("the kernel's process: {error}");
    }
}

// Once per process.
fn prepare() -> Result<()> {
    static DONE: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    let done = DONE.get_or_init(|| {
        panic::set_hook(Box::new(remember_panic));
        #[cfg(unix)]
        super::child::take_over().map_err(|error| error.to_string())?;
        Ok(())
    });
    done.clone().map_err(Error::new)
}

fn remember_panic(info: &PanicHookInfo) {
    let message = info
        .payload()
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| info.payload().downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_string());
    // A place in a cell is in generated code, which is no help; any other place is shown.
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
}

/// Called by our `println!` where evcxr's generated code reports a failed cell.
#[doc(hidden)]
pub fn cell_failed(kind: &str) {
    end_line();
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
    pub use crate::{
        __cell_eprintln as eprintln, __cell_print as print, __cell_println as println,
    };
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
    ($($arg:tt)*) => {{
        ::std::println!($($arg)*);
        $crate::notebook::line_ended()
    }};
}

/// The standard `print!`, which also keeps in mind whether a line is open.
#[doc(hidden)]
#[macro_export]
macro_rules! __cell_print {
    ($($arg:tt)*) => { $crate::notebook::print(::std::format_args!($($arg)*)) };
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
