//! What a finished run gives.

use super::checkpoint::{self, Checkpoint};
use super::config::Experiment;
use super::folder::{RunFolder, provenance};
use super::shipped::Cost;
use crate::evaluate::Classifier;
use crate::method::Gives;
use crate::model::{ConsistencyModel, EdmDenoiser, NetworkConfig, OneStepGenerator, TwoTimeModel};
use crate::nn::{Params, Settings};
use crate::plot::Figure;
use crate::record::{Provenance, Table};
use crate::{Context, Result, bail, ensure};
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;

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
    /// Of a network that comes with the lab: where it is from, and what its runs cost.
    shipped: Option<(Provenance, Vec<Cost>)>,
}

impl RunFolder {
    /// The run's result, from its last checkpoint.
    ///
    /// # Errors
    /// A run that is not finished, or a damaged checkpoint.
    pub fn trained(&self) -> Result<Trained> {
        let hash = self.experiment().hash()?;
        let total = self.experiment().training.iterations;
        match checkpoint::newest(self.path(), &hash, &Device::Cpu)? {
            Some(found) if found.step == total => self.with(found),
            Some(found) => bail!(
                "the run {} stands at step {} of {total}: train it to the end first",
                self.path().display(),
                found.step
            ),
            None => bail!("the run {} has no checkpoint: train it first", self.path().display()),
        }
    }

    /// The run as its newest checkpoint holds it, and the number of its steps, if there are more than
    /// `step`.
    ///
    /// # Errors
    /// A damaged checkpoint.
    pub fn after(&self, step: u64) -> Result<Option<(u64, Trained)>> {
        if checkpoint::steps(self.path())?.last().is_none_or(|last| *last <= step) {
            return Ok(None);
        }
        let hash = self.experiment().hash()?;
        let found = checkpoint::newest(self.path(), &hash, &Device::Cpu)?;
        found.map(|found| Ok((found.step, self.with(found)?))).transpose()
    }

    /// What a checkpoint of it holds, as a finished run.
    fn with(&self, mut found: Checkpoint) -> Result<Trained> {
        let count = self.experiment().training.ema.all().len();
        let averages = found.averages(count);
        Trained::new(self.clone(), averages, found.table)
    }
}

impl std::fmt::Debug for Trained {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let last = self.table.column("loss").last().copied().unwrap_or(f64::NAN);
        write!(
            f,
            "{}: {} parameters, {} steps, last recorded loss {last:.4}",
            self.experiment().name,
            self.params.count(),
            self.experiment().training.iterations
        )
    }
}

impl Trained {
    fn new(
        folder: RunFolder,
        averages: Vec<BTreeMap<String, Tensor>>,
        table: Table,
    ) -> Result<Self> {
        let (shape, _) = folder.experiment().data.describe()?;
        let mut params = Params::new(DType::F32, &Device::Cpu);
        let key = crate::rng::Key::new(0);
        let Experiment { network, method, .. } = folder.experiment();
        params.init(&key, |scope| network.build_for(scope, &shape, method.gives().times()))?;
        let trained = Self { folder, params, averages, table, shipped: None };
        trained.take_average(0)?;
        Ok(trained)
    }

    /// What a file of a shipped network holds.
    pub(super) fn of_file(
        folder: RunFolder,
        average: BTreeMap<String, Tensor>,
        table: Table,
        provenance: Provenance,
        costs: Vec<Cost>,
    ) -> Result<Self> {
        let trained = Self::new(folder, vec![average], table)?;
        Ok(Self { shipped: Some((provenance, costs)), ..trained })
    }

    /// What the runs of a shipped network cost, one after the other, its own last; none for a run
    /// of this machine.
    pub fn costs(&self) -> &[Cost] {
        self.shipped.as_ref().map_or(&[], |(_, costs)| costs)
    }

    /// The same on another device, for networks that run as `settings` say.
    pub(super) fn on(self, device: &Device, settings: Settings) -> Result<Self> {
        let params = self.params.to_device(device)?.with(settings);
        Ok(Self { params, ..self })
    }

    fn take_average(&self, index: usize) -> Result<()> {
        let Some(average) = self.averages.get(index) else {
            bail!(
                "average {index}: this run kept {} (training.ema), counted from 0",
                self.averages.len()
            );
        };
        self.params
            .assign_tensors(average)
            .with_context(|| self.folder.path().display().to_string())
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
        let hash = self.experiment().hash()?;
        self.folder.with(checkpoint::at(self.folder.path(), step, &hash)?)
    }

    /// The same in f64: its network computes in f64 and takes tensors of f64.
    pub fn to_f64(&self) -> Result<Self> {
        Ok(Self {
            folder: self.folder.clone(),
            params: self.params.to_dtype(DType::F64)?,
            averages: self.averages.clone(),
            table: self.table.clone(),
            shipped: self.shipped.clone(),
        })
    }

