//! What a training step is computed on.

use crate::Result;
use crate::nn::Masks;
use crate::rng::Key;
use candle_core::Tensor;
use std::ops::Range;

/// A batch, or a part of one: samples, their classes, and the key of all their random numbers.
///
/// The random numbers of a sample depend on its place in the whole batch, so they are the same
/// however the batch is split.
#[derive(Clone, Debug)]
pub struct Batch {
    /// x_0: `(B, ..)`.
    pub x0: Tensor,
    /// A class for each sample, for networks that are conditioned on classes or predict them.
    pub labels: Option<Vec<u32>>,
    /// The place of the first sample in the whole batch.
    pub first: u64,
    /// The key of the step.
    pub key: Key,
}

impl Batch {
    /// How many samples there are.
    pub fn len(&self) -> usize {
        self.x0.dims().first().copied().unwrap_or_default()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The places of its samples in the whole batch.
    pub fn places(&self) -> Range<u64> {
        self.first..self.first + self.len() as u64
    }

    /// z ~ N(0, I), in the shape of `x0`.
    ///
    /// # Errors
    /// An error of the device.
    pub fn noise(&self) -> Result<Tensor> {
        self.key.stream("noise").normal_like(&self.x0, self.first)
    }

    /// n ~ U\[1, N - 1\], one per sample, counted from 1 as in the paper; N is `points`.
    ///
    /// # Errors
    /// Fewer than two points.
    pub fn grid_indices(&self, points: usize) -> Result<Vec<usize>> {
        self.key.stream("n").integers(self.places(), 1..points)
    }

    /// The dropout masks of its samples.
    pub fn masks(&self) -> Masks {
        Masks { key: self.key.stream("dropout"), first: self.first }
    }

    /// The classes of its samples.
    pub fn labels(&self) -> Option<&[u32]> {
        self.labels.as_deref()
    }
}
