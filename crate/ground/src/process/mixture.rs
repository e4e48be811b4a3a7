//! Mixtures of isotropic Gaussians: data whose score, denoiser and density are exact
//! at every noise level.

use crate::bounds::{LARGEST, within};
use crate::interrupt::check_interrupt;
use crate::record::{from_toml, read_text};
use crate::rng::Key;
use crate::seam::{Denoiser, per_sample};
use crate::{Context, Result, ensure};
use candle_core::{D, DType, Device, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The largest weight; its inverse is the smallest: a share is never rounded to 0 or 1.
const HEAVIEST: f64 = 1e12;

/// p_data = sum_k w_k N(m_k, s_k^2 I), with s_k = 0 allowed (a point mass).
///
/// ```
/// use candle_core::{Device, Tensor};
/// use consistency::process::GaussianMixture;
/// use consistency::seam::Denoiser;
/// // N(0, 1) in one dimension: D(x, t) = x / (1 + t^2).
/// let normal = GaussianMixture::new(vec![1.0], vec![vec![0.0]], vec![1.0])?;
/// let x = Tensor::new(&[[5.0f64]], &Device::Cpu)?; // (1, 1)
/// let x0 = normal.denoise(&x, &[2.0])?.to_vec2::<f64>()?;
/// assert!((x0[0][0] - 1.0).abs() < 1e-12);
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GaussianMixture {
    weights: Vec<f64>,
    means: Vec<Vec<f64>>,
    std: Vec<f64>,
}

impl GaussianMixture {
    /// A mixture of `weights`, `means` and standard deviations `std`, one of each per component;
    /// the weights are normalised to sum to 1.
    ///
    /// # Errors
    /// Lengths that differ, means of different dimensions; a weight that is not from 1e-12 to 1e12
    /// (only their ratios count), a coordinate beyond 1e6, a deviation that is not from 0 to 1e6:
    /// the message says which.
    pub fn new(weights: Vec<f64>, means: Vec<Vec<f64>>, std: Vec<f64>) -> Result<Self> {
        let count = weights.len();
        ensure!(
            count > 0 && means.len() == count && std.len() == count,
            "a mixture of {count} weights, {} means and {} deviations: needs as many of each",
            means.len(),
            std.len()
        );
        let dim = means[0].len();
        ensure!(
            dim > 0 && means.iter().all(|m| m.len() == dim),
            "the means of a mixture must have one dimension in common, got {:?}",
            means.iter().map(Vec::len).collect::<Vec<_>>()
        );
        for (k, ((weight, mean), s)) in weights.iter().zip(&means).zip(&std).enumerate() {
            within(&format!("weights[{k}]"), *weight, 1.0 / HEAVIEST..=HEAVIEST)?;
            for (d, x) in mean.iter().enumerate() {
                within(&format!("means[{k}][{d}]"), *x, -LARGEST..=LARGEST)?;
            }
            within(&format!("std[{k}]"), *s, 0.0..=LARGEST)?;
        }
        let total: f64 = weights.iter().sum();
        Ok(Self { weights: weights.iter().map(|w| w / total).collect(), means, std })
    }

    /// Read a mixture from a TOML file: `weights = [..]`, `means = [[..], ..]`, `std = [..]`, one
    /// of each per component.
    ///
    /// # Errors
    /// A file that is missing or holds no mixture, by name and field.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let reading = || format!("reading {}", path.display());
        let text = read_text(path).with_context(reading)?;
        Self::parse(&text).with_context(reading)
    }

    /// A mixture from TOML, as [`GaussianMixture::read`] takes it.
    ///
    /// # Errors
    /// Text that is not a mixture, or values that [`GaussianMixture::new`] refuses.
    pub fn parse(text: &str) -> Result<Self> {
        let Self { weights, means, std } = from_toml(text)?;
        Self::new(weights, means, std)
    }

    /// Weight, mean and deviation of each component; the weights sum to 1.
    pub fn components(&self) -> impl Iterator<Item = (f64, &[f64], f64)> {
        let parts = self.weights.iter().zip(&self.means).zip(&self.std);
        parts.map(|((w, m), s)| (*w, m.as_slice(), *s))
    }

    /// The dimension of a point.
    pub fn dim(&self) -> usize {
        self.means[0].len()
    }

    /// The samples `0..count` of p_data under `key`, shape `(count, dim)`.
    pub fn sample(&self, count: usize, key: &Key, dtype: DType, device: &Device) -> Result<Tensor> {
        let range = 0..count as u64;
        let noise = key.stream("noise").normal(range.clone(), &[self.dim()], dtype, device)?;
        let chosen: Vec<usize> =
            key.stream("component").uniforms(range).iter().map(|u| self.component(*u)).collect();
        let means: Vec<f64> = chosen.iter().flat_map(|&k| self.means[k].clone()).collect();
        let means = Tensor::from_vec(means, (count, self.dim()), &Device::Cpu)?
            .to_dtype(dtype)?
            .to_device(device)?;
        let std: Vec<f64> = chosen.iter().map(|&k| self.std[k]).collect();
        Ok((means + noise.broadcast_mul(&per_sample(&std, &noise)?)?)?)
    }

    // The component whose share of [0, 1) holds u.
    fn component(&self, u: f64) -> usize {
        let mut below = 0.0;
        for (k, w) in self.weights.iter().enumerate() {
            below += w;
            if u < below {
                return k;
            }
        }
        self.weights.len() - 1
    }

    /// ln p_t(x) for `x` of shape `(B, dim)`; the result is `(B)`.
    ///
    /// # Errors
    /// A component without width at `t = 0`, where there is no density.
    pub fn log_density(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        let terms = self.log_terms(x, t)?; // (B, K)
        let constant = -0.5 * self.dim() as f64 * (2.0 * std::f64::consts::PI).ln();
        Ok((terms.log_sum_exp(1)? + constant)?)
    }

    // ln w_k - D/2 ln(s_k^2 + t^2) - |x - m_k|^2 / (2 (s_k^2 + t^2)): (B, K)
    fn log_terms(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        let (_, dim) = x.dims2()?;
        ensure!(dim == self.dim(), "points of dimension {dim} in a mixture of {}", self.dim());
        let means =
            Tensor::from_vec(self.means.concat(), (1, self.weights.len(), dim), &Device::Cpu)?
                .to_dtype(x.dtype())?
                .to_device(x.device())?;
        let distance = x.unsqueeze(1)?.broadcast_sub(&means)?.sqr()?.sum(D::Minus1)?; // (B, K)
        let half_inverse = self.table(x, t, |_, s, t| 0.5 / (s * s + t * t))?;
        let prior = self.table(x, t, |w, s, t| w.ln() - 0.5 * dim as f64 * (s * s + t * t).ln())?;
        Ok(prior.broadcast_sub(&distance.broadcast_mul(&half_inverse)?)?)
    }

    // A value for each noise level and component, (1 or B, K).
    fn table(&self, x: &Tensor, t: &[f64], f: impl Fn(f64, f64, f64) -> f64) -> Result<Tensor> {
        let k = self.weights.len();
        let mut values = Vec::with_capacity(t.len() * k);
        for &t in t {
            for (w, s) in self.weights.iter().zip(&self.std) {
                let value = f(*w, *s, t);
                ensure!(value.is_finite(), "noise level t = {t} with deviation {s}: no density");
                values.push(value);
            }
        }
        Ok(Tensor::from_vec(values, (t.len(), k), &Device::Cpu)?
            .to_dtype(x.dtype())?
            .to_device(x.device())?)
    }

    // E[x0 | x_t = x] of one point; `terms` is room for one number per component.
    fn denoise_point(&self, x: &[f64], t: f64, terms: &mut [f64], out: &mut [f64]) {
        let dim = x.len() as f64;
        for (k, term) in terms.iter_mut().enumerate() {
            let variance = self.std[k] * self.std[k] + t * t;
            let distance: f64 = x.iter().zip(&self.means[k]).map(|(x, m)| (x - m).powi(2)).sum();
            *term = self.weights[k].ln() - 0.5 * (dim * variance.ln() + distance / variance);
        }
        let top = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = terms.iter().map(|term| (term - top).exp()).sum();
        out.fill(0.0);
        for (k, term) in terms.iter().enumerate() {
            let share = (term - top).exp() / total;
            let (s2, t2) = (self.std[k] * self.std[k], t * t);
            let (own, towards) = (share * s2 / (s2 + t2), share * t2 / (s2 + t2));
            for ((out, x), m) in out.iter_mut().zip(x).zip(&self.means[k]) {
                *out += own * x + towards * m;
            }
        }
    }
}

