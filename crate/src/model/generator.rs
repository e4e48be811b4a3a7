//! A network as a generator: one evaluation from noise to a sample.

use super::network::{Condition, Network, answer};
use crate::process::Scaling;
use crate::seam::Generator;
use crate::{Result, ensure};
use candle_core::Tensor;

/// The generator around a network for samples of one shape: D(T z, T) with EDM's scalings. A
/// teacher's network is a generator even before it is trained as one: its output is then near
/// the mean of the data for every z.
pub struct OneStepGenerator {
    network: Box<dyn Network>,
    scaling: Scaling,
    t_max: f64,
    shape: Vec<usize>,
}

impl OneStepGenerator {
    /// Wrap `network` for samples of `shape`; `sigma_data` is the standard deviation of the data,
    /// `t_max` is T.
    pub fn new(network: Box<dyn Network>, shape: &[usize], sigma_data: f64, t_max: f64) -> Self {
        Self { network, scaling: Scaling::Edm { sigma_data }, t_max, shape: shape.to_vec() }
    }

    /// [`Generator::generate`] with everything that the network is conditioned on but the noise
    /// level, which is T.
    pub(crate) fn run(&self, z: &Tensor, on: Condition) -> Result<Tensor> {
        ensure!(
            z.dims().get(1..) == Some(self.shape.as_slice()),
            "noise of shape {:?} for a generator of (B, {:?})",
            z.dims(),
            self.shape
        );
        let at = [self.t_max];
        self.scaling.apply(&(z * self.t_max)?, &at, |xs, noise| {
            answer(self.network.as_ref(), xs, Condition { noise, ..on })
        })
    }
}

impl Generator for OneStepGenerator {
    fn noise_shape(&self) -> &[usize] {
        &self.shape
    }

    fn generate(&self, z: &Tensor, classes: Option<&[u32]>) -> Result<Tensor> {
        self.run(z, Condition { labels: classes, ..Condition::default() })
    }
}
