//! The whole state of a run in one safetensors file.

use crate::nn::{Ema, Params};
use crate::record::{Table, write_atomically};
use crate::{Context, Error, Result, bail, ensure};
use candle_core::{DType, Device, Tensor};
use safetensors::SafeTensors;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

const FORMAT: &str = "consistency-lab checkpoint 1";
const KEY: &str = "checkpoint";

/// Parameters, averages, optimizer and record after a number of steps.
pub(super) struct Checkpoint {
    /// Its file.
    pub path: PathBuf,
    pub step: u64,
    /// By group: `params`, `ema` (then `ema.1`, ...), `target`, `optimizer`.
    pub groups: BTreeMap<String, BTreeMap<String, Tensor>>,
    pub table: Table,
    pub since: Since,
    /// The loss of the run's first step; none in the checkpoints of versions that did not save it.
    pub first_loss: Option<f64>,
}

/// The losses since the last record row, whose mean the next one holds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Since {
    sum: f64,
    count: u64,
}

impl Since {
    pub fn add(&mut self, loss: f64) {
        self.sum += loss;
        self.count += 1;
    }

    /// Their mean; and none since.
    pub fn take(&mut self) -> f64 {
        let Self { sum, count } = std::mem::take(self);
        sum / count.max(1) as f64
    }
}

/// The parts of a training state that a checkpoint holds.
pub(super) struct Parts<'a> {
    pub step: u64,
    pub params: &'a Params,
    pub averages: &'a [Ema],
    pub target: Option<&'a Params>,
    pub optimizer: BTreeMap<String, Tensor>,
    pub table: &'a Table,
    pub since: Since,
    pub first_loss: Option<f64>,
}

/// The group of average `index`.
pub(super) fn average(index: usize) -> String {
    if index == 0 { "ema".to_string() } else { format!("ema.{index}") }
}

/// Write the checkpoint of `parts` in `folder`, for the configuration `hash`, and remove
/// all but the last `keep`.
///
/// # Errors
/// A parameter that is not finite, by name, or a file that cannot be written: the last
/// checkpoint stays as it is.
pub(super) fn save(folder: &Path, hash: &str, keep: usize, parts: &Parts) -> Result<()> {
    for (name, var) in parts.params.iter() {
        // Zero times anything finite is zero, whatever its size.
        let sum = (var.as_detached_tensor() * 0.0)?.sum_all()?.to_dtype(DType::F64)?;
        ensure!(
            sum.to_scalar::<f64>()?.is_finite(),
            "at step {} the parameter {name} is not finite; the last checkpoint in {} stays as it is",
            parts.step,
            folder.display()
        );
    }

    let mut tensors: BTreeMap<String, Tensor> = BTreeMap::new();
    let mut add = |group: &str, of: BTreeMap<String, Tensor>| {
        tensors.extend(of.into_iter().map(|(name, t)| (format!("{group}/{name}"), t)));
    };
    add("params", parts.params.tensors());
    for (i, ema) in parts.averages.iter().enumerate() {
        add(&average(i), ema.params().tensors());
    }
    if let Some(target) = parts.target {
        add("target", target.tensors());
    }
    add("optimizer", parts.optimizer.clone());
    let columns = parts.table.columns().iter().map(|name| {
        let values = parts.table.column(name);
        Ok((name.clone(), Tensor::from_slice(values, values.len(), &Device::Cpu)?))
    });
    add("record", columns.collect::<Result<_>>()?);
    let about = json!({
        "format": FORMAT,
        "configuration": hash,
        "step": parts.step,
        "columns": parts.table.columns(),
        // The bits: a decimal could round.
        "since": [parts.since.sum.to_bits(), parts.since.count],
        "first_loss": parts.first_loss.map(f64::to_bits),
    });
    // Under one key: the order of several would change from file to file.
    let metadata = HashMap::from([(KEY.to_string(), about.to_string())]);
    for tensor in tensors.values_mut() {
        *tensor = tensor.to_device(&Device::Cpu)?;
    }
    let bytes = safetensors::serialize(tensors.iter(), Some(metadata))?;
    write_atomically(&folder.join(name(parts.step)), &bytes)?;
    for old in list(folder)?.iter().rev().skip(keep) {
        fs::remove_file(old).with_context(|| format!("removing {}", old.display()))?;
    }
    Ok(())
}

