//! What a network is told of the noise level: features of c_noise.

use crate::Result;
use candle_core::{DType, Device, Tensor};
use std::f64::consts::PI;

/// Fixed sinusoidal features of a number: `[cos(f_k c), sin(f_k c)]`, with frequencies
/// that fall geometrically from `scale` to `scale / 10000`.
#[derive(Clone, Debug)]
pub struct SinusoidalEmbedding {
    frequencies: Vec<f64>,
}

impl SinusoidalEmbedding {
    /// `features` features (an even number is used) from the frequency `scale` down.
    pub fn new(features: usize, scale: f64) -> Self {
        let half = features / 2;
        let step = 10_000f64.ln() / half.max(1) as f64;
        Self { frequencies: (0..half).map(|k| scale * (-step * k as f64).exp()).collect() }
    }

    /// The features of each of `c`, shape `(len, features)`.
    pub fn forward(&self, c: &[f64], dtype: DType, device: &Device) -> Result<Tensor> {
        features(c, &self.frequencies, dtype, device)
    }
}

/// Random Fourier features `[cos(2 pi w c), sin(2 pi w c)]`, w normal with standard
/// deviation `scale`, fixed by a key (Tancik et al. 2020).
#[derive(Clone, Debug)]
pub struct FourierEmbedding {
    frequencies: Vec<f64>,
}

impl FourierEmbedding {
    /// `features` features (an even number is used) at this scale under `key`.
    pub fn new(features: usize, scale: f64, key: &crate::rng::Key) -> Self {
        let w = key.normals(0..(features / 2) as u64);
        Self { frequencies: w.iter().map(|w| 2.0 * PI * scale * w).collect() }
    }

    /// The features of each of `c`, shape `(len, features)`.
    pub fn forward(&self, c: &[f64], dtype: DType, device: &Device) -> Result<Tensor> {
        features(c, &self.frequencies, dtype, device)
    }
}

// Computed in f64 on the host: the arguments reach hundreds of radians.
fn features(c: &[f64], frequencies: &[f64], dtype: DType, device: &Device) -> Result<Tensor> {
    let half = frequencies.len();
    let mut values = Vec::with_capacity(c.len() * 2 * half);
    for c in c {
        values.extend(frequencies.iter().map(|f| (f * c).cos()));
        values.extend(frequencies.iter().map(|f| (f * c).sin()));
    }
    Ok(Tensor::from_vec(values, (c.len(), 2 * half), &Device::Cpu)?
        .to_dtype(dtype)?
        .to_device(device)?)
}
