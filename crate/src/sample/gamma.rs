//! Samples of a two-time map by gamma-sampling (Kim et al. 2023, "Consistency Trajectory Models").

use super::multistep::Multistep;
use crate::bounds::within;
use crate::process::perturb;
use crate::seam::TwoTimeMap;
use crate::{Context, Result};
use candle_core::Tensor;

/// Gamma-sampling: down the decreasing noise levels from T to eps. Gamma says how far below the next
/// level a step goes; the noise that is missing there is added.
///
/// From x at level t to the next level t': x = G(x, t, s) + gamma sqrt(t'^2 - eps^2) z, with
/// s^2 = (1 - gamma^2) t'^2 + gamma^2 eps^2. With gamma = 0 these are steps along the PF ODE, with
/// gamma = 1 multistep sampling of the consistency function at s = eps. (The original's s is
/// sqrt(1 - gamma^2) t': its trajectories end at 0 and not at eps.)
///
/// ```
/// use consistency::prelude::*;
/// use consistency::sample::GammaSampling;
/// let normal = GaussianMixture::new(vec![1.0], vec![vec![0.0]], vec![1.0])?; // N(0, 1)
/// let flow = ExactFlow::new(normal, 0.002)?;
/// let z = Tensor::new(&[[1.0f64]], &Device::Cpu)?; // (1, 1)
/// // With gamma = 0 two steps of the exact flow end where one does.
/// let end = |sigmas: &[f64]| {
///     let steps = GammaSampling { sigmas, eps: 0.002, gamma: 0.0 };
///     steps.sample(&flow, &z, |_, x| x.zeros_like().map_err(Into::into))
/// };
/// let (one, two) = (end(&[80.0])?, end(&[80.0, 0.8])?);
/// assert!((one - two)?.abs()?.sum_all()?.to_scalar::<f64>()? < 1e-12);
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GammaSampling<'a> {
    /// The noise levels, decreasing; the first is where sampling starts, T.
    pub sigmas: &'a [f64],
    /// eps, where sampling ends.
    pub eps: f64,
    /// gamma, from 0 to 1.
    pub gamma: f64,
}

impl GammaSampling<'_> {
    /// Whether gamma lies between 0 and 1, and the noise levels decrease, from
    /// above eps to eps or above.
    ///
    /// # Errors
    /// The values that do not.
    pub fn check(&self) -> Result<()> {
        within("gamma", self.gamma, 0.0..=1.0)?;
        let Self { sigmas, eps, .. } = *self;
        Multistep { sigmas, eps, clip: false, s_noise: 1.0 }.check().context("gamma-sampling")
    }

    /// Samples from the noise `z` of standard deviation 1. `noise(n, x)` is the noise that is added
    /// after step n, counted from 0, in the shape of `x`; it is not asked for where gamma is 0.
    ///
    /// # Errors
    /// As [`GammaSampling::check`]; what the map and `noise` give.
    pub fn sample(
        &self,
        map: &dyn TwoTimeMap,
        z: &Tensor,
        mut noise: impl FnMut(usize, &Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        self.check()?;
        let Self { sigmas, eps, gamma } = *self;
        let mut x = (z * sigmas[0])?;
        for (n, pair) in sigmas.windows(2).enumerate() {
            let (t, t_next) = (pair[0], pair[1]);
            let s = ((1.0 - gamma * gamma) * t_next * t_next + gamma * gamma * eps * eps).sqrt();
            x = map.map(&x, &[t], &[s])?;
            if gamma > 0.0 {
                let spread = gamma * (t_next * t_next - eps * eps).sqrt();
                x = perturb(&x, &[spread], &noise(n, &x)?)?;
            }
        }
        map.map(&x, &sigmas[sigmas.len() - 1..], &[eps])
    }
}
