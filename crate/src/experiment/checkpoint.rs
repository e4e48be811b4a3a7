//! The whole state of a run in one safetensors file.

use crate::method::{Losses, Trainer, average};
use crate::record::{Table, write_atomically};
use crate::{Context, Error, Result, bail, ensure};
use candle_core::{Device, Tensor};
use safetensors::SafeTensors;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

const FORMAT: &str = "consistency-lab checkpoint 1";
const KEY: &str = "checkpoint";

/// Players, what their method keeps, and the record, after a number of steps.
pub(super) struct Checkpoint {
    /// Its file.
    pub path: PathBuf,
    pub step: u64,
    /// By group: those of the first player (`params`, `optimizer`, `ema`, then `ema.1`, ...), of
    /// the others (`NAME.params`, ...), and of the method (`target`).
    groups: BTreeMap<String, BTreeMap<String, Tensor>>,
    pub table: Table,
    /// One for each player.
    pub losses: Vec<Losses>,
    /// The steps that each player's optimizer has taken.
    optimizer_steps: Vec<u64>,
}

impl Checkpoint {
    /// Hand its state to `trainer`.
    ///
    /// # Errors
    /// A tensor that is missing or has another shape, by name.
    pub fn restore(&mut self, trainer: &mut dyn Trainer) -> Result<()> {
        for (i, player) in trainer.players_mut().into_iter().enumerate() {
            let (name, steps) =
                (player.name(), self.optimizer_steps.get(i).copied().unwrap_or_default());
            player.restore(steps, |part| {
                self.groups.remove(&group(i, name, part)).unwrap_or_default()
            })?;
        }
        for name in trainer.state().into_keys() {
            trainer.restore(name, &self.groups.remove(name).unwrap_or_default())?;
        }
        Ok(())
    }

    /// The averages of the first player, `count` of them.
    pub fn averages(&mut self, count: usize) -> Vec<BTreeMap<String, Tensor>> {
        (0..count).map(|i| self.groups.remove(&average(i)).unwrap_or_default()).collect()
    }
}

/// The group of a part of player `index`'s state.
fn group(index: usize, name: &str, part: &str) -> String {
    if index == 0 { part.to_string() } else { format!("{name}.{part}") }
}

// As a checkpoint keeps them.
impl Losses {
    /// From a checkpoint written when a run had only one player.
    fn of_one_player(about: &Value) -> Option<Self> {
        let bits = |value: &Value| value.as_u64().map(f64::from_bits);
        let since = &about["since"];
        Some(Self {
            first: bits(&about["first_loss"]),
            sum: bits(&since[0])?,
            count: since[1].as_u64()?,
            ..Self::default()
        })
    }

    // As bits: a decimal could round.
    fn to_json(self) -> Value {
        let Self { first, sum, count, last, norm, rate } = self;
        let [sum, last, norm, rate] = [sum, last, norm, rate].map(f64::to_bits);
        json!([first.map(f64::to_bits), sum, count, last, norm, rate])
    }

    fn from_json(value: &Value) -> Option<Self> {
        let bits = |i: usize| value[i].as_u64().map(f64::from_bits);
        Some(Self {
            first: bits(0),
            sum: bits(1)?,
            count: value[2].as_u64()?,
            last: bits(3)?,
            norm: bits(4)?,
            rate: bits(5)?,
        })
    }
}

/// Write the checkpoint of `trainer` after `step` steps in `folder`, for the configuration
/// `hash`, and remove all but the last `keep`.
///
/// # Errors
/// A parameter that is not finite, by name, or a file that cannot be written: the last
/// checkpoint stays as it is.
pub(super) fn save(
    folder: &Path,
    (hash, keep): (&str, usize),
    step: u64,
    trainer: &dyn Trainer,
    table: &Table,
    losses: &[Losses],
) -> Result<()> {
    let mut tensors: BTreeMap<String, Tensor> = BTreeMap::new();
    let mut add = |group: &str, of: BTreeMap<String, Tensor>| {
        of.into_iter().try_for_each(|(name, tensor)| {
            let name = format!("{group}/{name}");
            let there = tensors.insert(name.clone(), tensor);
            ensure!(
                there.is_none(),
                "a checkpoint has one tensor {name}: give the group of the method's state another \
                 name than '{group}'"
            );
            Ok(())
        })
    };
    for (i, player) in trainer.players().into_iter().enumerate() {
        player.check_finite().map_err(|e| {
            let folder = folder.display();
            e.reworded(|e| {
                format!("at step {step} {e}; the last checkpoint in {folder} stays as it is")
            })
        })?;
        for (part, of) in player.state() {
            add(&group(i, player.name(), &part), of)?;
        }
    }
    for (name, of) in trainer.state() {
        add(name, of)?;
    }
    let columns = table.columns().iter().map(|name| {
        let values = table.column(name);
        Ok((name.clone(), Tensor::from_slice(values, values.len(), &Device::Cpu)?))
    });
    add("record", columns.collect::<Result<_>>()?)?;
    let about = json!({
        "format": FORMAT,
        "configuration": hash,
        "step": step,
        "columns": table.columns(),
        "losses": losses.iter().map(|of| of.to_json()).collect::<Vec<_>>(),
        "optimizer_steps": trainer.players().iter().map(|of| of.steps()).collect::<Vec<_>>(),
    });
    // Under one key: the order of several would change from file to file.
    let metadata = HashMap::from([(KEY.to_string(), about.to_string())]);
    for tensor in tensors.values_mut() {
        *tensor = tensor.to_device(&Device::Cpu)?;
    }
    let bytes = safetensors::serialize(tensors.iter(), Some(metadata))?;
    write_atomically(&folder.join(name(step)), &bytes)?;
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
            Err(error
                .reworded(|error| format!("the checkpoint {}: {error}; {remedy}", path.display())))
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
    ensure!(about["format"] == FORMAT, "is not a checkpoint of a run");
    ensure!(
        about["configuration"] == hash,
        "belongs to the configuration {}, not to {hash}",
        about["configuration"].as_str().unwrap_or("of no name")
    );
    let losses = match about["losses"].as_array() {
        Some(losses) => losses.iter().map(Losses::from_json).collect(),
        None => Losses::of_one_player(&about).map(|losses| vec![losses]),
    };
    let (Some(step), Some(losses)) = (about["step"].as_u64(), losses) else {
        bail!("does not say where the run stood: {about}");
    };
    let optimizer_steps = match about["optimizer_steps"].as_array() {
        Some(steps) => steps.iter().filter_map(Value::as_u64).collect(),
        None => vec![step],
    };
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
    Ok(Checkpoint { path: path.to_path_buf(), step, groups, table, losses, optimizer_steps })
}
