//! The one error type: a message that names the thing, the value and the remedy.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::io;

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
///
/// A program that continues after an error can check which kind it is. There are four, one for each
/// thing that a program may do about it; all other errors are for a person to read and act on.
/// Context added in front keeps the kind.
///
/// | kind | what happened | what a program may do |
/// |---|---|---|
/// | [`is_not_found`](Error::is_not_found) | a name leads to nothing | make it, or take another |
/// | [`is_offline`](Error::is_offline) | a server was not reached, or is busy | try later |
/// | [`is_stopped`](Error::is_stopped) | a run was asked to stop | resume it |
/// | [`is_diverged`](Error::is_diverged) | a training diverged | try other settings |
///
/// `source()` of [`std::error::Error`] is the error of another library (`std::io`, candle, polars,
/// safetensors) that this one was made from, to be downcast to its type. As its text is part of the
/// message already, print the message alone, and not the chain of sources.
///
/// ```
/// use consistency::{Context, Error};
/// use std::error::Error as _;
/// let read = std::fs::read("no-such-folder/cd.toml");
/// let error = read.context("reading cd.toml").unwrap_err();
/// let source = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
/// assert_eq!(error.to_string(), format!("reading cd.toml: {}", source.unwrap()));
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    message: Box<str>,
    kind: Kind,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

// Private, so that a kind can be added; the public names are the methods `is_..`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Other,
    NotFound,
    Offline,
    Stopped,
    Diverged,
}

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of no special kind; words of thousands of letters are cut short.
    pub fn new(message: impl Into<String>) -> Self {
        Self::of(Kind::Other, message.into())
    }

    /// An error for which [`Error::is_not_found`] holds.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::of(Kind::NotFound, message.into())
    }

    /// An error for which [`Error::is_offline`] holds.
    pub fn offline(message: impl Into<String>) -> Self {
        Self::of(Kind::Offline, message.into())
    }

    /// An error for which [`Error::is_stopped`] holds.
    pub fn stopped(message: impl Into<String>) -> Self {
        Self::of(Kind::Stopped, message.into())
    }

    /// An error for which [`Error::is_diverged`] holds.
    pub fn diverged(message: impl Into<String>) -> Self {
        Self::of(Kind::Diverged, message.into())
    }

    /// Whether something that was named does not exist: a file or a folder, a run, a dataset or
    /// its split, a reproduction, a file or a repository of the Hub. A file that is not in the
    /// Hub's cache while `HF_HUB_OFFLINE` is set counts too.
    ///
    /// ```
    /// use consistency::experiment::RunFolder;
    /// let error = RunFolder::open("runs/no-such-run".as_ref()).unwrap_err();
    /// assert!(error.is_not_found());
    /// ```
    pub fn is_not_found(&self) -> bool {
        self.0.kind == Kind::NotFound
    }

    /// Whether a server could not be reached, fell silent, or was too busy, again and again: later
    /// the same call may succeed.
    ///
    /// ```
    /// use consistency::hub::{Hub, HubSettings};
    /// // Nothing listens on this port.
    /// let mut settings = HubSettings::new("http://127.0.0.1:1", std::env::temp_dir());
    /// settings.retries = 0;
    /// let model = Hub::new(settings)?.model("openai/no-such-model", "main")?;
    /// assert!(model.file("config.json").unwrap_err().is_offline());
    /// # Ok::<(), consistency::Error>(())
    /// ```
    pub fn is_offline(&self) -> bool {
        self.0.kind == Kind::Offline
    }

    /// Whether a run ended before its last step because it was asked to: it resumes there.
    ///
    /// ```
    /// # use consistency::Error;
    /// # let join = || Err::<(), _>(Error::stopped("digits-cd was stopped at step 800 of 2000"));
    /// match join() {
    ///     Err(error) if error.is_stopped() => println!("{error}"),
    ///     ended => ended?,
    /// }
    /// # Ok::<(), Error>(())
    /// ```
    pub fn is_stopped(&self) -> bool {
        self.0.kind == Kind::Stopped
    }

    /// Whether a training diverged: a loss, a gradient or a parameter is not finite, or its method
    /// says that the loss will not come back.
    ///
    /// ```
    /// # use consistency::Error;
    /// # let join = || Err::<f64, _>(Error::diverged("the loss is NaN"));
    /// let loss = match join() {
    ///     Err(error) if error.is_diverged() => f64::INFINITY, // this learning rate is too large
    ///     ended => ended?,
    /// };
    /// assert_eq!(loss, f64::INFINITY);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn is_diverged(&self) -> bool {
        self.0.kind == Kind::Diverged
    }

    /// The same error, with what was being done in front of its message.
    pub fn context(self, doing: impl fmt::Display) -> Self {
        self.reworded(|message| format!("{doing}: {message}"))
    }

    /// The same error, its kind and its source, with another message made from its own.
    ///
    /// ```
    /// use consistency::Error;
    /// let error = Error::diverged("the loss is NaN").reworded(|text| format!("{text}; stop"));
    /// assert_eq!(error.to_string(), "the loss is NaN; stop");
    /// assert!(error.is_diverged());
    /// ```
    #[must_use]
    pub fn reworded(mut self, message: impl FnOnce(&str) -> String) -> Self {
        self.0.message = fitting(message(&self.0.message));
        self
    }

    /// The message and the kind once more, without the source: for a result that is kept for another
    /// caller.
    #[must_use]
    pub fn again(&self) -> Self {
        Self::of(self.0.kind, self.0.message.to_string())
    }

    fn of(kind: Kind, message: String) -> Self {
        Self(Box::new(Inner { message: fitting(message), kind, source: None }))
    }

    // From an error of another library, with that error's message.
    fn from_source(kind: Kind, source: impl StdError + Send + Sync + 'static) -> Self {
        let mut error = Self::of(kind, source.to_string());
        error.0.source = Some(Box::new(source));
        error
    }
}

