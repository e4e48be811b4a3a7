//! The weights lambda of a consistency loss.

use crate::process::Convention;
use crate::seam::per_sample;
use crate::{Result, ensure};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// lambda as a function of the noise levels of a pair.
///
/// ```
/// use consistency::loss::{Weight, Weighting};
/// let lambda = |weight| Weighting { weight, ..Weighting::default() }.lambda(4.0, 2.0);
/// let all = [Weight::Uniform, Weight::InverseGap, Weight::Snr].map(lambda);
/// assert_eq!(all, [1.0, 0.5, 0.25]); // at t_{n+1} = 4 and t_n = 2
/// ```
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
///
/// ```
/// use consistency::prelude::*;
/// let paper = Weighting { weight: Weight::Snr, at: Convention::Paper };
/// let code = Weighting { at: Convention::Code, ..paper };
/// assert_eq!((paper.lambda(4.0, 2.0), code.lambda(4.0, 2.0)), (1.0 / 4.0, 1.0 / 16.0));
/// let d = Tensor::new(&[4.0f64, 8.0], &Device::Cpu)?; // (2)
/// assert_eq!(values(&paper.mean(&d, &[4.0, 4.0], &[2.0, 1.0])?)?, [4.5]); // (4 / 4 + 8 / 1) / 2
/// # Ok::<(), consistency::Error>(())
/// ```
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
