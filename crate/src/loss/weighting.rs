//! The weights lambda of a consistency loss.

use crate::process::Convention;
use crate::seam::per_sample;
use crate::{Result, ensure};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// lambda as a function of the noise levels of a pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weight {
    /// 1, the paper's choice in every experiment.
    #[default]
    Uniform,
    /// 1 / (t_{n+1} - t_n), as in iCT.
    InverseGap,
    /// 1 / t^2, the signal-to-noise ratio.
    Snr,
}

/// A weight and the noise level at which it is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Weighting {
    /// The function.
    pub weight: Weight,
    /// At t_n as the paper writes it, or at the noisier t_{n+1} as the code takes it.
    pub at: Convention,
}

impl Weighting {
    /// lambda for the pair of noise levels t_{n+1} > t_n.
    pub fn lambda(&self, t_next: f64, t: f64) -> f64 {
        let at = match self.at {
            Convention::Paper => t,
            Convention::Code => t_next,
        };
        match self.weight {
            Weight::Uniform => 1.0,
            Weight::InverseGap => 1.0 / (t_next - t),
            Weight::Snr => 1.0 / (at * at),
        }
    }

    /// The mean of lambda d over a batch, a scalar; `d` is `(B)`, with a pair of noise levels for
    /// each sample.
    ///
    /// # Errors
    /// Another number of noise levels.
    pub fn mean(&self, d: &Tensor, t_next: &[f64], t: &[f64]) -> Result<Tensor> {
        ensure!(
            t.len() == d.elem_count(),
            "{} noise levels for a batch of {}",
            t.len(),
            d.elem_count()
        );
        let lambda: Vec<f64> =
            t_next.iter().zip(t).map(|(next, t)| self.lambda(*next, *t)).collect();
        Ok((d * per_sample(&lambda, d)?)?.mean_all()?)
    }
}