fn fitting(message: String) -> Box<str> {
    let fits = message.len() <= LONGEST || message.split(' ').all(|word| word.len() <= LONGEST);
    if fits { message.into() } else { shortened(&message).into() }
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
        f.write_str(&self.0.message)
    }
}

// A failing `unwrap` or `main` prints the Debug form: it is the message too.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        // With RUST_BACKTRACE set, candle prints the stack instead of the message's end.
        match error {
            candle_core::Error::WithBacktrace { inner, .. } => Self::from(*inner),
            candle_core::Error::WithPath { inner, path } => {
                Self::from(*inner).context(path.display())
            }
            candle_core::Error::Io(error) => Self::from(error),
            other => Self::from_source(Kind::Other, other),
        }
    }
}

/// Our error inside candle's, for the code that candle calls back (custom operations). Converted
/// back, it is the same error again.
impl From<Error> for candle_core::Error {
    fn from(error: Error) -> Self {
        // Of the variants of candle's error that hold another error, this one gives it back.
        Self::Io(io::Error::other(error))
    }
}

impl From<polars_error::PolarsError> for Error {
    fn from(error: polars_error::PolarsError) -> Self {
        let kind = match &error {
            polars_error::PolarsError::IO { error, .. } => kind_of(error),
            _ => Kind::Other,
        };
        Self::from_source(kind, error)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(ours) => ours,
            Err(error) => Self::from_source(kind_of(&error), error),
        }
    }
}

fn kind_of(error: &io::Error) -> Kind {
    match error.kind() {
        io::ErrorKind::NotFound => Kind::NotFound,
        _ => Kind::Other,
    }
}

impl From<safetensors::SafeTensorError> for Error {
    fn from(error: safetensors::SafeTensorError) -> Self {
        let kind = match &error {
            safetensors::SafeTensorError::IoError(error) => kind_of(error),
            _ => Kind::Other,
        };
        Self::from_source(kind, error)
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

/// Return early with an [`Error`] whose message is written as for `format!`. A kind may come first,
/// by the name of its constructor.
///
/// ```
/// # use consistency::{Result, bail};
/// let stop = |step: u64| -> Result<()> { bail!(stopped: "stopped at step {step}") };
/// assert!(stop(3).unwrap_err().is_stopped());
/// ```
#[macro_export]
macro_rules! bail {
    ($kind:ident: $($arg:tt)*) => { return Err($crate::Error::$kind(format!($($arg)*))) };
    ($($arg:tt)*) => { return Err($crate::Error::new(format!($($arg)*))) };
}

/// [`bail!`] unless the condition holds.
///
/// ```
/// # use consistency::{Result, ensure};
/// let check = |loss: f64| -> Result<()> {
///     ensure!(diverged: loss.is_finite(), "the loss is {loss}");
///     Ok(())
/// };
/// assert!(check(0.5).is_ok());
/// assert!(check(f64::NAN).unwrap_err().is_diverged());
/// ```
#[macro_export]
macro_rules! ensure {
    ($kind:ident: $condition:expr, $($arg:tt)*) => {
        if !$condition { $crate::bail!($kind: $($arg)*) }
    };
    ($condition:expr, $($arg:tt)*) => {
        if !$condition { $crate::bail!($($arg)*) }
    };
}
