//! One step of the probability-flow ODE dx/dt = -t score(x, t) = (x - D(x, t)) / t, and
//! whole trajectories of it (the paper, sections 2 and 3; Karras et al. 2022, alg. 1).

use super::grid::TimeGrid;
use crate::Result;
use crate::seam::{Denoiser, one_a_sample, per_sample};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// The slope of the PF ODE, d = (x - D(x, t)) / t.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use consistency::process::{GaussianMixture, pf_ode_slope};
/// let normal = GaussianMixture::new(vec![1.0], vec![vec![0.0]], vec![1.0])?; // N(0, 1)
/// let x = Tensor::new(&[[5.0f64]], &Device::Cpu)?; // (1, 1)
/// // D(5, 2) = 5 / (1 + 4) = 1, and (5 - 1) / 2 = 2.
/// let slope = pf_ode_slope(&normal, &x, &[2.0])?.to_vec2::<f64>()?;
/// assert!((slope[0][0] - 2.0).abs() < 1e-12);
/// # Ok::<(), consistency::Error>(())
/// ```
pub fn pf_ode_slope(denoiser: &dyn Denoiser, x: &Tensor, t: &[f64]) -> Result<Tensor> {
    Ok((x - denoiser.denoise(x, t)?)?.broadcast_div(&per_sample(t, x)?)?)
}

/// A one-step ODE solver.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use consistency::process::{GaussianMixture, Solver};
/// let normal = GaussianMixture::new(vec![1.0], vec![vec![0.0]], vec![1.0])?; // N(0, 1)
/// let x = Tensor::new(&[[5.0f64]], &Device::Cpu)?; // (1, 1)
/// // The slope at t = 2 is 2: Euler's step to t = 1.5 goes to 5 - 0.5 * 2.
/// let next = Solver::Euler.step(&normal, &x, &[2.0], &[1.5])?.to_vec2::<f64>()?;
/// assert!((next[0][0] - 4.0).abs() < 1e-12);
/// assert_eq!((Solver::Heun.order(), Solver::Heun.evaluations()), (2, 2));
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Solver {
    /// Order 1, one evaluation.
    Euler,
    /// Order 2, two evaluations: the trapezoid over an Euler predictor.
    #[default]
    Heun,
    /// Order 3, three evaluations: Kutta's, at both ends and the middle of the step.
    Kutta3,
}

impl Solver {
    /// From x at `t` to `t_next`, each one noise level or one per sample.
    pub fn step(
        self,
        denoiser: &dyn Denoiser,
        x: &Tensor,
        t: &[f64],
        t_next: &[f64],
    ) -> Result<Tensor> {
        if t.len() != t_next.len() {
            let batch = x.dims().first().copied().unwrap_or(1);
            let (t, t_next) = (one_a_sample(t, batch)?, one_a_sample(t_next, batch)?);
            return self.step(denoiser, x, &t, &t_next);
        }
        let gap: Vec<f64> = t.iter().zip(t_next).map(|(t, next)| next - t).collect();
        let gap = per_sample(&gap, x)?;
        let d_cur = pf_ode_slope(denoiser, x, t)?;
        let go = |slope: &Tensor| -> Result<Tensor> { Ok((x + slope.broadcast_mul(&gap)?)?) };
        match self {
            Self::Euler => go(&d_cur),
            Self::Heun => {
                let d_next = pf_ode_slope(denoiser, &go(&d_cur)?, t_next)?;
                go(&((d_cur + d_next)? * 0.5)?)
            }
            Self::Kutta3 => {
                let middle: Vec<f64> = t.iter().zip(t_next).map(|(t, n)| 0.5 * (t + n)).collect();
                let d_mid = pf_ode_slope(denoiser, &go(&(&d_cur * 0.5)?)?, &middle)?;
                let ahead = go(&((&d_mid * 2.0)? - &d_cur)?)?;
                let d_next = pf_ode_slope(denoiser, &ahead, t_next)?;
                go(&(((d_cur + (d_mid * 4.0)?)? + d_next)? / 6.0)?)
            }
        }
    }

    /// The order of its global error, the p of Theorem 1.
    pub fn order(self) -> u32 {
        match self {
            Self::Euler => 1,
            Self::Heun => 2,
            Self::Kutta3 => 3,
        }
    }

    /// The evaluations of the denoiser in one step.
    pub fn evaluations(self) -> usize {
        match self {
            Self::Euler => 1,
            Self::Heun => 2,
            Self::Kutta3 => 3,
        }
    }
}

/// The PF-ODE trajectory of `x` from T down to eps along `grid`: N tensors, the first
/// `x` itself at T, the last at eps.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use consistency::process::{GaussianMixture, NoiseRange, Solver, trajectory};
/// use consistency::seam::Counted;
/// let normal = GaussianMixture::new(vec![1.0], vec![vec![0.0]], vec![1.0])?; // N(0, 1)
/// let (normal, grid) = (Counted::new(normal), NoiseRange::default().karras(18)?);
/// let x = Tensor::new(&[[80.0f64]], &Device::Cpu)?; // (1, 1), at T
/// let path = trajectory(&normal, Solver::Heun, &x, &grid)?;
/// // 18 points, and two evaluations in each of the 17 steps between them.
/// assert_eq!((path.len(), normal.nfe()), (18, 34));
/// // x_t / sqrt(1 + t^2) stays the same on a trajectory of N(0, 1).
/// let origin = path[17].to_vec2::<f64>()?[0][0];
/// assert!((origin - 80.0 / (1.0f64 + 6400.0).sqrt()).abs() < 0.1);
/// # Ok::<(), consistency::Error>(())
/// ```
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
