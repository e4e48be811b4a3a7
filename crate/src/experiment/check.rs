//! Whether the values of an experiment make sense, field by field.

use super::config::{Experiment, Training};
use crate::bounds::{level, positive, within};
use crate::method::{DecayShape, Gives};
use crate::model::NetworkConfig;
use crate::nn::{OptimizerConfig, OptimizerKind, Precision};
use crate::{Context, Result, ensure};

/// The name becomes part of the names of folders and files.
const LONGEST_NAME: usize = 100;
/// Checkpoints are found in the order of their names, which have nine digits.
const MOST_STEPS: u64 = 999_999_999;
const MOST_SAMPLES: usize = 1_000_000;

impl Experiment {
    /// Whether every value makes sense.
    ///
    /// # Errors
    /// The first field that does not, with its value.
    pub fn check(&self) -> Result<()> {
        let name = &self.name;
        ensure!(
            !name.is_empty()
                && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
                && !name.starts_with('.'),
            "name = '{}': an experiment's name has letters, digits, '-', '_' and '.'",
            name.chars().take(LONGEST_NAME).collect::<String>()
        );
        ensure!(
            name.len() <= LONGEST_NAME,
            "name has {} letters: give {LONGEST_NAME} or fewer",
            name.len()
        );
        level("sigma_data", self.sigma_data)?;
        training(&self.training)?;
        optimizer(&self.optimizer)?;
        self.network.check().context("network")?;
        let Self { network, training: Training { unlabelled, .. }, .. } = self;
        ensure!(
            *unlabelled == 0.0 || network.classes().is_some_and(|known| known > 1),
            "training.unlabelled = {unlabelled}: for a network that knows classes \
             (network.num_class_embeds, the classes of the data and one more for none)"
        );
        let convnet = matches!(network, NetworkConfig::Convnet(_));
        ensure!(
            convnet == (self.method.gives() == Gives::Classifier),
            "network.kind and method.kind: a convnet is for the method 'classification', and that \
             method for a convnet"
        );
        self.noise.check().context("noise")?;
        self.data.check().context("data")?;
        self.method.check()
    }
}

fn training(training: &Training) -> Result<()> {
    let Training { iterations, batch, ema, decay, record_every, checkpoint_every, .. } = training;
    ensure!(*iterations > 0, "training.iterations = 0: give at least 1");
    within("training.iterations", *iterations, 1..=MOST_STEPS)?;
    ensure!(*batch > 0, "training.batch = 0: give at least 1");
    within("training.batch", *batch, 1..=MOST_SAMPLES)?;
    ensure!(!ema.all().is_empty(), "training.ema = []: give at least one rate");
    ema.all().iter().try_for_each(|rate| within("training.ema", *rate, 0.0..1.0))?;
    let Training { keep_checkpoints, accumulate, device, precision, .. } = training;
    ensure!(*keep_checkpoints > 0, "training.keep_checkpoints = 0: give at least 1");
    ensure!(
        *accumulate > 0 && accumulate <= batch,
        "training.accumulate = {accumulate}: needs 1 to training.batch = {batch}"
    );
    ensure!(
        *precision == Precision::F32 || device != "cpu",
        "training.precision = {precision:?}: the CPU computes in f32"
    );
    within("training.decay", *decay, 0.0..=1.0)?;
    ensure!(
        *decay > 0.0 || training.decay_shape == DecayShape::default(),
        "training.decay_shape: the learning rate does not fall; give training.decay, the share of \
         the steps over which it does"
    );
    within("training.warm_up", training.warm_up, 0.0..=1.0)?;
    within("training.unlabelled", training.unlabelled, 0.0..1.0)?;
    ensure!(
        *record_every > 0 && *checkpoint_every > 0,
        "training.record_every and training.checkpoint_every: give at least 1"
    );
    Ok(())
}

fn optimizer(optimizer: &OptimizerConfig) -> Result<()> {
    let OptimizerConfig { kind, learning_rate, betas, eps, weight_decay, clip } = *optimizer;
    // As much as f32 has room for: a rate that is too large for the training stops the run.
    within("optimizer.learning_rate", learning_rate, positive(1e30))?;
    within("optimizer.betas", betas.0, 0.0..1.0)?;
    within("optimizer.betas", betas.1, 0.0..1.0)?;
    // A gradient of 0 is divided by it, in f32.
    within("optimizer.eps", eps, 1e-30..=1.0)?;
    if let Some(clip) = clip {
        within("optimizer.clip", clip, positive(1e30))?;
    }
    within("optimizer.weight_decay", weight_decay, 0.0..=1e6)?;
    ensure!(
        weight_decay == 0.0 || kind == OptimizerKind::AdamW,
        "optimizer.weight_decay = {weight_decay}: with kind = \"adamw\" alone"
    );
    Ok(())
}
