//! The one error type: a message that names the thing, the value and the remedy.

use std::borrow::Cow;
use std::fmt;

/// The longest word kept in a message: longer than any path. Anything longer is a value from a
/// damaged file, and its beginning says enough.
const LONGEST: usize = 4200;
const SHOWN: usize = 200;

/// What went wrong, in one message.
///
/// The message is the interface: it names the file or the field, the offending
/// value and what to do. The cause, where there is one, is part of it.
///
/// ```
/// use consistency::Error;
/// let error = Error::new("batch is 0; give at least 1").context("reading cd.toml");
/// assert_eq!(error.to_string(), "reading cd.toml: batch is 0; give at least 1");
/// ```
pub struct Error(Box<str>);

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error with this message; words of thousands of letters are cut short.
    pub fn new(message: impl Into<String>) -> Self {
        let message = message.into();
        let fits = message.len() <= LONGEST || message.split(' ').all(|word| word.len() <= LONGEST);
        Self(if fits { message.into() } else { shortened(&message).into() })
    }

    /// The same error, with what was being done in front of its message.
    pub fn context(self, doing: impl fmt::Display) -> Self {
        Self::new(format!("{doing}: {}", self.0))
    }
}

fn shortened(message: &str) -> String {
    let word = |word| -> Cow<str> {
        let whole: &str = word;
        match whole.char_indices().nth(SHOWN) {
            Some((end, _)) if whole.len() > LONGEST => {
                format!("{}.. ({} letters)", &whole[..end], whole.chars().count()).into()
            }
            _ => whole.into(),
        }
    };
    message.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// A failing `unwrap` or `main` prints the Debug form: it is the message too.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        // With RUST_BACKTRACE set, candle prints the stack instead of the message's end.
        match error {
            candle_core::Error::WithBacktrace { inner, .. } => Self::from(*inner),
            candle_core::Error::WithPath { inner, path } => {
                Self::from(*inner).context(path.display())
            }
            other => Self::new(other.to_string()),
        }
    }
}

/// Our error inside candle's, for the code that candle calls back (custom operations).
impl From<Error> for candle_core::Error {
    fn from(error: Error) -> Self {
        Self::Msg(error.0.into())
    }
}

impl From<polars_error::PolarsError> for Error {
    fn from(error: polars_error::PolarsError) -> Self {
        Self::new(error.to_string())
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::new(error.to_string())
    }
}

impl From<safetensors::SafeTensorError> for Error {
    fn from(error: safetensors::SafeTensorError) -> Self {
        Self::new(error.to_string())
    }
}

/// `context` for any result whose error becomes an [`Error`].
pub trait Context<T> {
    /// Put what was being done in front of the error, if there is one.
    fn context(self, doing: impl fmt::Display) -> Result<T>;
    /// As [`Context::context`], but the text is made only when it is needed.
    fn with_context<D: fmt::Display>(self, doing: impl FnOnce() -> D) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, doing: impl fmt::Display) -> Result<T> {
        self.map_err(|error| error.into().context(doing))
    }

    fn with_context<D: fmt::Display>(self, doing: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|error| error.into().context(doing()))
    }
}

/// Return early with an [`Error`] whose message is written as for `format!`.
#[macro_export]
macro_rules! bail {
    ($($arg:tt)*) => { return Err($crate::Error::new(format!($($arg)*))) };
}

/// [`bail!`] unless the condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($arg:tt)*) => {
        if !$condition { $crate::bail!($($arg)*) }
    };
}
