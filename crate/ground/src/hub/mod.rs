//! Files of the Hugging Face Hub, fetched once, verified and kept.
//!
//! The cache on disk is that of the Python library (`huggingface_hub`), and so are the environment
//! variables: what either has fetched, the other finds. Names and layout come from `hf-hub`; the
//! transfer is implemented here, because the one in `hf-hub` waits forever for a silent server
//! and takes a short body for a whole file.
//!
//! A file enters the cache by one rename, once its length and its hash are those that the Hub
//! announced (SHA-256 for large files, git's blob hash for small ones). Requests that fail for a
//! temporary reason are retried, and a transfer resumes where it ended.
//!
//! ```no_run
//! use consistency::hub::Hub;
//! let hub = Hub::from_env()?;
//! let unet = hub.model("google/ddpm-cifar10-32", "main")?;
//! let config = unet.file("config.json")?;
//! # Ok::<(), consistency::Error>(())
//! ```

mod client;
mod digest;
mod download;
mod explain;
mod folder;
mod listing;
mod metadata;
mod pattern;
mod progress;
mod proxy;
mod repository;
mod settings;
mod stall;
mod target;
mod token;
mod upload;

pub use proxy::Proxies;
pub use repository::Repository;
pub use settings::HubSettings;
pub use token::Token;
pub use upload::{Upload, UploadMode, Uploaded};

use crate::Result;
use client::Client;
use std::fmt;
use std::sync::Arc;
use target::Kind;

/// The Hub, or a server that speaks its protocol.
///
/// Cheap to clone; clones share connections. Its `Debug` form shows no token.
///
/// ```
/// use consistency::hub::{Hub, HubSettings};
/// let settings = HubSettings::new("https://huggingface.co", "a-folder");
/// let hub = Hub::new(HubSettings { offline: true, ..settings })?;
/// assert!(hub.offline());
/// assert!(hub.model("google/ddpm-cifar10-32", "main").is_ok());
/// assert!(hub.model("two names", "main").is_err());
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone)]
pub struct Hub {
    client: Arc<Client>,
}

impl Hub {
    /// The Hub that the environment names ([`HubSettings::from_env`]).
    ///
    /// # Errors
    /// A variable whose value is invalid.
    pub fn from_env() -> Result<Self> {
        Self::new(HubSettings::from_env()?)
    }

    /// The Hub under these settings. No request is made yet.
    ///
    /// # Errors
    /// An endpoint that is not an http or https address.
    pub fn new(settings: HubSettings) -> Result<Self> {
        Ok(Self { client: Arc::new(Client::new(settings)?) })
    }

    /// The model repository `id`, `OWNER/NAME`, at a branch, a tag or a commit.
    ///
    /// # Errors
    /// Names that the Hub does not allow. Whether the repository exists is known only once a file
    /// is requested.
    pub fn model(&self, id: &str, revision: &str) -> Result<Repository> {
        Repository::new(&self.client, Kind::Model, id, revision)
    }

    /// The dataset repository `id`; as [`Hub::model`].
    pub fn dataset(&self, id: &str, revision: &str) -> Result<Repository> {
        Repository::new(&self.client, Kind::Dataset, id, revision)
    }

    /// Whether the network is left alone (`HF_HUB_OFFLINE`).
    pub fn offline(&self) -> bool {
        self.client.settings.offline
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hub").field(&self.client.settings).finish()
    }
}
