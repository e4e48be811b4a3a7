//! Images in Parquet files: a column of bytes, or of structs with the field `bytes`, as the
//! Hub has them. Only the columns that are needed are decoded, whatever lies beside them.

mod frame;
mod pages;
mod values;

pub use frame::read_frame;
pub(super) use values::Label;

use super::columns::{Column, Columns, Kind, find};
use super::decode;
use crate::{Context, Error, Result, bail, ensure, guard};
use polars_arrow::array::{Array, StructArray, Utf8ViewArray};
use polars_arrow::datatypes::{ArrowDataType, Field};
use polars_parquet::read::{
    BasicDecompressor, ColumnChunkMetadata, FileMetadata, Filter, RowGroupMetadata,
    column_iter_to_arrays, read_metadata,
};
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Rows that are in memory at a time, still encoded; more if the file has more in one group, since
/// a group is not decoded twice.
const ROWS: usize = 1 << 13;
/// And bytes, by the sizes that the file states.
const BYTES: usize = 1 << 28;

/// A Parquet file.
pub(super) struct Table {
    path: PathBuf,
    size: u64,
    metadata: FileMetadata,
}

/// Some rows, still encoded.
pub(super) struct Rows<'a> {
    /// Their numbers in the file, from 0.
    pub numbers: Vec<usize>,
    pub coded: Vec<&'a [u8]>,
    /// One per row, or none.
    pub labels: Vec<Label<'a>>,
}

// Rows of a group that are decoded at once; `first` is the number of the first in the file.
struct Piece<'a> {
    group: &'a RowGroupMetadata,
    rows: Range<usize>,
    first: usize,
}

type Arrays = Vec<Box<dyn Array>>;

impl Table {
    /// Open the file `path`.
    ///
    /// # Errors
    /// A file that is not a Parquet file; a pointer of Git LFS.
    pub fn open(path: &Path) -> Result<Self> {
        let reading = || path.display().to_string();
        let mut file = File::open(path).with_context(reading)?;
        let size = file.metadata().with_context(reading)?.len();
        let mut start = Vec::new();
        (&mut file).take(64).read_to_end(&mut start).with_context(reading)?;
        decode::refuse_pointer(path, &start)?;
        let damaged = || format!("{} is not a Parquet file, or is damaged", path.display());
        let metadata = guard("polars-parquet", || read_metadata(&mut file));
        let metadata = metadata.with_context(damaged)?;
        let rows = metadata.row_groups.iter().map(RowGroupMetadata::num_rows);
        let rows = rows.fold(0, usize::saturating_add);
        ensure!(
            rows == metadata.num_rows,
            "{}: its groups and the file differ in their number of rows",
            damaged()
        );
        Ok(Self { path: path.to_path_buf(), size, metadata })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many rows it has.
    pub fn rows(&self) -> usize {
        self.metadata.num_rows
    }

    /// Check that the file's column of images has as many rows as the file: memory is allocated by
    /// that number.
    pub fn check(&self, columns: &Columns) -> Result<()> {
        for piece in self.pieces(&columns.image, None) {
            let (rows, column) = (piece.group.num_rows(), &columns.image);
            ensure!(
                piece
                    .bytes(column)
                    .is_none_or(|chunk| usize::try_from(chunk.num_values()) == Ok(rows)),
                "{} is damaged: its column {column} and a group of {rows} rows differ in length",
                self.path.display()
            );
        }
        Ok(())
    }

    /// Its columns.
    pub fn columns(&self) -> Vec<Column> {
        self.metadata.schema().fields().iter().map(Column::new).collect()
    }

    /// The column `name`.
    ///
    /// # Errors
    /// No such column.
    pub fn column(&self, name: &str) -> Result<Column> {
        let all = self.columns();
        Ok(find(&all, name).with_context(|| self.path.display().to_string())?.clone())
    }

    /// `row 3 of the file`, for a message.
    pub fn at(&self, row: usize) -> String {
        format!("{}, row {row}", self.path.display())
    }

    /// Call `each` with the rows `wanted` (in order, or all of them), some thousands at a time.
    ///
    /// # Errors
    /// A file without these columns, or a row without an image, by number.
    pub fn read(
        &self,
        columns: &Columns,
        wanted: Option<&[usize]>,
        mut each: impl FnMut(Rows<'_>) -> Result<()>,
    ) -> Result<()> {
        let image = self.column(&columns.image)?;
        let label = columns.label.as_ref().map(|name| self.column(name)).transpose()?;
        if image.kind == Kind::NoImages {
            let first = wanted.map_or(Some(0), |wanted| wanted.first().copied());
            return first.map_or(Ok(()), |row| Err(self.no_image(&image, row)));
        }
        let Kind::Images(field) = &image.kind else {
            bail!("{}: the column {} holds no images", self.path.display(), image.name);
        };
        let pieces = self.pieces(&image.name, wanted);
        let mut from = 0;
        while from < pieces.len() {
            // As many pieces as are decoded side by side.
            let (mut to, mut rows, mut bytes) = (from, 0, 0usize);
            while to < pieces.len() && (to == from || rows < ROWS && bytes < BYTES) {
                rows += pieces[to].rows.len();
                bytes = bytes.saturating_add(pieces[to].size(&image.name));
                to += 1;
            }
            let decode = |piece: &Piece<'_>| -> Result<(Arrays, Option<Arrays>)> {
                let labels = label.as_ref().map(|label| self.labels(piece, label)).transpose()?;
                Ok((self.leaf(piece, field, &bytes_of(field))?, labels))
            };
            let decoded: Vec<_> = pieces[from..to].par_iter().map(decode).collect::<Result<_>>()?;
            for (piece, (images, labels)) in pieces[from..to].iter().zip(&decoded) {
                let chosen = chosen(piece, wanted);
                if !chosen.is_empty() {
                    each(self.pick(piece, &image, chosen, images, labels.as_deref())?)?;
                }
            }
            from = to;
        }
        Ok(())
    }

    /// The names in the column of text `label`, in all rows.
    ///
    /// # Errors
    /// A damaged file.
    pub fn names(&self, label: &Column) -> Result<BTreeSet<String>> {
        let of = |piece: &Piece<'_>| -> Result<BTreeSet<String>> {
            let arrays = self.labels(piece, label)?;
            let texts = arrays.iter().filter_map(|a| a.as_any().downcast_ref::<Utf8ViewArray>());
            Ok(texts.flat_map(|texts| texts.iter().flatten()).map(str::to_string).collect())
        };
        let pieces = self.pieces(&label.name, None);
        let sets: Vec<BTreeSet<String>> = pieces.par_iter().map(of).collect::<Result<_>>()?;
        Ok(sets.into_iter().flatten().collect())
    }

