//! Denoising score matching with EDM's noise distribution and weight (Karras et al.
//! 2022, table 1): how a teacher is trained.

use crate::Result;
use crate::bounds::{positive, within};
use crate::process::perturb;
use crate::rng::Key;
use crate::seam::{Denoiser, per_sample};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// The noise levels to train at: ln sigma ~ N(p_mean, p_std^2).
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
    /// Whether noise levels of this law are numbers to train at.
    ///
    /// # Errors
    /// A mean beyond those of the noise levels that are taken, ln 1e-6 to ln 1e6; a deviation that
    /// is not above 0 and up to 5.
    pub fn check(&self) -> Result<()> {
        within("p_mean", self.p_mean, -14.0..=14.0)?;
        within("p_std", self.p_std, positive(5.0))
    }

    /// One noise level for each of the samples `samples` under `key`.
    pub fn noise_levels(&self, samples: Range<u64>, key: &Key) -> Vec<f64> {
        key.normals(samples).iter().map(|z| (self.p_mean + self.p_std * z).exp()).collect()
    }
}

/// lambda(sigma) = (sigma^2 + sigma_data^2) / (sigma sigma_data)^2.
fn weight(sigma: f64, sigma_data: f64) -> f64 {
    let variance = sigma_data * sigma_data;
    (sigma * sigma + variance) / (sigma * sigma * variance)
}

/// E\[lambda(sigma) |D(x_0 + sigma z, sigma) - x_0|^2\] with EDM's weight lambda(sigma) =
/// (sigma^2 + sigma_data^2) / (sigma sigma_data)^2: summed over the elements of a sample,
/// the mean over the batch, a scalar.
pub fn score_matching_loss(
    denoiser: &dyn Denoiser,
    x0: &Tensor,
    z: &Tensor,
    sigma: &[f64],
    sigma_data: f64,
) -> Result<Tensor> {
    let batch = x0.dims().first().copied().unwrap_or(1);
    let noisy = perturb(x0, sigma, z)?.detach();
    let error = (denoiser.denoise(&noisy, sigma)? - x0)?;
    let each = error.reshape((batch, ()))?.sqr()?.sum(1)?; // (B)
    let lambda: Vec<f64> = sigma.iter().map(|s| weight(*s, sigma_data)).collect();
    Ok(each.broadcast_mul(&per_sample(&lambda, &each)?)?.mean_all()?)
}
