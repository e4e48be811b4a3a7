//! Mixtures of isotropic Gaussians: data whose score, denoiser and density are exact
//! at every noise level.

use crate::rng::Key;
use crate::seam::{Denoiser, per_sample};
use crate::{Result, ensure};
use candle_core::{D, DType, Device, Tensor};
use serde::{Deserialize, Serialize};

/// p_data = sum_k w_k N(m_k, s_k^2 I), with s_k = 0 allowed (a point mass).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GaussianMixture {
    weights: Vec<f64>,
    means: Vec<Vec<f64>>,
    std: Vec<f64>,
}

impl GaussianMixture {
    /// A mixture of `weights`, `means` and standard deviations `std`, one each a
    /// component; the weights are normalised to sum 1.
    ///
    /// # Errors
    /// Lengths that differ, means of different dimensions, or a weight that is not
    /// positive or a deviation that is negative.
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
        ensure!(
            weights.iter().all(|w| *w > 0.0 && w.is_finite()),
            "weights must be positive, got {weights:?}"
        );
        ensure!(
            std.iter().all(|s| *s >= 0.0 && s.is_finite()),
            "deviations must be 0 or more, got {std:?}"
        );
        let total: f64 = weights.iter().sum();
        Ok(Self { weights: weights.iter().map(|w| w / total).collect(), means, std })
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

    /// ln p_t(x) for `x` of shape `(B, dim)`; the answer is `(B)`.
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
}

impl Denoiser for GaussianMixture {
    /// E\[x0 | x_t\] = sum_k p(k | x_t) (s_k^2 x_t + t^2 m_k) / (s_k^2 + t^2), exact.
    fn denoise(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        per_sample(t, x)?; // checks the number of noise levels
        let posterior = candle_nn::ops::softmax(&self.log_terms(x, t)?, 1)?; // (B, K)
        let shrink = self.table(x, t, |_, s, t| s * s / (s * s + t * t))?;
        let pull = self.table(x, t, |_, s, t| t * t / (s * s + t * t))?;
        let means =
            Tensor::from_vec(self.means.concat(), (self.weights.len(), self.dim()), &Device::Cpu)?
                .to_dtype(x.dtype())?
                .to_device(x.device())?;
        let own = posterior.broadcast_mul(&shrink)?.sum_keepdim(1)?; // (B, 1)
        let towards = posterior.broadcast_mul(&pull)?.matmul(&means)?; // (B, dim)
        Ok((x.broadcast_mul(&own)? + towards)?)
    }
}
