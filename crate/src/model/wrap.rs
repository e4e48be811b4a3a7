//! A network as a denoiser (EDM) and as a consistency function (boundary scalings).

use super::network::{Condition, Network};
use crate::Result;
use crate::nn::Masks;
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

    fn run(&self, x: &Tensor, t: &[f64], on: Condition) -> Result<Tensor> {
        self.scaling.apply(x, t, |xs, noise| self.network.forward(xs, Condition { noise, ..on }))
    }
}

impl Denoiser for EdmDenoiser {
    fn denoise(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        self.run(x, t, Condition::default())
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

    fn run(&self, x: &Tensor, t: &[f64], on: Condition) -> Result<Tensor> {
        self.parameterization.apply(self.sigma_data, self.eps, x, t, |xs, noise| {
            self.network.forward(xs, Condition { noise, ..on })
        })
    }
}

impl ConsistencyFunction for ConsistencyModel {
    fn origin(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        self.run(x, t, Condition::default())
    }
}

/// A model that is conditioned on classes, or that has dropout.
#[derive(Clone, Copy)]
pub struct Conditioned<'a, M> {
    of: &'a M,
    labels: Option<&'a [u32]>,
    dropout: Option<Masks>,
}

impl<'a, M> Conditioned<'a, M> {
    /// `of` with a class for each sample, and with these dropout masks.
    pub fn new(of: &'a M, labels: Option<&'a [u32]>, dropout: Option<Masks>) -> Self {
        Self { of, labels, dropout }
    }

    fn condition(&self) -> Condition<'_> {
        Condition { noise: &[], labels: self.labels, dropout: self.dropout }
    }

    pub(super) fn parts(&self) -> (&'a M, Condition<'_>) {
        (self.of, self.condition())
    }
}

impl Denoiser for Conditioned<'_, EdmDenoiser> {
    fn denoise(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        self.of.run(x, t, self.condition())
    }
}

impl ConsistencyFunction for Conditioned<'_, ConsistencyModel> {
    fn origin(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        self.of.run(x, t, self.condition())
    }
}
