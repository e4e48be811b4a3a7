//! What the tests' Hub has, and the look into a cache: are all of its files whole?

use crate::server::{Reply, Request, Server};
use consistency::hub::{Hub, HubSettings, Token};
use consistency::{Error, Result, ensure};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub const ID: &str = "lab/toy";
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
pub const OTHER_COMMIT: &str = "76543210fedcba9876543210fedcba9876543210";
pub const TOKEN: &str = "hf_AnEntirelySecretToken42";

/// A small file and a large one: the second lies on another server, under its SHA-256.
pub const SMALL: &str = "unet/config.json";
pub const LARGE: &str = "weights.safetensors";

/// The content of a file of the tests' repository.
pub fn content(name: &str) -> Vec<u8> {
    let length = if name == LARGE { 300_000 } else { 100_000 };
    let seed = name.len();
    (0..length)
        .map(|i: usize| (i.wrapping_mul(31).wrapping_add(seed + i / 251) % 256) as u8)
        .collect()
}

pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub fn git_blob(bytes: &[u8]) -> String {
    let digest = Sha1::new_with_prefix(format!("blob {}\0", bytes.len()));
    hex(&digest.chain_update(bytes).finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The Hub and the server where its large files lie.
pub struct World {
    pub hub: Server,
    pub storage: Server,
    pub cache: PathBuf,
}

impl World {
    /// With an empty cache of this name.
    pub fn new(name: &str) -> Result<Self> {
        let storage = Server::new(|request| part_of(request, Reply::new(200, content(LARGE))))?;
        let stored = storage.url();
        let hub = Server::new(move |request| resolve(request, &stored))?;
        let folder = format!("consistency-{}-hub-{name}", std::process::id());
        let cache = std::env::temp_dir().join(folder.replace(' ', "-")).join("hub");
        let _ = fs::remove_dir_all(&cache);
        Ok(Self { hub, storage, cache })
    }

    /// Settings that do not wait long.
    pub fn settings(&self) -> HubSettings {
        let mut settings = HubSettings::new(&self.hub.url(), &self.cache);
        settings.connect = Duration::from_millis(500);
        settings.stall = Duration::from_millis(250);
        settings.lock = Duration::from_secs(5);
        settings.retries = 3;
        settings.backoff = Duration::from_millis(2);
        settings.quiet = true;
        settings
    }

    pub fn client(&self) -> Result<Hub> {
        let mut settings = self.settings();
        settings.token = Some(Token::new(TOKEN)?);
        Hub::new(settings)
    }

    /// The repository's folder in the cache.
    pub fn folder(&self) -> PathBuf {
        self.cache.join("models--lab--toy")
    }

    /// Every blob has the content that its name says, every file of a snapshot the right
    /// bytes, and the token is nowhere.
    pub fn audit(&self) -> Result<()> {
        for path in files(&self.cache)? {
            let (bytes, name) = (fs::read(&path)?, path.display().to_string());
            ensure!(!name.contains(TOKEN), "the token is in the name of {name}");
            let token = bytes.windows(TOKEN.len()).any(|window| window == TOKEN.as_bytes());
            ensure!(!token, "the token is in {name}");
            let inside = path.strip_prefix(self.folder()).unwrap_or(&path);
            let mut parts = inside.iter().map(|part| part.to_string_lossy().into_owned());
            match parts.next().as_deref() {
                Some("snapshots") => {
                    let name = parts.skip(1).collect::<Vec<_>>().join("/");
                    ensure!(bytes == content(&name), "{name} of the snapshot is not whole");
                }
                Some("blobs") if !name.ends_with(".incomplete") => {
                    let etag = parts.next().unwrap_or_default();
                    let fits = [sha256(&bytes), git_blob(&bytes)].contains(&etag);
                    ensure!(fits || etag.len() < 40, "blob {etag} has another content");
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(folder) = self.cache.parent() {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

/// All files below a folder, links among them.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry?.path();
        match path.is_dir() {
            true => found.extend(files(&path)?),
            false => found.push(path),
        }
    }
    Ok(found)
}

/// The message of what must be refused.
pub fn message<T>(result: Result<T>) -> String {
    result.map(|_| "it was accepted".to_string()).unwrap_or_else(|error| error.to_string())
}

/// The first of these, which must be there.
pub fn first<T: Clone>(values: &[T]) -> Result<T> {
    values.first().cloned().ok_or_else(|| Error::new("there is none"))
}

/// The reply, or the part of it that the request's range asks for.
pub fn part_of(request: &Request, reply: Reply) -> Reply {
    let total = reply.body.len();
    let Some(start) = request.start() else { return reply };
    let end = request.header("range").and_then(|range| range.split('-').nth(1)?.parse().ok());
    let end = end.map_or(total, |last: usize| (last + 1).min(total));
    if start >= end {
        return Reply::new(416, "").with("content-range", &format!("bytes */{total}"));
    }
    let body = reply.body[start..end].to_vec();
    let range = format!("bytes {start}-{}/{total}", end - 1);
    let length = body.len().to_string();
    Reply { status: 206, body, ..reply }
        .with("content-length", &length)
        .with("content-range", &range)
}

// The Hub's protocol of files.
fn resolve(request: &Request, storage: &str) -> Reply {
    let missing = |code: &str| Reply::new(404, "no").with("x-error-code", code);
    let path = request.path.replacen("/new/toy/", "/lab/toy/", 1);
    let path = path.strip_prefix("/datasets").unwrap_or(&path);
    let Some(path) = path.strip_prefix("/lab/toy/resolve/") else {
        return missing("RepoNotFound");
    };
    let (revision, name) = path.split_once('/').unwrap_or((path, ""));
    if !["main", "pr%2F1", COMMIT].contains(&revision) {
        return missing("RevisionNotFound");
    }
    let bytes = content(name);
    match name {
        SMALL => part_of(request, Reply::new(200, bytes.clone()))
            .with("x-repo-commit", COMMIT)
            .with("etag", &format!("\"{}\"", git_blob(&bytes))),
        LARGE => Reply::new(302, "elsewhere")
            .with("x-repo-commit", COMMIT)
            .with("x-linked-etag", &format!("\"{}\"", sha256(&bytes)))
            .with("x-linked-size", &bytes.len().to_string())
            .with("location", &format!("{storage}/blob?signature=abc")),
        _ => missing("EntryNotFound").with("x-repo-commit", COMMIT),
    }
}
