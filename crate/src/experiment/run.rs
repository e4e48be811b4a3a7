//! A run's folder, and what a finished run gives.

use super::checkpoint::{self, Checkpoint};
use super::config::Experiment;
use crate::method::Gives;
use crate::model::{ConsistencyModel, EdmDenoiser};
use crate::nn::{Params, Settings};
use crate::plot::Figure;
use crate::record::{Provenance, Table, commit, write_atomically};
use crate::{Context, Result, bail, ensure};
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;
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

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it runs.
    pub fn experiment(&self) -> &Experiment {
        &self.experiment
    }

    /// The run's result, from its last checkpoint.
    ///
    /// # Errors
    /// A run that is not finished, or a damaged checkpoint.
    pub fn trained(&self) -> Result<Trained> {
        let hash = self.experiment.hash()?;
        let total = self.experiment.training.iterations;
        match checkpoint::newest(&self.path, &hash, &Device::Cpu)? {
            Some(found) if found.step == total => self.with(found),
            Some(found) => bail!(
                "the run {} stands at step {} of {total}: train it to the end first",
                self.path.display(),
                found.step
            ),
            None => bail!("the run {} has no checkpoint: train it first", self.path.display()),
        }
    }

    fn with(&self, mut found: Checkpoint) -> Result<Trained> {
        let count = self.experiment.training.ema.all().len();
        let averages = found.averages(count);
        Trained::new(self.clone(), averages, found.table)
    }
}

/// A finished run: its averaged network and its record.
///
/// ```
/// use consistency::prelude::*;
/// # let experiment = Experiment::parse(r#"
/// #     name = "example-of-a-run"
/// #     data = { name = "moons", count = 100 }
/// #     network = { kind = "mlp", width = 16, blocks = 1 }
/// #     method = { kind = "score-matching" }
/// #     training = { iterations = 2, batch = 10 }
/// # "#)?;
/// # let runs = std::env::temp_dir().join(format!("example-of-a-run-{}", std::process::id()));
/// let teacher = train(&experiment, &runs, &Monitor::default(), 1)?;
/// assert_eq!(teacher.table().column("step"), [2.0]);
/// let x = Tensor::zeros((4, 2), DType::F32, &Device::Cpu)?;
/// assert_eq!(teacher.denoiser()?.denoise(&x, &[1.0])?.dims(), [4, 2]);
/// assert!(teacher.consistency_model().is_err());
/// # std::fs::remove_dir_all(runs)?;
/// # Ok::<(), consistency::Error>(())
/// ```
pub struct Trained {
    folder: RunFolder,
    params: Params,
    averages: Vec<BTreeMap<String, Tensor>>,
    table: Table,
}

impl std::fmt::Debug for Trained {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let last = self.table.column("loss").last().copied().unwrap_or(f64::NAN);
        write!(
            f,
            "{}: {} parameters, {} steps, last recorded loss {last:.4}",
            self.folder.experiment.name,
            self.params.count(),
            self.folder.experiment.training.iterations
        )
    }
}

impl Trained {
    fn new(
        folder: RunFolder,
        averages: Vec<BTreeMap<String, Tensor>>,
        table: Table,
    ) -> Result<Self> {
        let (shape, _) = folder.experiment.data.describe()?;
        let mut params = Params::new(DType::F32, &Device::Cpu);
        let key = crate::rng::Key::new(0);
        params.init(&key, |scope| folder.experiment.network.build(scope, &shape))?;
        let trained = Self { folder, params, averages, table };
        trained.take_average(0)?;
        Ok(trained)
    }

    /// The same on another device, for networks that run as `settings` say.
    pub(super) fn on(self, device: &Device, settings: Settings) -> Result<Self> {
        let params = self.params.to_device(device)?.with(settings);
        Ok(Self { params, ..self })
    }

    fn take_average(&self, index: usize) -> Result<()> {
        let Some(average) = self.averages.get(index) else {
            bail!("average {index}: this run kept {}", self.averages.len());
        };
        self.params.assign_tensors(average).with_context(|| self.folder.path.display().to_string())
    }

