//! EDM's stochastic sampler (Karras et al. 2022, algorithm 2), over any one-step solver.

use super::noise::Noise;
use crate::bounds::{LARGEST, within};
use crate::process::{Solver, TimeGrid, perturb};
use crate::seam::Denoiser;
use crate::{Result, ensure};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// How much noise algorithm 2 of Karras et al. (2022) adds before each step, and where.
///
/// ```
/// use consistency::sample::Churn;
/// let churn = Churn { s_churn: 40.0, s_tmin: 0.05, s_tmax: 50.0, s_noise: 1.003 };
/// assert_eq!(churn.gamma(1.0, 256), 40.0 / 256.0);
/// assert_eq!(churn.gamma(60.0, 256), 0.0);            // above s_tmax
/// assert_eq!(churn.gamma(1.0, 18), 2f64.sqrt() - 1.0); // never more than that
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Churn {
    /// S_churn, the noise of the whole trajectory, shared out over the steps; 0 adds none.
    pub s_churn: f64,
    /// S_tmin: no noise is added below it.
    pub s_tmin: f64,
    /// S_tmax: no noise is added above it.
    // Not every format can write an infinity.
    #[serde(skip_serializing_if = "is_infinite")]
    pub s_tmax: f64,
    /// S_noise, the standard deviation of the noise that is added.
    pub s_noise: f64,
}

fn is_infinite(value: &f64) -> bool {
    *value == f64::INFINITY
}

impl Default for Churn {
    /// No noise: the solver alone.
    fn default() -> Self {
        Self { s_churn: 0.0, s_tmin: 0.0, s_tmax: f64::INFINITY, s_noise: 1.0 }
    }
}

impl Churn {
    /// gamma of a step from `t`, one of `steps`: the noise level rises to t (1 + gamma) first.
    pub fn gamma(&self, t: f64, steps: usize) -> f64 {
        let most = 2f64.sqrt() - 1.0;
        let inside = (self.s_tmin..=self.s_tmax).contains(&t);
        if inside { (self.s_churn / steps as f64).min(most) } else { 0.0 }
    }

    pub(super) fn check(&self) -> Result<()> {
        let Self { s_churn, s_tmin, s_tmax, s_noise } = *self;
        for (name, value) in [("s_churn", s_churn), ("s_tmin", s_tmin), ("s_noise", s_noise)] {
            within(name, value, 0.0..=LARGEST)?;
        }
        ensure!(s_tmax >= s_tmin, "s_tmax = {s_tmax}: needs s_tmin = {s_tmin} or more");
        Ok(())
    }
}

/// Algorithm 2. In the paper its last step goes to 0 and takes no second evaluation there; a grid
/// here ends at eps > 0, so every step is whole.
pub(super) fn churned(
    denoiser: &dyn Denoiser,
    solver: Solver,
    churn: &Churn,
    start: Tensor,
    grid: &TimeGrid,
    noise: &Noise,
) -> Result<Tensor> {
    let mut x = start;
    for (i, (t, t_next)) in grid.descending().enumerate() {
        let gamma = churn.gamma(t, grid.points() - 1);
        let t_hat = t + gamma * t;
        if gamma > 0.0 {
            let spread = churn.s_noise * (t_hat * t_hat - t * t).sqrt();
            x = perturb(&x, &[spread], &noise.of_step(i, &x)?)?;
        }
        x = solver.step(denoiser, &x, &[t_hat], &[t_next])?;
    }
    Ok(x)
}