    /// What was run.
    pub fn experiment(&self) -> &Experiment {
        self.folder.experiment()
    }

    /// Its folder's name, by which a distillation names its teacher.
    pub fn folder(&self) -> String {
        self.folder.path().file_name().unwrap_or_default().to_string_lossy().into_owned()
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
        let name = &self.experiment().name;
        Figure::new(name).x("iteration k").y("loss").log_y().line(
            name,
            self.table.column("step"),
            self.table.column("loss"),
        )
    }

    /// Where its numbers come from.
    pub fn provenance(&self) -> Result<Provenance> {
        match &self.shipped {
            Some((provenance, _)) => Ok(provenance.clone()),
            None => provenance(self.experiment()),
        }
    }

    /// The averaged network as a denoiser.
    ///
    /// # Errors
    /// A run that trained something else.
    pub fn denoiser(&self) -> Result<EdmDenoiser> {
        let experiment = self.experiment();
        match experiment.method.gives() {
            Gives::Denoiser => Ok(EdmDenoiser::new(self.network()?, experiment.sigma_data)),
            _ => self.gives_no("denoiser"),
        }
    }

    /// The averaged network as a consistency function.
    ///
    /// # Errors
    /// A run that trained something else.
    pub fn consistency_model(&self) -> Result<ConsistencyModel> {
        let experiment = self.experiment();
        let (sigma_data, eps) = (experiment.sigma_data, experiment.noise.eps);
        match experiment.method.gives() {
            Gives::Consistency(parameterization) => {
                Ok(ConsistencyModel::new(self.network()?, parameterization, sigma_data, eps))
            }
            _ => self.gives_no("consistency model"),
        }
    }

    /// The averaged network as a map between two noise levels.
    ///
    /// # Errors
    /// A run that trained something else.
    pub fn two_time_map(&self) -> Result<TwoTimeModel> {
        let experiment = self.experiment();
        match experiment.method.gives() {
            Gives::TwoTimeMap => Ok(TwoTimeModel::new(self.network()?, experiment.sigma_data)),
            _ => self.gives_no("map between two noise levels"),
        }
    }

    /// The averaged network as a generator.
    ///
    /// # Errors
    /// A run that trained something else.
    pub fn generator(&self) -> Result<OneStepGenerator> {
        let experiment = self.experiment();
        let (sigma_data, t_max) = (experiment.sigma_data, experiment.noise.t_max);
        let (shape, _) = experiment.data.describe()?;
        match experiment.method.gives() {
            Gives::Generator => {
                Ok(OneStepGenerator::new(self.network()?, &shape, sigma_data, t_max))
            }
            _ => self.gives_no("generator"),
        }
    }

    /// The averaged network as a classifier.
    ///
    /// # Errors
    /// A run that trained something else.
    pub fn classifier(&self) -> Result<Classifier> {
        let experiment = self.experiment();
        let (shape, _) = experiment.data.describe()?;
        match (&experiment.network, shape.as_slice()) {
            (NetworkConfig::Convnet(network), &[channels, height, width]) => {
                Classifier::new(self.params.duplicate()?, *network, [channels, height, width])
            }
            _ => self.gives_no("classifier"),
        }
    }

    fn gives_no<T>(&self, wanted: &str) -> Result<T> {
        let experiment = self.experiment();
        bail!("{} trained {}, not a {wanted}", experiment.name, experiment.method.gives().name())
    }

    fn network(&self) -> Result<Box<dyn crate::model::Network>> {
        let Experiment { data, network, method, .. } = self.experiment();
        let (shape, _) = data.describe()?;
        self.params.frozen(|scope| network.build_for(scope, &shape, method.gives().times()))
    }

    // A student starts from the teacher's weights, and a run from those that `init` names: the
    // networks must be alike. `role` is what this run is to it.
    pub(super) fn check_beginning_of(&self, student: &Experiment, role: &str) -> Result<()> {
        let own = self.experiment();
        let (name, other) = (&own.name, &student.name);
        ensure!(
            own.network == student.network && own.data == student.data,
            "the {role} {name} has another network or other data than {other}"
        );
        ensure!(
            own.no_class() == student.no_class(),
            "training.unlabelled: the {role} {name} has {}, {other} has {}; both are trained without \
             some classes or neither is",
            own.training.unlabelled,
            student.training.unlabelled
        );
        ensure!(
            own.sigma_data == student.sigma_data,
            "the {role} {name} has sigma_data = {}, {other} has {}",
            own.sigma_data,
            student.sigma_data
        );
        Ok(())
    }
}
