//! One step of the probability-flow ODE dx/dt = -t score(x, t) = (x - D(x, t)) / t, and
//! whole trajectories of it (the paper, sections 2 and 3; Karras et al. 2022, alg. 1).

use super::grid::TimeGrid;
use crate::seam::{ConsistencyFunction, Denoiser, per_sample};
use crate::{Result, bail};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// The slope of the PF ODE, d = (x - D(x, t)) / t.
pub fn pf_ode_slope(denoiser: &dyn Denoiser, x: &Tensor, t: &[f64]) -> Result<Tensor> {
    Ok((x - denoiser.denoise(x, t)?)?.broadcast_div(&per_sample(t, x)?)?)
}

/// A one-step ODE solver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Solver {
    /// Order 1, one evaluation.
    Euler,
    /// Order 2, two evaluations: the trapezoid over an Euler predictor.
    #[default]
    Heun,
}

impl Solver {
    /// From x at `t` to `t_next`, both one noise level or one a sample.
    pub fn step(
        self,
        denoiser: &dyn Denoiser,
        x: &Tensor,
        t: &[f64],
        t_next: &[f64],
    ) -> Result<Tensor> {
        if t.len() != t_next.len() {
            bail!("{} noise levels to start from, {} to go to", t.len(), t_next.len());
        }
        let gap: Vec<f64> = t.iter().zip(t_next).map(|(t, next)| next - t).collect();
        let gap = per_sample(&gap, x)?;
        let d_cur = pf_ode_slope(denoiser, x, t)?;
        let euler = (x + d_cur.broadcast_mul(&gap)?)?;
        match self {
            Self::Euler => Ok(euler),
            Self::Heun => {
                let d_next = pf_ode_slope(denoiser, &euler, t_next)?;
                let mean = ((d_cur + d_next)? * 0.5)?;
                Ok((x + mean.broadcast_mul(&gap)?)?)
            }
        }
    }

    /// The order of its global error, the p of Theorem 1.
    pub fn order(self) -> u32 {
        match self {
            Self::Euler => 1,
            Self::Heun => 2,
        }
    }
}

/// The PF-ODE trajectory of `x` from T down to eps along `grid`: N tensors, the first
/// `x` itself at T, the last at eps.
pub fn trajectory(
    denoiser: &dyn Denoiser,
    solver: Solver,
    x: &Tensor,
    grid: &TimeGrid,
) -> Result<Vec<Tensor>> {
    let mut path = vec![x.clone()];
    let mut x = x.clone();
    for (t, t_next) in grid.descending() {
        x = solver.step(denoiser, &x, &[t], &[t_next])?;
        path.push(x.clone());
    }
    Ok(path)
}

/// The consistency function that a solver defines: its steps along a grid, from the
/// grid point t down to eps. It has zero consistency loss on that grid (Theorem 1).
pub struct FlowMap<D> {
    denoiser: D,
    solver: Solver,
    grid: TimeGrid,
}

impl<D: Denoiser> FlowMap<D> {
    /// The flow map of `denoiser` by `solver` along `grid`.
    pub fn new(denoiser: D, solver: Solver, grid: TimeGrid) -> Self {
        Self { denoiser, solver, grid }
    }
}

impl<D: Denoiser> ConsistencyFunction for FlowMap<D> {
    /// Every `t` must be a point of the grid. Samples at different points start where
    /// they are and wait, unchanged, until the steps reach them.
    fn origin(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        for t in t {
            if !self.grid.times().contains(t) {
                bail!("noise level t = {t} is not a point of the flow map's grid");
            }
        }
        let mut x = x.clone();
        for (from, to) in self.grid.descending() {
            // Samples below this interval keep their value.
            let active: Vec<f64> = t.iter().map(|&t| f64::from(from <= t)).collect();
            if active.iter().all(|a| *a == 0.0) {
                continue;
            }
            let next = self.solver.step(&self.denoiser, &x, &[from], &[to])?;
            let active = per_sample(&active, &x)?;
            x = (&x + (next - &x)?.broadcast_mul(&active)?)?;
        }
        Ok(x)
    }
}
