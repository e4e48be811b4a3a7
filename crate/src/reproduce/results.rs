//! What came out: one row for each seed, sampler and number, kept as Parquet and CSV.

use crate::data::read_frame;
use crate::record::{Provenance, write_atomically};
use crate::{Context, Error, Result};
use polars::prelude::{Column, CsvWriter, DataFrame, DataType, ParquetWriter, SerWriter};
use std::path::Path;

/// One number with all that it takes to reproduce it.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// How the samples were drawn.
    pub sampler: String,
    /// Network evaluations per sample.
    pub nfe: u64,
    /// What the number is.
    pub metric: String,
    /// The number.
    pub value: f64,
    /// How many samples it was computed from.
    pub samples: u64,
    /// How many steps the network was trained.
    pub iterations: u64,
    /// quick, standard or full.
    pub budget: String,
    /// Where it comes from.
    pub provenance: Provenance,
    /// What was compared: `pixels`, or the features of which network, and for a classifier which
    /// images it was trained on. None: not recorded, as in records older than this field.
    pub judge: Option<String>,
    /// The real images on the other side: `SPLIT, COUNT of ALL, HASH`, where the hash is that of
    /// [`Images::hash_of`](crate::data::Images::hash_of). None: not recorded.
    pub reference: Option<String>,
}

const TEXTS: [&str; 9] = [
    "sampler",
    "metric",
    "budget",
    "experiment",
    "configuration",
    "device",
    "dtype",
    "commit",
    "data",
];
const COUNTS: [&str; 4] = ["nfe", "samples", "iterations", "seed"];
/// Columns that earlier records do not have.
const LATER: [&str; 2] = ["judge", "reference"];

impl Row {
    fn texts(&self) -> [&str; 9] {
        let of = &self.provenance;
        [
            &self.sampler,
            &self.metric,
            &self.budget,
            &of.experiment,
            &of.configuration,
            &of.device,
            &of.dtype,
            &of.commit,
            &of.data,
        ]
    }

    fn counts(&self) -> [u64; 4] {
        [self.nfe, self.samples, self.iterations, self.provenance.seed]
    }

    fn later(&self) -> [Option<&str>; 2] {
        [self.judge.as_deref(), self.reference.as_deref()]
    }

    // A new measurement replaces the old one.
    fn is_same(&self, other: &Self) -> bool {
        let key = |row: &Self| {
            let of = &row.provenance;
            let texts = [&of.experiment, &row.sampler, &row.metric, &row.budget].map(String::clone);
            (texts, of.seed)
        };
        key(self) == key(other)
    }
}

/// The rows kept in a reproduction's folder; none where it was not run. Columns that came later
/// than a record are read as "not recorded".
///
/// # Errors
/// A file that is damaged or something else, by name.
pub fn read(folder: &Path) -> Result<Vec<Row>> {
    let path = folder.join("results.parquet");
    if !path.exists() {
        return Ok(Vec::new());
    }
    let context = || format!("reading {}", path.display());
    let table = read_frame(&path)?;
    rows(&table).with_context(context)
}

fn rows(table: &DataFrame) -> Result<Vec<Row>> {
    let text = |name: &str| -> Result<Vec<String>> {
        let column = table.column(name)?.cast(&DataType::String)?;
        Ok(column.str()?.iter().map(|v| v.unwrap_or_default().to_string()).collect())
    };
    let count = |name: &str| -> Result<Vec<u64>> {
        let column = table.column(name)?.cast(&DataType::UInt64)?;
        Ok(column.u64()?.iter().map(Option::unwrap_or_default).collect())
    };
    let texts: Vec<Vec<String>> = TEXTS.iter().map(|n| text(n)).collect::<Result<_>>()?;
    let counts: Vec<Vec<u64>> = COUNTS.iter().map(|n| count(n)).collect::<Result<_>>()?;
    let later: Vec<Vec<Option<String>>> =
        LATER.iter().map(|name| optional(table, name)).collect::<Result<_>>()?;
    let values = table.column("value")?.f64()?;
    let row = |i: usize| -> Result<Row> {
        let of = |k: usize| texts[k][i].clone();
        Ok(Row {
            sampler: of(0),
            metric: of(1),
            budget: of(2),
            nfe: counts[0][i],
            samples: counts[1][i],
            iterations: counts[2][i],
            value: values.get(i).ok_or_else(|| Error::new(format!("row {i} has no value")))?,
            provenance: Provenance {
                experiment: of(3),
                configuration: of(4),
                seed: counts[3][i],
                device: of(5),
                dtype: of(6),
                commit: of(7),
                data: of(8),
            },
            judge: later[0][i].clone(),
            reference: later[1][i].clone(),
        })
    };
    (0..table.height()).map(row).collect()
}

// A column that need not be there.
fn optional(table: &DataFrame, name: &str) -> Result<Vec<Option<String>>> {
    match table.column(name) {
        Ok(column) => {
            let column = column.cast(&DataType::String)?;
            Ok(column.str()?.iter().map(|value| value.map(String::from)).collect())
        }
        Err(_) => Ok(vec![None; table.height()]),
    }
}

/// Add `new` to the rows kept in `folder`, in place of those that they repeat.
///
/// # Errors
/// A folder or a disk that cannot be written.
pub(super) fn add(folder: &Path, new: &[Row]) -> Result<()> {
    let mut all = read(folder)?;
    all.retain(|row| !new.iter().any(|other| other.is_same(row)));
    all.extend_from_slice(new);
    let texts = (0..TEXTS.len()).map(|k| {
        let values: Vec<&str> = all.iter().map(|row| row.texts()[k]).collect();
        Column::new(TEXTS[k].into(), values)
    });
    let counts = (0..COUNTS.len()).map(|k| {
        let values: Vec<u64> = all.iter().map(|row| row.counts()[k]).collect();
        Column::new(COUNTS[k].into(), values)
    });
    let values: Vec<f64> = all.iter().map(|row| row.value).collect();
    let later = (0..LATER.len()).map(|k| {
        let values: Vec<Option<&str>> = all.iter().map(|row| row.later()[k]).collect();
        Column::new(LATER[k].into(), values)
    });
    let value = [Column::new("value".into(), values)];
    let columns = texts.chain(counts).chain(value).chain(later).collect();
    let mut table = DataFrame::new(all.len(), columns)?;
    let (mut parquet, mut csv) = (Vec::new(), Vec::new());
    ParquetWriter::new(&mut parquet).finish(&mut table)?;
    CsvWriter::new(&mut csv).finish(&mut table)?;
    write_atomically(&folder.join("results.parquet"), &parquet)?;
    write_atomically(&folder.join("results.csv"), &csv)
}

/// The mean, and half of the 95 % interval of the mean by Student's t; none for one number.
pub fn interval(values: &[f64]) -> (f64, Option<f64>) {
    let n = values.len();
    let mean = values.iter().sum::<f64>() / n as f64;
    // The 97.5 % quantile for n - 1 degrees of freedom; the normal one from there on.
    const T: [f64; 9] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262];
    let t = n.checked_sub(2).map(|i| T.get(i).copied().unwrap_or(1.96));
    let square = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
    (mean, t.map(|t| t * (square / (n - 1) as f64 / n as f64).sqrt()))
}
