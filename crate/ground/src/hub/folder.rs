//! A repository's folder in the cache, laid out like the Python library's.
//!
//! `blobs/ETAG` is a file's content, `snapshots/COMMIT/NAME` a relative link to it, `refs/REVISION`
//! the commit that a branch pointed to when the Hub was last asked. `.no_exist/COMMIT/NAME`
//! remembers that a commit has no such file.

use super::client::Client;
use super::target::{Kind, is_commit};
use crate::record::write_atomically;
use crate::{Context, Error, Result, bail};
use hf_hub::CacheRepo;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A repository's folder in the cache.
pub(super) struct Folder {
    root: PathBuf,
    locks: PathBuf,
    entries: CacheRepo,
}

// Two threads that write one reference would share one temporary file.
static REFERENCES: Mutex<()> = Mutex::new(());

impl Folder {
    pub(super) fn new(cache: &Path, kind: Kind, id: &str) -> Self {
        let repo = kind.repo(id, "main");
        let name = repo.folder_name();
        let entries = hf_hub::Cache::new(cache.to_path_buf()).repo(repo);
        Self { root: cache.join(&name), locks: cache.join(".locks").join(&name), entries }
    }

    /// The content under this ETag.
    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(etag)
    }

    /// The content that has come so far.
    pub(super) fn part(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(format!("{etag}.incomplete"))
    }

    /// The file `name` of this commit, where it is in the cache.
    pub(super) fn snapshot(&self, commit: &str, name: &str) -> Option<PathBuf> {
        Some(self.entries.pointer_path(commit).join(name)).filter(|path| path.is_file())
    }

    /// The files of this commit.
    pub(super) fn at(&self, commit: &str) -> PathBuf {
        self.entries.pointer_path(commit)
    }

    /// The commit that `revision` pointed to when the Hub was last asked.
    pub(super) fn reference(&self, revision: &str) -> Option<String> {
        let text = fs::read_to_string(self.root.join("refs").join(revision)).ok()?;
        Some(text.trim().to_string()).filter(|commit| is_commit(commit))
    }

    /// Remember which commit `revision` is.
    pub(super) fn refer(&self, revision: &str, commit: &str) -> Result<()> {
        let _one = REFERENCES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if self.reference(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.root.join("refs").join(revision);
        write_atomically(make_parent(&path)?, commit.as_bytes())
    }

    /// Whether it is known that this commit has no file `name`.
    pub(super) fn lacks(&self, commit: &str, name: &str) -> bool {
        self.root.join(".no_exist").join(commit).join(name).is_file()
    }

    /// Remember that this commit has no file `name`.
    pub(super) fn remember_lack(&self, commit: &str, name: &str) -> Result<()> {
        let path = self.root.join(".no_exist").join(commit).join(name);
        File::create(make_parent(&path)?).with_context(|| path.display().to_string())?;
        Ok(())
    }

    /// Give the content `etag` its name in the snapshot of `commit`.
    pub(super) fn link(&self, commit: &str, name: &str, etag: &str) -> Result<PathBuf> {
        let pointer = self.entries.pointer_path(commit).join(name);
        // From snapshots/COMMIT, and from each folder of the name, one up.
        let up = "../".repeat(2 + name.matches('/').count());
        let target = PathBuf::from(format!("{up}blobs/{etag}"));
        if fs::read_link(&pointer).is_ok_and(|there| there == target) && pointer.is_file() {
            return Ok(pointer);
        }
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let temporary =
            self.root.join("blobs").join(format!(".{}.{number}.link", std::process::id()));
        let place = || -> std::io::Result<()> {
            let _ = fs::remove_file(&temporary);
            link_or_copy(&target, &self.blob(etag), &temporary)?;
            fs::rename(&temporary, &pointer)
        };
        make_parent(&pointer)?;
        place()
            .inspect_err(|_| {
                let _ = fs::remove_file(&temporary);
            })
            .with_context(|| format!("writing {}", pointer.display()))?;
        Ok(pointer)
    }

    /// The lock on the content `etag`, which the Python library uses too. While another process
    /// holds it and its part grows, this waits; if nothing changes for as long as the settings
    /// allow, it gives up.
    pub(super) fn lock(&self, etag: &str, client: &Client) -> Result<File> {
        let path = self.locks.join(format!("{etag}.lock"));
        make_parent(&path)?;
        let (limit, part) = (client.settings.lock, self.part(etag));
        let length = || fs::metadata(&part).map_or(0, |data| data.len());
        let (mut seen, mut changed, mut noted) = (length(), Instant::now(), false);
        loop {
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
            let file = file.with_context(|| format!("opening {}", path.display()))?;
            match file.try_lock() {
                Ok(()) if is_still(&file, &path) => return Ok(file),
                Ok(()) => continue,
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => {
                    return Err(Error::from(error).context(format!("locking {}", path.display())));
                }
            }
            if length() != seen {
                (seen, changed) = (length(), Instant::now());
            }
            if changed.elapsed() > limit {
                bail!(
                    "{} is held by another process that has made no progress for {} s: end that \
                     process, then ask again",
                    path.display(),
                    limit.as_secs_f64()
                );
            }
            if !noted && changed.elapsed() > Duration::from_secs(1) {
                noted = true;
                client.note(&format!("note: waiting for another process: {}", path.display()));
            }
            sleep(Duration::from_millis(50));
        }
    }
}

/// The path, once its folder is there.
pub(super) fn make_parent(path: &Path) -> Result<&Path> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    Ok(path)
}

#[cfg(unix)]
fn link_or_copy(target: &Path, _blob: &Path, at: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, at)
}

// Links need rights there that most people do not have; the Python library copies too.
#[cfg(not(unix))]
fn link_or_copy(_target: &Path, blob: &Path, at: &Path) -> std::io::Result<()> {
    fs::copy(blob, at).map(|_| ())
}

// Some holders delete their lock file at the end: then this lock guards nothing.
#[cfg(unix)]
fn is_still(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(there)) => ours.dev() == there.dev() && ours.ino() == there.ino(),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_still(_file: &File, _path: &Path) -> bool {
    true
}
