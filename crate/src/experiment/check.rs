//! Whether the values of an experiment make sense, field by field.

use super::config::{Experiment, Method, Training};
use crate::bounds::{POINTS, level, positive, within};
use crate::loss::{Distance, LpipsConfig};
use crate::model::NetworkConfig;
use crate::nn::{OptimizerConfig, OptimizerKind, Precision};
use crate::{Context, Result, ensure};

/// The name is part of those of folders and files.
const LONGEST_NAME: usize = 100;
/// Checkpoints are found in the order of their names, which have nine digits.
const MOST_STEPS: u64 = 999_999_999;
const MOST_SAMPLES: usize = 1_000_000;
/// Widths, blocks and levels of a network are below it: products of them are no overflow.
const WIDEST: usize = 1 << 16;
const DEEPEST: usize = 1 << 10;

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
        network(&self.network).context("network")?;
        self.noise.check().context("noise")?;
        self.data.check().context("data")?;
        match &self.method {
            Method::ScoreMatching(config) => config.check().context("method"),
            Method::Distillation { points, mu, distance, lpips, .. } => {
                check_distance(lpips.as_ref(), distance)?;
                ensure!(*points >= 2, "method.points = {points}: a grid needs 2 or more");
                within("method.points", *points, 2..=POINTS)?;
                within("method.mu", *mu, 0.0..1.0)
            }
            Method::ConsistencyTraining { schedule, distance, lpips, .. } => {
                check_distance(lpips.as_ref(), distance)?;
                schedule.check().context("method.schedule")
            }
        }
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
        *record_every > 0 && *checkpoint_every > 0,
        "training.record_every and training.checkpoint_every: give at least 1"
    );
    Ok(())
}

fn optimizer(optimizer: &OptimizerConfig) -> Result<()> {
    let OptimizerConfig { kind, learning_rate, betas, eps, weight_decay, clip } = *optimizer;
    // What f32 still has room for: a rate that is too large for the training stops the run.
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

// What is too large to be built, before anything is built; the rest says the network itself.
fn network(network: &NetworkConfig) -> Result<()> {
    match network {
        NetworkConfig::Mlp(mlp) => {
            within("width", mlp.width, 1..=WIDEST)?;
            within("blocks", mlp.blocks, ..=DEEPEST)?;
            within("time_features", mlp.time_features, 2..=WIDEST)
        }
        NetworkConfig::Unet(unet) => {
            unet.block_out_channels
                .iter()
                .try_for_each(|channels| within("block_out_channels", *channels, 1..=WIDEST))?;
            within("number of block_out_channels", unet.block_out_channels.len(), 1..=16)?;
            within("layers_per_block", unet.layers_per_block, 1..=DEEPEST)?;
            within("time_embedding_dim", unet.time_embedding_dim.unwrap_or(1), 1..=4 * WIDEST)?;
            within("num_class_embeds", unet.num_class_embeds.unwrap_or(1), 1..=MOST_SAMPLES)?;
            within("downsample_padding", unet.downsample_padding, ..=16)?;
            within("freq_shift", unet.freq_shift, -1e3..=1e3)?;
            within("mid_block_scale_factor", unet.mid_block_scale_factor, positive(1e6))?;
            within("norm_eps", unet.norm_eps, 1e-12..=1.0)?;
            within("dropout", unet.dropout, 0.0..1.0)
        }
        NetworkConfig::Ncsnpp(ncsnpp) => {
            within("nf", ncsnpp.nf, 1..=WIDEST)?;
            within("number of ch_mult", ncsnpp.ch_mult.len(), 1..=16)?;
            ncsnpp.ch_mult.iter().try_for_each(|factor| within("ch_mult", *factor, 1..=DEEPEST))?;
            within("num_res_blocks", ncsnpp.num_res_blocks, 1..=DEEPEST)?;
            within("fourier_scale", ncsnpp.fourier_scale, positive(1e6))?;
            within("dropout", ncsnpp.dropout, 0.0..1.0)
        }
    }
}

fn check_distance(lpips: Option<&LpipsConfig>, distance: &Distance) -> Result<()> {
    distance.check().context("method.distance")?;
    let Some(lpips) = lpips else { return Ok(()) };
    ensure!(
        *distance == Distance::default(),
        "method.lpips and method.distance: one of them is d, leave the other out"
    );
    lpips.check().context("method.lpips")
}
