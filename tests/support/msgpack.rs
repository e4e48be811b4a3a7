//! Flax msgpack files in the format of the paper's CIFAR-10 checkpoints, from the weights of a
//! fixture; none of them is an official one.

use crate::networks::weights;
use candle_core::{DType, Tensor};
use consistency::model::{NcsnppConfig, NetworkConfig};
use consistency::nn::Shapes;
use consistency::{Error, Result};
use rmpv::Value;
use std::collections::BTreeMap;

/// The bytes of a value.
pub fn packed(value: &Value) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, value).map_err(|e| Error::new(e.to_string()))?;
    Ok(bytes)
}

/// An array as flax packs it.
pub fn array_of(shape: &[usize], dtype: &str, data: Vec<u8>) -> Result<Value> {
    let shape = shape.iter().map(|d| Value::from(*d as u64)).collect();
    let parts = vec![Value::Array(shape), Value::from(dtype), Value::Binary(data)];
    Ok(Value::Ext(1, packed(&Value::Array(parts))?))
}

/// A tensor as an array of float32.
pub fn array(tensor: &Tensor) -> Result<Value> {
    let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    array_of(tensor.dims(), "float32", values.iter().flat_map(|v| v.to_le_bytes()).collect())
}

/// The fixture's weights as flax names them: the modules of each class counted as called, in
/// the order that the fixture's network has them.
pub fn flax_tree(config: &NcsnppConfig) -> Result<BTreeMap<String, Tensor>> {
    let classes = [
        "GaussianFourierProjection_0",
        "Dense_0",
        "Dense_1",
        "Conv_0",
        "ResnetBlockBigGANpp_0",
        "ResnetBlockBigGANpp_1",
        "Downsample_0",
        "ResnetBlockBigGANpp_2",
        "AttnBlockpp_0",
        "ResnetBlockBigGANpp_3",
        "AttnBlockpp_1",
        "ResnetBlockBigGANpp_4",
        "ResnetBlockBigGANpp_5",
        "ResnetBlockBigGANpp_6",
        "AttnBlockpp_2",
        "ResnetBlockBigGANpp_7",
        "ResnetBlockBigGANpp_8",
        "ResnetBlockBigGANpp_9",
        "GroupNorm_0",
        "Conv_1",
    ];
    let network = NetworkConfig::Ncsnpp(config.clone());
    let shapes = Shapes::of(|scope| network.build(scope, &[3, 16, 16]))?;
    let mut tree = BTreeMap::new();
    for (name, tensor) in weights(&shapes)? {
        let parts: Vec<&str> = name.split('.').collect();
        let class = classes[parts[1].parse::<usize>().map_err(|e| Error::new(e.to_string()))?];
        let mut path = vec![class];
        path.extend(&parts[2..]);
        let stem = path.pop().unwrap_or_default();
        let (leaf, tensor) = match (stem, tensor.dims().len()) {
            ("weight", 1) => ("scale", tensor),
            ("weight", 2) => ("kernel", tensor.t()?.contiguous()?),
            // OIHW to HWIO
            ("weight", _) if class == "Downsample_0" => {
                ("weight", tensor.permute((2, 3, 1, 0))?.contiguous()?)
            }
            ("weight", _) => ("kernel", tensor.permute((2, 3, 1, 0))?.contiguous()?),
            (other, _) => (other, tensor),
        };
        path.push(leaf);
        tree.insert(path.join("/"), tensor);
    }
    Ok(tree)
}

/// Nested maps of arrays.
pub fn nested(arrays: Vec<(String, Value)>) -> Value {
    let mut here: Vec<(Value, Value)> = Vec::new();
    let mut below: BTreeMap<String, Vec<(String, Value)>> = BTreeMap::new();
    for (path, value) in arrays {
        match path.split_once('/') {
            Some((first, rest)) => {
                below.entry(first.to_string()).or_default().push((rest.to_string(), value));
            }
            None => here.push((Value::from(path), value)),
        }
    }
    here.extend(below.into_iter().map(|(name, values)| (Value::from(name), nested(values))));
    Value::Map(here)
}

/// A tree of parameters.
pub fn tree(tensors: &BTreeMap<String, Tensor>) -> Result<Value> {
    let arrays = tensors.iter().map(|(name, tensor)| Ok((name.clone(), array(tensor)?)));
    Ok(nested(arrays.collect::<Result<_>>()?))
}

/// A training state around these parameters' average.
pub fn state(ema: Value) -> Result<Value> {
    let scalar = array_of(&[], "int32", vec![7, 0, 0, 0])?;
    let Value::Ext(_, bytes) = scalar else { return Err(Error::new("no extension")) };
    Ok(Value::Map(vec![
        (Value::from("step"), Value::Ext(3, bytes)),
        (Value::from("lr"), Value::from(1e-4)),
        (Value::from("ema_rate"), Value::from(0.9999)),
        (Value::from("params"), Value::Map(Vec::new())),
        (Value::from("params_ema"), ema),
        (Value::from("model_state"), Value::Map(Vec::new())),
        (Value::from("opt_state"), Value::Map(vec![(Value::from("0"), Value::Nil)])),
        (Value::from("rng_state"), array_of(&[2], "uint32", vec![0; 8])?),
    ]))
}
