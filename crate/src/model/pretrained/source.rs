//! Where published files come from.

use crate::hub::{Hub, Repository};
use crate::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};

/// A folder, a repository of the Hub at a revision, or a single file.
#[derive(Clone, Debug)]
pub struct Source(Place);

#[derive(Clone, Debug)]
enum Place {
    Folder(PathBuf),
    Flax(PathBuf),
    Hub(Repository),
}

impl Source {
    /// The folder `path`.
    ///
    /// # Errors
    /// No folder there.
    pub fn folder(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        ensure!(path.is_dir(), "there is no folder {}", path.display());
        Ok(Self(Place::Folder(path.to_path_buf())))
    }

    /// The flax file `path`, whose name ends in `.msgpack` or has no ending.
    ///
    /// # Errors
    /// No such file, or one that is something else by its name.
    pub fn file_of_flax(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        ensure!(path.is_file(), "there is no file {}", path.display());
        ensure!(
            path.extension().is_none_or(|end| end == "msgpack"),
            "{} is a file: known are folders in diffusers' layout, and flax files, whose name \
             ends in .msgpack or has no ending",
            path.display()
        );
        Ok(Self(Place::Flax(path.to_path_buf())))
    }

    pub(super) fn flax(&self) -> Option<&Path> {
        match &self.0 {
            Place::Flax(path) => Some(path),
            Place::Folder(_) | Place::Hub(_) => None,
        }
    }

    /// The folder or flax file `id_or_folder` where one of that name exists, or where it
    /// begins with `.` or `/`; else the repository `OWNER/NAME` of the Hub at `revision`, or at
    /// the one in `OWNER/NAME@REVISION`, or at its main branch.
    ///
    /// # Errors
    /// No such folder, a name that is neither, or a repository that cannot be reached.
    pub fn find(id_or_folder: &str, revision: Option<&str>) -> Result<Self> {
        let path = Path::new(id_or_folder);
        if path.is_file() {
            return Self::file_of_flax(path);
        }
        if path.is_dir() || id_or_folder.starts_with(['.', '/']) {
            ensure!(
                revision.is_none(),
                "{id_or_folder} is a folder: a revision belongs to a repository of the Hub"
            );
            return Self::folder(path);
        }
        // OWNER/NAME@REVISION is one name, for a configuration.
        let (id, pinned) = match id_or_folder.split_once('@') {
            Some((id, pinned)) => (id, Some(pinned)),
            None => (id_or_folder, None),
        };
        ensure!(
            id.split('/').filter(|part| !part.is_empty()).count() == 2,
            "{id_or_folder} is neither a folder nor a repository of the Hub (OWNER/NAME)"
        );
        ensure!(
            revision.is_none() || pinned.is_none(),
            "{id_or_folder} names a revision, and {} is another",
            revision.unwrap_or_default()
        );
        let repository = Hub::from_env()?.model(id, revision.or(pinned).unwrap_or("main"))?;
        Ok(Self(Place::Hub(repository)))
    }

    /// Where `name` lies on this machine; it is fetched where it is not there yet.
    ///
    /// # Errors
    /// No such file, or one that cannot be fetched.
    pub fn file(&self, name: &str) -> Result<PathBuf> {
        match &self.0 {
            Place::Hub(repository) => repository.file(name),
            Place::Flax(path) => bail!("{} is one file, without {name}", path.display()),
            Place::Folder(folder) => {
                let path = folder.join(name);
                ensure!(path.is_file(), "{} holds no {name}", folder.display());
                Ok(path)
            }
        }
    }

    /// As [`Source::file`], and none where there is no such file.
    ///
    /// # Errors
    /// A file that cannot be fetched.
    pub fn file_if_there(&self, name: &str) -> Result<Option<PathBuf>> {
        match &self.0 {
            Place::Hub(repository) => repository.file_if_there(name),
            Place::Flax(_) => Ok(None),
            Place::Folder(folder) => Ok(Some(folder.join(name)).filter(|path| path.is_file())),
        }
    }
}

impl Source {
    /// Whether it has a file `name`, which is not fetched.
    ///
    /// # Errors
    /// A repository that cannot be asked.
    pub fn is_there(&self, name: &str) -> Result<bool> {
        match &self.0 {
            Place::Hub(repository) => repository.has(name),
            Place::Flax(_) => Ok(false),
            Place::Folder(folder) => Ok(folder.join(name).is_file()),
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Place::Folder(folder) | Place::Flax(folder) => write!(f, "{}", folder.display()),
            Place::Hub(repository) => write!(f, "{}", repository.id()),
        }
    }
}

pub(super) fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}
