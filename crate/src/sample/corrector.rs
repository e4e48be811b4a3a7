//! The predictor-corrector sampler of Score SDE (Song et al. 2021, algorithm 2).

use super::noise::Noise;
use crate::Result;
use crate::process::{TimeGrid, perturb};
use crate::seam::Denoiser;
use candle_core::Tensor;

/// A step of reverse diffusion from t to t', then `corrections` steps of Langevin dynamics at t'.
///
/// The step of the dynamics is 2 (snr |z| / |score|)^2 in their algorithm 4, with norms that the
/// public code averages over the batch. Here |z| / |score| is t', what it is on average where
/// the data are narrow beside t': a sample does not depend on those beside it, and the step
/// is stable at any snr below 1.
pub(super) fn predictor_corrector(
    denoiser: &dyn Denoiser,
    snr: f64,
    corrections: usize,
    start: Tensor,
    grid: &TimeGrid,
    noise: &Noise,
) -> Result<Tensor> {
    let mut x = start;
    for (i, (t, t_next)) in grid.descending().enumerate() {
        let first = i * (1 + corrections); // the number of this step's first draw
        let variance = t * t - t_next * t_next;
        let drift = (denoiser.score(&x, &[t])? * variance)?;
        x = perturb(&(&x + drift)?, &[variance.sqrt()], &noise.of_step(first, &x)?)?;
        let step = 2.0 * (snr * t_next).powi(2);
        for m in 1..=corrections {
            let drift = (denoiser.score(&x, &[t_next])? * step)?;
            let z = noise.of_step(first + m, &x)?;
            x = perturb(&(&x + drift)?, &[(2.0 * step).sqrt()], &z)?;
        }
    }
    Ok(x)
}
