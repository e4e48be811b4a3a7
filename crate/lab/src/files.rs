//! Files written whole or not at all, and hashes of what goes into a step.

use crate::Result;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use xxhash_rust::xxh3::Xxh3;

/// Write `bytes` to `path` by way of a temporary file beside it.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let go = || -> std::io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = folder.join(format!(".{name}.{}.tmp", std::process::id()));
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    go().map_err(|e| format!("writing {}: {e}", path.display()))
}

/// [`write`], unless the file already holds this.
pub fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<()> {
    match fs::read(path) {
        Ok(now) if now == bytes => Ok(()),
        _ => write(path, bytes),
    }
}

/// The file's text.
pub fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|e| format!("reading {}: {e}", path.display()))
}

/// Remove a file, or a folder with all that is in it, if it is there.
pub fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_file() { fs::remove_file(path) } else { fs::remove_dir_all(path) };
    match removed {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("removing {}: {e}", path.display()))
        }
        _ => Ok(()),
    }
}

/// A hash of named parts, 16 hexadecimal digits.
#[derive(Default)]
pub struct Hash(Xxh3);

impl Hash {
    pub fn add(&mut self, part: impl AsRef<[u8]>) -> &mut Self {
        let part = part.as_ref();
        // With its length, so that two parts never look like one longer part.
        self.0.update(&(part.len() as u64).to_le_bytes());
        self.0.update(part);
        self
    }

    pub fn end(&self) -> String {
        format!("{:016x}", self.0.digest())
    }
}

/// Whether the step that leaves the stamp `path` was last done for the inputs `hash`.
pub fn stamped(path: &Path, hash: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|found| found == hash)
}
