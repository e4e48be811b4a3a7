//! Trained networks that come with the lab: the averaged weights in half precision, in a file that
//! says what was run, what it recorded and what it cost.

use super::config::Experiment;
use super::folder::RunFolder;
use super::machine;
use super::trained::Trained;
use crate::record::{Provenance, Table, write_tensors};
use crate::{Context, Error, Result, bail, ensure};
use candle_core::{DType, Device, Tensor};
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What its names begin with where a teacher or a start is named.
pub(crate) const SHIPPED: &str = "shipped:";
/// The key in a file's header that holds everything but the tensors.
const KEY: &str = "shipped";
const FORMAT: &str = "consistency-lab shipped 1";
/// What the names of the record's columns begin with.
const RECORD: &str = "record.";
/// The most bytes of numbers that a file may hold.
const LARGEST: usize = 4_000_000;

macro_rules! shipped {
    ($($name:literal),* $(,)?) => {
        /// Each with the file of its reproduction.
        const FILES: &[(&str, &[u8])] = &[$((
            $name,
            include_bytes!(concat!(
                env!("CARGO_MANIFEST_DIR"), "/../reproductions/", $name, "/model.safetensors"
            )),
        )),*];
    };
}

shipped![
    "digits-classifier",
    "fashion-10k-classifier",
    "fashion-10k-teacher",
    "fashion-10k-cd",
    "fashion-10k-ct",
];

/// What a run cost.
///
/// ```
/// use consistency::experiment::Cost;
/// let cost = Cost { name: "digits".to_string(), iterations: 10, seconds: 3.0, device: "cpu".into() };
/// assert_eq!(cost.to_string(), "digits: 10 steps, 3 s on cpu");
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// The experiment.
    pub name: String,
    /// Its steps.
    pub iterations: u64,
    /// How long they took, on the machine that took them.
    pub seconds: f64,
    /// `cpu`, or the accelerator's name.
    pub device: String,
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, iterations, seconds, device } = self;
        write!(f, "{name}: {iterations} steps, {seconds:.0} s on {device}")
    }
}

/// What a file holds besides tensors.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    format: String,
    experiment: String,
    provenance: Provenance,
    costs: Vec<Cost>,
}

