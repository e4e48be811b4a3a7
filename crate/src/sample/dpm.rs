//! DPM-Solver, singlestep, of orders 2 and 3 (Lu et al. 2022, algorithms 1 and 2).
//!
//! With drift 0 the paper's alpha is 1, its sigma is t, and half the log-SNR is
//! lambda = -ln t. e(x, t) = (x - D(x, t)) / t is the noise prediction.

use crate::Result;
use crate::process::{TimeGrid, pf_ode_slope};
use crate::seam::Denoiser;
use candle_core::Tensor;

/// DPM-Solver-2 with r_1 = 1/2.
pub(super) fn dpm2(denoiser: &dyn Denoiser, start: Tensor, grid: &TimeGrid) -> Result<Tensor> {
    let mut x = start;
    for (t, t_next) in grid.descending() {
        let h = (t / t_next).ln();
        let s = t * (-0.5 * h).exp(); // the middle of the step in lambda
        let e = pf_ode_slope(denoiser, &x, &[t])?;
        let u = (&x - (e * (s * (0.5 * h).exp_m1()))?)?;
        let e_s = pf_ode_slope(denoiser, &u, &[s])?;
        x = (x - (e_s * (t_next * h.exp_m1()))?)?;
    }
    Ok(x)
}

/// DPM-Solver-3 with r_1 = 1/3 and r_2 = 2/3.
pub(super) fn dpm3(denoiser: &dyn Denoiser, start: Tensor, grid: &TimeGrid) -> Result<Tensor> {
    let (r1, r2) = (1.0 / 3.0, 2.0 / 3.0);
    // (e^h - 1) / h - 1, by which the first difference of e enters.
    let beyond = |h: f64| h.exp_m1() / h - 1.0;
    let mut x = start;
    for (t, t_next) in grid.descending() {
        let h = (t / t_next).ln();
        let (s1, s2) = (t * (-r1 * h).exp(), t * (-r2 * h).exp());
        let e = pf_ode_slope(denoiser, &x, &[t])?;
        let u1 = (&x - (&e * (s1 * (r1 * h).exp_m1()))?)?;
        let d1 = (pf_ode_slope(denoiser, &u1, &[s1])? - &e)?;
        let u2 = (&x - (&e * (s2 * (r2 * h).exp_m1()))?)?;
        let u2 = (u2 - (d1 * (s2 * r2 / r1 * beyond(r2 * h)))?)?;
        let d2 = (pf_ode_slope(denoiser, &u2, &[s2])? - &e)?;
        x = (x - (e * (t_next * h.exp_m1()))?)?;
        x = (x - (d2 * (t_next / r2 * beyond(h)))?)?;
    }
    Ok(x)
}
