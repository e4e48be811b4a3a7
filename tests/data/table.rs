//! Parquet files of any column: what other programs write, and no frame of Polars holds.

use consistency::{Context, Result};
use polars_arrow::array::{Array, BinaryArray, BinaryViewArray, StructArray, Utf8ViewArray};
use polars_arrow::datatypes::{ArrowDataType, ArrowSchema, Field};
use polars_arrow::record_batch::RecordBatchT;
use polars_buffer::Buffer;
use polars_parquet::write::{
    CompressionOptions, Encoding, FileWriter, RowGroupIterator, StatisticsOptions, Version,
    WriteOptions,
};
use std::fs::File;
use std::path::Path;

pub type Columns<'a> = Vec<(&'a str, Box<dyn Array>)>;

/// Write `columns` as the groups of rows of these lengths.
pub fn write_groups(path: &Path, columns: &Columns<'_>, groups: &[usize]) -> Result<()> {
    let fields =
        columns.iter().map(|(name, array)| Field::new((*name).into(), array.dtype().clone(), true));
    let fields: Vec<Field> = fields.collect();
    let schema: ArrowSchema = fields.iter().map(|f| (f.name.clone(), f.clone())).collect();
    let options = WriteOptions {
        statistics: StatisticsOptions::default(),
        version: Version::V1,
        compression: CompressionOptions::Snappy,
        data_page_size: None,
    };
    let encoding = |field: &Field| match &field.dtype {
        ArrowDataType::Dictionary(..) => vec![Encoding::RleDictionary],
        ArrowDataType::Struct(fields) => vec![Encoding::Plain; fields.len()],
        _ => vec![Encoding::Plain],
    };
    let encodings: Vec<Vec<Encoding>> = fields.iter().map(encoding).collect();
    let mut first = 0;
    let batches = groups.iter().map(|rows| {
        let arrays: Vec<Box<dyn Array>> =
            columns.iter().map(|(_, array)| array.sliced(first, *rows)).collect();
        first += rows;
        RecordBatchT::try_new(*rows, schema.clone().into(), arrays)
    });
    let batches: Vec<_> = batches.collect();
    let file = File::create(path).with_context(|| path.display().to_string())?;
    let mut writer = FileWriter::try_new(file, schema.clone(), options)?;
    let batches = RowGroupIterator::try_new(
        batches.into_iter(),
        &schema,
        options,
        Buffer::from_vec(encodings),
    )?;
    for (batch, rows) in batches.zip(groups) {
        writer.write(*rows as u64, batch?)?;
    }
    writer.end(None)?;
    Ok(())
}

/// Write `columns` as one group.
pub fn write(path: &Path, columns: &Columns<'_>) -> Result<()> {
    let rows = columns.first().map_or(0, |(_, array)| array.len());
    write_groups(path, columns, &[rows])
}

/// A column of bytes.
pub fn bytes(images: &[Vec<u8>]) -> Box<dyn Array> {
    BinaryViewArray::from_slice(images.iter().map(Some).collect::<Vec<_>>()).boxed()
}

/// A column of bytes with offsets of 64 bits.
pub fn large_bytes(images: &[Vec<u8>]) -> Box<dyn Array> {
    BinaryArray::<i64>::from_iter_values(images.iter()).boxed()
}

/// A column of text.
pub fn text(texts: &[&str]) -> Box<dyn Array> {
    Utf8ViewArray::from_slice(texts.iter().map(Some).collect::<Vec<_>>()).boxed()
}

/// A column as the Hub has its images: {bytes, path}.
pub fn images_of(bytes: Box<dyn Array>, paths: &[&str]) -> Box<dyn Array> {
    let fields = vec![
        Field::new("bytes".into(), bytes.dtype().clone(), true),
        Field::new("path".into(), ArrowDataType::Utf8View, true),
    ];
    let rows = bytes.len();
    let parts = vec![bytes, text(paths)];
    StructArray::new(ArrowDataType::Struct(fields), rows, parts, None).boxed()
}
