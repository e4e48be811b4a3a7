//! Rows of numbers under named columns.

use super::files::write_atomically;
use super::provenance::Provenance;
use crate::{Result, ensure};
use polars::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;

/// A table that grows by rows: numbers under column names, all columns in every row.
///
/// ```
/// use consistency::prelude::*;
/// let mut table = Table::new();
/// table.push(&[("step", 100.0), ("loss", 0.5)])?;
/// table.push(&[("step", 200.0), ("loss", 0.25)])?;
/// assert_eq!((table.rows(), table.column("loss")), (2, &[0.5, 0.25][..]));
/// assert_eq!(column(&table.frame()?, "step")?, [100.0, 200.0]);
/// assert!(table.push(&[("step", 300.0)]).is_err());
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    columns: Vec<String>,
    values: BTreeMap<String, Vec<f64>>,
}

impl Table {
    /// An empty table; its first row names the columns.
    pub fn new() -> Self {
        Self::default()
    }

    /// Add a row.
    ///
    /// # Errors
    /// Columns other than those of the rows before.
    pub fn push(&mut self, row: &[(&str, f64)]) -> Result<()> {
        if self.columns.is_empty() {
            self.columns = row.iter().map(|(name, _)| (*name).to_string()).collect();
        }
        ensure!(
            row.iter().map(|(name, _)| *name).eq(self.columns.iter().map(String::as_str)),
            "a row of {:?} in a table of {:?}",
            row.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
            self.columns
        );
        for (name, value) in row {
            self.values.entry((*name).to_string()).or_default().push(*value);
        }
        Ok(())
    }

    /// The column `name`, empty if there is none.
    pub fn column(&self, name: &str) -> &[f64] {
        self.values.get(name).map_or(&[], Vec::as_slice)
    }

    /// The names of the columns in order.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.columns.first().map_or(0, |name| self.column(name).len())
    }

    /// The table as a Polars frame.
    pub fn frame(&self) -> Result<DataFrame> {
        let columns = self
            .columns
            .iter()
            .map(|name| Column::new(name.as_str().into(), self.column(name).to_vec()));
        Ok(DataFrame::new(self.rows(), columns.collect())?)
    }

    /// The table as a Polars frame, with the provenance in every row.
    pub fn frame_with(&self, provenance: &Provenance) -> Result<DataFrame> {
        let mut frame = self.frame()?;
        let rows = self.rows();
        for (name, value) in provenance.columns() {
            frame.with_column(Column::new(name.into(), vec![value; rows]))?;
        }
        Ok(frame)
    }

    /// Write `NAME.csv` and `NAME.parquet` in `folder`, with the provenance in every row.
    ///
    /// # Errors
    /// A folder that cannot be written; files that were there are left whole.
    pub fn write(&self, folder: &Path, name: &str, provenance: &Provenance) -> Result<()> {
        let mut frame = self.frame_with(provenance)?;
        let mut csv = Vec::new();
        CsvWriter::new(&mut csv).finish(&mut frame)?;
        write_atomically(&folder.join(format!("{name}.csv")), &csv)?;
        let mut parquet = Vec::new();
        ParquetWriter::new(&mut parquet).finish(&mut frame)?;
        write_atomically(&folder.join(format!("{name}.parquet")), &parquet)
    }
}
