//! Files that are written whole or not at all.

use crate::{Context, Error, Result};
use candle_core::Tensor;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

/// Write `bytes` to `path` so that a reader, now or after a crash, sees the old file or
/// the new one: a temporary file beside it, synced, then renamed over it.
///
/// # Errors
/// A folder or a disk that cannot be written; the old file is left as it was.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let Some((folder, name)) = path.parent().zip(path.file_name()) else {
        return Err(Error::new(format!("{} is not a path for a file", path.display())));
    };
    let temporary = folder.join(format!(".{}.{}.tmp", name.display(), std::process::id()));
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        // The rename itself is in the folder.
        File::open(folder)?.sync_all()
    };
    write()
        .inspect_err(|_| {
            let _ = fs::remove_file(&temporary);
        })
        .with_context(|| format!("writing {}", path.display()))
}

/// Write `tensors` as a safetensors file with this metadata, as [`write_atomically`] does.
///
/// # Errors
/// As there.
pub fn write_tensors(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
    metadata: &[(&str, &str)],
) -> Result<()> {
    let pairs = metadata.iter().map(|(key, value)| ((*key).to_string(), (*value).to_string()));
    let pairs: HashMap<String, String> = pairs.collect();
    let metadata = (!pairs.is_empty()).then_some(pairs);
    let bytes = safetensors::serialize(tensors.iter(), metadata)
        .with_context(|| format!("writing {}", path.display()))?;
    write_atomically(path, &bytes)
}
