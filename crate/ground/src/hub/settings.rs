//! Where the Hub is, where its files are kept, and how long to wait.

use super::proxy::Proxies;
use super::token::{Token, scrub};
use crate::{Context, Error, Result, bail};
use std::cell::RefCell;
use std::env::{self, VarError};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How the Hub is reached.
#[derive(Clone)]
pub struct HubSettings {
    /// The server, `https://huggingface.co` or one that speaks its protocol; no slash at
    /// the end.
    pub endpoint: String,
    /// The folder of the cache, shared with the Python library.
    pub cache: PathBuf,
    /// Sent to the endpoint, and to no other server.
    pub token: Option<Token>,
    /// A file of certificates (PEM) of the authorities to trust, in place of Mozilla's.
    pub certificates: Option<PathBuf>,
    /// The proxies that servers are reached through.
    pub proxies: Proxies,
    /// Do not use the network; the cache alone answers.
    pub offline: bool,
    /// How long it may take to resolve a name, and to make a connection.
    pub connect: Duration,
    /// How long a server may be silent at any moment of a transfer. A transfer as a whole may take
    /// as long as it keeps moving, and the answer to an upload ten times this limit.
    pub stall: Duration,
    /// How long to wait for another process that holds a file and makes no progress with it.
    pub lock: Duration,
    /// How many times a request that failed for a temporary reason is retried.
    pub retries: usize,
    /// The wait before the first retry; it doubles from one to the next.
    pub backoff: Duration,
    /// No progress on stderr.
    pub quiet: bool,
}

/// The longest wait between two attempts, even if the server asks for more.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(60);

impl HubSettings {
    /// The defaults for this server and this folder, without a token or a proxy.
    pub fn new(endpoint: &str, cache: impl Into<PathBuf>) -> Self {
        Self {
            endpoint: endpoint.trim_end_matches('/').to_string(),
            cache: cache.into(),
            token: None,
            certificates: None,
            proxies: Proxies::default(),
            offline: false,
            connect: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            lock: Duration::from_secs(120),
            retries: 5,
            backoff: Duration::from_millis(500),
            quiet: false,
        }
    }

    /// What the environment says, by the names of the Python library:
    ///
    /// | variable | what | without it |
    /// |---|---|---|
    /// | `HF_ENDPOINT` | the server | `https://huggingface.co` |
    /// | `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE` | the cache | `$HF_HOME/hub` |
    /// | `HF_HOME` | the folder of the cache and the token | `$XDG_CACHE_HOME/huggingface`, `~/.cache/huggingface` |
    /// | `HF_TOKEN`, `HUGGING_FACE_HUB_TOKEN` | the token | the file of the token |
    /// | `HF_TOKEN_PATH` | the file of the token | `$HF_HOME/token` |
    /// | `HF_HUB_DISABLE_IMPLICIT_TOKEN` | use no token | no |
    /// | `SSL_CERT_FILE`, `REQUESTS_CA_BUNDLE`, `CURL_CA_BUNDLE` | the authorities to trust | Mozilla's |
    /// | `https_proxy`, `http_proxy`, `all_proxy` | the HTTP proxy to go through, by the scheme of an address; a SOCKS proxy is refused when it is needed | none |
    /// | `no_proxy` | hosts that are reached without: names and all below them, addresses, networks (`10.0.0.0/8`), `*` | none, but this machine |
    /// | `HF_HUB_OFFLINE` | ask nothing of the network | no |
    /// | `HF_HUB_DOWNLOAD_TIMEOUT` | seconds that a server may say nothing | 30 |
    /// | `HF_HUB_DISABLE_PROGRESS_BARS` | no progress on stderr | no |
    ///
    /// The four for proxies are also read in capitals.
    ///
    /// # Errors
    /// An invalid value; the message names the variable.
    pub fn from_env() -> Result<Self> {
        let odd = RefCell::new(None);
        let settings = Self::from_variables(|name| match env::var(name) {
            Ok(value) => Some(value),
            Err(VarError::NotPresent) => None,
            Err(VarError::NotUnicode(_)) => {
                odd.replace(Some(name.to_string()));
                None
            }
        });
        match odd.into_inner() {
            Some(name) => bail!("{name} is not UTF-8: set it anew, or unset it"),
            None => settings,
        }
    }

