//! A run's folder.

use super::config::Experiment;
use crate::record::{Provenance, commit, write_atomically};
use crate::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};

/// The folder of a run: `experiment.toml`, `metrics.csv` and `.parquet`, checkpoints.
///
/// ```
/// use consistency::prelude::*;
/// # let experiment = Experiment::parse(r#"
/// #     name = "example-of-a-folder"
/// #     data = { name = "moons", count = 100 }
/// #     network = { kind = "mlp", width = 16, blocks = 1 }
/// #     method = { kind = "score-matching" }
/// #     training = { iterations = 2, batch = 10 }
/// # "#)?;
/// # let runs = std::env::temp_dir().join(format!("example-of-a-folder-{}", std::process::id()));
/// let folder = RunFolder::create(&runs, &experiment)?;
/// assert_eq!(RunFolder::open(folder.path())?.experiment(), &experiment);
/// assert!(folder.trained().is_err()); // it has no checkpoint yet
/// # std::fs::remove_dir_all(runs)?;
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct RunFolder {
    path: PathBuf,
    experiment: Experiment,
}

impl RunFolder {
    /// The folder of `experiment` below `runs`, created if it is missing.
    ///
    /// # Errors
    /// A folder that cannot be made.
    pub fn create(runs: &Path, experiment: &Experiment) -> Result<Self> {
        experiment.check()?;
        let path = runs.join(experiment.folder()?);
        fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        // What a killed process has left half written.
        for entry in fs::read_dir(&path).with_context(|| format!("reading {}", path.display()))? {
            let entry = entry.with_context(|| format!("reading {}", path.display()))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') && name.ends_with(".tmp") {
                let _ = fs::remove_file(entry.path());
            }
        }
        let file = path.join("experiment.toml");
        if !file.exists() {
            write_atomically(&file, experiment.to_toml()?.as_bytes())?;
        }
        Ok(Self { path, experiment: experiment.clone() })
    }

    /// The run in the folder `path`.
    ///
    /// # Errors
    /// No run there.
    pub fn open(path: &Path) -> Result<Self> {
        let file = path.join("experiment.toml");
        ensure!(
            not_found: file.exists(),
            "{} holds no run: there is no experiment.toml",
            path.display()
        );
        Ok(Self { path: path.to_path_buf(), experiment: Experiment::read(&file)? })
    }

    /// That of a run that is kept elsewhere; `path` is what it is called.
    pub(super) fn nowhere(path: PathBuf, experiment: Experiment) -> Self {
        Self { path, experiment }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it runs.
    pub fn experiment(&self) -> &Experiment {
        &self.experiment
    }
}

/// Where the numbers of a run of `experiment` come from.
pub(super) fn provenance(experiment: &Experiment) -> Result<Provenance> {
    Ok(Provenance {
        experiment: experiment.name.clone(),
        configuration: experiment.hash()?,
        seed: experiment.seed,
        device: experiment.training.device.clone(),
        dtype: "f32".to_string(),
        commit: commit(),
        data: experiment.data.describe()?.1,
    })
}
