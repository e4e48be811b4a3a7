//! The loss of a classifier.

use crate::{Result, ensure};
use candle_core::{D, Device, Tensor};

/// The mean of -ln softmax(`logits`) at the `labels`, over the rows (B, classes): a scalar.
///
/// # Errors
/// A number of labels that is not the number of rows, or a label that is not a class.
pub fn cross_entropy(logits: &Tensor, labels: &[u32]) -> Result<Tensor> {
    let (rows, classes) = logits.dims2()?;
    ensure!(labels.len() == rows && rows > 0, "{} labels for {rows} rows", labels.len());
    if let Some(bad) = labels.iter().find(|label| **label as usize >= classes) {
        crate::bail!("label {bad} with {classes} classes");
    }
    let labels = Tensor::from_slice(labels, rows, &Device::Cpu)?.to_device(logits.device())?;
    let most = logits.max_keepdim(D::Minus1)?.detach();
    let shifted = logits.broadcast_sub(&most)?;
    let sums = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
    let own = shifted.gather(&labels.unsqueeze(1)?, 1)?;
    Ok((sums - own)?.mean_all()?)
}
