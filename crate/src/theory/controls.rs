//! Negative controls: what a check must refuse to pass.

use crate::Result;
use crate::seam::{ConsistencyFunction, Denoiser};
use candle_core::Tensor;

/// A denoiser on whose PF ODE every slope has the wrong sign: D' = 2x - D, so that
/// (x - D') / t = -(x - D) / t.
pub struct WrongSign<D>(pub D);

impl<D: Denoiser> Denoiser for WrongSign<D> {
    fn denoise(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        Ok(((x * 2.0)? - self.0.denoise(x, t)?)?)
    }
}

/// `end(flow(x, t), eps)`: constant along the flow's trajectories, so its consistency loss is zero
/// where the flow's is, with the boundary value of `end` in place of the identity.
pub struct AfterFlow<F, G> {
    /// The flow down to eps.
    pub flow: F,
    /// What stands where the identity should.
    pub end: G,
    /// eps.
    pub eps: f64,
}

impl<F: ConsistencyFunction, G: ConsistencyFunction> ConsistencyFunction for AfterFlow<F, G> {
    fn origin(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        self.end.origin(&self.flow.origin(x, t)?, &[self.eps])
    }
}
