//! The Inception score (Salimans et al. 2016).

use super::kernel::Spread;
use super::points::Points;
use crate::{Result, ensure};
use candle_core::Tensor;

/// exp of the mean KL divergence between the predictions for each sample and their mean, from the
/// classes' `logits` (N, K), over `splits` parts of the samples in their order. It is 1 where all
/// predictions are the same, and K where all classes come equally often and each is certain.
///
/// The published numbers take Inception's 1008 logits without their bias, and ten splits. On
/// another classifier's logits it is that classifier's score, and is labelled so wherever it is
/// shown.
///
/// # Errors
/// No splits or more than there are samples, or a logit that is not finite.
pub fn inception_score(logits: &Tensor, splits: usize) -> Result<Spread> {
    let logits = Points::new("logits", logits)?;
    let rows = logits.rows();
    ensure!(splits >= 1 && splits <= rows, "{splits} splits of {rows} samples");
    let scores: Vec<f64> = (0..splits)
        .map(|split| {
            let (first, last) = (split * rows / splits, (split + 1) * rows / splits);
            score(&logits, first, last)
        })
        .collect();
    Ok(Spread::of(&scores))
}

fn score(logits: &Points, first: usize, last: usize) -> f64 {
    let mut mean = vec![0.0; logits.dim()];
    // sum p ln p of all samples.
    let mut own = 0.0;
    for i in first..last {
        let row = logits.row(i);
        let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let all: f64 = row.iter().map(|z| (z - most).exp()).sum();
        for (mean, z) in mean.iter_mut().zip(&row) {
            let log = z - most - all.ln();
            let p = log.exp();
            *mean += p;
            own += p * log;
        }
    }
    let count = (last - first) as f64;
    let marginal: f64 =
        mean.iter().map(|sum| sum / count).filter(|p| *p > 0.0).map(|p| p * p.ln()).sum();
    (own / count - marginal).exp()
}
