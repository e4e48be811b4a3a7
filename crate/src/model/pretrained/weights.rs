//! Tensors of a file, under the names that a network has today, in f32.

use crate::nn::Shapes;
use crate::{Context, Error, Result, bail, ensure};
use candle_core::pickle::PthTensors;
use candle_core::safetensors::Load;
use candle_core::{DType, Device, Tensor};
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::path::Path;

/// The tensors of a safetensors file, for a network of these shapes.
pub fn safetensors(path: &Path, network: &Shapes) -> Result<BTreeMap<String, Tensor>> {
    let bytes = std::fs::read(path)?;
    let file = SafeTensors::deserialize(&bytes)?;
    let views: BTreeMap<String, _> =
        file.iter().map(|(name, view)| (today(name), (name, view))).collect();
    let shape = |view: &safetensors::tensor::TensorView| view.shape().to_vec();
    let given = views.iter().map(|(name, (_, view))| (name.clone(), of_today(name, shape(view))));
    network.check(&given.collect())?;
    let mut tensors = BTreeMap::new();
    for (name, (stored, view)) in views {
        ensure!(
            matches!(view.dtype(), Dtype::F32 | Dtype::F16 | Dtype::BF16),
            "the tensor {stored} has dtype {:?}: F32, F16 and BF16 are read",
            view.dtype()
        );
        let tensor =
            finish(&name, &view.load(&Device::Cpu)?).with_context(|| stored.to_string())?;
        tensors.insert(name, tensor);
    }
    Ok(tensors)
}

/// The tensors of a PyTorch pickle. Nothing in it is executed: candle's reader knows the few
/// opcodes that tables of tensors are made of, and constructs no object.
pub fn pickle(path: &Path, network: &Shapes) -> Result<BTreeMap<String, Tensor>> {
    zip_or_legacy(path)?;
    // The reader takes a pickle's calls to have as many arguments as PyTorch gives them.
    let read = std::panic::catch_unwind(|| PthTensors::new(path, None));
    let file = read.map_err(|_| Error::new("not a table of tensors as PyTorch writes it"))??;
    let stored: BTreeMap<String, &String> =
        file.tensor_infos().keys().map(|name| (today(name), name)).collect();
    ensure!(!stored.is_empty(), "no table of tensors (a state dict) in this pickle");
    // Before any tensor is read: a shape that is not the network's takes no memory.
    let given = file.tensor_infos().iter().map(|(name, info)| {
        let name = today(name);
        let shape = of_today(&name, info.layout.dims().to_vec());
        (name, shape)
    });
    network.check(&given.collect())?;
    let mut tensors = BTreeMap::new();
    for (name, stored) in stored {
        let Some(tensor) = file.get(stored).with_context(|| stored.clone())? else {
            bail!("the tensor {stored} is missing");
        };
        tensors.insert(name.clone(), finish(&name, &tensor).with_context(|| stored.clone())?);
    }
    Ok(tensors)
}

fn zip_or_legacy(path: &Path) -> Result<()> {
    use std::io::Read;
    let mut start = Vec::new();
    std::fs::File::open(path)?.take(4).read_to_end(&mut start)?;
    if start == b"PK\x03\x04" {
        return Ok(());
    }
    let legacy = start.first() == Some(&0x80);
    ensure!(
        !legacy,
        "a pickle of PyTorch before 1.6, which is no zip file: load and save it with a newer \
         PyTorch"
    );
    bail!("not a zip file, as PyTorch writes them since 1.6");
}

// Attentions had other names in diffusers before 0.15.
fn today(name: &str) -> String {
    if !name.contains("attentions.") {
        return name.to_string();
    }
    let renamed = [
        (".query.", ".to_q."),
        (".key.", ".to_k."),
        (".value.", ".to_v."),
        (".proj_attn.", ".to_out.0."),
    ];
    renamed.iter().fold(name.to_string(), |name, (old, new)| name.replace(old, new))
}

// They were 1x1 convolutions in some files: (C, C, 1, 1), or (C, C, 1).
fn of_today(name: &str, shape: Vec<usize>) -> Vec<usize> {
    let projection = [".to_q.weight", ".to_k.weight", ".to_v.weight", ".to_out.0.weight"];
    match shape.as_slice() {
        [a, b, 1] | [a, b, 1, 1] if projection.iter().any(|end| name.ends_with(end)) => {
            vec![*a, *b]
        }
        _ => shape,
    }
}

/// In f32, in today's shape, finite.
fn finish(name: &str, tensor: &Tensor) -> Result<Tensor> {
    ensure!(
        matches!(tensor.dtype(), DType::F32 | DType::F16 | DType::BF16),
        "dtype {:?}: f32, f16 and bf16 are read",
        tensor.dtype()
    );
    let tensor = tensor.to_dtype(DType::F32)?.contiguous()?;
    finite(&tensor)?;
    Ok(tensor.reshape(of_today(name, tensor.dims().to_vec()))?)
}

/// Whether every number of an f32 tensor is finite.
pub fn finite(tensor: &Tensor) -> Result<()> {
    // 0 times a number is 0, unless it is infinite or none.
    let spoiled = (tensor * 0.0)?.sum_all()?.to_scalar::<f32>()?;
    ensure!(spoiled == 0.0, "numbers that are not finite");
    Ok(())
}
