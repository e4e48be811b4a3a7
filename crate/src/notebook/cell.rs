//! What a cell prints, and how it says that it failed.
//!
//! evcxr reports a panic and an `Err` through `?` as success: the message is on stderr and the reply
//! says "ok". What it does in both cases is print a marker on stdout from code that it generates
//! into the cell. In a cell `println!` is ours (the kernel imports it by name when it starts), which
//! sees those two markers, token by token, and tells the relay of the failure, by which it becomes
//! an error to Jupyter. Everything else that cells print goes to the relay too (`link.rs`).

use super::link::{link, lock};
use super::{budget, child, live};
use crate::interrupt::{self, unwind_if_interrupted};
use crate::{Error, Result, bar};
use serde_json::json;
use std::fmt::{self, Display};
use std::panic::{self, PanicHookInfo};
use std::sync::{Mutex, OnceLock};

static LAST_PANIC: Mutex<String> = Mutex::new(String::new());
static LAST_ERROR: Mutex<String> = Mutex::new(String::new());
// Text that is either what evcxr says of `?`, which becomes the cell's error, or a cell's own
// `eprintln!` in the same form: the next thing to be printed tells.
static EITHER: Mutex<Option<String>> = Mutex::new(None);

/// Prepare this process for a notebook: it talks to the relay, panics are remembered, and standard
/// input is at its end. The kernel calls it when it starts.
///
/// # Errors
/// A budget that does not exist, reported before any cell runs; or a process whose standard
/// input and output cannot be replaced. (The kernel's `?` on this call is what makes evcxr compile
/// every later cell for `?`: the first use costs a compile.)
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
    if let Some(link) = link() {
        link.send(&json!({ "op": "loaded" }));
    }
}

// Once per process.
fn prepare() -> Result<()> {
    static DONE: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    let done = DONE.get_or_init(|| {
        panic::set_hook(Box::new(remember_panic));
        super::link::connect().and_then(|()| child::take_over()).map_err(|e| e.to_string())?;
        bar::show_with(live::show_bar);
        // In the first cell of a process the loop over the cells is evcxr's, on this thread.
        interrupt::enter_cell();
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
    *lock(&LAST_PANIC) = format!("{message}{place}");
    // The cell's own is its error, and need not be said twice.
    let cell = interrupt::works_for_the_cell() && thread.name().is_none_or(|name| name == "main");
    if link().is_none() || !cell {
        written("stderr", format_args!("{who}: {message}{place}\n"));
    }
}

/// Called by our `println!` where evcxr's generated code reports a failed cell.
#[doc(hidden)]
pub fn cell_failed(kind: &str) {
    if kind == "error" {
        lock(&EITHER).take();
    } else {
        settle();
    }
    let message = lock(if kind == "panic" { &LAST_PANIC } else { &LAST_ERROR }).clone();
    if let Some(link) = link() {
        link.send(&json!({ "op": "failed", "kind": kind, "message": message }));
    }
    child::mark(if kind == "panic" { "EVCXR_PANIC_NOTIFICATION" } else { "EVCXR_ERROR_OCCURRED" });
}

/// The cell was compiled and cannot be loaded: it names something that is nowhere.
pub(super) fn not_loaded(why: &str) {
    let message = format!("the cell cannot be linked: {why}");
    match link() {
        Some(link) => link.send(&json!({ "op": "failed", "kind": "error", "message": message })),
        None => std::eprintln!("{message}"),
    }
}

/// Called by our `eprintln!("{}", error)`, the form that evcxr generates for `?`.
#[doc(hidden)]
pub fn error_printed(error: &dyn Display) {
    unwind_if_interrupted();
    settle();
    let text = error.to_string();
    lock(&LAST_ERROR).clone_from(&text);
    *lock(&EITHER) = Some(format!("{text}\n"));
}

/// Print what turned out to be a cell's own text.
pub(super) fn settle() {
    let own = lock(&EITHER).take();
    if let Some(own) = own {
        written("stderr", format_args!("{own}"));
    }
}

/// Called by the macros: print `text` on "stdout" or "stderr", and end the cell here if the stop
/// button was pressed.
#[doc(hidden)]
pub fn print(name: &str, text: fmt::Arguments) {
    unwind_if_interrupted();
    written(name, text);
}

fn written(name: &str, text: fmt::Arguments) {
    settle();
    match (link(), name) {
        (Some(link), _) => link.text(name, &text.to_string()),
        (None, "stdout") => std::print!("{text}"),
        (None, _) => std::eprint!("{text}"),
    }
}

/// Ask the person at the notebook, who answers in a field below the cell.
///
/// (Rust's own standard input is at its end in a cell.)
///
/// # Errors
/// Nobody can be asked: `cargo lab run`, `nbconvert`, a program that is no notebook; or the cell was
/// stopped.
pub fn input(prompt: &str) -> Result<String> {
    let answer = link().and_then(|link| link.ask(prompt, false));
    interrupt::check_interrupt()?;
    answer.ok_or_else(|| {
        Error::new(format!("'{prompt}': nobody can be asked here; write the answer into the cell"))
    })
}

/// The macros that a cell uses in place of the standard ones.
pub mod macros {
    pub use crate::{
        __cell_eprint as eprint, __cell_eprintln as eprintln, __cell_print as print,
        __cell_println as println,
    };
}

/// The standard `println!`, except for the two lines by which evcxr marks a failed cell.
#[doc(hidden)]
#[macro_export]
macro_rules! __cell_println {
    ("EVCXR_PANIC_NOTIFICATION") => {
        $crate::notebook::cell_failed("panic")
    };
    ("{}", evcxr_internal_runtime::USER_ERROR_OCCURRED) => {
        $crate::notebook::cell_failed("error")
    };
    () => { $crate::notebook::print("stdout", ::std::format_args!("\n")) };
    ($($arg:tt)*) => {
        $crate::notebook::print("stdout", ::std::format_args!("{}\n", ::std::format_args!($($arg)*)))
    };
}

/// The standard `print!`; what it prints is seen at once, also without a newline.
#[doc(hidden)]
#[macro_export]
macro_rules! __cell_print {
    ($($arg:tt)*) => { $crate::notebook::print("stdout", ::std::format_args!($($arg)*)) };
}

/// The standard `eprintln!`, except for the form in which evcxr reports an error of `?`.
#[doc(hidden)]
#[macro_export]
macro_rules! __cell_eprintln {
    ("{}", $error:ident) => { $crate::notebook::error_printed(&$error) };
    () => { $crate::notebook::print("stderr", ::std::format_args!("\n")) };
    ($($arg:tt)*) => {
        $crate::notebook::print("stderr", ::std::format_args!("{}\n", ::std::format_args!($($arg)*)))
    };
}

/// The standard `eprint!`.
#[doc(hidden)]
#[macro_export]
macro_rules! __cell_eprint {
    ($($arg:tt)*) => { $crate::notebook::print("stderr", ::std::format_args!($($arg)*)) };
}