    // The file cut at its groups, and large groups cut again; pieces without a wanted row are left
    // out.
    fn pieces(&self, column: &str, wanted: Option<&[usize]>) -> Vec<Piece<'_>> {
        let mut pieces = Vec::new();
        let mut first = 0;
        for group in &self.metadata.row_groups {
            let rows = group.num_rows();
            let whole = Piece { group, rows: 0..rows, first };
            let parts = whole.size(column).div_ceil(BYTES).clamp(1, rows.max(1));
            let each = rows.div_ceil(parts).max(1);
            for start in (0..rows).step_by(each) {
                let rows = start..(start + each).min(rows);
                let piece = Piece { group, rows, first: first + start };
                if wanted.is_none() || !chosen(&piece, wanted).is_empty() {
                    pieces.push(piece);
                }
            }
            first += rows;
        }
        pieces
    }

    // The arrays of the labels of a piece.
    fn labels(&self, piece: &Piece<'_>, label: &Column) -> Result<Arrays> {
        match &label.kind {
            Kind::Numbers(field) | Kind::Truth(field) | Kind::Text(field) => {
                self.leaf(piece, field, &[field.name.as_str()])
            }
            _ => bail!(
                "{}: the column {} holds no labels: integers, text, or true and false",
                self.path.display(),
                label.name
            ),
        }
    }

    // The column at `path` of a piece.
    fn leaf(&self, piece: &Piece<'_>, field: &Field, path: &[&str]) -> Result<Arrays> {
        let damaged = || {
            let rows = &piece.rows;
            let (first, last) = (piece.first, piece.first + rows.len().saturating_sub(1));
            format!("{} is damaged in rows {first} to {last}", self.path.display())
        };
        let arrays = || -> Result<Arrays> {
            let chunk = piece.chunk(path).ok_or_else(|| Error::new("a column is missing"))?;
            let pages = pages::of(chunk, self.bytes(chunk.byte_range())?)?;
            let whole = piece.rows == (0..piece.group.num_rows());
            let filter = (!whole).then(|| Filter::new_ranged(piece.rows.start, piece.rows.end));
            let (arrays, _) = column_iter_to_arrays(
                vec![BasicDecompressor::new(pages, vec![])],
                vec![&chunk.descriptor().descriptor.primitive_type],
                field.clone(),
                filter,
            )?;
            let rows: usize = arrays.iter().map(|array| array.len()).sum();
            ensure!(rows == piece.rows.len(), "{rows} rows were found of {}", piece.rows.len());
            Ok(arrays)
        };
        guard("polars-parquet", arrays).with_context(damaged)
    }

    fn bytes(&self, range: Range<u64>) -> Result<Vec<u8>> {
        ensure!(range.start <= range.end && range.end <= self.size, "a column beyond its end");
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(range.start))?;
        let mut bytes = vec![0; (range.end - range.start) as usize];
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    // The rows `chosen` from what was decoded of a piece.
    fn pick<'a>(
        &self,
        piece: &Piece<'_>,
        image: &Column,
        chosen: Vec<usize>,
        images: &'a [Box<dyn Array>],
        labels: Option<&'a [Box<dyn Array>]>,
    ) -> Result<Rows<'a>> {
        let all = values::images(images)?;
        let coded = chosen.iter().map(|row| {
            all.get(row - piece.first).copied().flatten().ok_or_else(|| self.no_image(image, *row))
        });
        let coded = coded.collect::<Result<Vec<_>>>()?;
        let mut of_rows = Vec::new();
        if let Some(labels) = labels {
            let all = values::labels(labels);
            for row in &chosen {
                let found = all.get(row - piece.first).copied();
                let label = found.map_or(Ok(Label::Missing), values::Found::label);
                of_rows.push(label.with_context(|| self.at(*row))?);
            }
        }
        Ok(Rows { numbers: chosen, coded, labels: of_rows })
    }

    // Why a row has no image.
    fn no_image(&self, image: &Column, row: usize) -> Error {
        let at = self.at(row);
        match self.path_of(&image.name, row) {
            Some(path) => Error::new(format!(
                "{at}: only a path is stored ({path}), not the image: write the file with the \
                 bytes of its images inside, or give the folder that they lie in"
            )),
            None => Error::new(format!("{at}: no image in the column {}", image.name)),
        }
    }

    // What the field `path` beside the missing bytes of a row says.
    fn path_of(&self, image: &str, row: usize) -> Option<String> {
        let pieces = self.pieces(image, Some(&[row]));
        let Piece { group, first, rows } = pieces.first()?;
        let at = row - first + rows.start;
        let piece = Piece { group, rows: at..at + 1, first: row };
        let path = Field::new("path".into(), ArrowDataType::Utf8View, true);
        let field = Field::new(image.into(), ArrowDataType::Struct(vec![path]), true);
        let arrays = self.leaf(&piece, &field, &[image, "path"]).ok()?;
        let fields = arrays.first()?.as_any().downcast_ref::<StructArray>()?;
        let texts = fields.values().first()?.as_any().downcast_ref::<Utf8ViewArray>()?;
        texts.iter().next().flatten().map(str::to_string)
    }
}

