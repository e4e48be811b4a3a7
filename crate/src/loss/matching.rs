//! Denoising score matching with EDM's noise distribution and weight (Karras et al.
//! 2022, table 1): how a teacher is trained.

use crate::Result;
use crate::process::perturb;
use crate::seam::{Denoiser, per_sample};
use candle_core::Tensor;

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