fn name(step: u64) -> String {
    format!("checkpoint-{step:09}.safetensors")
}

/// The checkpoints in `folder`, the oldest first.
pub(super) fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error).with_context(|| format!("reading {}", folder.display())),
    };
    for entry in entries {
        let path = entry.with_context(|| format!("reading {}", folder.display()))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("checkpoint-") && name.ends_with(".safetensors") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The newest checkpoint in `folder`, if there is one.
///
/// # Errors
/// One that is damaged or belongs to another configuration: by name, with what to do.
pub(super) fn newest(folder: &Path, hash: &str, device: &Device) -> Result<Option<Checkpoint>> {
    let all = list(folder)?;
    let Some(path) = all.last() else { return Ok(None) };
    match read(path, hash, device) {
        Ok(checkpoint) => Ok(Some(checkpoint)),
        Err(error) => {
            let remedy = match all.iter().rev().nth(1) {
                Some(before) => {
                    format!("delete it to resume from the one before, {}", before.display())
                }
                None => "delete it to start again".to_string(),
            };
            Err(Error::new(format!("the checkpoint {}: {error}; {remedy}", path.display())))
        }
    }
}

/// The steps whose checkpoints are in `folder`, in order.
pub(super) fn steps(folder: &Path) -> Result<Vec<u64>> {
    let step = |path: &PathBuf| {
        let name = path.file_stem()?.to_str()?;
        name.strip_prefix("checkpoint-")?.parse().ok()
    };
    Ok(list(folder)?.iter().filter_map(step).collect())
}

/// The checkpoint of `step` in `folder`.
///
/// # Errors
/// None of that step, one that is damaged, or of another configuration.
pub(super) fn at(folder: &Path, step: u64, hash: &str) -> Result<Checkpoint> {
    let path = folder.join(name(step));
    ensure!(
        path.exists(),
        "{} keeps no checkpoint of step {step}; there are {:?} (training.keep_checkpoints)",
        folder.display(),
        steps(folder)?
    );
    read(&path, hash, &Device::Cpu).with_context(|| format!("the checkpoint {}", path.display()))
}

fn read(path: &Path, hash: &str, device: &Device) -> Result<Checkpoint> {
    let bytes = fs::read(path)?;
    let (_, header) = SafeTensors::read_metadata(&bytes)
        .map_err(|e| Error::new(format!("is damaged or cut off ({e})")))?;
    let metadata = header.metadata().as_ref().and_then(|m| m.get(KEY));
    let about: Value = metadata.and_then(|m| serde_json::from_str(m).ok()).unwrap_or_default();
    ensure!(about["format"] == FORMAT, "is no checkpoint of a run");
    ensure!(
        about["configuration"] == hash,
        "belongs to the configuration {}, not to {hash}",
        about["configuration"].as_str().unwrap_or("of no name")
    );
    let since = &about["since"];
    let (Some(step), Some(bits), Some(count)) =
        (about["step"].as_u64(), since[0].as_u64(), since[1].as_u64())
    else {
        bail!("does not say where the run stood: {about}");
    };
    let since = Since { sum: f64::from_bits(bits), count };
    let first_loss = about["first_loss"].as_u64().map(f64::from_bits);
    let tensors = candle_core::safetensors::load_buffer(&bytes, device)
        .map_err(|e| Error::from(e).context("is damaged or cut off"))?;
    let mut groups: BTreeMap<String, BTreeMap<String, Tensor>> = BTreeMap::new();
    for (name, tensor) in tensors {
        let Some((group, name)) = name.split_once('/') else {
            bail!("holds the tensor {name}, which belongs nowhere");
        };
        groups.entry(group.to_string()).or_default().insert(name.to_string(), tensor);
    }
    let record = groups.remove("record").unwrap_or_default();
    let mut rows: Vec<Vec<(&str, f64)>> = Vec::new();
    for column in about["columns"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let Some(values) = record.get(column) else { bail!("its record has no {column}") };
        let values = values.to_vec1::<f64>()?;
        rows.resize(values.len(), Vec::new());
        rows.iter_mut().zip(values).for_each(|(row, value)| row.push((column, value)));
    }
    let mut table = Table::new();
    rows.iter().try_for_each(|row| table.push(row))?;
    Ok(Checkpoint { path: path.to_path_buf(), step, groups, table, since, first_loss })
}
