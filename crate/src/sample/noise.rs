//! The noise of a stochastic sampler.

use crate::Result;
use crate::rng::Key;
use candle_core::Tensor;

/// The noise of a batch whose first sample is number `first`, by step.
pub(super) struct Noise<'a> {
    pub key: &'a Key,
    pub first: u64,
}

impl Noise<'_> {
    /// Noise in the shape of `x`, of draw number `step`.
    pub fn of_step(&self, step: usize, x: &Tensor) -> Result<Tensor> {
        self.key.step(step as u64).normal_like(x, self.first)
    }
}
