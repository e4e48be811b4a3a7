//! The consistency losses (the paper, algorithms 2 and 3; the talk, eq. 6, algorithms 1
//! and 2): a pair of adjacent points of one trajectory, and the distance between the
//! student at the noisier and the target at the cleaner one.

use super::distance::Compare;
use super::weighting::Weighting;
use crate::Result;
use crate::process::{Solver, TimeGrid, perturb};
use crate::seam::{ConsistencyFunction, Denoiser};
use candle_core::Tensor;

/// Two points that should have one origin: (x_{t_{n+1}}, t_{n+1}) and (x_{t_n}, t_n), one pair per
/// sample. No gradient flows through them.
///
/// ```
/// use consistency::prelude::*;
/// let x0 = Tensor::new(&[[0.5f64]], &Device::Cpu)?; // (1, 1)
/// let z = Tensor::new(&[[1.0f64]], &Device::Cpu)?;
/// let grid = TimeGrid::new(vec![0.5, 1.0, 4.0])?;
/// let pair = training_pair(&x0, &z, &[2], &grid)?; // t_2 and t_3
/// assert_eq!((&pair.t[..], &pair.t_next[..]), (&[1.0][..], &[4.0][..]));
/// assert_eq!((values(&pair.x)?, values(&pair.x_next)?), (vec![1.5], vec![4.5]));
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Pair {
    /// x_{t_{n+1}}, the noisier point.
    pub x_next: Tensor,
    /// t_{n+1}.
    pub t_next: Vec<f64>,
    /// x_{t_n}, or the teacher's estimate of it.
    pub x: Tensor,
    /// t_n.
    pub t: Vec<f64>,
}

/// The pair of consistency distillation (algorithm 2): x_{t_{n+1}} = x_0 + t_{n+1} z, and
/// from there one step of the solver on the teacher's PF ODE to t_n (eq. 5).
///
/// `n` holds one index per sample in 1..=N-1, counted from 1 as in the paper.
pub fn distillation_pair(
    x0: &Tensor,
    z: &Tensor,
    n: &[usize],
    grid: &TimeGrid,
    teacher: &dyn Denoiser,
    solver: Solver,
) -> Result<Pair> {
    let (t, t_next) = grid.neighbours(n)?;
    let x_next = perturb(x0, &t_next, z)?.detach();
    let x = solver.step(teacher, &x_next, &t_next, &t)?.detach();
    Ok(Pair { x_next, t_next, x, t })
}

/// The pair of consistency training (algorithm 3): the same z at both noise levels.
///
/// `n` as in [`distillation_pair`].
pub fn training_pair(x0: &Tensor, z: &Tensor, n: &[usize], grid: &TimeGrid) -> Result<Pair> {
    let (t, t_next) = grid.neighbours(n)?;
    let x_next = perturb(x0, &t_next, z)?.detach();
    let x = perturb(x0, &t, z)?.detach();
    Ok(Pair { x_next, t_next, x, t })
}

/// E\[lambda d(f_theta(x_{t_{n+1}}, t_{n+1}), sg f_theta-(x_{t_n}, t_n))\]: the mean over the
/// batch, a scalar. Gradients reach only the student.
///
/// ```
/// use consistency::prelude::*;
/// let normal = GaussianMixture::new(vec![1.0], vec![vec![0.0]], vec![1.0])?; // N(0, 1)
/// let grid = NoiseRange::default().karras(18)?;
/// let [x0, z] = [0, 1].map(|seed| Key::new(seed).normal(0..3, &[1], DType::F64, &Device::Cpu));
/// let pair = distillation_pair(&x0?, &z?, &[1, 9, 17], &grid, &normal, Solver::Heun)?;
/// // The solver's own steps along the grid have no loss on it.
/// let f = FlowMap::new(normal, Solver::Heun, grid);
/// let loss = consistency_loss(&f, &f, &pair, &Distance::default(), &Weighting::default())?;
/// assert!(loss.to_scalar::<f64>()? < 1e-20);
/// # Ok::<(), consistency::Error>(())
/// ```
pub fn consistency_loss(
    student: &dyn ConsistencyFunction,
    target: &dyn ConsistencyFunction,
    pair: &Pair,
    distance: &dyn Compare,
    weighting: &Weighting,
) -> Result<Tensor> {
    let answer = student.origin(&pair.x_next, &pair.t_next)?;
    let goal = target.origin(&pair.x, &pair.t)?.detach();
    let each = distance.per_sample(&answer, &goal)?; // (B)
    weighting.mean(&each, &pair.t_next, &pair.t)
}
