//! A network as a denoiser (EDM) and as a consistency function (boundary scalings).

use super::network::Network;
use crate::Result;
use crate::process::{Parameterization, Scaling};
use crate::seam::{ConsistencyFunction, Denoiser};
use candle_core::Tensor;

/// The EDM denoiser around a network: a teacher.
pub struct EdmDenoiser {
    network: Box<dyn Network>,
    scaling: Scaling,
}

impl EdmDenoiser {
    /// Wrap `network`; `sigma_data` is the standard deviation of the data.
    pub fn new(network: Box<dyn Network>, sigma_data: f64) -> Self {
        Self { network, scaling: Scaling::Edm { sigma_data } }
    }
}

impl Denoiser for EdmDenoiser {
    fn denoise(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        self.scaling.apply(x, t, |xs, c_noise| self.network.forward(xs, c_noise))
    }
}

/// A consistency model: f(x, t) with f(x, eps) = x by construction.
pub struct ConsistencyModel {
    network: Box<dyn Network>,
    parameterization: Parameterization,
    sigma_data: f64,
    eps: f64,
}

impl ConsistencyModel {
    /// Wrap `network`; `sigma_data` is the standard deviation of the data, `eps` the
    /// noise level of the boundary condition.
    pub fn new(
        network: Box<dyn Network>,
        parameterization: Parameterization,
        sigma_data: f64,
        eps: f64,
    ) -> Self {
        Self { network, parameterization, sigma_data, eps }
    }
}

impl ConsistencyFunction for ConsistencyModel {
    fn origin(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        self.parameterization
            .apply(self.sigma_data, self.eps, x, t, |xs, c_noise| self.network.forward(xs, c_noise))
    }
}
