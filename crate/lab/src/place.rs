//! Where things are: the project, the state that clones share, the state of this clone.

use crate::Result;
use crate::files;
use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_64;

/// What only a clone of this project has.
const MARK: &str = "crate/kernel/Cargo.toml";

/// The folders that everything works in.
pub struct Place {
    /// The root of the clone.
    pub project: PathBuf,
    /// evcxr_jupyter, the venv, the lock: `LAB_HOME`, or `.lab` in the project.
    pub shared: PathBuf,
    /// Libraries, outputs, runs and the report of this clone: `.lab`, or a folder of its
    /// own below `LAB_HOME`.
    pub own: PathBuf,
}

impl Place {
    /// From the working folder upwards, and `LAB_HOME`.
    pub fn find() -> Result<Self> {
        let here = std::env::current_dir().map_err(|e| format!("the working folder: {e}"))?;
        let Some(project) = here.ancestors().find(|folder| folder.join(MARK).is_file()) else {
            return Err(format!(
                "{} is not in a clone of Consistency Lab; go into one and run `cargo lab` \
                 there",
                here.display()
            ));
        };
        let project = fs::canonicalize(project)
            .map_err(|e| format!("the project's folder {}: {e}", project.display()))?;
        if project.to_str().is_none() {
            return Err(format!("the project's path {} is not UTF-8", project.display()));
        }
        let home = std::env::var_os("LAB_HOME").filter(|home| !home.is_empty());
        let (shared, own) = match home {
            None => (project.join(".lab"), project.join(".lab")),
            Some(home) => {
                let shared = std::path::absolute(&home)
                    .map_err(|e| format!("LAB_HOME = {}: {e}", Path::new(&home).display()))?;
                let own = shared.join("clones").join(clone_name(&project));
                (shared, own)
            }
        };
        for folder in [&shared, &own] {
            fs::create_dir_all(folder).map_err(|e| {
                format!("making {}: {e}; LAB_HOME can name another folder", folder.display())
            })?;
        }
        // With this the kernel's launcher finds the state of the project it is asked for.
        files::write_if_changed(&own.join("project"), project.to_string_lossy().as_bytes())?;
        Ok(Self { project, shared, own })
    }

    pub fn evcxr(&self) -> PathBuf {
        self.shared.join("evcxr").join("bin").join("evcxr_jupyter")
    }

    pub fn venv(&self) -> PathBuf {
        self.shared.join("venv")
    }

    /// The venv's Python.
    pub fn python(&self) -> PathBuf {
        self.venv().join("bin").join("python")
    }

    pub fn logs(&self) -> PathBuf {
        self.own.join("log")
    }

    pub fn libraries(&self) -> PathBuf {
        self.own.join("lib")
    }

    pub fn out(&self) -> PathBuf {
        self.own.join("out")
    }

    /// Where a pack is taken apart, beside the places of its parts.
    pub fn unpacking(&self) -> PathBuf {
        self.shared.join(".unpacking")
    }

    /// A path as it is shown: below the project, or whole.
    pub fn shown(&self, path: &Path) -> String {
        path.strip_prefix(&self.project).unwrap_or(path).display().to_string()
    }
}

/// The path that the user gave, from the current folder.
pub fn given(path: &str) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.into())
}

// The folder's name, and a hash of its path so that two clones with the same name differ.
fn clone_name(project: &Path) -> String {
    let name = project.file_name().unwrap_or_default().to_string_lossy();
    let safe: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    format!("{safe}-{:08x}", xxh3_64(project.to_string_lossy().as_bytes()) as u32)
}

/// The lock that one `cargo lab` holds against others that would disturb it.
///
/// There are two: one to set up, among all that share a `LAB_HOME`, and one to run notebooks, among
/// those of one clone, whose outputs are in one place. So notebooks can be opened while others run.
/// The system frees a lock when its holder ends, however it ends. Long-running children hold it too
/// (see [`Turn::share`]): after a `kill -9` of the program, the next one waits for what its
/// predecessor had started and does not interfere with it.
pub struct Turn {
    file: File,
}

impl Turn {
    /// Wait for the lock of set-up.
    pub fn to_set_up(place: &Place) -> Result<Self> {
        Self::take(&place.shared, "lock")
    }

    /// Wait for the lock of running notebooks.
    pub fn to_run(place: &Place) -> Result<Self> {
        Self::take(&place.own, "notebooks.lock")
    }

    fn take(folder: &Path, name: &str) -> Result<Self> {
        let path = folder.join(name);
        let failed = |e: std::io::Error| format!("the lock {}: {e}", path.display());
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                let holder = if holder.is_empty() { "another".to_string() } else { holder };
                crate::say::note(&format!(
                    "{} is at work in {}; waiting for it to end",
                    holder.trim(),
                    folder.display()
                ));
                file.lock().map_err(failed)?;
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        file.set_len(0).map_err(failed)?;
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        let who = format!("`cargo lab` (process {})\n", std::process::id());
        file.write_all(who.as_bytes()).map_err(failed)?;
        Ok(Self { file })
    }

    /// The lock as a child's standard input, which holds it as long as the child lives.
    pub fn share(&self) -> std::process::Stdio {
        match self.file.try_clone() {
            Ok(file) => file.into(),
            Err(_) => std::process::Stdio::null(),
        }
    }
}