impl Trained {
    /// The names of the networks that come with the lab: each is that of the reproduction that
    /// trained it.
    ///
    /// ```
    /// use consistency::prelude::*;
    /// for name in Trained::shipped_names() {
    ///     assert_eq!(Trained::shipped(name)?.experiment().name, name);
    /// }
    /// # Ok::<(), consistency::Error>(())
    /// ```
    pub fn shipped_names() -> impl Iterator<Item = &'static str> {
        FILES.iter().map(|(name, _)| *name)
    }

    /// A network that comes with the lab, with its record. Its weights are those that its published
    /// numbers were measured with, rounded to half precision; it computes in f32.
    ///
    /// # Errors
    /// No network of this name; the error lists those that there are.
    pub fn shipped(name: &str) -> Result<Self> {
        let Some((name, bytes)) = FILES.iter().find(|(known, _)| *known == name) else {
            let all: Vec<&str> = Self::shipped_names().collect();
            bail!(
                not_found: "no trained network '{name}' comes with the lab; there are {}",
                all.join(", ")
            );
        };
        Self::from_bytes(name, bytes).with_context(|| format!("the shipped network {name}"))
    }

    /// Write it to a file that [`Trained::unpack`] reads, and round its own weights likewise, so that
    /// what is measured with it is measured with the file's. `before` is what the runs cost that it
    /// builds on.
    ///
    /// # Errors
    /// A number that half precision cannot hold; more than 4 MB; a file that cannot be written.
    pub fn pack(&self, path: &Path, before: &[Cost]) -> Result<()> {
        let about = About {
            format: FORMAT.to_string(),
            experiment: self.experiment().to_toml()?,
            provenance: self.provenance()?,
            costs: before.iter().cloned().chain([self.cost()?]).collect(),
        };
        let about = serde_json::to_string(&about).map_err(|e| Error::new(e.to_string()))?;
        let (mut tensors, mut rounded) = (BTreeMap::new(), BTreeMap::new());
        for (name, tensor) in self.params().tensors() {
            let half = tensor.to_device(&Device::Cpu)?.to_dtype(DType::F16)?;
            let largest = half.to_dtype(DType::F32)?.abs()?.flatten_all()?.max(0)?;
            let largest = largest.to_scalar::<f32>()?;
            ensure!(
                largest.is_finite(),
                "the parameter {name} has a number that half precision cannot hold"
            );
            rounded.insert(name.clone(), half.to_dtype(DType::F32)?.to_device(tensor.device())?);
            tensors.insert(name, half);
        }
        for column in self.table().columns() {
            let values = self.table().column(column);
            let values = Tensor::from_slice(values, values.len(), &Device::Cpu)?;
            tensors.insert(format!("{RECORD}{column}"), values);
        }
        let bytes = |tensor: &Tensor| tensor.elem_count() * tensor.dtype().size_in_bytes();
        let size: usize = tensors.values().map(bytes).sum();
        ensure!(
            size <= LARGEST,
            "{}: {size} bytes of numbers, and at most {LARGEST} are shipped; take a smaller network",
            path.display()
        );
        write_tensors(path, &tensors, &[(KEY, &about)])?;
        self.params().assign_tensors(&rounded)
    }

    /// Read what [`Trained::pack`] wrote.
    ///
    /// # Errors
    /// A file that is not of this kind, by its path.
    pub fn unpack(path: &Path) -> Result<Self> {
        let context = || format!("the trained network {}", path.display());
        let bytes = std::fs::read(path).with_context(context)?;
        let name = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        Self::from_bytes(&name, &bytes).with_context(context)
    }

    fn from_bytes(name: &str, bytes: &[u8]) -> Result<Self> {
        let About { experiment, provenance, costs, .. } = about(bytes)?;
        let experiment = Experiment::parse(&experiment)?;
        let (mut average, mut record) = (BTreeMap::new(), BTreeMap::new());
        for (name, tensor) in candle_core::safetensors::load_buffer(bytes, &Device::Cpu)? {
            match name.strip_prefix(RECORD) {
                Some(column) => record.insert(column.to_string(), tensor.to_vec1::<f64>()?),
                None => {
                    average.insert(name, tensor.to_dtype(DType::F32)?);
                    None
                }
            };
        }
        let folder = RunFolder::nowhere(PathBuf::from(format!("{SHIPPED}{name}")), experiment);
        Self::of_file(folder, average, table(&record)?, provenance, costs)
    }

    /// What it cost to train it on this machine, as its record says.
    ///
    /// # Errors
    /// A run without a record.
    pub fn cost(&self) -> Result<Cost> {
        if let Some(cost) = self.costs().last() {
            return Ok(cost.clone());
        }
        let Experiment { name, training, .. } = self.experiment();
        Ok(Cost {
            name: name.clone(),
            iterations: training.iterations,
            seconds: machine::seconds(self.run_folder().path())?,
            device: training.device.clone(),
        })
    }
}

fn about(bytes: &[u8]) -> Result<About> {
    let (_, header) = SafeTensors::read_metadata(bytes)?;
    let Some(about) = header.metadata().as_ref().and_then(|said| said.get(KEY)) else {
        bail!("its header has no {KEY:?}: not a file of Trained::pack");
    };
    let about: About = serde_json::from_str(about)
        .map_err(|e| Error::new(format!("its header's {KEY:?}: {e}")))?;
    ensure!(
        about.format == FORMAT,
        "its format is {:?}, and this program reads {FORMAT:?}",
        about.format
    );
    Ok(about)
}

// The columns in the order of a record: `step` first.
fn table(record: &BTreeMap<String, Vec<f64>>) -> Result<Table> {
    let mut columns: Vec<&String> = record.keys().collect();
    columns.sort_by_key(|name| (*name != "step", (*name).clone()));
    let rows = record.values().map(Vec::len).min().unwrap_or_default();
    let mut table = Table::new();
    (0..rows).try_for_each(|row| {
        let values = columns.iter().map(|name| (name.as_str(), record[*name][row]));
        table.push(&values.collect::<Vec<_>>())
    })?;
    Ok(table)
}
