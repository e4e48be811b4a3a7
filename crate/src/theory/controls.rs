//! Negative controls: what a check must refuse to pass.

use crate::Result;
use crate::seam::{ConsistencyFunction, Denoiser};
use candle_core::Tensor;

/// A denoiser on whose PF ODE every slope has the wrong sign: D' = 2x - D, so that
/// (x - D') / t = -(x - D) / t.
///
/// ```
/// use consistency::prelude::*;
/// let normal = GaussianMixture::new(vec![1.0], vec![vec![0.0]], vec![1.0])?; // N(0, 1)
/// let x = Tensor::new(&[[5.0f64]], &Device::Cpu)?; // (1, 1)
/// let right = pf_ode_slope(&normal, &x, &[2.0])?;
/// let wrong = pf_ode_slope(&theory::WrongSign(normal), &x, &[2.0])?;
/// assert!(mean_square(&(right + wrong)?)? < 1e-24);
/// # Ok::<(), consistency::Error>(())
/// ```
pub struct WrongSign<D>(pub D);

impl<D: Denoiser> Denoiser for WrongSign<D> {
    fn denoise(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        Ok(((x * 2.0)? - self.0.denoise(x, t)?)?)
    }
}

/// `end(flow(x, t), eps)`: constant along the flow's trajectories, so its consistency loss is zero
/// where the flow's is, with the boundary value of `end` in place of the identity.
///
/// ```
/// use consistency::prelude::*;
/// let (noise, normal) = (NoiseRange::default(), vec![vec![0.0]]);
/// let flow = ExactFlow::new(GaussianMixture::new(vec![1.0], normal, vec![1.0])?, noise.eps)?;
/// let end = TanhModel::new([1.0; 3], &noise).scaled(Scaling::Edm { sigma_data: 0.5 });
/// let f = theory::AfterFlow { flow, end, eps: noise.eps };
/// // 5 at t = 7 and 1 at t = 1 lie on one trajectory of N(0, 1): one answer.
/// let x = Tensor::new(&[[5.0f64], [1.0]], &Device::Cpu)?; // (2, 1)
/// let answers = values(&f.origin(&x, &[7.0, 1.0])?)?;
/// assert!((answers[0] - answers[1]).abs() < 1e-9);
/// // But at eps it is not the identity.
/// assert!((values(&f.origin(&x, &[noise.eps])?)?[1] - 1.0).abs() > 1e-3);
/// # Ok::<(), consistency::Error>(())
/// ```
pub struct AfterFlow<F, G> {
    /// The flow down to eps.
    pub flow: F,
    /// What takes the place of the identity.
    pub end: G,
    /// eps.
    pub eps: f64,
}

impl<F: ConsistencyFunction, G: ConsistencyFunction> ConsistencyFunction for AfterFlow<F, G> {
    fn origin(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        self.end.origin(&self.flow.origin(x, t)?, &[self.eps])
    }
}
