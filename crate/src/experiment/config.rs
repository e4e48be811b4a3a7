//! An experiment as a TOML file.

use super::data::DataConfig;
use crate::method::{DecayShape, MethodConfig};
use crate::model::NetworkConfig;
use crate::nn::{OptimizerConfig, Precision, Settings};
use crate::process::NoiseRange;
use crate::record::{from_toml, read_text};
use crate::{Context, Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

/// Everything that a training run depends on: the same experiment gives the same bits.
///
/// ```
/// use consistency::prelude::*;
/// let experiment = Experiment::parse(r#"
///     name = "spirals-teacher"
///     data = { name = "spirals", count = 1000 }
///     network = { kind = "mlp", width = 64 }
///     method = { kind = "score-matching" }
///     training = { iterations = 1000, batch = 100 }
/// "#)?;
/// // What is left out has its default, and another value is another run.
/// assert_eq!((experiment.seed, experiment.noise), (0, NoiseRange::default()));
/// assert!(experiment.folder()?.starts_with("spirals-teacher-"));
/// assert_ne!(Experiment { seed: 1, ..experiment.clone() }.folder()?, experiment.folder()?);
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    /// Its name, the first part of its folder's name.
    pub name: String,
    /// The root of all its random numbers.
    #[serde(default)]
    pub seed: u64,
    /// The standard deviation of the data, as the scalings take it.
    #[serde(default = "half")]
    pub sigma_data: f64,
    /// What it is trained on.
    pub data: DataConfig,
    /// The network.
    pub network: NetworkConfig,
    /// eps, T and rho.
    #[serde(default)]
    pub noise: NoiseRange,
    /// The finished run whose weights it starts from, among the runs beside its own, or with
    /// `shipped:NAME` a network that comes with the lab; new weights where it is left out. A
    /// teacher's weights are then no start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<String>,
    /// How it is trained.
    pub method: MethodConfig,
    /// What moves the parameters.
    #[serde(default)]
    pub optimizer: OptimizerConfig,
    /// How long and how often.
    pub training: Training,
}

/// What an experiment's identity begins with.
const SCHEMA: &str = "consistency-lab experiment 1";

// The table at `place` below `all`.
fn table_at<'a>(all: &'a mut toml::Table, place: &[String]) -> Option<&'a mut toml::Table> {
    place.iter().try_fold(all, |table, name| table.get_mut(name)?.as_table_mut())
}

fn half() -> f64 {
    0.5
}

/// How long to train, and how often to record and to save.
///
/// ```
/// use consistency::prelude::*;
/// let experiment = Experiment::parse(r#"
///     name = "moons-teacher"
///     data = { name = "moons", count = 1000 }
///     network = { kind = "mlp" }
///     method = { kind = "score-matching" }
///     training = { iterations = 5000, batch = 100, ema = [0.99, 0.999] }
/// "#)?;
/// let Training { ema, record_every, checkpoint_every, .. } = experiment.training;
/// assert_eq!((ema.all(), record_every, checkpoint_every), (&[0.99, 0.999][..], 100, 1000));
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// K, the number of steps.
    pub iterations: u64,
    /// Samples per step.
    pub batch: usize,
    /// The decay rates of the averages that are kept; the first is the one that is sampled.
    /// One number, or a list.
    #[serde(default)]
    pub ema: Rates,
    /// Whether the decay rate of an average after step k, counted from 0, is at most
    /// (1 + k) / (10 + k): early on, a slow average would remember the start.
    #[serde(default = "yes")]
    pub ema_warm_up: bool,
    /// The share of the steps, at the end, over which the learning rate falls to 0. The paper has
    /// none; short runs gain from it.
    #[serde(default)]
    pub decay: f64,
    /// Whether it falls along a line (`linear`) or along half a cosine (`cosine`).
    #[serde(default)]
    pub decay_shape: DecayShape,
    /// The share of the steps, at the start, over which the learning rate rises linearly to its
    /// value.
    #[serde(default)]
    pub warm_up: f64,
    /// How many of the samples, chosen by the seed, are not trained on: each row of the record has
    /// the first player's mean loss on them, with the same random numbers every time: the loss as
    /// it is trained, with dropout, of the parameters themselves and not of their average.
    #[serde(default)]
    pub held_out: usize,
    /// The share of the samples, chosen by the key of the step, that are trained on as of no class.
    /// One network then gives samples of a class and samples of all: "no class" is the class whose
    /// number is that of the classes of the data ([`Experiment::no_class`]), so the network has one
    /// class more than they.
    #[serde(default)]
    pub unlabelled: f64,
    /// Steps per record row.
    #[serde(default = "hundred")]
    pub record_every: u64,
    /// Steps per checkpoint.
    #[serde(default = "thousand")]
    pub checkpoint_every: u64,
    /// How many of the last checkpoints are kept.
    #[serde(default = "two")]
    pub keep_checkpoints: usize,
    /// How many parts a batch is split into, whose gradients are added up: less memory, the same
    /// step.
    #[serde(default = "one")]
    pub accumulate: usize,
    /// Keep only the inputs of each block for the backward pass and compute the rest again: less
    /// memory, a third more time, the same bits.
    #[serde(default)]
    pub checkpoint_activations: bool,
    /// `cpu`, `cuda` or `cuda:N`.
    #[serde(default = "cpu")]
    pub device: String,
    /// What the factors of matrix products are rounded to on CUDA: `f32`, `tf32`, `bf16`.
    #[serde(default)]
    pub precision: Precision,
}

