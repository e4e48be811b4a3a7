//! The PF ODE and the reverse SDE of the talk (slides 2 and 5), from T z to eps.

use crate::Result;
use crate::process::{Solver, TimeGrid, reverse_sde, trajectory};
use crate::rng::Key;
use crate::seam::Denoiser;
use candle_core::Tensor;

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