impl Piece<'_> {
    fn chunk(&self, path: &[&str]) -> Option<&ColumnChunkMetadata> {
        let is = |chunk: &&ColumnChunkMetadata| {
            let names = &chunk.descriptor().path_in_schema;
            names.len() == path.len() && names.iter().zip(path).all(|(a, b)| a.as_str() == *b)
        };
        self.group.parquet_columns().iter().find(is)
    }

    // The bytes of a column of images, or a column of something else.
    fn bytes(&self, column: &str) -> Option<&ColumnChunkMetadata> {
        self.chunk(&[column, "bytes"]).or_else(|| self.chunk(&[column]))
    }

    // How many bytes the column has in the group, for this piece's part of the rows.
    fn size(&self, column: &str) -> usize {
        let all = self
            .bytes(column)
            .map_or(0, |chunk| usize::try_from(chunk.uncompressed_size()).unwrap_or(0));
        let (rows, of) = (self.rows.len() as u128, self.group.num_rows().max(1) as u128);
        (all as u128 * rows / of) as usize
    }
}

// The path of the bytes of a column of images.
fn bytes_of(field: &Field) -> Vec<&str> {
    match &field.dtype {
        ArrowDataType::Struct(_) => vec![field.name.as_str(), "bytes"],
        _ => vec![field.name.as_str()],
    }
}

// The wanted rows of a piece, by their numbers in the file.
fn chosen(piece: &Piece<'_>, wanted: Option<&[usize]>) -> Vec<usize> {
    let (first, end) = (piece.first, piece.first + piece.rows.len());
    match wanted {
        None => (first..end).collect(),
        Some(wanted) => {
            let from = wanted.partition_point(|row| *row < first);
            let to = wanted.partition_point(|row| *row < end);
            wanted[from..to].to_vec()
        }
    }
}