/// One decay rate or several.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Rates {
    /// One.
    One(f64),
    /// Several.
    Many(Vec<f64>),
}

impl Default for Rates {
    fn default() -> Self {
        Self::One(0.999)
    }
}

impl Rates {
    /// All of them.
    pub fn all(&self) -> &[f64] {
        match self {
            Self::One(rate) => std::slice::from_ref(rate),
            Self::Many(rates) => rates,
        }
    }
}

fn yes() -> bool {
    true
}

fn one() -> usize {
    1
}

fn two() -> usize {
    2
}

fn cpu() -> String {
    "cpu".to_string()
}

fn hundred() -> u64 {
    100
}

fn thousand() -> u64 {
    1000
}

impl Training {
    pub(super) fn settings(&self) -> Settings {
        let (checkpoint, precision) = (self.checkpoint_activations, self.precision);
        Settings { checkpoint, precision, ..Settings::default() }
    }
}

impl Experiment {
    /// Read an experiment from a TOML file.
    ///
    /// # Errors
    /// A file that is missing or is not an experiment, by name, line and field.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let reading = || format!("reading {}", path.display());
        let text = read_text(path).with_context(reading)?;
        Self::parse(&text).with_context(reading)
    }

    /// An experiment from TOML.
    ///
    /// # Errors
    /// Text that is not an experiment, or values that make no sense, by field.
    pub fn parse(text: &str) -> Result<Self> {
        let experiment: Self = from_toml(text)?;
        experiment.check()?;
        Ok(experiment)
    }

    /// The experiment as TOML.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|e| Error::new(e.to_string()))
    }

    /// Its identity: a hash of the schema's version and of the values that differ from their
    /// defaults, 16 hexadecimal digits. So a new field with a default leaves every run and every
    /// record its name; a default that changes needs a new version.
    ///
    /// # Errors
    /// An experiment that cannot be written as TOML.
    pub fn hash(&self) -> Result<String> {
        let values = toml::to_string(&self.chosen()?).map_err(|e| Error::new(e.to_string()))?;
        Ok(format!("{:016x}", xxh3_64(format!("{SCHEMA}\n{values}").as_bytes())))
    }

    /// The values that differ from their defaults, in the order of their names.
    ///
    /// # Errors
    /// An experiment that cannot be written as TOML.
    pub fn chosen(&self) -> Result<toml::Table> {
        let mut all = toml::Table::try_from(self).map_err(|e| Error::new(e.to_string()))?;
        self.leave_out_defaults(&mut all, &mut Vec::new());
        Ok(all)
    }

    // A value is a default's where the experiment is the same without it.
    fn leave_out_defaults(&self, all: &mut toml::Table, place: &mut Vec<String>) {
        let names: Vec<String> =
            table_at(all, place).into_iter().flat_map(|of| of.keys().cloned()).collect();
        for name in names {
            let mut without = all.clone();
            let Some(table) = table_at(&mut without, place) else { continue };
            let left_out = table.remove(&name);
            if without.clone().try_into::<Self>().is_ok_and(|other| other == *self) {
                *all = without;
            } else if left_out.is_some_and(|value| value.is_table()) {
                place.push(name);
                self.leave_out_defaults(all, place);
                place.pop();
            }
        }
    }

    /// How many classes of the data its network knows; none for a network without classes.
    pub fn classes(&self) -> Option<usize> {
        let known = self.network.classes()?;
        Some(if self.training.unlabelled > 0.0 { known.saturating_sub(1) } else { known })
    }

    /// The class that stands for none, where the network was trained on samples without their
    /// class (`training.unlabelled`).
    pub fn no_class(&self) -> Option<u32> {
        let known = self.network.classes().filter(|_| self.training.unlabelled > 0.0)?;
        u32::try_from(known).ok()?.checked_sub(1)
    }

    /// The name of its run's folder: the experiment's and the start of its hash, so that a
    /// different configuration is a different run.
    pub fn folder(&self) -> Result<String> {
        Ok(format!("{}-{}", self.name, &self.hash()?[..8]))
    }
}
