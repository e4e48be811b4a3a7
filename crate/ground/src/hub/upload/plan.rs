//! The files of a folder.

use super::UploadMode;
use crate::hub::target::check_name;
use crate::{Context, Result, bail, ensure};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// The Hub looks at this many bytes of a file.
const SAMPLE: u64 = 512;

/// From this size on, any file travels by git-lfs.
const LARGE: u64 = 10_000_000;

/// What the Hub's new repositories hand to git-lfs, by the ends of names
/// (their `.gitattributes`).
const LFS_ENDINGS: [&str; 36] = [
    "7z",
    "arrow",
    "avro",
    "bin",
    "bz2",
    "ckpt",
    "ftz",
    "gz",
    "h5",
    "joblib",
    "mlmodel",
    "model",
    "msgpack",
    "npy",
    "npz",
    "onnx",
    "ot",
    "parquet",
    "pb",
    "pickle",
    "pkl",
    "pt",
    "pth",
    "rar",
    "safetensors",
    "tar",
    "tflite",
    "tgz",
    "wasm",
    "xz",
    "zip",
    "zst",
    "gguf",
    "png",
    "jpg",
    "gif",
];

/// A file that is to be uploaded.
pub(super) struct LocalFile {
    /// Its path in the repository.
    pub name: String,
    pub path: PathBuf,
    /// In bytes.
    pub size: u64,
}

impl LocalFile {
    /// The first bytes.
    pub(super) fn sample(&self) -> Result<Vec<u8>> {
        let mut sample = Vec::new();
        let read =
            File::open(&self.path).and_then(|file| file.take(SAMPLE).read_to_end(&mut sample));
        read.with_context(|| format!("reading {}", self.path.display()))?;
        Ok(sample)
    }

    /// All bytes.
    pub(super) fn content(&self) -> Result<Vec<u8>> {
        fs::read(&self.path).with_context(|| format!("reading {}", self.path.display()))
    }

    /// How the file most likely travels: the Hub itself decides by name, size and sample.
    pub(super) fn guess(&self) -> Result<UploadMode> {
        let ending = self.name.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
        let large = self.size >= LARGE || LFS_ENDINGS.contains(&ending.as_str());
        let lfs = self.size > 0 && (large || self.sample()?.contains(&0));
        Ok(if lfs { UploadMode::Lfs } else { UploadMode::Regular })
    }
}

/// The files below `folder` in order of their names, without git's own.
pub(super) fn files(folder: &Path) -> Result<Vec<LocalFile>> {
    ensure!(not_found: folder.is_dir(), "there is no folder {}", folder.display());
    let mut found = Vec::new();
    walk(folder, "", &mut found)?;
    ensure!(!found.is_empty(), "the folder {} has no files", folder.display());
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn walk(folder: &Path, prefix: &str, found: &mut Vec<LocalFile>) -> Result<()> {
    let reading = || format!("reading {}", folder.display());
    for entry in fs::read_dir(folder).with_context(reading)? {
        let entry = entry.with_context(reading)?;
        let path = entry.path();
        let name = entry.file_name();
        let Some(name) = name.to_str() else {
            bail!("{}: its name is not in UTF-8; rename it", path.display());
        };
        if name == ".git" {
            continue;
        }
        let name = format!("{prefix}{name}");
        // The target of a link: a snapshot in the cache is made of links.
        let data = fs::metadata(&path).with_context(|| format!("reading {}", path.display()))?;
        if data.is_dir() {
            // A link may lead in a circle.
            let link = entry.file_type().with_context(reading)?.is_symlink();
            ensure!(!link, "{} is a link to a folder: copy that folder", path.display());
            walk(&path, &format!("{name}/"), found)?;
        } else {
            check_name(&name).with_context(|| path.display().to_string())?;
            ensure!(data.is_file(), "{} is not a file", path.display());
            found.push(LocalFile { name, path, size: data.len() });
        }
    }
    Ok(())
}
