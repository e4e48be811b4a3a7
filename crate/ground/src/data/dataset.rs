//! A dataset by name or path, from wherever it is to images in memory.

use super::catalog::{self, Classes, Encoding, Entry, Split};
use super::decoded::{self, About, Decoded};
use super::digits;
use super::folder;
use super::images::Images;
use super::parquet::{self, Columns};
use super::sheet::Sheet;
use crate::hub::Hub;
use crate::record::read_text;
use crate::rng::Key;
use crate::{Context, Error, Result, bail, ensure};
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A dataset: an entry of the catalog, or a user's own folder, Parquet file or entry.
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
    pub(super) hub: Option<Hub>,
    pub(super) cache: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Place {
    Embedded,
    Hub,
    /// Parquet files of the user's own.
    Files(Vec<PathBuf>),
    /// Images as files: one folder a split.
    Folders(BTreeMap<String, PathBuf>),
    Elsewhere,
}

impl Dataset {
    /// The dataset `name`: a name of the catalog, or the path of an entry (`.toml`), a
    /// Parquet file (`.parquet`) or a folder of images.
    ///
    /// # Errors
    /// A name that the catalog does not have, or a path that is none of these.
    pub fn find(name: &str) -> Result<Self> {
        let path = Path::new(name);
        let ends = |end: &str| path.extension().is_some_and(|e| e.eq_ignore_ascii_case(end));
        if ends("toml") {
            let text = read_text(path).with_context(|| format!("reading {name}"))?;
            return Ok(Self::of(Entry::parse(&text).with_context(|| format!("reading {name}"))?));
        }
        if ends("parquet") {
            return Self::own_parquet(path);
        }
        if path.is_dir() {
            return Self::own_folder(path);
        }
        Ok(Self::of(catalog::entry(name)?))
    }

    pub(super) fn of(entry: Entry) -> Self {
        let place = match (&entry.hub, entry.embedded) {
            (_, true) => Place::Embedded,
            (Some(_), false) => Place::Hub,
            (None, false) => Place::Elsewhere,
        };
        Self { entry, place, limit: None, hub: None, cache: None }
    }

    /// The same with every image cropped to its middle square and reduced to `side` pixels.
    #[must_use]
    pub fn resized(mut self, side: usize) -> Self {
        let [channels, ..] = self.entry.shape;
        self.entry.resize = Some(side);
        self.entry.shape = [channels, side, side];
        self
    }

    /// The same with `count` images of a split alone, in their order: which ones, a fixed key
    /// says, so that all classes are among them in whatever order the dataset is.
    #[must_use]
    pub fn limited(mut self, count: usize) -> Self {
        self.limit = Some(count);
        self
    }

    /// The same from this Hub in place of the one that the environment names.
    #[must_use]
    pub fn with_hub(mut self, hub: &Hub) -> Self {
        self.hub = Some(hub.clone());
        self
    }

    /// The same with decoded images kept in this folder, in place of `CONSISTENCY_CACHE`.
    #[must_use]
    pub fn with_cache(mut self, folder: impl Into<PathBuf>) -> Self {
        self.cache = Some(folder.into());
        self
    }

    fn hub(&self) -> Result<Hub> {
        self.hub.clone().map_or_else(Hub::from_env, Ok)
    }

    fn cache(&self) -> Result<PathBuf> {
        self.cache.clone().map_or_else(decoded::default_folder, Ok)
    }

    /// What the catalog knows of it.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Have its files here, by split: those of the Hub come into its cache.
    ///
    /// # Errors
    /// What the Hub says, or a dataset that is not there: with how to come by it.
    pub fn fetch(&self) -> Result<BTreeMap<String, Vec<PathBuf>>> {
        if self.place == Place::Elsewhere {
            return Err(self.elsewhere());
        }
        let all = self.entry.splits.keys();
        all.map(|split| Ok((split.clone(), self.files(split)?))).collect()
    }

    fn files(&self, split: &str) -> Result<Vec<PathBuf>> {
        if self.place == Place::Hub {
            return self.hub_files(split);
        }
        self.cached(split).ok_or_else(|| self.elsewhere())
    }

