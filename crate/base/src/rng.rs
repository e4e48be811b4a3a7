//! Randomness as explicit keys.
//!
//! A [`Key`] names a stream of random numbers. The noise of sample `i` depends on
//! the key and on `i` alone, so it is the same in any batch, on any device and with
//! any number of threads. The generator is ChaCha with 8 rounds (`rand_chacha`):
//! the key fills its 256-bit seed and the sample index is its stream number.

use crate::{Result, ensure};
use candle_core::{DType, Device, Tensor};
use rand::{Rng, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;
use std::ops::Range;
use xxhash_rust::xxh3::xxh3_128;

/// The name of a stream of random numbers: a seed and the path to a use of it.
///
/// ```
/// use consistency::rng::Key;
/// use candle_core::{DType, Device};
/// let noise = Key::new(0).stream("noise").step(17);
/// let all = noise.normal(0..4, &[3], DType::F64, &Device::Cpu)?;
/// let last = noise.normal(3..4, &[3], DType::F64, &Device::Cpu)?;
/// assert_eq!(all.get(3)?.to_vec1::<f64>()?, last.get(0)?.to_vec1::<f64>()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    seed: u64,
    path: u128,
}

impl Key {
    /// The root of all keys of one experiment.
    pub fn new(seed: u64) -> Self {
        Self { seed, path: 0 }
    }

    /// The key of one use ("noise", "order", a parameter's name) under this one.
    #[must_use]
    pub fn stream(&self, name: &str) -> Self {
        self.child(b's', name.as_bytes())
    }

    /// The key of one step (of training, of a sampler) under this one.
    #[must_use]
    pub fn step(&self, step: u64) -> Self {
        self.child(b'n', &step.to_le_bytes())
    }

    fn child(&self, kind: u8, name: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(17 + name.len());
        bytes.extend_from_slice(&self.path.to_le_bytes());
        bytes.push(kind);
        bytes.extend_from_slice(name);
        Self { seed: self.seed, path: xxh3_128(&bytes) }
    }

    /// The generator of sample `index`.
    pub fn generator(&self, index: u64) -> ChaCha8Rng {
        let mut seed = [0u8; 32];
        seed[..8].copy_from_slice(&self.seed.to_le_bytes());
        seed[8..24].copy_from_slice(&self.path.to_le_bytes());
        let mut generator = ChaCha8Rng::from_seed(seed);
        generator.set_stream(index);
        generator
    }

    /// Standard normal noise for the samples `samples`, shape `(samples.len(), ..shape)`.
    ///
    /// Drawn in f64 and rounded to `dtype`, so an f32 run sees the rounded noise of
    /// the f64 run.
    pub fn normal(
        &self,
        samples: Range<u64>,
        shape: &[usize],
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        let each: usize = shape.iter().product();
        let count = (samples.end - samples.start) as usize;
        let mut values = vec![0f64; count * each];
        if each > 0 {
            values.par_chunks_mut(each).enumerate().for_each(|(i, row)| {
                let mut generator = self.generator(samples.start + i as u64);
                row.iter_mut().for_each(|v| *v = StandardNormal.sample(&mut generator));
            });
        }
        let mut dims = vec![count];
        dims.extend_from_slice(shape);
        Ok(Tensor::from_vec(values, dims, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?)
    }

    /// Noise of the shape, dtype and device of the batch `x`, whose first sample has
    /// the index `first`.
    pub fn normal_like(&self, x: &Tensor, first: u64) -> Result<Tensor> {
        let dims = x.dims();
        ensure!(!dims.is_empty(), "noise for a scalar: give a batch with its first dimension");
        self.normal(first..first + dims[0] as u64, &dims[1..], x.dtype(), x.device())
    }

    /// Dropout masks at `rate` for the samples `samples`: 0 or 1 / (1 - rate).
    pub fn kept(&self, samples: Range<u64>, shape: &[usize], rate: f64) -> Vec<f32> {
        let each: usize = shape.iter().product();
        let (first, factor) = (samples.start, (1.0 / (1.0 - rate)) as f32);
        let mut kept = vec![0f32; (samples.end - samples.start) as usize * each];
        kept.par_chunks_mut(each.max(1)).enumerate().for_each(|(i, row)| {
            let mut generator = self.generator(first + i as u64);
            for value in row {
                *value = if f64::from(generator.random::<f32>()) < rate { 0.0 } else { factor };
            }
        });
        kept
    }

    /// One standard normal number per sample, in f64.
    pub fn normals(&self, samples: Range<u64>) -> Vec<f64> {
        samples.map(|i| StandardNormal.sample(&mut self.generator(i))).collect()
    }

    /// One number per sample, uniform on [0, 1).
    pub fn uniforms(&self, samples: Range<u64>) -> Vec<f64> {
        samples.map(|i| self.generator(i).random::<f64>()).collect()
    }

    /// One whole number per sample, uniform on `range`.
    ///
    /// # Errors
    /// An empty range.
    pub fn integers(&self, samples: Range<u64>, range: Range<usize>) -> Result<Vec<usize>> {
        ensure!(!range.is_empty(), "no whole number lies in {range:?}");
        Ok(samples.map(|i| self.generator(i).random_range(range.clone())).collect())
    }

    /// A random order of `0..n`.
    pub fn permutation(&self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        order.shuffle(&mut self.generator(0));
        order
    }
}
