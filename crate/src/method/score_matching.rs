//! Denoising score matching with EDM's noise distribution and weight (Karras et al. 2022,
//! table 1): how a teacher is trained.

use super::{Batch, Gives, Method, Player, Setting, Trainer};
use crate::bounds::{positive, within};
use crate::loss::score_matching_loss;
use crate::model::{Conditioned, EdmDenoiser};
use crate::rng::Key;
use crate::{Context, Result};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// The noise levels to train at: ln sigma ~ N(p_mean, p_std^2).
///
/// ```
/// use consistency::prelude::*;
/// let sigma = ScoreMatching::default().noise_levels(0..1000, &Key::new(0));
/// // The median is e^-1.2 = 0.30.
/// let below = sigma.iter().filter(|sigma| **sigma < (-1.2f64).exp()).count();
/// assert!((450..=550).contains(&below));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScoreMatching {
    /// The mean of ln sigma.
    pub p_mean: f64,
    /// The standard deviation of ln sigma.
    pub p_std: f64,
}

impl Default for ScoreMatching {
    fn default() -> Self {
        Self { p_mean: -1.2, p_std: 1.2 }
    }
}

impl ScoreMatching {
    /// One noise level for each of the samples `samples` under `key`.
    pub fn noise_levels(&self, samples: Range<u64>, key: &Key) -> Vec<f64> {
        key.normals(samples).iter().map(|z| (self.p_mean + self.p_std * z).exp()).collect()
    }
}

impl Method for ScoreMatching {
    fn name(&self) -> &'static str {
        "denoising score matching"
    }

    fn source(&self) -> &'static str {
        "Karras, Aittala, Aila and Laine, 2022"
    }

    fn summary(&self, _: Option<&str>) -> String {
        "A denoiser, by score matching".to_string()
    }

    fn gives(&self) -> Gives {
        Gives::Denoiser
    }

    /// The mean must lie within the noise levels that are allowed, ln 1e-6 to ln 1e6, and the
    /// deviation must be above 0 and at most 5.
    fn check(&self) -> Result<()> {
        within("p_mean", self.p_mean, -14.0..=14.0).context("method")?;
        within("p_std", self.p_std, positive(5.0)).context("method")
    }

    fn build(&self, setting: &Setting) -> Result<Box<dyn Trainer>> {
        let (params, network) = setting.network()?;
        Ok(Box::new(Teacher {
            config: *self,
            denoiser: EdmDenoiser::new(network, setting.sigma_data),
            player: setting.player("teacher", params)?,
            sigma_data: setting.sigma_data,
        }))
    }
}

struct Teacher {
    config: ScoreMatching,
    denoiser: EdmDenoiser,
    player: Player,
    sigma_data: f64,
}

impl Trainer for Teacher {
    fn players(&self) -> Vec<&Player> {
        vec![&self.player]
    }

    fn players_mut(&mut self) -> Vec<&mut Player> {
        vec![&mut self.player]
    }

    fn loss(&self, _: usize, _: u64, batch: &Batch) -> Result<Tensor> {
        let sigma = self.config.noise_levels(batch.places(), &batch.key.stream("sigma")); // (B)
        let z = batch.noise()?;
        let denoiser = Conditioned::new(&self.denoiser, batch.labels(), Some(batch.masks()));
        score_matching_loss(&denoiser, &batch.x0, &z, &sigma, self.sigma_data)
    }

    // Without a time grid; earlier records have these columns.
    fn columns(&self, _: u64) -> Vec<(&'static str, f64)> {
        vec![("points", 2.0), ("mu", 0.0)]
    }
}
