//! Where published files come from.

use crate::hub::{Hub, Repository};
use crate::{Context, Result, bail, ensure, record};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// How a pointer of Git LFS begins, and how many bytes it has at most.
const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";
const POINTER_BYTES: u64 = 1024;

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
        ensure!(not_found: path.is_dir(), "there is no folder {}", path.display());
        Ok(Self(Place::Folder(path.to_path_buf())))
    }

    /// The flax file `path`, whose name ends in `.msgpack` or has no ending.
    ///
    /// # Errors
    /// No such file, or one whose name says that it is something else.
    pub fn file_of_flax(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        ensure!(not_found: path.is_file(), "there is no file {}", path.display());
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

    /// Where `name` lies on this machine; it is fetched if it is not there yet.
    ///
    /// # Errors
    /// No such file, or one that cannot be fetched.
    pub fn file(&self, name: &str) -> Result<PathBuf> {
        match &self.0 {
            Place::Hub(repository) => repository.file(name),
            Place::Flax(path) => bail!(not_found: "{} is one file, without {name}", path.display()),
            Place::Folder(folder) => {
                let path = folder.join(name);
                ensure!(not_found: path.is_file(), "{} holds no {name}", folder.display());
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
    /// A repository that cannot be reached.
    pub fn is_there(&self, name: &str) -> Result<bool> {
        match &self.0 {
            Place::Hub(repository) => repository.has(name),
            Place::Flax(_) => Ok(false),
            Place::Folder(folder) => Ok(folder.join(name).is_file()),
        }
    }

    /// The names of its files that begin with `start`, as far as that can be found out: for a
    /// message.
    pub(super) fn names(&self, start: &str) -> Vec<String> {
        match &self.0 {
            Place::Hub(repository) => repository.matching(&format!("{start}*")).unwrap_or_default(),
            Place::Flax(_) => Vec::new(),
            Place::Folder(folder) => {
                let (inside, start) = start.rsplit_once('/').unwrap_or(("", start));
                let entries = std::fs::read_dir(folder.join(inside)).into_iter().flatten();
                let mut names: Vec<String> = entries
                    .flatten()
                    .map(|entry| entry.file_name().to_string_lossy().into_owned())
                    .filter(|name| name.starts_with(start))
                    .map(|name| if inside.is_empty() { name } else { format!("{inside}/{name}") })
                    .collect();
                names.sort();
                names
            }
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

/// The text of a configuration.
///
/// # Errors
/// A file that cannot be read, a pointer of Git LFS, or one that is not text or is too long.
pub(super) fn read_text(path: &Path) -> Result<String> {
    let read = || not_a_pointer(path).and_then(|()| record::read_text(path));
    read().with_context(|| format!("reading {}", path.display()))
}

/// Whether the file is what its name says, and not what `git clone` leaves in its place.
///
/// # Errors
/// A pointer of Git LFS, with the size of what it points to; a file that cannot be read.
pub(super) fn not_a_pointer(path: &Path) -> Result<()> {
    let mut start = Vec::new();
    File::open(path)?.take(POINTER_BYTES).read_to_end(&mut start)?;
    if !start.starts_with(POINTER) {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&start);
    let size = text.lines().find_map(|line| line.strip_prefix("size ")?.parse::<u64>().ok());
    let size = size.map_or_else(String::new, |size| format!(" of {size} bytes"));
    bail!(
        "this is a pointer of Git LFS in place of the file{size}: in the clone that it lies in, run \
         `git lfs install` and `git lfs pull`; or name the repository, OWNER/NAME, and its files \
         are fetched"
    )
}
