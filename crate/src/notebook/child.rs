//! The process behind the cells, and its standard input and output.
//!
//! evcxr runs cells in a child process, its own program started again. It writes the line
//! `LOAD_AND_RUN library function` to the child's standard input for each cell, and reads
//! the child's standard output line by line up to a mark. A cell shares both with this
//! protocol: reading standard input waits for a line that evcxr sends only after the cell
//! has ended, and text without a newline hides the mark. Either way the cell never ends.
//!
//! So the loop that reads those lines becomes ours. [`take_over`] puts the protocol where
//! no cell finds it, and leaves one line for evcxr's loop, which loads [`CELLS`]: the same
//! loop, with the protocol's new place. From then on standard input is at its end, in the
//! cells and in programs that they start, and standard output goes to the relay, which hands
//! back what in it is meant for evcxr ([`super::link`]).

use super::link::{link, replace};
use crate::{Context, Result, bail};
use std::ffi::{CStr, CString, c_void};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, OnceLock};

/// The name under which evcxr's loop finds [`consistency_lab_cells`].
const CELLS: &str = "consistency_lab_cells";

/// The line by which evcxr knows that a cell has ended.
const ENDED: &str = "EVCXR_EXECUTION_COMPLETE";

/// The line by which evcxr knows that a cell has panicked.
const PANICKED: &str = "EVCXR_PANIC_NOTIFICATION";

/// Where evcxr's lines come from, once we have taken it over.
static PROTOCOL: Mutex<Option<OwnedFd>> = Mutex::new(None);

/// Where evcxr reads: standard output, until it is something else.
static TO_EVCXR: OnceLock<File> = OnceLock::new();

/// Arrange that the loop over the cells is ours from the end of this cell on.
///
/// # Errors
/// The system refuses a descriptor, or the library's own file has no name.
pub fn take_over() -> Result<()> {
    // evcxr sets it for the child. In any other program standard input is its own.
    if std::env::var_os("EVCXR_IS_RUNTIME").is_none() {
        return Ok(());
    }
    let what = "taking over the kernel's standard input";
    let library = library_name()?;
    let protocol = io::stdin().as_fd().try_clone_to_owned().context(what)?;
    let (input, mut line) = io::pipe().context(what)?;
    // evcxr's loop ignores what follows the two names. A cell that reads before it does, the first
    // after a crash, finds this line in place of the end; then the process ends.
    writeln!(line, "LOAD_AND_RUN {library} {CELLS} (a cell has no standard input)")
        .context(what)?;
    replace(0, &input).context(what)?;
    match PROTOCOL.lock() {
        Ok(mut kept) => *kept = Some(protocol),
        Err(poisoned) => *poisoned.into_inner() = Some(protocol),
    }
    Ok(())
}

/// The loop over the cells: evcxr's own, except for where its lines come from and how a cell's
/// output ends. evcxr's loop calls it like a cell, with the variables that cells have kept; it does
/// not return.
#[unsafe(no_mangle)]
extern "C" fn consistency_lab_cells(store: *mut c_void) -> ! {
    let protocol = PROTOCOL.lock().ok().and_then(|mut kept| kept.take());
    let done = match protocol {
        Some(protocol) => run_cells(File::from(protocol), store),
        None => Err(io::Error::other("the protocol was not taken over")),
    };
    match done {
        // evcxr has closed its end: the notebook is closed.
        Ok(()) => std::process::exit(0),
        Err(error) => {
            eprintln!("the process behind the cells ended: {error}");
            std::process::exit(99)
        }
    }
}

fn run_cells(protocol: File, mut store: *mut c_void) -> io::Result<()> {
    replace(0, &File::open("/dev/null")?)?;
    let out: File = io::stdout().as_fd().try_clone_to_owned()?.into();
    let to_evcxr = TO_EVCXR.get_or_init(|| out);
    if let Some(link) = link() {
        link.take_stdout()?;
    }
    for line in BufReader::new(protocol).lines() {
        let line = line?;
        let mut words = line.split(' ').skip_while(|word| *word != "LOAD_AND_RUN").skip(1);
        // Anything else is the user's reply to a question from a crate written for evcxr. The crate
        // has already read the end of its input, and goes on without an answer.
        let (Some(library), Some(function)) = (words.next(), words.next()) else { continue };
        let loaded = load(library, function);
        if let Ok(run) = &loaded {
            // SAFETY: evcxr generates a cell's function with this signature, and `store` is what
            // the cell before it returned.
            store = unsafe { run(store) };
        } else if let Err(why) = &loaded {
            super::cell::not_loaded(why);
        }
        super::cell::settle();
        let mut lines = link().map(|link| link.end_cell()).unwrap_or_default();
        if loaded.is_err() {
            // Its variables were never made.
            lines.push(PANICKED.to_string());
        }
        lines.push(ENDED.to_string());
        let mut out = to_evcxr;
        out.write_all((lines.join("\n") + "\n").as_bytes())?;
    }
    Ok(())
}

/// Write lines for evcxr.
pub fn mark(lines: &str) {
    // The reader is the kernel itself: when it is gone, so are we.
    let _ = match TO_EVCXR.get() {
        Some(mut out) => out.write_all(format!("{lines}\n").as_bytes()),
        None => {
            let mut out = io::stdout().lock();
            writeln!(out, "{lines}").and_then(|()| out.flush())
        }
    };
}

/// A cell's function. Its library is never unloaded: variables may live in it.
fn load(
    library: &str,
    function: &str,
) -> std::result::Result<unsafe extern "C" fn(*mut c_void) -> *mut c_void, String> {
    let text = |of: &str| CString::new(of).map_err(|e| format!("{of:?}: {e}"));
    let (path, name) = (text(library)?, text(function)?);
    // SAFETY: both are C strings; the library's initialisers are those of a cell.
    let symbol = unsafe {
        let handle = libc::dlopen(path.as_ptr(), libc::RTLD_LAZY | libc::RTLD_LOCAL);
        if handle.is_null() { handle } else { libc::dlsym(handle, name.as_ptr()) }
    };
    if symbol.is_null() {
        // SAFETY: the text stays until this thread's next call of the loader.
        let why = unsafe { libc::dlerror() };
        let why = if why.is_null() {
            format!("{library} has no {function}")
        } else {
            // SAFETY: a C string, by dlerror's contract.
            unsafe { CStr::from_ptr(why) }.to_string_lossy().into_owned()
        };
        return Err(why.replace(&format!("{library}: "), ""));
    }
    // SAFETY: evcxr generates the function of this name with this signature.
    Ok(unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn(_) -> _>(symbol) })
}

// The file that holds this code. Without its folder: the loader has it already and knows it
// by its name, and evcxr's loop ends a path at the first space.
fn library_name() -> Result<String> {
    let here = consistency_lab_cells as *const c_void;
    // SAFETY: plain data, for which zeros are valid.
    let mut found: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: `here` is an address of this program, and `found` is ours.
    let known = unsafe { libc::dladdr(here, &mut found) } != 0 && !found.dli_fname.is_null();
    if known {
        // SAFETY: a C string, which stays as long as the library is loaded.
        let path = unsafe { CStr::from_ptr(found.dli_fname) }.to_string_lossy().into_owned();
        if let Some(name) = Path::new(&path).file_name() {
            return Ok(name.to_string_lossy().into_owned());
        }
    }
    bail!("the kernel's library does not know its own file")
}
