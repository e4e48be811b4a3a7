//! One process that reads mutated files, one after another, and says of each what came of it.

use crate::formula::Folder;
use crate::mutate::mutated;
use crate::seeds::{Reader, readers};
use consistency::rng::Key;
use consistency::{Context, Error, Result};
use std::fs::{self, File};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// `READER FIRST END`, for the child.
pub const ASKED: &str = "CONSISTENCY_MUTATIONS";
/// The file that the child writes what came out into.
pub const OUTCOMES: &str = "CONSISTENCY_MUTATIONS_OUTCOMES";

/// What a mutation has come to, as the child writes it: a line a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has begun.
    Begun(u64),
    /// The file was read.
    Read(u64),
    /// It was refused with one error that names it.
    Refused(u64),
    /// It did neither.
    Wrong(u64, String),
}

impl Outcome {
    fn line(&self) -> String {
        match self {
            Self::Begun(step) => format!("begun {step}\n"),
            Self::Read(step) => format!("read {step}\n"),
            Self::Refused(step) => format!("refused {step}\n"),
            Self::Wrong(step, why) => format!("wrong {step} {}\n", why.replace('\n', " | ")),
        }
    }

    /// The outcome of a line of [`Outcome::line`]; none of one that was not written to its end.
    pub fn of(line: &str) -> Option<Self> {
        let (kind, rest) = line.split_once(' ')?;
        let (step, why) = rest.split_once(' ').unwrap_or((rest, ""));
        let step = step.parse().ok()?;
        match kind {
            "begun" => Some(Self::Begun(step)),
            "read" => Some(Self::Read(step)),
            "refused" => Some(Self::Refused(step)),
            "wrong" => Some(Self::Wrong(step, why.to_string())),
            _ => None,
        }
    }
}

// What was printed by a panic, also by one that was caught.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Read the mutations that the environment asks for.
pub fn work(asked: &str) -> Result<()> {
    let parts: Vec<&str> = asked.split(' ').collect();
    let [name, first, end] = parts.as_slice() else {
        return Err(Error::new(format!("{ASKED} = '{asked}': give 'READER FIRST END'")));
    };
    let number = |text: &str| {
        text.parse::<u64>().map_err(|_| Error::new(format!("{ASKED}: '{text}' is not a number")))
    };
    let Some(reader) = readers().into_iter().find(|reader| reader.name == *name) else {
        return Err(Error::new(format!("{ASKED}: there is no reader {name}")));
    };
    let mut outcomes = std::env::var_os(OUTCOMES).map(File::create).transpose()?;
    let mut say = |outcome: &Outcome| -> Result<()> {
        match &mut outcomes {
            Some(file) => Ok(file.write_all(outcome.line().as_bytes())?),
            None => {
                println!("{}", outcome.line().trim_end());
                Ok(())
            }
        }
    };
    let folder = Folder::new(&format!("mutations-{name}"))?;
    let files = (reader.setup)(&folder)?;
    let seeds = files.iter().map(fs::read).collect::<std::io::Result<Vec<_>>>()?;
    // Before the first guard of the library, which keeps the hook that it finds.
    std::panic::set_hook(Box::new(|info| {
        PANICS.lock().unwrap_or_else(PoisonError::into_inner).push(info.to_string());
    }));
    // A seed that is refused itself would make every refusal a good one.
    for file in &files {
        (reader.read)(&folder.0, file).with_context(|| format!("the seed {}", file.display()))?;
    }
    let key = Key::new(0).stream(name);
    for step in number(first)?..number(end)? {
        say(&Outcome::Begun(step))?;
        let which = step as usize % files.len();
        let bytes = mutated(&seeds[which], reader.format, &key.step(step));
        fs::write(&files[which], bytes)?;
        let outcome = judge(&reader, &folder.0, &files[which], step);
        fs::write(&files[which], &seeds[which])?;
        say(&outcome)?;
    }
    Ok(())
}

fn judge(reader: &Reader, folder: &Path, file: &Path, step: u64) -> Outcome {
    let read = catch_unwind(AssertUnwindSafe(|| (reader.read)(folder, file)));
    let panics = std::mem::take(&mut *PANICS.lock().unwrap_or_else(PoisonError::into_inner));
    let result = match read {
        _ if !panics.is_empty() => return Outcome::Wrong(step, panics.join("; ")),
        Err(_) => return Outcome::Wrong(step, "a panic without a hook".to_string()),
        Ok(result) => result,
    };
    let Err(error) = result else { return Outcome::Read(step) };
    let message = error.to_string();
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if !message.contains(&name) && !message.contains(&folder.display().to_string()) {
        return Outcome::Wrong(step, format!("the message does not name the file: {message}"));
    }
    if message.len() > 8000 {
        return Outcome::Wrong(step, format!("a message of {} letters", message.len()));
    }
    Outcome::Refused(step)
}
