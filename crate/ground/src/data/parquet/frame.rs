//! A whole Parquet file of text and numbers as a Polars frame.

use super::{Table, pages};
use crate::{Context, Result, ensure, guard};
use polars::prelude::{DataFrame, ParallelStrategy, ParquetReader, SerReader};
use std::fs::File;
use std::path::Path;

/// The frame of the Parquet file `path`.
///
/// # Errors
/// A file that is not a Parquet file, or a damaged one, by name.
pub fn read_frame(path: &Path) -> Result<DataFrame> {
    let table = Table::open(path)?;
    let damaged = || format!("{} is damaged: write it again", path.display());
    let read = || -> Result<DataFrame> {
        for group in &table.metadata.row_groups {
            for chunk in group.parquet_columns() {
                let (values, rows) = (chunk.num_values(), group.num_rows());
                ensure!(
                    usize::try_from(values) == Ok(rows),
                    "a column has {values} values in {rows} rows"
                );
                pages::of(chunk, table.bytes(chunk.byte_range())?)?;
            }
        }
        // On this thread, where its panics are caught.
        let reader = ParquetReader::new(File::open(path)?).read_parallel(ParallelStrategy::None);
        let frame = reader.finish()?;
        for column in frame.columns() {
            ensure!(
                column.len() == frame.height() && frame.height() == table.rows(),
                "its column {} has {} of {} rows",
                column.name(),
                column.len(),
                table.rows()
            );
        }
        Ok(frame)
    };
    guard("polars-parquet", read).with_context(damaged)
}
