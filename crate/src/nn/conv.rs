//! Two-dimensional convolution.

use super::ops;
use super::params::{Init, Scope};
use crate::{Result, ensure};
use candle_core::Tensor;

/// A convolution with an odd square kernel, stride 1 and the padding that keeps the size.
#[derive(Clone, Debug)]
pub struct Conv2d {
    weight: Tensor, // (C_out, C_in, k, k)
    bias: Tensor,   // (C_out)
}

impl Conv2d {
    /// From `inputs` to `outputs` channels with a `kernel` x `kernel` window; weights
    /// start normal with standard deviation `gain / sqrt(inputs kernel^2)`.
    ///
    /// # Errors
    /// An even kernel.
    pub fn new(
        scope: &mut Scope,
        inputs: usize,
        outputs: usize,
        kernel: usize,
        gain: f64,
    ) -> Result<Self> {
        ensure!(kernel % 2 == 1, "a convolution's kernel must be odd, got {kernel}");
        let std = gain / ((inputs * kernel * kernel) as f64).sqrt();
        let shape = [outputs, inputs, kernel, kernel];
        Ok(Self {
            weight: scope.tensor("weight", &shape, Init::Normal(std))?,
            bias: scope.tensor("bias", &[outputs], Init::Constant(0.0))?,
        })
    }

    /// `xs`: (B, C_in, H, W) to (B, C_out, H, W).
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        Ok(ops::convolution(xs, &self.weight, &self.bias)?)
    }
}
