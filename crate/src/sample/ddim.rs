//! DDIM (Song, Meng and Ermon 2021) and Euler's ancestral sampler.

use super::noise::Noise;
use crate::Result;
use crate::process::{TimeGrid, perturb, pf_ode_slope};
use crate::seam::Denoiser;
use candle_core::Tensor;

/// The standard deviation of the fresh noise in a DDIM step from t to t',
/// eta t' sqrt(1 - t'^2 / t^2): their equation 16 in x / sqrt(alpha_bar), where the noise level
/// is sqrt((1 - alpha_bar) / alpha_bar).
fn fresh(eta: f64, t: f64, t_next: f64) -> f64 {
    let share = t_next / t;
    eta * t_next * ((1.0 - share) * (1.0 + share)).sqrt()
}

/// DDIM, their equation 12: x' = D + sqrt(t'^2 - s^2) e + s z, with e = (x - D) / t the noise
/// that is in x and s the fresh noise.
///
/// At eta = 0 it is the exponential integrator that holds D through the step,
/// x' = (t' / t) x + (1 - t' / t) D; with drift 0 that is Euler's step in t.
pub(super) fn ddim(
    denoiser: &dyn Denoiser,
    eta: f64,
    start: Tensor,
    grid: &TimeGrid,
    noise: &Noise,
) -> Result<Tensor> {
    let mut x = start;
    for (i, (t, t_next)) in grid.descending().enumerate() {
        let s = fresh(eta, t, t_next);
        let kept = (t_next * t_next - s * s).sqrt();
        let clean = denoiser.denoise(&x, &[t])?;
        let e = ((&x - &clean)? / t)?;
        x = (clean + (e * kept)?)?;
        if s > 0.0 {
            x = perturb(&x, &[s], &noise.of_step(i, &x)?)?;
        }
    }
    Ok(x)
}

/// Euler's ancestral sampler: a step of the PF ODE from t to t_down below t', then noise t_up
/// that brings the level back to t' (t_up^2 + t_down^2 = t'^2), as much as p(x_t' | x_t, x_0) has.
pub(super) fn ancestral(
    denoiser: &dyn Denoiser,
    start: Tensor,
    grid: &TimeGrid,
    noise: &Noise,
) -> Result<Tensor> {
    let mut x = start;
    for (i, (t, t_next)) in grid.descending().enumerate() {
        let t_up = fresh(1.0, t, t_next);
        let t_down = t_next * t_next / t;
        let slope = pf_ode_slope(denoiser, &x, &[t])?;
        x = (x + (slope * (t_down - t))?)?;
        x = perturb(&x, &[t_up], &noise.of_step(i, &x)?)?;
    }
    Ok(x)
}
