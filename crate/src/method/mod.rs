//! How networks are trained. Each method is one file here, to be read beside its paper: its
//! configuration, what it builds, its step in the paper's symbols, what follows a step, its columns
//! of the record, and what a trained run gives.
//!
//! The loop, checkpoints, sampling, export and reports use a [`Method`] and its [`Trainer`], and
//! never depend on which method it is. A new method is a file of its own and a line of
//! [`MethodConfig`].

mod batch;
mod classification;
mod consistency_distillation;
mod consistency_training;
mod consistency_trajectory;
mod continuous_distillation;
mod continuous_training;
mod knowledge_distillation;
mod player;
mod progressive_distillation;
mod score_matching;
mod setting;
mod step;
mod student;

pub use batch::Batch;
pub use classification::{Classification, ClassifierConfig};
pub use consistency_distillation::ConsistencyDistillation;
pub use consistency_training::ConsistencyTraining;
pub use consistency_trajectory::{ConsistencyTrajectory, TrajectoryMaps};
pub use continuous_distillation::ContinuousDistillation;
pub use continuous_training::ContinuousTraining;
pub use knowledge_distillation::KnowledgeDistillation;
pub(crate) use player::average;
pub use player::{Averages, DecayShape, LearningRate, Player};
pub use progressive_distillation::{ProgressiveDistillation, two_steps_in_one};
pub use score_matching::ScoreMatching;
pub use setting::{Setting, Teachers, Weights};
pub use step::{Losses, step};

use crate::loss::LpipsConfig;
use crate::model::Times;
use crate::process::Parameterization;
use crate::{Result, ensure};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Deref;

/// A loss that is this many times the first one does not come down again.
const DIVERGED: f64 = 1e6;

/// How a network is trained: the methods, by the name that an experiment gives as `kind`.
///
/// It is used as the [`Method`] that it names.
///
/// ```
/// use consistency::prelude::*;
/// let experiment = Experiment::parse(r#"
///     name = "spirals"
///     data = { name = "spirals", count = 1000 }
///     network = { kind = "mlp" }
///     method = { kind = "consistency-training", schedule = { s0 = 2, s1 = 20, mu0 = 0.9 } }
///     training = { iterations = 1000, batch = 100 }
/// "#)?;
/// assert!(matches!(experiment.method, MethodConfig::ConsistencyTraining(_)));
/// assert_eq!(experiment.method.points(1000, 1000), Some(21)); // N at the end
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub enum MethodConfig {
    /// A teacher, by denoising score matching.
    ScoreMatching(ScoreMatching),
    /// Consistency distillation.
    Distillation(ConsistencyDistillation),
    /// Consistency training.
    ConsistencyTraining(ConsistencyTraining),
    /// Consistency distillation in the limit of fine grids.
    ContinuousDistillation(ContinuousDistillation),
    /// Consistency training in the limit of fine grids.
    ContinuousTraining(ContinuousTraining),
    /// Progressive distillation.
    ProgressiveDistillation(ProgressiveDistillation),
    /// Knowledge distillation.
    KnowledgeDistillation(KnowledgeDistillation),
    /// A consistency trajectory model, without the adversarial loss.
    ConsistencyTrajectory(ConsistencyTrajectory),
    /// A classifier, on whose features samples are compared.
    Classification(Classification),
}

impl Deref for MethodConfig {
    type Target = dyn Method;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::ScoreMatching(method) => method,
            Self::Distillation(method) => method,
            Self::ConsistencyTraining(method) => method,
            Self::ContinuousDistillation(method) => method,
            Self::ContinuousTraining(method) => method,
            Self::ProgressiveDistillation(method) => method,
            Self::KnowledgeDistillation(method) => method,
            Self::ConsistencyTrajectory(method) => method,
            Self::Classification(method) => method,
        }
    }
}

/// What a trained run gives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Gives {
    /// A denoiser with EDM's scalings.
    Denoiser,
    /// A consistency function.
    Consistency(Parameterization),
    /// A map between two noise levels, whose network is conditioned on both.
    TwoTimeMap,
    /// A generator: one evaluation from noise to a sample.
    Generator,
    /// A classifier of images. It makes none.
    Classifier,
}

impl Gives {
    /// What it is called.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Denoiser => "a denoiser",
            Self::Consistency(_) => "a consistency model",
            Self::TwoTimeMap => "a map between two noise levels",
            Self::Generator => "a generator",
            Self::Classifier => "a classifier",
        }
    }

    /// How many noise levels its network is conditioned on.
    pub fn times(&self) -> Times {
        match self {
            Self::TwoTimeMap => Times::Two,
            Self::Denoiser | Self::Consistency(_) | Self::Generator | Self::Classifier => {
                Times::One
            }
        }
    }
}

