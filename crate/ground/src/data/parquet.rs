//! Images in Parquet files: a column of structs with the field `bytes`, as the Hub has them.

use crate::{Context, Error, Result, bail};
use polars::prelude::{Column, DataType, ParquetReader, SerReader};
use std::fs::File;
use std::path::Path;

/// Rows that are in memory at a time, as they are coded.
const SLICE: usize = 1 << 13;

/// The columns of a file that hold images and labels.
#[derive(Clone, Debug)]
pub(super) struct Columns {
    pub image: String,
    pub label: Option<String>,
}

/// How many rows a file has.
pub(super) fn rows(path: &Path) -> Result<usize> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    ParquetReader::new(file).num_rows().with_context(|| damaged(path))
}

fn damaged(path: &Path) -> String {
    format!("{} is no Parquet file, or a damaged one", path.display())
}

/// The columns of somebody's own file: the one that holds bytes, and `label` or `labels`.
pub(super) fn find_columns(path: &Path) -> Result<Columns> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    // One row has the types of all.
    let table = ParquetReader::new(file)
        .with_slice(Some((0, 1)))
        .finish()
        .with_context(|| damaged(path))?;
    let schema = table.schema();
    let is_image = |dtype: &DataType| match dtype {
        DataType::Binary => true,
        DataType::Struct(fields) => {
            fields.iter().any(|f| f.name() == "bytes" && *f.dtype() == DataType::Binary)
        }
        _ => false,
    };
    let image = schema.iter().find(|(_, dtype)| is_image(dtype)).map(|(name, _)| name.to_string());
    let Some(image) = image else {
        let names: Vec<String> = schema.iter_names().map(|name| name.to_string()).collect();
        bail!(
            "{} has the columns {}: none holds images (bytes, or a struct with the field bytes)",
            path.display(),
            names.join(", ")
        );
    };
    let known = |name: &&str| schema.get(name).is_some_and(DataType::is_integer);
    let label = ["label", "labels"].iter().find(|name| known(name)).map(|name| name.to_string());
    Ok(Columns { image, label })
}

/// Call `each` with the coded images and labels of the first `limit` rows, some thousands at
/// a time, in order.
///
/// # Errors
/// A file without these columns, or a row without an image, by number.
pub(super) fn read(
    path: &Path,
    columns: &Columns,
    limit: usize,
    mut each: impl FnMut(&[&[u8]], &[u32]) -> Result<()>,
) -> Result<()> {
    let total = rows(path)?.min(limit);
    let mut first = 0;
    while first < total {
        let count = SLICE.min(total - first);
        let file = File::open(path).with_context(|| path.display().to_string())?;
        let names = std::iter::once(&columns.image).chain(&columns.label).cloned().collect();
        let reader = ParquetReader::new(file).with_columns(Some(names));
        let table = reader
            .with_slice(Some((first, count)))
            .finish()
            .with_context(|| path.display().to_string())?;
        let at = |row: usize| format!("{}, row {}", path.display(), first + row);
        let column = table.column(&columns.image).with_context(|| path.display().to_string())?;
        let bytes = bytes_of(column).with_context(|| path.display().to_string())?;
        let bytes = bytes.binary()?;
        let coded = bytes.iter().enumerate();
        let coded: Vec<&[u8]> = coded
            .map(|(row, image)| image.ok_or_else(|| Error::new(format!("{}: no image", at(row)))))
            .collect::<Result<_>>()?;
        let labels = match &columns.label {
            Some(label) => labels_of(table.column(label)?, &at)?,
            None => Vec::new(),
        };
        each(&coded, &labels)?;
        first += count;
    }
    Ok(())
}

fn bytes_of(column: &Column) -> Result<polars::prelude::Series> {
    match column.dtype() {
        DataType::Binary => Ok(column.as_materialized_series().clone()),
        DataType::Struct(_) => Ok(column.struct_()?.field_by_name("bytes")?),
        other => bail!("the column {} holds {other}, not images", column.name()),
    }
}

fn labels_of(column: &Column, at: &dyn Fn(usize) -> String) -> Result<Vec<u32>> {
    let wide = column.cast(&DataType::Int64)?;
    let labels = wide.i64()?.iter().enumerate().map(|(row, label)| match label {
        // The Hub's mark for "no label".
        Some(-1) | None => bail!("{}: no label in the column {}", at(row), column.name()),
        Some(label) => {
            u32::try_from(label).map_err(|_| Error::new(format!("{}: the label {label}", at(row))))
        }
    });
    labels.collect()
}
