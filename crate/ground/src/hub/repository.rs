//! A repository at a revision, and its files.

use super::client::{Client, Failure, FailureKind};
use super::download::Download;
use super::folder::Folder;
use super::metadata::Metadata;
use super::target::{Kind, Target, check_id, check_name, check_revision, is_commit};
use crate::{Error, Result};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// A repository at a revision.
///
/// All files of one value (and of its clones) come from one commit: the first file resolves a
/// branch to its commit, which is then kept. A new value resolves it anew.
#[derive(Clone)]
pub struct Repository {
    pub(super) client: Arc<Client>,
    pub(super) folder: Arc<Folder>,
    pub(super) kind: Kind,
    pub(super) id: String,
    pub(super) revision: String,
    held: Arc<OnceLock<String>>,
}

impl Repository {
    pub(super) fn new(client: &Arc<Client>, kind: Kind, id: &str, revision: &str) -> Result<Self> {
        check_id(id)?;
        check_revision(revision)?;
        let folder = Arc::new(Folder::new(&client.settings.cache, kind, id));
        let held = OnceLock::new();
        if is_commit(revision) {
            let _ = held.set(revision.to_string());
        }
        Ok(Self {
            client: Arc::clone(client),
            folder,
            kind,
            id: id.to_string(),
            revision: revision.to_string(),
            held: Arc::new(held),
        })
    }

    /// The path of the file `name`: from the cache, or fetched and verified.
    ///
    /// At a full commit the cache is searched first, and the network is not used at all if the file
    /// is there. A branch is resolved to its commit; if the network fails for a temporary reason,
    /// the last known commit serves, with a note on stderr.
    ///
    /// # Errors
    /// A name that leads out of the repository; no such file, revision or repository; no
    /// access; a network that fails again and again; content that is not what the Hub
    /// announced; a disk that cannot be written; offline, a file that is not in the cache.
    pub fn file(&self, name: &str) -> Result<PathBuf> {
        self.find(name).map_err(|failure| self.client.error(failure.error))
    }

    /// As [`Repository::file`], but `None` if the repository has no such file. Offline, `None` says
    /// that the cache has none.
    ///
    /// # Errors
    /// As [`Repository::file`] in all other cases.
    pub fn file_if_there(&self, name: &str) -> Result<Option<PathBuf>> {
        check_name(name)?;
        if self.client.settings.offline {
            return Ok(self.cached(name));
        }
        match self.find(name) {
            Ok(path) => Ok(Some(path)),
            Err(failure) if failure.kind == FailureKind::NoEntry => Ok(None),
            Err(failure) => Err(self.client.error(failure.error)),
        }
    }

    /// Whether the repository has a file `name`; it is not fetched. Offline, whether the cache has
    /// it.
    ///
    /// # Errors
    /// As [`Repository::file`], except for the missing file.
    pub fn has(&self, name: &str) -> Result<bool> {
        check_name(name)?;
        if self.cached(name).is_some() || self.client.settings.offline {
            return Ok(self.cached(name).is_some());
        }
        let revision = self.held.get().unwrap_or(&self.revision);
        match self.client.metadata(&self.target(revision, name), self.client.settings.retries) {
            Ok(_) => Ok(true),
            Err(failure) if failure.kind == FailureKind::NoEntry => Ok(false),
            Err(failure) => Err(self.client.error(failure.error)),
        }
    }

    /// The path of the file `name` if it is in the cache. Does not use the network.
    pub fn cached(&self, name: &str) -> Option<PathBuf> {
        check_name(name).ok()?;
        self.folder.snapshot(&self.commit()?, name)
    }

    /// `OWNER/NAME`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The branch, tag or commit that was asked for.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// The commit of the files: the one that is kept, or, before the first file, the last one that
    /// the cache has for this branch.
    pub fn commit(&self) -> Option<String> {
        self.held.get().cloned().or_else(|| self.folder.reference(&self.revision))
    }

