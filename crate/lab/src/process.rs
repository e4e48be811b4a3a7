//! Running other programs: their output goes to a log, and to whoever follows a step.

use crate::Result;
use crate::place::{Place, Turn};
use crate::shell;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A program that runs to its end with its output in `NAME.log`.
pub struct Logged {
    command: Command,
    name: String,
    log: PathBuf,
}

impl Logged {
    /// `program`, logged under `name`.
    pub fn new(place: &Place, name: &str, program: impl AsRef<OsStr>) -> Self {
        let mut command = shell::command(program);
        command.current_dir(&place.project);
        Self { command, name: name.to_string(), log: place.logs().join(format!("{name}.log")) }
    }

    pub fn command(&mut self) -> &mut Command {
        &mut self.command
    }

    /// Run it; `line` sees every line of standard error as it comes. Returns its standard output.
    ///
    /// # Errors
    /// It could not be started, or it failed; the message has the end of its log.
    pub fn run(mut self, turn: &Turn, mut line: impl FnMut(&str)) -> Result<String> {
        let failed = |e: std::io::Error| format!("{}: {e}", self.name);
        if let Some(folder) = self.log.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        let mut log = File::create(&self.log).map_err(failed)?;
        let _ = writeln!(log, "{:?}", self.command);
        self.command.stdin(turn.share()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let program = self.command.get_program().to_string_lossy().into_owned();
        let mut child = self
            .command
            .spawn()
            .map_err(|e| format!("starting {program} for {}: {e}", self.name))?;
        let stdout = child.stdout.take();
        let reader =
            std::thread::spawn(move || stdout.map_or(Ok(String::new()), std::io::read_to_string));
        let mut last: Vec<String> = Vec::new();
        if let Some(stderr) = child.stderr.take() {
            let mut stderr = BufReader::new(stderr);
            let mut bytes = Vec::new();
            while stderr.read_until(b'\n', &mut bytes).map_err(failed)? > 0 {
                let text = String::from_utf8_lossy(&bytes).trim_end().to_string();
                let _ = writeln!(log, "{text}");
                line(&text);
                last.push(text);
                if last.len() > 400 {
                    last.drain(..200);
                }
                bytes.clear();
            }
        }
        let status = child.wait().map_err(failed)?;
        let output = reader
            .join()
            .map_err(|_| format!("{}: its output could not be read", self.name))?
            .map_err(failed)?;
        if status.success() {
            return Ok(output);
        }
        let _ = write!(log, "{output}");
        let noise = |l: &&String| {
            let l = l.trim_start();
            l.starts_with("Compiling ") || l.starts_with("Downloaded ") || l.is_empty()
        };
        let kept: Vec<&String> = last.iter().filter(|l| !noise(l)).collect();
        let end: Vec<&str> =
            kept[kept.len().saturating_sub(40)..].iter().map(|l| l.as_str()).collect();
        Err(format!(
            "{} failed ({status}); the whole log is {}\n{}",
            self.name,
            self.log.display(),
            end.join("\n")
        ))
    }
}

/// The output of a short command, or why there is none.
pub fn answer(program: impl AsRef<OsStr>, arguments: &[&str]) -> Result<String> {
    let name = program.as_ref().to_string_lossy().into_owned();
    let output = shell::command(&program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("{name}: {e}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_string())
    } else {
        let errors = String::from_utf8_lossy(&output.stderr);
        Err(format!("{name} {}: {}", arguments.join(" "), errors.trim()))
    }
}

/// As long as it lives, Ctrl-C does not end this program: it is for the one that it waits for.
pub struct WithoutInterrupts(libc::sighandler_t);

/// Leave Ctrl-C to the program that is waited for.
pub fn without_interrupts() -> WithoutInterrupts {
    // SAFETY: no handler of ours runs; a signal is ignored.
    WithoutInterrupts(unsafe { libc::signal(libc::SIGINT, libc::SIG_IGN) })
}

impl Drop for WithoutInterrupts {
    fn drop(&mut self) {
        // SAFETY: what it was before.
        unsafe { libc::signal(libc::SIGINT, self.0) };
    }
}