/// A method as an experiment describes it.
///
/// ```
/// use consistency::prelude::*;
/// let method: &dyn Method = &ScoreMatching::default();
/// assert_eq!((method.name(), method.gives().name()), ("denoising score matching", "a denoiser"));
/// assert_eq!(method.points(0, 1000), None); // no time grid
/// ```
pub trait Method {
    /// Its name in a sentence.
    fn name(&self) -> &'static str;

    /// Who published it, and when.
    fn source(&self) -> &'static str {
        "Song, Dhariwal, Chen and Sutskever, 2023"
    }

    /// What its runs are, in a sentence; `teacher` is the name of the teacher's experiment.
    fn summary(&self, teacher: Option<&str>) -> String;

    /// What a trained run gives.
    fn gives(&self) -> Gives;

    /// Whether its values make sense.
    ///
    /// # Errors
    /// The first field that does not, with its value.
    fn check(&self) -> Result<()>;

    /// Its networks and everything else that it trains with.
    ///
    /// # Errors
    /// A teacher that is missing or unlike its student, networks that cannot be built.
    fn build(&self, setting: &Setting) -> Result<Box<dyn Trainer>>;

    /// N, the points of the time grid at step `k` of `total`, where it has one.
    fn points(&self, _k: u64, _total: u64) -> Option<usize> {
        None
    }

    /// mu, the decay rate of the target at step `k` of `total`, where it has one.
    fn mu(&self, _k: u64, _total: u64) -> Option<f64> {
        None
    }

    /// N and mu as table 3 of the paper has them.
    fn hyper_parameters(&self) -> [Option<String>; 2] {
        [None, None]
    }

    /// The teacher's run or published network, where it has one.
    fn teacher(&self) -> Option<&str> {
        None
    }

    /// LPIPS, where it is d.
    fn lpips(&self) -> Option<&LpipsConfig> {
        None
    }
}

/// A method at work: its players, and what each step is.
pub trait Trainer {
    /// What is trained. The first is the one that a trained run gives.
    fn players(&self) -> Vec<&Player>;

    /// The same, mutable.
    fn players_mut(&mut self) -> Vec<&mut Player>;

    /// The players, counted from 0, that take a step at step `k`, in this order.
    fn turns(&self, _k: u64) -> Vec<usize> {
        (0..self.players().len()).collect()
    }

    /// The loss of `player` on a batch at step `k`: a scalar, the mean over the batch.
    ///
    /// # Errors
    /// Errors of its networks and tensors.
    fn loss(&self, player: usize, k: u64, batch: &Batch) -> Result<Tensor>;

    /// What follows step `k`, once the players have taken it.
    ///
    /// # Errors
    /// Errors of its tensors.
    fn follow(&mut self, _k: u64) -> Result<()> {
        Ok(())
    }

    /// What it records of step `k` besides the losses.
    fn columns(&self, _k: u64) -> Vec<(&'static str, f64)> {
        Vec::new()
    }

    /// What a checkpoint holds besides the players: tensors by group and name.
    fn state(&self) -> BTreeMap<&'static str, BTreeMap<String, Tensor>> {
        BTreeMap::new()
    }

    /// Restore a group of [`Trainer::state`].
    ///
    /// # Errors
    /// A tensor that is missing or has another shape, by name.
    fn restore(&mut self, _group: &str, _tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        Ok(())
    }

    /// Whether the mean loss over a batch is the mean over its parts, so that a batch can be
    /// split (`training.accumulate`).
    fn splits(&self) -> bool {
        true
    }

    /// An error where `player` has diverged, judged by its loss and that of the run's first step.
    ///
    /// # Errors
    /// A loss that is a million times the first.
    fn check_loss(&self, _player: usize, loss: f64, first: f64) -> Result<()> {
        // A network that an early step has thrown far away may stay there for good, with every
        // number finite.
        ensure!(
            diverged: first <= 0.0 || loss <= DIVERGED * first,
            "the loss is {loss:e}, and began at {first:e}: the training has diverged; lower \
             optimizer.learning_rate, set optimizer.clip, or choose optimizer.kind = 'adam' (the \
             first steps of RAdam are the gradient times the learning rate, however large it is)"
        );
        Ok(())
    }
}
