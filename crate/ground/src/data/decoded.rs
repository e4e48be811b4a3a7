//! The cache of decoded images, by the content of the files that they come from.

use super::catalog::Encoding;
use crate::{Context, Error, Result, bail, ensure};
use safetensors::tensor::{Dtype, Metadata, TensorView};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

/// A new version of the reader gets a new cache.
const VERSION: &str = "consistency-lab decoded images 1";
const KEY: &str = "about";
const BUFFER: usize = 1 << 20;

/// Decoded images as they lie in a file and in memory.
pub(super) struct Decoded {
    pub about: About,
    /// (N, C, H, W).
    pub bytes: Vec<u8>,
    /// One per image, or none.
    pub labels: Vec<u32>,
}

/// What is known about them without reading them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct About {
    pub rows: usize,
    pub shape: [usize; 3],
    pub encoding: Encoding,
    /// The names of the classes, where folders or a column name them.
    pub classes: Vec<String>,
}

/// `CONSISTENCY_CACHE`, or `consistency-lab` in the user's cache folder.
///
/// # Errors
/// No home folder.
pub(super) fn default_folder() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let own = || {
        Some(set("XDG_CACHE_HOME").or(Some(set("HOME")?.join(".cache")))?.join("consistency-lab"))
    };
    match set("CONSISTENCY_CACHE").or_else(own) {
        Some(folder) => Ok(folder.join("decoded")),
        None => bail!("there is no home folder for the cache of images: set CONSISTENCY_CACHE"),
    }
}

/// A hash of `parts` and of the version of the reader, 32 hexadecimal digits.
pub(super) fn key(parts: &[String]) -> String {
    let mut hash = Xxh3::new();
    for part in std::iter::once(VERSION).chain(parts.iter().map(String::as_str)) {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    format!("{:032x}", hash.digest128())
}

/// A hash of a file's content; a blob in the Hub's cache has it as its name.
pub(super) fn content(path: &Path) -> Result<String> {
    let reading = || format!("reading {}", path.display());
    let real = fs::canonicalize(path).with_context(reading)?;
    let name = real.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let in_blobs = real.parent().and_then(Path::file_name).is_some_and(|folder| folder == "blobs");
    if in_blobs && name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(name);
    }
    let mut file = File::open(&real).with_context(reading)?;
    let (mut hash, mut buffer) = (Xxh3::new(), vec![0; BUFFER]);
    loop {
        match file.read(&mut buffer).with_context(reading)? {
            0 => return Ok(format!("{:032x}", hash.digest128())),
            count => hash.update(&buffer[..count]),
        }
    }
}

fn path(folder: &Path, key: &str) -> PathBuf {
    folder.join(format!("{key}.safetensors"))
}

/// What `folder` has under `key`, without the images; `None` if there is nothing.
pub(super) fn about(folder: &Path, key: &str) -> Result<Option<About>> {
    let path = path(folder, key);
    match File::open(&path) {
        Ok(mut file) => Ok(Some(header(&path, &mut file)?.0)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

type Place = (u64, usize);

// What the file holds, and where images and labels begin and how long they are.
fn header(path: &Path, file: &mut File) -> Result<(About, Place, Place)> {
    let damaged = |what: String| {
        Error::new(format!(
            "{} is damaged ({what}): delete it, and it is made again",
            path.display()
        ))
    };
    let io = |error: std::io::Error| damaged(error.to_string());
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(io)?;
    let size = file.metadata().map_err(io)?.len();
    let length = u64::from_le_bytes(length);
    if length > size {
        return Err(damaged("its header is longer than the file".to_string()));
    }
    let mut head = Vec::new();
    file.take(length).read_to_end(&mut head).map_err(io)?;
    let metadata: Metadata = serde_json::from_slice(&head).map_err(|e| damaged(e.to_string()))?;
    let about = metadata.metadata().as_ref().and_then(|m| m.get(KEY));
    let about: Option<About> = about.and_then(|text| serde_json::from_str(text).ok());
    let place = |name: &str| {
        let (from, to) = metadata.info(name)?.data_offsets;
        Some(((8 + length).checked_add(from as u64)?, to.checked_sub(from)?))
    };
    let (Some(about), Some(images), Some(labels)) = (about, place("images"), place("labels"))
    else {
        return Err(damaged("it holds something else".to_string()));
    };
    let sizes = about.shape.iter().chain([&about.rows]);
    let expected = sizes.fold(1, |all: usize, size| all.saturating_mul(*size));
    let inside = |(from, length): Place| from.saturating_add(length as u64) <= size;
    if images.1 != expected || !inside(images) || !inside(labels) {
        return Err(damaged("it is cut off".to_string()));
    }
    if about.rows == 0 || labels.1 != 0 && labels.1 / 4 != about.rows {
        return Err(damaged(format!("{} images and {} bytes of labels", about.rows, labels.1)));
    }
    Ok((about, images, labels))
}

/// What `folder` has under `key`; `None` if there is nothing.
///
/// # Errors
/// A file that is damaged, by name.
pub(super) fn load(folder: &Path, key: &str) -> Result<Option<Decoded>> {
    let path = path(folder, key);
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    let (about, images, labels) = header(&path, &mut file)?;
    let mut part = |(from, length): Place| -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        file.seek(SeekFrom::Start(from))
            .and_then(|_| file.read_exact(&mut bytes))
            .with_context(|| format!("reading {}", path.display()))?;
        Ok(bytes)
    };
    let labels = part(labels)?;
    let (labels, _) = labels.as_chunks::<4>();
    let labels: Vec<u32> = labels.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
    let classes = about.classes.len();
    ensure!(
        classes == 0 || labels.iter().all(|label| (*label as usize) < classes),
        "{} is damaged (a label beyond its {classes} classes): delete it, and it is made again",
        path.display()
    );
    Ok(Some(Decoded { about, bytes: part(images)?, labels }))
}

/// Keep `images` in `folder` under `key`.
///
/// # Errors
/// A folder or a disk that cannot be written.
pub(super) fn save(folder: &Path, key: &str, images: &Decoded) -> Result<()> {
    let path = path(folder, key);
    let writing = || format!("writing {} (CONSISTENCY_CACHE names another folder)", path.display());
    fs::create_dir_all(folder).with_context(writing)?;
    let About { rows, shape: [c, h, w], .. } = images.about;
    ensure!(
        images.labels.is_empty() || images.labels.len() == rows,
        "labels that are not one an image"
    );
    let labels: Vec<u8> = images.labels.iter().flat_map(|label| label.to_le_bytes()).collect();
    let tensors = [
        ("images", TensorView::new(Dtype::U8, vec![rows, c, h, w], &images.bytes)?),
        ("labels", TensorView::new(Dtype::U32, vec![images.labels.len()], &labels)?),
    ];
    let about = serde_json::to_string(&images.about).map_err(|e| Error::new(e.to_string()))?;
    let metadata = HashMap::from([(KEY.to_string(), about)]);
    // Written directly, not assembled in memory: the images are there once already.
    let making = folder.join(format!(".{key}.{}.tmp", std::process::id()));
    let written = safetensors::serialize_to_file(tensors, Some(metadata), &making)
        .map_err(Error::from)
        .and_then(|()| Ok(fs::rename(&making, &path)?));
    written
        .inspect_err(|_| {
            let _ = fs::remove_file(&making);
        })
        .with_context(writing)
}
