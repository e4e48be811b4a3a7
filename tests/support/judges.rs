//! The formula's weights of the networks behind the metrics.

use crate::formula::{Folder, formula};
use candle_core::Tensor;
use consistency::Result;
use consistency::nn::Shapes;
use std::collections::BTreeMap;
use std::path::PathBuf;

fn weight(name: &str, dims: &[usize]) -> Result<Tensor> {
    match dims {
        _ if name.starts_with("lin") => Ok(formula(name, dims, 1.0, 0.0)?.abs()?),
        [_, rest @ ..] if !rest.is_empty() => {
            let fan_in: usize = rest.iter().product();
            formula(name, dims, (6.0 / fan_in as f64).sqrt(), 0.0)
        }
        _ if name.ends_with("weight") || name.ends_with("running_var") => {
            formula(name, dims, 0.1, 1.0)
        }
        _ => formula(name, dims, 0.1, 0.0),
    }
}

/// The formula's weights of these names and shapes, as a file in `folder`.
pub fn write_weights(folder: &Folder, shapes: &Shapes) -> Result<PathBuf> {
    let tensors: BTreeMap<String, Tensor> = shapes
        .iter()
        .map(|(name, dims)| Ok((name.to_string(), weight(name, dims)?)))
        .collect::<Result<_>>()?;
    folder.write("weights.safetensors", &safetensors::serialize(tensors, None)?)?;
    Ok(folder.0.join("weights.safetensors"))
}