    pub(super) fn commit_held(&self) -> Option<&String> {
        self.held.get()
    }

    // From now on this value's files are of this commit.
    pub(super) fn hold(&self, commit: &str) -> Result<()> {
        let held = self.held.get_or_init(|| commit.to_string());
        self.folder.refer(&self.revision, held)
    }

    pub(super) fn target<'a>(&'a self, revision: &'a str, file: &'a str) -> Target<'a> {
        Target { kind: self.kind, id: &self.id, revision, file }
    }

    fn find(&self, name: &str) -> Result<PathBuf, Failure> {
        check_name(name)?;
        if let Some(commit) = self.held.get() {
            return self.find_at(commit, name);
        }
        let cached = self.cached(name);
        if self.client.settings.offline {
            return cached.ok_or_else(|| self.not_cached(name));
        }
        // With the file at hand, a dead connection is not worth a long wait.
        let retries = self.client.settings.retries.min(cached.as_ref().map_or(usize::MAX, |_| 1));
        let target = self.target(&self.revision, name);
        match (self.client.metadata(&target, retries), cached) {
            (Ok(metadata), _) => {
                let held = self.held.get_or_init(|| metadata.commit.clone());
                let referred = self.folder.refer(&self.revision, held);
                // A cache that cannot be written will do, if the file is there.
                if let Some(path) = self.folder.snapshot(held, name) {
                    return Ok(path);
                }
                referred?;
                match *held == metadata.commit {
                    true => self.fetch(name, &metadata),
                    // Another thread asked just before the branch moved.
                    false => self.find_at(held, name),
                }
            }
            (Err(failure), Some(path)) if failure.leaves_the_cache() => {
                Ok(self.fall_back(&failure, path))
            }
            (Err(failure), _) => Err(failure),
        }
    }

    // At a commit: what the cache has of it stays true.
    fn find_at(&self, commit: &str, name: &str) -> Result<PathBuf, Failure> {
        if let Some(path) = self.folder.snapshot(commit, name) {
            return Ok(path);
        }
        if self.client.settings.offline {
            return Err(self.not_cached(name));
        }
        if self.folder.lacks(commit, name) {
            let message = format!("{} has no file {name} at revision {commit}", self.id);
            return Err(Failure::new(FailureKind::NoEntry, message));
        }
        let target = self.target(commit, name);
        match self.client.metadata(&target, self.client.settings.retries) {
            Ok(metadata) => self.fetch(name, &metadata),
            Err(failure) => {
                if failure.kind == FailureKind::NoEntry {
                    self.folder.remember_lack(commit, name)?;
                }
                Err(failure)
            }
        }
    }

    fn fetch(&self, name: &str, metadata: &Metadata) -> Result<PathBuf, Failure> {
        let (commit, folder) = (&metadata.commit, &*self.folder);
        let target = self.target(commit, name);
        Download { client: &self.client, folder, target: &target, metadata }.fetch()?;
        Ok(folder.link(commit, name, &metadata.etag)?)
    }

    fn fall_back(&self, failure: &Failure, path: PathBuf) -> PathBuf {
        let commit = self.held.get_or_init(|| self.commit().unwrap_or_default());
        self.client.note(&format!(
            "note: {}; {} is taken from the cache, at commit {commit}",
            failure.error, self.id
        ));
        path
    }

    fn not_cached(&self, name: &str) -> Failure {
        let Self { id, revision, client, .. } = self;
        Error::not_found(format!(
            "{name} of {id} at revision {revision} is not in the cache ({}), and HF_HUB_OFFLINE \
             forbids to fetch it: unset HF_HUB_OFFLINE, or copy the cache of a machine that has it",
            client.settings.cache.display()
        ))
        .into()
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repository")
            .field("id", &self.id)
            .field("revision", &self.revision)
            .field("commit", &self.commit())
            .finish()
    }
}
