//! The notebook's end of the socket to the relay.
//!
//! Between Jupyter and evcxr stands a relay (`crate/lab/src/python/kernel/`), to which the process
//! behind the cells talks past evcxr: what cells print and show as it comes, how a cell failed, and
//! in the other direction the stop button. `LAB_RELAY` names a folder with the socket and two named
//! pipes, which become standard output and standard error for everything that does not know of the
//! socket: other crates, and programs that a cell starts. Without the variable, text goes to standard
//! output, and there is nothing to stop.
//!
//! Order: a message goes to the socket only when the relay has read the pipes empty.

use crate::{Context, Result, interrupt};
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

static LINK: OnceLock<Link> = OnceLock::new();

/// What the relay says to a cell that waits for it.
enum Said {
    /// A line of the standard output that evcxr is to read.
    Mark(String),
    /// All output of the cell has been read.
    Ended,
    /// The answer to a question; `None` where nobody can be asked.
    Answer(Option<String>),
}

/// The connection to the relay.
pub struct Link {
    socket: Mutex<UnixStream>,
    said: Mutex<Receiver<Said>>,
    // Standard output and standard error for everything else.
    pipes: [File; 2],
}

/// The connection, once [`connect`] has made it.
pub fn link() -> Option<&'static Link> {
    LINK.get()
}

/// Connect to the relay, if there is one.
///
/// # Errors
/// There should be one, and it cannot be reached.
pub fn connect() -> Result<()> {
    let Some(folder) = std::env::var_os("LAB_RELAY").filter(|folder| !folder.is_empty()) else {
        return Ok(());
    };
    let folder = PathBuf::from(folder);
    let what = || format!("connecting to the relay in {}", folder.display());
    let socket = UnixStream::connect(folder.join("socket")).with_context(what)?;
    let open = |name: &str| OpenOptions::new().write(true).open(folder.join(name));
    let pipes = [open("stdout").with_context(what)?, open("stderr").with_context(what)?];
    let heard = socket.try_clone().with_context(what)?;
    let (sender, said) = channel();
    std::thread::Builder::new()
        .name("the relay's words".to_string())
        .spawn(move || listen(heard, &sender))
        .with_context(what)?;
    let link = Link { socket: Mutex::new(socket), said: Mutex::new(said), pipes };
    link.send(&json!({ "op": "hello", "pid": std::process::id() }));
    // Standard error at once; standard output is evcxr's until its loop over the cells is ours.
    let _ = io::stderr().flush();
    replace(2, &link.pipes[1]).with_context(what)?;
    let _ = LINK.set(link);
    Ok(())
}

fn listen(socket: UnixStream, said: &Sender<Said>) {
    for line in BufReader::new(socket).lines().map_while(io::Result::ok) {
        let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let heard = match word {
            "c" => {
                interrupt::press(false);
                continue;
            }
            "i" => {
                interrupt::press(true);
                continue;
            }
            "m" => Said::Mark(rest.to_string()),
            "e" => Said::Ended,
            "r" => Said::Answer(serde_json::from_str(rest).unwrap_or_default()),
            _ => continue,
        };
        if said.send(heard).is_err() {
            return;
        }
    }
    // The relay is gone, and with it everybody who could see or end what runs here. evcxr is our
    // parent, and would otherwise stay.
    // SAFETY: plain system calls.
    unsafe {
        libc::kill(libc::getppid(), libc::SIGKILL);
        libc::_exit(0);
    }
}

impl Link {
    /// Text that a cell prints, on "stdout" or "stderr".
    pub fn text(&self, name: &str, text: &str) {
        self.send(&json!({ "op": "text", "name": name, "text": text }));
    }

    /// Write one message.
    pub fn send(&self, message: &Value) {
        self.wait_for_pipes();
        let mut line = message.to_string();
        line.push('\n');
        // Where the relay is gone, `listen` ends the process.
        let _ = lock(&self.socket).write_all(line.as_bytes());
    }

    /// Ask a question; `None` where the front-end cannot answer.
    pub fn ask(&self, prompt: &str, password: bool) -> Option<String> {
        let said = lock(&self.said);
        self.send(&json!({ "op": "input", "prompt": prompt, "password": password }));
        loop {
            match said.recv() {
                Ok(Said::Answer(answer)) => return answer,
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }

    /// The cell has ended: what of its output is meant for evcxr, once all of it is in the relay's
    /// hands.
    pub fn end_cell(&self) -> Vec<String> {
        let _ = io::stdout().flush();
        let said = lock(&self.said);
        self.send(&json!({ "op": "end" }));
        let mut marks = Vec::new();
        loop {
            match said.recv() {
                Ok(Said::Mark(line)) => marks.push(line),
                Ok(Said::Answer(_)) => {}
                Ok(Said::Ended) | Err(_) => return marks,
            }
        }
    }

    /// Let standard output be the pipe to the relay.
    ///
    /// # Errors
    /// The system refuses it.
    pub fn take_stdout(&self) -> io::Result<()> {
        io::stdout().flush()?;
        replace(1, &self.pipes[0])
    }

    // Until the relay has read what others wrote before. Not for ever: a program in the background
    // may write without end.
    fn wait_for_pipes(&self) {
        let start = Instant::now();
        while self.pipes.iter().any(|pipe| waiting(pipe) > 0) {
            if start.elapsed() > Duration::from_millis(200) {
                return;
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}

// How many bytes of the pipe nobody has read.
fn waiting(pipe: &File) -> libc::c_int {
    let mut count: libc::c_int = 0;
    // SAFETY: an open descriptor, and a place for the one number that the request gives.
    match unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut count) } {
        0 => count,
        _ => 0,
    }
}

/// Let the descriptor `number` be `with`.
///
/// # Errors
/// The system refuses it.
pub fn replace(number: i32, with: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: both are open descriptors.
    match unsafe { libc::dup2(with.as_raw_fd(), number) } {
        done if done == number => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

// What a panic in another thread left is whole: each message is written at once.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
