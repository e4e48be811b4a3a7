//! A dataset by name or path: from wherever it is to images in memory.

use super::catalog::{self, Classes, Entry, Split};
use super::decoded;
use super::folder::Splits;
use crate::hub::Hub;
use crate::record::read_text;
use crate::{Context, Error, Result, ensure};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A dataset: an entry of the catalog, or a user's own folder, Parquet file or entry.
///
/// PNG, JPEG, WebP, BMP, TIFF and GIF are read; of an animation or a file with several pages, the
/// first image. Pixels are read as they are stored: an orientation in the EXIF data is not applied,
/// just as torchvision and Pillow do not apply it unless they are asked to.
///
/// In a folder, subfolders are the classes, in the order of their names over all splits (`train`,
/// `test`, `validation`, `val`, `held_out`), so that a class has the same number in all of them. In
/// a Parquet file, the images are the only column that holds bytes, or a struct with the field
/// `bytes`; of several, the one called `image` or `img`. The labels are the column `label`, or else
/// `labels`, or else the only one with such a name (`fine_label`, `class`, `target`). Integers are
/// class numbers; text, also in dictionaries, becomes named classes in the order of the names as
/// text; false and true become the classes 0 and 1. A split without any label (null or -1 in each
/// row) has no classes. [`Dataset::find_with_columns`] takes other columns, and [`Dataset::notes`]
/// says what was taken and what was not.
///
/// ```
/// use consistency::data::Dataset;
/// let digits = Dataset::find("digits")?.split("train")?;
/// assert_eq!((digits.len(), digits.shape()), (1347, &[1, 8, 8][..]));
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Dataset {
    pub(super) entry: Entry,
    pub(super) place: Place,
    pub(super) limit: Option<usize>,
    pub(super) notes: Vec<String>,
    pub(super) silent: bool,
    pub(super) hub: Option<Hub>,
    pub(super) cache: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Place {
    Embedded,
    Hub,
    /// Parquet files of the user's own.
    Files(Vec<PathBuf>),
    /// Images as files: one folder per split.
    Folders(Splits),
    Elsewhere,
}

impl Dataset {
    /// The dataset `name`: a name of the catalog, or the path of an entry (`.toml`), a
    /// Parquet file (`.parquet`) or a folder of images.
    ///
    /// # Errors
    /// A name that the catalog does not have, or a path that is none of these; a file or a
    /// folder without images; a Parquet file with several columns of images of which none is
    /// called `image` or `img`.
    pub fn find(name: &str) -> Result<Self> {
        Self::find_with_columns(name, None, None)
    }

    /// As [`Dataset::find`], with the images or the labels of these columns, in place of those
    /// of the entry or the rule.
    ///
    /// # Errors
    /// As [`Dataset::find`]; a column that is not there or holds something else; columns given for
    /// something that is not a Parquet file.
    pub fn find_with_columns(name: &str, image: Option<&str>, label: Option<&str>) -> Result<Self> {
        let path = Path::new(name);
        let ends = |end: &str| path.extension().is_some_and(|e| e.eq_ignore_ascii_case(end));
        if ends("parquet") {
            return Self::own_parquet(path, image, label);
        }
        let mut found = if ends("toml") {
            let text = read_text(path).with_context(|| format!("reading {name}"))?;
            Self::of(Entry::parse(&text).with_context(|| format!("reading {name}"))?)
        } else if path.is_dir() {
            Self::own_folder(path)?
        } else {
            Self::of(catalog::entry(name)?)
        };
        if image.is_some() || label.is_some() {
            ensure!(
                found.place == Place::Hub,
                "{name} has no columns: they are a Parquet file's; leave image and label out"
            );
            let Entry { image: images, label: labels, classes, .. } = &mut found.entry;
            if let Some(image) = image {
                *images = image.to_string();
            }
            if label.is_some() && labels.as_deref() != label {
                // The entry's classes are those of its own column.
                *labels = label.map(str::to_string);
                *classes = Classes::default();
            }
        }
        Ok(found)
    }

    pub(super) fn of(entry: Entry) -> Self {
        let place = match (&entry.hub, entry.embedded) {
            (_, true) => Place::Embedded,
            (Some(_), false) => Place::Hub,
            (None, false) => Place::Elsewhere,
        };
        Self { entry, place, limit: None, notes: Vec::new(), silent: false, hub: None, cache: None }
    }

    /// The same with every image cropped to its middle square and reduced to `side` pixels.
    #[must_use]
    pub fn resized(mut self, side: usize) -> Self {
        let [channels, ..] = self.entry.shape;
        self.entry.resize = Some(side);
        self.entry.shape = [channels, side, side];
        self
    }

    /// The same with only `count` images of a split, or all if it has fewer: the first ones in a
    /// random order under a key that is always the same, so that a dataset sorted by class still
    /// gives a share of each. They stay in the dataset's order, and a smaller part lies within a
    /// larger one.
    #[must_use]
    pub fn limited(mut self, count: usize) -> Self {
        self.limit = Some(count);
        self
    }

    /// The same, from this Hub instead of the one that the environment names.
    #[must_use]
    pub fn with_hub(mut self, hub: &Hub) -> Self {
        self.hub = Some(hub.clone());
        self
    }

    /// The same, with decoded images kept in this folder instead of in `CONSISTENCY_CACHE`.
    #[must_use]
    pub fn with_cache(mut self, folder: impl Into<PathBuf>) -> Self {
        self.cache = Some(folder.into());
        self
    }

    /// What was chosen from what the file or the folder has, and what is not read, one line each;
    /// there are no notes on the catalog's datasets.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The same, but loading it prints no notes on standard error: for callers that show them
    /// themselves.
    #[must_use]
    pub fn silent(mut self) -> Self {
        self.silent = true;
        self
    }

    fn hub(&self) -> Result<Hub> {
        self.hub.clone().map_or_else(Hub::from_env, Ok)
    }

    pub(super) fn cache(&self) -> Result<PathBuf> {
        self.cache.clone().map_or_else(decoded::default_folder, Ok)
    }

    /// What the catalog knows about it.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Make sure that its files are here, by split: those on the Hub are fetched into its cache.
    ///
    /// # Errors
    /// An error from the Hub, or a dataset that is not there; the message says how to obtain it.
    pub fn fetch(&self) -> Result<BTreeMap<String, Vec<PathBuf>>> {
        if self.place == Place::Elsewhere {
            return Err(self.elsewhere());
        }
        let all = self.entry.splits.keys();
        all.map(|split| Ok((split.clone(), self.files(split)?))).collect()
    }

    pub(super) fn files(&self, split: &str) -> Result<Vec<PathBuf>> {
        if self.place == Place::Hub {
            return self.hub_files(split);
        }
        self.cached(split).ok_or_else(|| self.elsewhere())
    }

    fn elsewhere(&self) -> Error {
        let how = self.entry.how.as_deref();
        let how = how.unwrap_or("its entry names no repository of the Hub");
        Error::not_found(format!("{}: {how}", self.entry.name))
    }

    fn hub_files(&self, split: &str) -> Result<Vec<PathBuf>> {
        let Entry { name, hub: id, revision, login, .. } = &self.entry;
        let (id, revision) = (id.as_deref().unwrap_or_default(), revision.as_deref());
        let repository = self.hub()?.dataset(id, revision.unwrap_or("main"))?;
        let found = || -> Result<Vec<PathBuf>> {
            let mut files = Vec::new();
            for pattern in &self.split_of(split)?.files {
                let names = match pattern.contains('*') {
                    true => repository.matching(pattern)?,
                    false => catalog::expand(pattern)?,
                };
                for name in names {
                    files.push(repository.file(&name)?);
                }
            }
            Ok(files)
        };
        found().map_err(|error| match login {
            Some(login) => error.context(format!("{name} ({login})")),
            None => error.context(name),
        })
    }

    /// Whether its files, or its images, are here: then the network is not used.
    pub fn is_here(&self, split: &str) -> bool {
        self.cached(split).is_some()
    }

    // The files of a split that are here; none if one is missing.
    pub(super) fn cached(&self, split: &str) -> Option<Vec<PathBuf>> {
        match &self.place {
            Place::Embedded => return Some(Vec::new()),
            Place::Files(files) => return Some(files.clone()),
            Place::Folders(folders) => return Some(vec![folders.get(split)?.clone()]),
            Place::Elsewhere => return None,
            Place::Hub => {}
        }
        let hub = self.hub().ok()?;
        let id = self.entry.hub.as_deref()?;
        let repository = hub.dataset(id, self.entry.revision.as_deref()?).ok()?;
        let mut files = Vec::new();
        for pattern in &self.split_of(split).ok()?.files {
            let names = match pattern.contains('*') {
                true => repository.matching_cached(pattern),
                false => catalog::expand(pattern).ok()?,
            };
            if names.is_empty() {
                return None;
            }
            for name in names {
                files.push(repository.cached(&name)?);
            }
        }
        Some(files)
    }

    pub(super) fn split_of(&self, name: &str) -> Result<&Split> {
        self.entry.splits.get(name).ok_or_else(|| {
            if self.place == Place::Elsewhere {
                return self.elsewhere();
            }
            let names: Vec<&str> = self.entry.splits.keys().map(String::as_str).collect();
            let (of, names) = (&self.entry.name, names.join(", "));
            Error::not_found(format!("{of} has no split '{name}'; it has {names}"))
        })
    }
}
