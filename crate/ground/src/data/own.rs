//! Datasets of the user's own: a Parquet file, a folder of images.

use super::catalog::{Classes, Entry, Split};
use super::columns::{self, Columns};
use super::dataset::{Dataset, Place};
use super::decode::{self, Picture};
use super::folder;
use super::parquet::Table;
use crate::{Context, Error, Result, ensure};
use std::collections::BTreeMap;
use std::path::Path;

/// The rows of a file that decide whether it has colours.
const FIRST: usize = 64;

impl Dataset {
    /// The Parquet file `path`, with these columns or those of the rule.
    pub(super) fn own_parquet(
        path: &Path,
        image: Option<&str>,
        label: Option<&str>,
    ) -> Result<Self> {
        let table = Table::open(path)?;
        let chosen = columns::choose(&table.columns(), image, label);
        let (columns, notes) = chosen.with_context(|| path.display().to_string())?;
        let images = Columns { label: None, ..columns.clone() };
        let shape = shape(&table, &images)?;
        let splits = BTreeMap::from([("train".to_string(), Split::default())]);
        let entry =
            Entry { label: columns.label, image: columns.image, ..own(path, shape, splits) };
        Ok(Self { place: Place::Files(vec![path.to_path_buf()]), notes, ..Self::of(entry) })
    }

    /// The folder of images `path`.
    pub(super) fn own_folder(path: &Path) -> Result<Self> {
        let folders = folder::splits(path)?;
        let shape = folder::shape(&folders)?;
        let notes = folder::notes(path, &folders)?;
        let splits = folders.keys().map(|name| (name.clone(), Split::default())).collect();
        let entry = own(path, shape, splits);
        Ok(Self { place: Place::Folders(folders), notes, ..Self::of(entry) })
    }
}

// (C, H, W) of the first image; three channels if any of the first rows has colours.
fn shape(table: &Table, columns: &Columns) -> Result<[usize; 3]> {
    let wanted: Vec<usize> = (0..table.rows().min(FIRST)).collect();
    ensure!(!wanted.is_empty(), "{} has no rows", table.path().display());
    let mut shape: Option<[usize; 3]> = None;
    table.read(columns, Some(&wanted), |rows| {
        for (row, image) in rows.numbers.iter().zip(&rows.coded) {
            let picture = decode::decode(image).with_context(|| table.at(*row));
            match (&mut shape, picture) {
                (None, picture) => {
                    let Picture { channels, height, width, .. } = picture?;
                    shape = Some([channels, height, width]);
                }
                (Some([channels, ..]), Ok(picture)) => *channels = picture.channels.max(*channels),
                // Reading the dataset reports it later; the rows that can be decoded are enough
                // here.
                (Some(_), Err(_)) => {}
            }
        }
        Ok(())
    })?;
    shape.ok_or_else(|| Error::new(format!("{} has no first row", table.path().display())))
}

fn own(path: &Path, shape: [usize; 3], splits: BTreeMap<String, Split>) -> Entry {
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Entry {
        title: format!("{} (your own)", path.display()),
        name,
        embedded: false,
        hub: None,
        revision: None,
        verified: true,
        login: None,
        how: None,
        image: String::new(),
        label: None,
        encoding: None,
        shape,
        resize: None,
        values: [0, 255],
        classes: Classes::default(),
        licence: "not known here".to_string(),
        size: "here".to_string(),
        citation: String::new(),
        whole: None,
        note: None,
        splits,
    }
}
