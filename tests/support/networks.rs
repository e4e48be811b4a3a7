//! Networks of the fixtures: weights from their names by one formula, written as the folders
//! that others publish.

use crate::formula::{Folder, formula};
use candle_core::{DType, Device, Tensor};
use consistency::model::{UNet, UNetConfig};
use consistency::nn::Shapes;
use consistency::{Error, Result};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

/// A scheduler under which a network is told time steps as they are.
pub const DDPM: &str = r#"{"_class_name": "DDPMScheduler", "num_train_timesteps": 1000,
    "beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}"#;

impl Folder {
    /// A whole pipeline: the network, its weights and its scheduler.
    pub fn pipeline(
        &self,
        config: &str,
        scheduler: &str,
        tensors: &BTreeMap<String, Tensor>,
    ) -> Result<()> {
        self.write("unet/config.json", config.as_bytes())?;
        self.write("scheduler/scheduler_config.json", scheduler.as_bytes())?;
        let views = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
        let bytes = safetensors::serialize(views, None)?;
        self.write("unet/diffusion_pytorch_model.safetensors", &bytes)
    }
}

fn weight(name: &str, dims: &[usize]) -> Result<Tensor> {
    match dims {
        // The Fourier layer's frequencies.
        [_] if name == "all_modules.0.W" => formula(name, dims, 16.0 * 3f64.sqrt(), 0.0),
        [_, rest @ ..] if !rest.is_empty() => {
            let fan_in: usize = rest.iter().product();
            formula(name, dims, (3.0 / fan_in as f64).sqrt(), 0.0)
        }
        _ if name.ends_with("weight") => formula(name, dims, 0.1, 1.0),
        _ => formula(name, dims, 0.1, 0.0),
    }
}

/// The formula's weights of a network.
pub fn weights(network: &Shapes) -> Result<BTreeMap<String, Tensor>> {
    network.iter().map(|(name, dims)| Ok((name.to_string(), weight(name, dims)?))).collect()
}

/// The names and shapes of the U-Net of a `config.json`.
pub fn unet(config: &str) -> Result<Shapes> {
    let config = UNetConfig::from_json(config)?;
    Shapes::of(|scope| UNet::at_time_steps(scope, &config))
}

/// A safetensors file and its metadata.
pub fn load(path: &Path) -> Result<(HashMap<String, Tensor>, HashMap<String, String>)> {
    let bytes = fs::read(path)?;
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes)
        .map_err(|e| Error::new(format!("{}: {e}", path.display())))?;
    let metadata = header.metadata().clone().unwrap_or_default();
    Ok((candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)?, metadata))
}

pub fn get<'a>(tensors: &'a HashMap<String, Tensor>, name: &str) -> Result<&'a Tensor> {
    tensors.get(name).ok_or_else(|| Error::new(format!("the fixture has no {name}")))
}

/// The classes of a fixture's samples, where it has some.
pub fn labels(tensors: &HashMap<String, Tensor>) -> Result<Option<Vec<u32>>> {
    tensors.get("class_labels").map(|l| Ok(l.to_dtype(DType::U32)?.to_vec1::<u32>()?)).transpose()
}

pub fn numbers(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
}
