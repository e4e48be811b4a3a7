//! Datasets of the user's own: a Parquet file, a folder of images.

use super::catalog::{Classes, Entry, Split};
use super::dataset::{Dataset, Place};
use super::parquet::{self, Columns};
use super::{decode, folder};
use crate::{Result, bail};
use std::collections::BTreeMap;
use std::path::Path;

impl Dataset {
    /// The Parquet file `path`.
    pub(super) fn own_parquet(path: &Path) -> Result<Self> {
        let Columns { image, label } = parquet::find_columns(path)?;
        let mut first = None;
        let columns = Columns { image, label };
        parquet::read(path, &columns, 1, |images, _| {
            first = images.first().map(|image| decode::decode(image)).transpose()?;
            Ok(())
        })?;
        let Some(first) = first else { bail!("{} has no rows", path.display()) };
        let splits = BTreeMap::from([("train".to_string(), Split::default())]);
        let shape = [first.channels, first.height, first.width];
        let entry =
            Entry { label: columns.label, image: columns.image, ..own(path, shape, splits) };
        Ok(Self { place: Place::Files(vec![path.to_path_buf()]), ..Self::of(entry) })
    }

    /// The folder of images `path`.
    pub(super) fn own_folder(path: &Path) -> Result<Self> {
        let folders = folder::splits(path)?;
        let shape = folder::shape(&folders)?;
        let splits = folders.keys().map(|name| (name.clone(), Split::default())).collect();
        let entry = own(path, shape, splits);
        Ok(Self { place: Place::Folders(folders), ..Self::of(entry) })
    }
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
        licence: "yours to know".to_string(),
        size: "here".to_string(),
        citation: String::new(),
        note: None,
        splits,
    }
}
