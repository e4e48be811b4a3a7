//! Tensors from files, under the names that a network has today, in f32. Names and shapes are
//! compared with the network's before a number is read, and a file is never trusted to hold more
//! than its bytes.

use super::files::{Files, Format};
use super::pickle::Pickle;
use super::source::not_a_pointer;
use crate::model::json;
use crate::nn::Shapes;
use crate::{Context, Error, Result, bail, ensure};
use candle_core::{DType, Device, Tensor};
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// A file of tensors.
enum Table {
    Safetensors(Safetensors),
    Pickle(Pickle),
}

impl Table {
    fn open(format: Format, path: &Path) -> Result<Self> {
        not_a_pointer(path)?;
        Ok(match format {
            Format::Safetensors => Self::Safetensors(Safetensors::open(path)?),
            Format::Pickle => Self::Pickle(Pickle::open(path)?),
        })
    }

    fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        match self {
            Self::Safetensors(file) => {
                let all = file.metadata.tensors();
                all.into_iter().map(|(name, info)| (name, info.shape.clone())).collect()
            }
            Self::Pickle(file) => file.shapes(),
        }
    }

    fn tensor(&self, name: &str) -> Result<Tensor> {
        match self {
            Self::Safetensors(file) => file.tensor(name),
            Self::Pickle(file) => file.tensor(name),
        }
    }
}

/// The tensors of these files, for a network of these shapes.
///
/// # Errors
/// A file that is damaged; tensors that are not the network's, all in one message; shards that
/// are not what their index says; numbers that are not finite.
pub fn read(files: &Files, network: &Shapes) -> Result<BTreeMap<String, Tensor>> {
    let context = || files.named.display().to_string();
    let mut tables = Vec::new();
    let mut places: BTreeMap<String, (usize, String)> = BTreeMap::new();
    let mut given = Vec::new();
    for (i, (shard, path)) in files.shards.iter().enumerate() {
        let table = Table::open(files.format, path).with_context(|| path.display().to_string())?;
        let shapes = table.shapes();
        if let Some(index) = &files.index {
            check_shard(index, shard, shapes.keys()).with_context(context)?;
        }
        for (stored, shape) in shapes {
            let name = today(&stored);
            given.push((name.clone(), of_today(&name, shape)));
            if let Some((_, other)) = places.insert(name, (i, stored.clone())) {
                return Err(Error::new(format!("two tensors are one: {other} and {stored}")))
                    .with_context(context);
            }
        }
        tables.push((table, path));
    }
    network.check(&given.into_iter().collect()).with_context(context)?;
    let mut tensors = BTreeMap::new();
    for (name, (i, stored)) in places {
        let (table, path) = &tables[i];
        let read = || finish(&name, &stored, &table.tensor(&stored)?);
        tensors.insert(name.clone(), read().with_context(|| path.display().to_string())?);
    }
    Ok(tensors)
}

fn check_shard<'a>(
    index: &BTreeMap<String, String>,
    shard: &str,
    there: impl Iterator<Item = &'a String>,
) -> Result<()> {
    let there: BTreeSet<&String> = there.collect();
    let stated = index.iter().filter(|(_, of)| *of == shard).map(|(tensor, _)| tensor).collect();
    if let Some(odd) = there.symmetric_difference(&stated).next() {
        let has = if there.contains(*odd) { "has" } else { "lacks" };
        bail!(
            "the shard {shard} {has} the tensor {}, other than the index says: they are of two \
             versions; fetch them again",
            json::short(odd)
        );
    }
    Ok(())
}

/// A safetensors file: its header, and where the numbers begin.
struct Safetensors {
    file: File,
    metadata: Metadata,
    start: u64,
}

impl Safetensors {
    fn open(path: &Path) -> Result<Self> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        let again = "it is damaged, cut off or not a safetensors file; fetch it again";
        ensure!(length >= 8, "a file of {length} bytes: {again}");
        let mut first = [0; 8];
        file.read_exact(&mut first)?;
        let header = u64::from_le_bytes(first);
        ensure!(header <= length - 8, "a header of {header} bytes in a file of {length}: {again}");
        let mut text = Vec::new();
        (&file).take(header).read_to_end(&mut text)?;
        let metadata: Metadata = serde_json::from_slice(&text).map_err(|e| {
            Error::new(format!("its header: {}: {again}", json::short(&e.to_string())))
        })?;
        let start = 8 + header;
        let numbers = metadata.data_len() as u64;
        ensure!(
            numbers == length - start,
            "its header is of {numbers} bytes of numbers, and {} are there: {again}",
            length - start
        );
        Ok(Self { file, metadata, start })
    }

    fn tensor(&self, name: &str) -> Result<Tensor> {
        let Some(info) = self.metadata.info(name) else { bail!("the tensor {name} is missing") };
        let dtype = match info.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            other => bail!("the tensor {name} has dtype {other:?}: F32, F16 and BF16 are read"),
        };
        // Within the file: the header was checked against its length.
        let (begin, end) = info.data_offsets;
        let mut bytes = vec![0; end - begin];
        let mut file = &self.file;
        file.seek(SeekFrom::Start(self.start + begin as u64))?;
        file.read_exact(&mut bytes)?;
        Ok(Tensor::from_raw_buffer(&bytes, dtype, &info.shape, &Device::Cpu)?)
    }
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

// The projections of attention were 1x1 convolutions in some files: (C, C, 1, 1), or (C, C, 1).
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
fn finish(name: &str, stored: &str, tensor: &Tensor) -> Result<Tensor> {
    let tensor = tensor.to_dtype(DType::F32)?.contiguous()?;
    finite(&tensor).context(stored)?;
    Ok(tensor.reshape(of_today(name, tensor.dims().to_vec()))?)
}

/// Whether every number of an f32 tensor is finite.
pub fn finite(tensor: &Tensor) -> Result<()> {
    // 0 times a number is 0, unless it is infinite or NaN.
    let spoiled = (tensor * 0.0)?.sum_all()?.to_scalar::<f32>()?;
    ensure!(spoiled == 0.0, "numbers that are not finite");
    Ok(())
}