    fn elsewhere(&self) -> Error {
        let how = self.entry.how.as_deref();
        let how = how.unwrap_or("its entry names no repository of the Hub");
        Error::new(format!("{}: {how}", self.entry.name))
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

    /// Whether its files, or its images, are here: then nothing asks the network.
    pub fn is_here(&self, split: &str) -> bool {
        self.cached(split).is_some()
    }

    // The files of a split that are here; none where one is missing.
    fn cached(&self, split: &str) -> Option<Vec<PathBuf>> {
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

    fn split_of(&self, name: &str) -> Result<&Split> {
        self.entry.splits.get(name).ok_or_else(|| {
            if self.place == Place::Elsewhere {
                return self.elsewhere();
            }
            let names: Vec<&str> = self.entry.splits.keys().map(String::as_str).collect();
            let (of, names) = (&self.entry.name, names.join(", "));
            Error::new(format!("{of} has no split '{name}'; it has {names}"))
        })
    }

    /// The images of a split, fetched if they are not here and decoded if they were not yet.
    ///
    /// # Errors
    /// A split that it does not have; what the Hub says; an image that is damaged or has
    /// another size, by file and row; images that do not fit into the memory.
    pub fn split(&self, name: &str) -> Result<Images> {
        self.split_of(name)?;
        if self.place == Place::Embedded {
            return self.embedded(name);
        }
        let files = match self.cached(name) {
            Some(files) => files,
            None => self.files(name)?,
        };
        let (key, cache) = (self.key(name, &files)?, self.cache()?);
        let images = match decoded::load(&cache, &key)? {
            Some(images) => images,
            None => {
                let images = self.decode(name, &files)?;
                decoded::save(&cache, &key, &images)?;
                images
            }
        };
        self.images(images, &key)
    }

    /// The shape (C, H, W) and the revision of a split, without its images where they were
    /// decoded before.
    ///
    /// # Errors
    /// As [`Dataset::split`].
    pub fn describe(&self, name: &str) -> Result<(Vec<usize>, String)> {
        if self.place != Place::Embedded
            && let Some(files) = self.cached(name)
        {
            let key = self.key(name, &files)?;
            if let Some(about) = decoded::about(&self.cache()?, &key)? {
                return Ok((about.shape.to_vec(), self.revision(&about, &key)));
            }
        }
        let images = self.split(name)?;
        Ok((images.shape().to_vec(), images.revision().to_string()))
    }

    // Everything that the images depend on.
    fn key(&self, split: &str, files: &[PathBuf]) -> Result<String> {
        let Entry { image, label, shape, resize, .. } = &self.entry;
        // Not the first ones, as an earlier reader kept them.
        let part = self.limit.map(|count| format!("{count} by key"));
        let mut parts = vec![format!("{image:?} {label:?} {shape:?} {resize:?} {part:?}")];
        if let Place::Folders(folders) = &self.place {
            let folder =
                folders.get(split).ok_or_else(|| Error::new(format!("no split {split}")))?;
            parts.extend(folder::content(folder)?);
        } else {
            let contents = files.iter().map(|file| decoded::content(file));
            parts.extend(contents.collect::<Result<Vec<_>>>()?);
        }
        Ok(decoded::key(&parts))
    }

    fn images(&self, images: Decoded, key: &str) -> Result<Images> {
        let Decoded { about, bytes, labels } = images;
        let [c, h, w] = about.shape;
        let pixels = Tensor::from_vec(bytes, (about.rows, c, h, w), &Device::Cpu)?;
        let revision = self.revision(&about, key);
        let classes = match about.classes.is_empty() {
            true => self.entry.classes.clone(),
            false => Classes::Named(about.classes.clone()),
        };
        if classes.count() > 0
            && let Some(bad) = labels.iter().find(|l| **l as usize >= classes.count())
        {
            bail!("{}: the label {bad}, of {} classes", self.entry.name, classes.count());
        }
        let classes = match (classes.count(), labels.iter().max()) {
            (0, Some(largest)) => Classes::Count(*largest as usize + 1),
            _ => classes,
        };
        Ok(Images {
            pixels,
            labels: (!labels.is_empty()).then_some(labels),
            classes,
            largest: self.entry.values[1],
            name: self.name_of(about.encoding),
            revision,
            device: Device::Cpu,
        })
    }

    // The name, the place and a hash of the images as they are used.
    fn revision(&self, about: &About, key: &str) -> String {
        let from = match (&self.entry.hub, &self.entry.revision) {
            (Some(hub), Some(revision)) => format!("{hub}@{revision} "),
            _ => String::new(),
        };
        format!("{}: {from}images {}", self.name_of(about.encoding), &key[..16])
    }

    // A copy that is coded otherwise holds other pixels: it does not bear the name.
    fn name_of(&self, encoding: Encoding) -> String {
        match (self.entry.encoding, encoding) {
            (Some(Encoding::Png), Encoding::Jpeg) => format!("{}-jpeg", self.entry.name),
            _ => self.entry.name.clone(),
        }
    }

    fn embedded(&self, split: &str) -> Result<Images> {
        let digits = digits::bytes()?;
        let (pixels, labels) = if split == "train" { digits.train } else { digits.held_out };
        let rows = labels.len();
        let [c, h, w] = self.entry.shape;
        let pixels = Tensor::from_vec(pixels, (rows, c, h, w), &Device::Cpu)?;
        let all = Images {
            pixels,
            labels: Some(labels),
            classes: self.entry.classes.clone(),
            largest: self.entry.values[1],
            name: self.entry.name.clone(),
            revision: digits.revision,
            device: Device::Cpu,
        };
        ensure!(self.entry.resize.is_none(), "digits: 8x8 is their size");
        match self.limit {
            Some(limit) => all.part(limit, &limit_key()),
            None => Ok(all),
        }
    }

    fn decode(&self, split: &str, files: &[PathBuf]) -> Result<Decoded> {
        if let Place::Folders(folders) = &self.place {
            let images = folder::images(&folders[split])?;
            let rows = self.rows_of(images.files.len());
            let mut sheet = Sheet::new(&self.entry, rows.len())?;
            sheet.classes = images.classes;
            for part in rows.chunks(1024) {
                let part: Vec<&PathBuf> = part.iter().map(|row| &images.files[*row]).collect();
                let coded = part.par_iter().map(|file| {
                    std::fs::read(file).with_context(|| format!("reading {}", file.display()))
                });
                let coded: Vec<Vec<u8>> = coded.collect::<Result<_>>()?;
                let slices: Vec<&[u8]> = coded.iter().map(Vec::as_slice).collect();
                sheet.add(&slices, &|row| part[row].display().to_string())?;
            }
            sheet.labels = rows.iter().filter_map(|row| images.labels.get(*row)).copied().collect();
            return sheet.end();
        }
        let rows: usize = files.iter().map(|file| parquet::rows(file)).sum::<Result<usize>>()?;
        let rows = self.rows_of(rows);
        let mut sheet = Sheet::new(&self.entry, rows.len())?;
        let columns = Columns { image: self.entry.image.clone(), label: self.entry.label.clone() };
        let (mut rows, mut seen) = (rows.into_iter().peekable(), 0);
        for file in files {
            let first = seen;
            parquet::read(file, &columns, usize::MAX, |coded, labels| {
                let end = seen + coded.len();
                let wanted = std::iter::from_fn(|| rows.next_if(|row| *row < end));
                let wanted: Vec<usize> = wanted.map(|row| row - seen).collect();
                let images: Vec<&[u8]> = wanted.iter().map(|row| coded[*row]).collect();
                let done = seen - first;
                sheet.add(&images, &|i| format!("{}, row {}", file.display(), done + wanted[i]))?;
                sheet.labels.extend(wanted.iter().filter_map(|row| labels.get(*row)));
                seen = end;
                Ok(())
            })?;
        }
        sheet.end()
    }

    // Which of a split's rows are read, in their order.
    fn rows_of(&self, all: usize) -> Vec<usize> {
        let count = self.limit.unwrap_or(all);
        let rows = super::part_rows(all, count, &limit_key());
        let mut rows: Vec<usize> = rows.into_iter().map(|row| row as usize).collect();
        rows.sort_unstable();
        rows
    }
}

// Which images a limited split has.
fn limit_key() -> Key {
    Key::new(0).stream("limit")
}
