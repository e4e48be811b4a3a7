//! Text that people write: anything else gets one message that fits on a screen.

use crate::{Error, Result, ensure};
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// No text that a person writes is longer. A device or a file of weights may be.
const LONGEST: u64 = 16 << 20;
/// What is shown of a line.
const SHOWN: usize = 300;

/// The text of a file. The caller says which (`with_context`).
///
/// # Errors
/// A file that cannot be read, is longer than 16 MiB or is not UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LONGEST + 1).read_to_end(&mut bytes)?;
    ensure!(
        bytes.len() as u64 <= LONGEST,
        "it is longer than {} MiB: a file of text is wanted here",
        LONGEST >> 20
    );
    let wrong = |error: std::string::FromUtf8Error| {
        let at = error.utf8_error().valid_up_to();
        Error::new(format!("byte {at} is not UTF-8: a file of text is wanted here"))
    };
    String::from_utf8(bytes).map_err(wrong)
}

/// The value that TOML describes.
///
/// # Errors
/// Text that is not TOML or does not hold a `T`: by line and field.
pub fn from_toml<T: DeserializeOwned>(text: &str) -> Result<T> {
    toml::from_str(text).map_err(|error| Error::new(fitting(&error.to_string())))
}

// The message quotes a line of the file, and names from it, however long they are.
fn fitting(message: &str) -> String {
    let line = |line: &str| {
        let shown: String = line
            .chars()
            .take(SHOWN)
            .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
            .collect();
        let cut = line.chars().nth(SHOWN).is_some();
        if cut { format!("{shown}...") } else { shown }
    };
    message.lines().map(line).collect::<Vec<_>>().join("\n")
}
