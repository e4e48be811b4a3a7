//! How a network is conditioned on the noise level and on the class.

use super::params::{Init, Parameter, Scope};
use super::tape::{Tape, Value};
use crate::seam::one_a_sample;
use crate::{Result, ensure};
use candle_core::{DType, Device, Tensor};
use std::f64::consts::PI;

/// Fixed sinusoidal features of a number c: cos(f_k c) and sin(f_k c), with frequencies f_k
/// that fall geometrically from 1 (Vaswani et al. 2017; Ho et al. 2020).
#[derive(Clone, Debug)]
pub struct PositionalEmbedding {
    frequencies: Vec<f64>,
    features: usize,
    cosine_first: bool,
}

impl PositionalEmbedding {
    /// `features` features with the frequencies 10000^(-k / (features / 2 - shift)); the cosines
    /// come before the sines or after them.
    ///
    /// # Errors
    /// Too few features for the shift.
    pub fn new(features: usize, cosine_first: bool, shift: f64) -> Result<Self> {
        let half = features / 2;
        ensure!(
            half as f64 > shift && shift >= 0.0,
            "{features} features with a frequency shift of {shift}"
        );
        let step = 10_000f64.ln() / (half as f64 - shift);
        let frequencies = (0..half).map(|k| (-step * k as f64).exp()).collect();
        Ok(Self { frequencies, features, cosine_first })
    }

    /// The features of each of `c`, (len, features); if their number is odd, the last is 0.
    pub fn forward(&self, c: &[f64], dtype: DType, device: &Device) -> Result<Tensor> {
        let Self { frequencies, features: count, cosine_first } = self;
        features((c, None), frequencies, (*count, *cosine_first), dtype, device)
    }

    /// What the features of each of `c` move along where c moves along `dc`, (len, features).
    pub fn tangent(&self, c: &[f64], dc: &[f64], dtype: DType, device: &Device) -> Result<Tensor> {
        let Self { frequencies, features: count, cosine_first } = self;
        features((c, Some(dc)), frequencies, (*count, *cosine_first), dtype, device)
    }
}

/// Random Fourier features: sin(2 pi w c), then cos(2 pi w c). The w are fixed, and normal with a
/// standard deviation of `scale` (Tancik et al. 2020; score_sde's `W`).
#[derive(Clone, Debug)]
pub struct FourierEmbedding {
    frequencies: Tensor, // (count)
}

impl FourierEmbedding {
    /// 2 `count` features from the tensor `W` (count) of the scope.
    pub fn new(scope: &mut Scope, count: usize, scale: f64) -> Result<Self> {
        Ok(Self { frequencies: scope.fixed("W", &[count], Init::Normal(scale))? })
    }

    /// The features of each of `c`, (len, 2 count).
    pub fn forward(&self, c: &[f64], dtype: DType, device: &Device) -> Result<Tensor> {
        let turns = self.turns()?;
        features((c, None), &turns, (2 * turns.len(), false), dtype, device)
    }

    /// What the features of each of `c` move along where c moves along `dc`, (len, 2 count).
    pub fn tangent(&self, c: &[f64], dc: &[f64], dtype: DType, device: &Device) -> Result<Tensor> {
        let turns = self.turns()?;
        features((c, Some(dc)), &turns, (2 * turns.len(), false), dtype, device)
    }

    // 2 pi w, read on each call: a student takes over its teacher's after it was built.
    fn turns(&self) -> Result<Vec<f64>> {
        let w = self.frequencies.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        Ok(w.iter().map(|w| 2.0 * PI * w).collect())
    }
}

// The features of c, or what they move along. Computed in f64 on the host: the arguments reach
// hundreds of radians.
fn features(
    (c, dc): (&[f64], Option<&[f64]>),
    frequencies: &[f64],
    (count, cosine_first): (usize, bool),
    dtype: DType,
    device: &Device,
) -> Result<Tensor> {
    let dc = dc.map(|dc| one_a_sample(dc, c.len())).transpose()?;
    let mut values = Vec::with_capacity(c.len() * count);
    for (i, c) in c.iter().enumerate() {
        for cosine in [cosine_first, !cosine_first] {
            let turn = |f: &f64| match &dc {
                None if cosine => (f * c).cos(),
                None => (f * c).sin(),
                Some(dc) if cosine => -f * (f * c).sin() * dc[i],
                Some(dc) => f * (f * c).cos() * dc[i],
            };
            values.extend(frequencies.iter().map(turn));
        }
        values.resize(values.len().next_multiple_of(count.max(1)), 0.0);
    }
    Ok(Tensor::from_vec(values, (c.len(), count), &Device::Cpu)?
        .to_dtype(dtype)?
        .to_device(device)?)
}

/// A learned vector for each class.
#[derive(Clone, Debug)]
pub struct ClassEmbedding {
    weight: Parameter, // (classes, features)
}

impl ClassEmbedding {
    /// `classes` vectors of `features` numbers, normal with a standard deviation of 1.
    pub fn new(scope: &mut Scope, classes: usize, features: usize) -> Result<Self> {
        Ok(Self { weight: scope.parameter("weight", &[classes, features], Init::Normal(1.0))? })
    }

    /// The vectors of `labels`, (len, features).
    ///
    /// # Errors
    /// A label that is not a class.
    pub fn forward(&self, tape: &mut Tape, labels: &[u32]) -> Result<Value> {
        Ok(tape.rows(&self.weight, labels)?)
    }
}