impl Denoiser for GaussianMixture {
    /// E\[x0 | x_t\] = sum_k p(k | x_t) (s_k^2 x_t + t^2 m_k) / (s_k^2 + t^2), exact; on all
    /// cores, in f64, whatever the dtype of `x`.
    ///
    /// # Errors
    /// Points of another dimension, or for which a gradient is tracked: the result carries none.
    fn denoise(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        check_interrupt()?;
        per_sample(t, x)?; // checks the number of noise levels
        let (batch, dim) = x.dims2()?;
        ensure!(dim == self.dim(), "points of dimension {dim} in a mixture of {}", self.dim());
        ensure!(
            !x.track_op(),
            "a mixture's denoiser carries no gradient to x: detach x, or differentiate log_density"
        );
        ensure!(
            t.iter().all(|t| *t > 0.0) || self.std.iter().all(|s| *s > 0.0),
            "noise level t = 0 with a component without width: no density"
        );
        let points = x.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
        let mut means = vec![0.0; batch * dim];
        let rows = 256; // a task's worth of work
        means.par_chunks_mut(rows * dim).enumerate().for_each(|(chunk, means)| {
            let mut terms = vec![0.0; self.weights.len()];
            for (i, out) in means.chunks_mut(dim).enumerate() {
                let row = chunk * rows + i;
                let level = if t.len() == 1 { t[0] } else { t[row] };
                self.denoise_point(&points[row * dim..][..dim], level, &mut terms, out);
            }
        });
        let means = Tensor::from_vec(means, (batch, dim), &Device::Cpu)?;
        Ok(means.to_dtype(x.dtype())?.to_device(x.device())?)
    }
}
