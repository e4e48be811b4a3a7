//! Weights under pytorch-fid's names, each batch norm folded into its convolution.

use crate::model::InceptionV3;
use crate::nn::Shapes;
use crate::{Context, Error, Result, ensure};
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;
use std::path::Path;

/// What the batch norms add to the variance.
const EPS: f64 = 1e-3;
const FIRST: &str = "Conv2d_1a_3x3.conv.weight";
const NORM: [&str; 4] = ["weight", "bias", "running_mean", "running_var"];

/// The names and shapes of pytorch-fid's state dict.
pub(super) fn published() -> Result<Shapes> {
    let folded = Shapes::of(InceptionV3::new)?;
    let mut all = Vec::new();
    for (name, shape) in folded.iter() {
        match name.strip_suffix(".weight") {
            Some(layer) if shape.len() == 4 => {
                all.push((format!("{layer}.conv.weight"), shape.to_vec()));
                all.extend(NORM.map(|of| (format!("{layer}.bn.{of}"), vec![shape[0]])));
            }
            _ if name.starts_with("fc.") => all.push((name.to_string(), shape.to_vec())),
            // The bias of a convolution comes from folding its norm.
            _ => {}
        }
    }
    Ok(all.into_iter().collect())
}

/// The folded tensors of a safetensors file. A file may put one prefix before every name, and the
/// counters of batches are skipped.
pub(super) fn read(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let tensors = candle_core::safetensors::load(path, &Device::Cpu)?;
    let prefix = tensors.keys().find_map(|name| name.strip_suffix(FIRST)).unwrap_or_default();
    let given: BTreeMap<String, Tensor> = tensors
        .iter()
        .filter(|(name, _)| !name.ends_with(".num_batches_tracked"))
        .map(|(name, tensor)| {
            (name.strip_prefix(prefix).unwrap_or(name).to_string(), tensor.clone())
        })
        .collect();
    published()?.check(&Shapes::of_tensors(&given))?;
    for (name, tensor) in &given {
        let spoiled = (tensor.to_dtype(DType::F64)? * 0.0)?.sum_all()?.to_scalar::<f64>()?;
        ensure!(spoiled == 0.0, "the tensor {name} has numbers that are not finite");
    }
    fold(&given)
}

fn fold(given: &BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
    let get = |name: &str| -> Result<Tensor> {
        let tensor = given.get(name).ok_or_else(|| Error::new(format!("{name} is missing")))?;
        Ok(tensor.to_dtype(DType::F64)?)
    };
    let mut folded = BTreeMap::new();
    for name in given.keys() {
        if let Some(layer) = name.strip_suffix(".conv.weight") {
            let [gain, bias, mean, variance] = NORM.map(|of| get(&format!("{layer}.bn.{of}")));
            let scale = (gain? / (variance? + EPS)?.sqrt()?)?;
            let weight = get(name)?.broadcast_mul(&scale.reshape(((), 1, 1, 1))?);
            folded.insert(format!("{layer}.weight"), weight.with_context(|| name.clone())?);
            folded.insert(format!("{layer}.bias"), (bias? - (mean? * scale)?)?);
        } else if name.starts_with("fc.") {
            folded.insert(name.clone(), get(name)?);
        }
    }
    Ok(folded)
}
