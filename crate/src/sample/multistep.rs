//! Samples of a consistency function: one step, and multistep (the paper, algorithm 1).

use crate::bounds::level;
use crate::process::{TimeGrid, perturb};
use crate::rng::Key;
use crate::seam::ConsistencyFunction;
use crate::{Result, ensure};
use candle_core::Tensor;

/// One step: f(T z, T) for the noise `z` of standard deviation 1.
///
/// ```
/// use consistency::prelude::*;
/// let point = GaussianMixture::new(vec![1.0], vec![vec![0.5]], vec![0.0])?; // a point mass at 0.5
/// let f = ExactFlow::new(point, 0.002)?;
/// let z = Key::new(0).normal(0..4, &[1], DType::F64, &Device::Cpu)?;
/// let x = sample::one_step(&f, &z, 80.0)?; // 0.5 with noise of level eps
/// assert!(values(&x)?.iter().all(|x| (x - 0.5).abs() < 0.01));
/// # Ok::<(), consistency::Error>(())
/// ```
pub fn one_step(f: &dyn ConsistencyFunction, z: &Tensor, t_max: f64) -> Result<Tensor> {
    f.origin(&(z * t_max)?, &[t_max])
}

/// Multistep sampling (algorithm 1): one step from T, then for each tau of the
/// decreasing `taus`: x_tau = x + sqrt(tau^2 - eps^2) z and x = f(x_tau, tau).
///
/// The noise of renoising n is under `key.step(n)`, and each sample has its own.
///
/// ```
/// use consistency::prelude::*;
/// let normal = GaussianMixture::new(vec![1.0], vec![vec![0.0]], vec![1.0])?; // N(0, 1)
/// let f = Counted::new(ExactFlow::new(normal, 0.002)?);
/// let z = Key::new(0).normal(0..4, &[1], DType::F64, &Device::Cpu)?;
/// let x = sample::multistep(&f, &z, 80.0, &[10.0, 1.0], 0.002, &Key::new(1))?;
/// assert_eq!((x.dims(), f.nfe()), (&[4, 1][..], 3));
/// # Ok::<(), consistency::Error>(())
/// ```
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
    let mut sigmas = vec![t_max];
    sigmas.extend_from_slice(taus);
    let steps = Multistep { sigmas: &sigmas, eps, clip: false, s_noise: 1.0 };
    steps.sample(f, z, |n, x| key.step(n as u64).normal_like(x, 0))
}

/// Multistep sampling as it is published with a model: algorithm 1 at these noise levels, each
/// answer clipped to the data's range where that is asked for.
///
/// ```
/// use consistency::prelude::*;
/// let normal = GaussianMixture::new(vec![1.0], vec![vec![0.0]], vec![1.0])?; // N(0, 1)
/// let f = ExactFlow::new(normal, 0.002)?;
/// let z = Key::new(0).normal(0..100, &[1], DType::F64, &Device::Cpu)?;
/// let steps = sample::Multistep { sigmas: &[80.0, 1.0], eps: 0.002, clip: true, s_noise: 1.0 };
/// let x = steps.sample(&f, &z, |n, x| Key::new(1).step(n as u64).normal_like(x, 0))?;
/// assert!(values(&x)?.iter().all(|x| (-1.0..=1.0).contains(x)));
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Multistep<'a> {
    /// The noise levels, decreasing; the first is where sampling starts, T.
    pub sigmas: &'a [f64],
    /// eps, where f is the identity.
    pub eps: f64,
    /// Clip each answer to \[-1, 1\].
    pub clip: bool,
    /// A factor on the noise of each renoising; 1 in algorithm 1.
    pub s_noise: f64,
}

impl Multistep<'_> {
    /// Whether the noise levels decrease, from above eps to eps or above, all between 1e-6 and 1e6.
    ///
    /// # Errors
    /// The noise levels that do not.
    pub fn check(&self) -> Result<()> {
        let Self { sigmas, eps, .. } = *self;
        let Some((first, taus)) = sigmas.split_first() else {
            crate::bail!("no noise level to sample at");
        };
        sigmas.iter().try_for_each(|sigma| level("noise level", *sigma))?;
        ensure!(*first > eps, "sampling starts at a noise level above eps = {eps}, not at {first}");
        ensure!(
            sigmas.windows(2).all(|w| w[1] < w[0]) && taus.iter().all(|tau| *tau >= eps),
            "multistep noise levels {taus:?} must decrease from below T = {first} to eps = {eps} \
             or above"
        );
        Ok(())
    }

    /// Samples from the noise `z` of standard deviation 1. `noise(n, x)` is the noise of
    /// renoising n, counted from 0, in the shape of `x`.
    ///
    /// # Errors
    /// As [`Multistep::check`].
    pub fn sample(
        &self,
        f: &dyn ConsistencyFunction,
        z: &Tensor,
        noise: impl FnMut(usize, &Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        self.check()?;
        self.sample_from(f, &(z * self.sigmas[0])?, noise, Ok)
    }

    /// The same from `start`, which has noise of the first level. `change` is applied to each
    /// answer of f after clipping: editing puts what is known back there.
    ///
    /// # Errors
    /// As [`Multistep::check`]; what `noise` and `change` give.
    pub fn sample_from(
        &self,
        f: &dyn ConsistencyFunction,
        start: &Tensor,
        mut noise: impl FnMut(usize, &Tensor) -> Result<Tensor>,
        change: impl Fn(Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        self.check()?;
        let answer = |x: &Tensor, sigma: f64| -> Result<Tensor> {
            let x = f.origin(x, &[sigma])?;
            change(if self.clip { x.clamp(-1.0, 1.0)? } else { x })
        };
        let mut x = answer(start, self.sigmas[0])?;
        for (n, &tau) in self.sigmas[1..].iter().enumerate() {
            let spread = self.s_noise * (tau * tau - self.eps * self.eps).sqrt();
            let x_tau = perturb(&x, &[spread], &noise(n, &x)?)?;
            x = answer(&x_tau, tau)?;
        }
        Ok(x)
    }
}

/// `steps` noise levels of `grid` for multistep sampling, as diffusers chooses them: from T
/// down, each N / steps (rounded down) points below the last.
///
/// ```
/// use consistency::{process::NoiseRange, sample::grid_steps};
/// let grid = NoiseRange::default().karras(40)?;
/// assert_eq!(grid_steps(&grid, 2)?, [80.0, grid.times()[39 - 20]]);
/// # Ok::<(), consistency::Error>(())
/// ```
///
/// # Errors
/// No steps, or more than the grid has points.
pub fn grid_steps(grid: &TimeGrid, steps: usize) -> Result<Vec<f64>> {
    let points = grid.points();
    ensure!(
        (1..=points).contains(&steps),
        "{steps} steps: needs 1 to {points}, the points of the model's grid"
    );
    let stride = points / steps;
    Ok((0..steps).map(|i| grid.times()[points - 1 - i * stride]).collect())
}
