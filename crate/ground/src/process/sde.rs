//! The forward SDE dx = sqrt(2t) dw and its time reversal, simulated (the talk,
//! slides 2 and 5).

use super::grid::TimeGrid;
use crate::Result;
use crate::rng::Key;
use crate::seam::{Denoiser, per_sample};
use candle_core::Tensor;

/// x_t = x_0 + t z: a draw of p_t given x_0, for one noise level or one per sample.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use consistency::process::perturb;
/// let x0 = Tensor::new(&[[1.0f64, -1.0]], &Device::Cpu)?; // (1, 2)
/// let z = Tensor::new(&[[0.5f64, 0.25]], &Device::Cpu)?;
/// assert_eq!(perturb(&x0, &[80.0], &z)?.to_vec2::<f64>()?, [[41.0, 19.0]]);
/// # Ok::<(), consistency::Error>(())
/// ```
pub fn perturb(x0: &Tensor, t: &[f64], z: &Tensor) -> Result<Tensor> {
    Ok((x0 + z.broadcast_mul(&per_sample(t, x0)?)?)?)
}

/// Paths of the forward SDE at the times of `grid`, from x_0: N tensors, the first at
/// eps and the last at T.
///
/// The increments are exact, N(0, t_{n+1}^2 - t_n^2): the drift is 0 and the integral
/// of g(s)^2 = 2s over the interval is the difference of squares.
///
/// ```
/// use consistency::prelude::*;
/// let x0 = Tensor::zeros((2000, 1), DType::F64, &Device::Cpu)?;
/// let path = forward_sde(&x0, &NoiseRange::default().karras(10)?, &Key::new(0))?;
/// assert_eq!(path.len(), 10);
/// // x_T ~ N(0, 80^2); the mean square of 2000 draws is known to 3 %.
/// assert!((mean_square(&path[9])? / 6400.0 - 1.0).abs() < 0.1);
/// # Ok::<(), consistency::Error>(())
/// ```
pub fn forward_sde(x0: &Tensor, grid: &TimeGrid, key: &Key) -> Result<Vec<Tensor>> {
    let mut path = Vec::with_capacity(grid.points());
    let (mut x, mut before) = (x0.clone(), 0.0);
    for (n, &t) in grid.times().iter().enumerate() {
        let z = key.step(n as u64).normal_like(x0, 0)?;
        x = perturb(&x, &[(t * t - before * before).sqrt()], &z)?;
        before = t;
        path.push(x.clone());
    }
    Ok(path)
}

/// Paths of the reverse-time SDE dx = -2t score dt + sqrt(2t) dw from `x` at T down to
/// eps: N tensors, the first at T.
///
/// One Euler-Maruyama step per interval, with the integral of g^2, t_{n+1}^2 - t_n^2, taken exactly
/// and the score held at its value at t_{n+1}.
///
/// ```
/// use consistency::prelude::*;
/// let point = GaussianMixture::new(vec![1.0], vec![vec![3.0]], vec![0.0])?; // a point mass at 3
/// let x = (Key::new(0).normal(0..8, &[1], DType::F64, &Device::Cpu)? * 80.0)?;
/// let path = reverse_sde(&point, &x, &NoiseRange::default().karras(18)?, &Key::new(1))?;
/// assert_eq!((path.len(), values(&path[0])?), (18, values(&x)?));
/// assert!(values(&path[17])?.iter().all(|x| (x - 3.0).abs() < 0.05));
/// # Ok::<(), consistency::Error>(())
/// ```
pub fn reverse_sde(
    denoiser: &dyn Denoiser,
    x: &Tensor,
    grid: &TimeGrid,
    key: &Key,
) -> Result<Vec<Tensor>> {
    let mut path = vec![x.clone()];
    let mut x = x.clone();
    for (n, (t, t_next)) in grid.descending().enumerate() {
        let variance = t * t - t_next * t_next;
        let drift = (denoiser.score(&x, &[t])? * variance)?;
        let z = key.step(n as u64).normal_like(&x, 0)?;
        x = perturb(&(x + drift)?, &[variance.sqrt()], &z)?;
        path.push(x.clone());
    }
    Ok(path)
}