    /// As [`HubSettings::from_env`], where `variable` gives the value of a name.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        // A variable that is set to nothing counts as not set.
        let value = |name: &str| variable(name).filter(|text| !text.trim().is_empty());
        let home = home(&value)?;
        let cache = match value("HF_HUB_CACHE").or_else(|| value("HUGGINGFACE_HUB_CACHE")) {
            Some(path) => expand(&path, &value),
            None => home.join("hub"),
        };
        let endpoint = value("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        let mut settings = Self::new(endpoint.trim(), cache);
        check_endpoint(&settings.endpoint).context("HF_ENDPOINT")?;
        settings.proxies = Proxies::from_variables(&variable);
        settings.offline = flag("HF_HUB_OFFLINE", &value)?;
        settings.quiet = flag("HF_HUB_DISABLE_PROGRESS_BARS", &value)?;
        settings.certificates = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"]
            .into_iter()
            .find_map(&value)
            .map(PathBuf::from);
        if let Some(text) = value("HF_HUB_DOWNLOAD_TIMEOUT") {
            settings.stall = seconds(&text).context("HF_HUB_DOWNLOAD_TIMEOUT")?;
        }
        if !flag("HF_HUB_DISABLE_IMPLICIT_TOKEN", &value)? {
            settings.token = token(&home, &value)?;
        }
        Ok(settings)
    }
}

// Without the token, be it the field or part of an address.
impl fmt::Debug for HubSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubSettings")
            .field("endpoint", &scrub(&self.endpoint, self.token.as_ref()))
            .field("cache", &self.cache)
            .field("token", &self.token)
            .field("certificates", &self.certificates)
            .field("proxies", &self.proxies)
            .field("offline", &self.offline)
            .field("connect", &self.connect)
            .field("stall", &self.stall)
            .field("lock", &self.lock)
            .field("retries", &self.retries)
            .field("backoff", &self.backoff)
            .field("quiet", &self.quiet)
            .finish()
    }
}

/// An endpoint is an address of http or https with a host, and nothing after its path.
pub(super) fn check_endpoint(endpoint: &str) -> Result<()> {
    let wrong = || {
        let shown = scrub(endpoint, None);
        Error::new(format!("{shown:?} is not the address of a server; give https://HOST"))
    };
    let uri: ureq::http::Uri = endpoint.parse().map_err(|_| wrong())?;
    match (uri.scheme_str(), uri.host(), uri.query()) {
        (Some("http" | "https"), Some(host), None) if !host.is_empty() => Ok(()),
        _ => Err(wrong()),
    }
}

fn home(value: &dyn Fn(&str) -> Option<String>) -> Result<PathBuf> {
    if let Some(path) = value("HF_HOME") {
        return Ok(expand(&path, value));
    }
    if let Some(path) = value("XDG_CACHE_HOME") {
        return Ok(expand(&path, value).join("huggingface"));
    }
    match value("HOME").or_else(|| value("USERPROFILE")) {
        Some(path) => Ok(Path::new(&path).join(".cache/huggingface")),
        None => bail!("there is no home folder: set HF_HOME to the folder of the Hub's files"),
    }
}

fn expand(path: &str, value: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    match path.strip_prefix("~/").zip(value("HOME")) {
        Some((below, home)) => Path::new(&home).join(below),
        None => path.into(),
    }
}

fn token(home: &Path, value: &dyn Fn(&str) -> Option<String>) -> Result<Option<Token>> {
    for name in ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"] {
        if let Some(text) = value(name) {
            return Token::new(&text).context(name).map(Some);
        }
    }
    let path = match value("HF_TOKEN_PATH") {
        Some(path) => expand(&path, value),
        None => hf_hub::Cache::new(home.join("hub")).token_path(),
    };
    match std::fs::read_to_string(&path) {
        Ok(text) if text.trim().is_empty() => Ok(None),
        Ok(text) => Token::new(&text).with_context(|| path.display().to_string()).map(Some),
        // A missing file means no token; one that cannot be read is a mistake to report.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("the token in {}", path.display())),
    }
}

fn flag(name: &str, value: &dyn Fn(&str) -> Option<String>) -> Result<bool> {
    let Some(text) = value(name) else { return Ok(false) };
    match text.trim().to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => bail!("{name} is {text:?}: give 1 or 0"),
    }
}

fn seconds(text: &str) -> Result<Duration> {
    match text.trim().parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 86_400.0 => Ok(Duration::from_secs_f64(seconds)),
        _ => bail!("{text:?} is not a number of seconds above 0 and up to a day"),
    }
}