    /// The same run with the average of another one of its `training.ema` rates, counted from 0.
    ///
    /// # Errors
    /// A rate that it does not have.
    pub fn with_average(self, index: usize) -> Result<Self> {
        self.take_average(index)?;
        Ok(self)
    }

    /// The steps for which a checkpoint is kept (`training.keep_checkpoints`).
    pub fn steps(&self) -> Result<Vec<u64>> {
        checkpoint::steps(self.folder.path())
    }

    /// The run as it was after `step` steps.
    ///
    /// # Errors
    /// A step for which no checkpoint is kept.
    pub fn at(&self, step: u64) -> Result<Self> {
        let hash = self.folder.experiment.hash()?;
        self.folder.with(checkpoint::at(self.folder.path(), step, &hash)?)
    }

    /// The same in f64: its network computes in f64 and takes tensors of f64.
    pub fn to_f64(&self) -> Result<Self> {
        Ok(Self {
            folder: self.folder.clone(),
            params: self.params.to_dtype(DType::F64)?,
            averages: self.averages.clone(),
            table: self.table.clone(),
        })
    }

    /// What was run.
    pub fn experiment(&self) -> &Experiment {
        &self.folder.experiment
    }

    /// Its folder's name, by which a distillation names its teacher.
    pub fn folder(&self) -> String {
        self.folder.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    pub(super) fn run_folder(&self) -> &RunFolder {
        &self.folder
    }

    /// The averaged parameters.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// What was recorded.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Its loss by iteration; each point is the mean over the iterations since the point before.
    pub fn plot(&self) -> Figure {
        let name = &self.folder.experiment.name;
        Figure::new(name).x("iteration k").y("loss").log_y().line(
            name,
            self.table.column("step"),
            self.table.column("loss"),
        )
    }

    /// Where its numbers come from.
    pub fn provenance(&self) -> Result<Provenance> {
        provenance(&self.folder.experiment)
    }

    /// The averaged network as a denoiser.
    ///
    /// # Errors
    /// A run that trained something else.
    pub fn denoiser(&self) -> Result<EdmDenoiser> {
        let experiment = &self.folder.experiment;
        match experiment.method.gives() {
            Gives::Denoiser => Ok(EdmDenoiser::new(self.network()?, experiment.sigma_data)),
            other => bail!("{} trained {}, not a denoiser", experiment.name, other.name()),
        }
    }

    /// The averaged network as a consistency function.
    ///
    /// # Errors
    /// A run that trained something else.
    pub fn consistency_model(&self) -> Result<ConsistencyModel> {
        let experiment = &self.folder.experiment;
        let parameterization = match experiment.method.gives() {
            Gives::Consistency(parameterization) => parameterization,
            other => {
                bail!("{} trained {}, not a consistency model", experiment.name, other.name())
            }
        };
        let (sigma_data, eps) = (experiment.sigma_data, experiment.noise.eps);
        Ok(ConsistencyModel::new(self.network()?, parameterization, sigma_data, eps))
    }

    fn network(&self) -> Result<Box<dyn crate::model::Network>> {
        let (shape, _) = self.folder.experiment.data.describe()?;
        self.params.frozen(|scope| self.folder.experiment.network.build(scope, &shape))
    }

    // A student starts from the teacher's weights: the networks must be alike.
    pub(super) fn check_teacher_of(&self, student: &Experiment) -> Result<()> {
        let teacher = &self.folder.experiment;
        ensure!(
            teacher.network == student.network && teacher.data == student.data,
            "the teacher {} has another network or other data than {}",
            teacher.name,
            student.name
        );
        ensure!(
            teacher.sigma_data == student.sigma_data,
            "the teacher {} has sigma_data = {}, {} has {}",
            teacher.name,
            teacher.sigma_data,
            student.name,
            student.sigma_data
        );
        Ok(())
    }
}

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
