//! Sampling: one step and multistep from a consistency function (the paper, algorithm
//! 1), Heun or Euler along the PF ODE and the reverse SDE from a denoiser.

use crate::process::{Solver, TimeGrid, perturb, reverse_sde, trajectory};
use crate::rng::Key;
use crate::seam::{ConsistencyFunction, Denoiser};
use crate::{Result, ensure};
use candle_core::Tensor;

/// One step: f(T z, T) for the noise `z` of standard deviation 1.
pub fn one_step(f: &dyn ConsistencyFunction, z: &Tensor, t_max: f64) -> Result<Tensor> {
    f.origin(&(z * t_max)?, &[t_max])
}

/// Multistep sampling (algorithm 1): one step from T, then for each tau of the
/// decreasing `taus`: x_tau = x + sqrt(tau^2 - eps^2) z and x = f(x_tau, tau).
///
/// The noise of renoising n is under `key.step(n)`, a sample its own.
///
/// # Errors
/// Noise levels that do not decrease within \[eps, T\].
pub fn multistep(
    f: &dyn ConsistencyFunction,
    z: &Tensor,
    t_max: f64,
    taus: &[f64],
    eps: f64,
    key: &Key,
) -> Result<Tensor> {
    let mut last = t_max;
    for tau in taus {
        ensure!(
            *tau < last && *tau >= eps,
            "multistep noise levels {taus:?} must decrease from below T = {t_max} to eps = {eps} \
             or above"
        );
        last = *tau;
    }
    let mut x = one_step(f, z, t_max)?;
    for (n, &tau) in taus.iter().enumerate() {
        let noise = key.step(n as u64).normal_like(&x, 0)?;
        let x_tau = perturb(&x, &[(tau * tau - eps * eps).sqrt()], &noise)?;
        x = f.origin(&x_tau, &[tau])?;
    }
    Ok(x)
}

/// The PF ODE from T z down to eps along `grid`: NFE N - 1 by Euler, 2 (N - 1) by Heun.
pub fn pf_ode(
    denoiser: &dyn Denoiser,
    solver: Solver,
    z: &Tensor,
    grid: &TimeGrid,
) -> Result<Tensor> {
    let start = (z * grid.last())?;
    last(trajectory(denoiser, solver, &start, grid)?)
}

/// The reverse SDE from T z down to eps along `grid`, its noise under `key`.
pub fn reverse(denoiser: &dyn Denoiser, z: &Tensor, grid: &TimeGrid, key: &Key) -> Result<Tensor> {
    let start = (z * grid.last())?;
    last(reverse_sde(denoiser, &start, grid, key)?)
}

fn last(mut path: Vec<Tensor>) -> Result<Tensor> {
    path.pop().ok_or_else(|| crate::Error::new("a trajectory without points"))
}
