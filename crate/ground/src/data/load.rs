//! The images of a split: from the cache of decoded images, or decoded.

use super::catalog::{Classes, Encoding, Entry};
use super::columns::{Columns, Kind};
use super::dataset::{Dataset, Place};
use super::decoded::{self, About, Decoded};
use super::digits;
use super::embedded::Bytes;
use super::folder;
use super::garments;
use super::images::Images;
use super::labels::Labels;
use super::parquet::Table;
use super::sheet::Sheet;
use crate::bar::Bar;
use crate::rng::Key;
use crate::{Context, Error, Result, bail, ensure};
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Mutex;

impl Dataset {
    /// The images of a split, fetched if they are not here and decoded if they have not been yet.
    /// Its [`Dataset::notes`] are printed on standard error, once per program.
    ///
    /// # Errors
    /// A split that it does not have; an error from the Hub; an image that is damaged or has
    /// another size, by file and row (from 0); images that do not fit into memory.
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
        self.say_notes();
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

    fn say_notes(&self) {
        if !self.silent {
            self.notes.iter().for_each(|note| self.say(note));
        }
    }

    fn say(&self, note: &str) {
        static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
        let note = format!("note: {}: {note}", self.entry.name);
        // A note is no reason to fail: if the set is lost, the note is printed again.
        let new = SAID.lock().map_or(true, |mut said| said.insert(note.clone()));
        if new {
            eprintln!("{note}");
        }
    }

    /// The shape (C, H, W) and the revision of a split, without its images if they have been
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

    // Everything that the images and the labels depend on.
    fn key(&self, split: &str, files: &[PathBuf]) -> Result<String> {
        let Entry { image, label, shape, resize, classes, .. } = &self.entry;
        let limit = self.limit.map_or("None".to_string(), |limit| format!("{limit} by key"));
        let mut parts = vec![format!("{image:?} {label:?} {shape:?} {resize:?} {limit}")];
        if let Place::Folders(folders) = &self.place {
            let all = folder::classes(folders)?;
            parts.push(format!("classes {all:?}"));
            let folder =
                folders.get(split).ok_or_else(|| Error::new(format!("no split {split}")))?;
            parts.extend(folder::content(folder, &folder::images(folder, &all)?.files)?);
        } else {
            if let (Some(label), Some(file)) = (label, files.first()) {
                // Labels that are not numbers get theirs from the names of the classes.
                match Table::open(file)?.column(label)?.kind {
                    Kind::Numbers(_) => {}
                    _ => parts.push(format!("classes by name {classes:?}")),
                }
            }
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
        if let Some(column) = &self.entry.label
            && labels.is_empty()
        {
            let rows = about.rows;
            self.say(&format!("no classes: {column} is null or -1 in each of {rows} rows"));
        }
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

    // A copy that is encoded differently holds other pixels: it does not bear the name.
    fn name_of(&self, encoding: Encoding) -> String {
        let name = &self.entry.name;
        match (self.entry.encoding, encoding) {
            (Some(Encoding::Png), Encoding::Jpeg) => format!("{name}-jpeg"),
            (Some(Encoding::Png), Encoding::Webp) => format!("{name}-webp"),
            _ => name.clone(),
        }
    }

    fn embedded(&self, split: &str) -> Result<Images> {
        let Bytes { train, held_out, revision } = match self.entry.name.as_str() {
            "digits" => {
                ensure!(self.entry.resize.is_none(), "digits: 8x8 is their size; leave `size` out");
                digits::bytes()?
            }
            "fashion_10k" => garments::bytes(&self.entry, false)?,
            "fashion_10k_tinted" => garments::bytes(&self.entry, true)?,
            name => bail!("no dataset '{name}' is embedded in the library: name its files instead"),
        };
        let (pixels, labels) = if split == "train" { train } else { held_out };
        let rows = labels.len();
        let [c, h, w] = self.entry.shape;
        let pixels = Tensor::from_vec(pixels, (rows, c, h, w), &Device::Cpu)?;
        let mut images = Images {
            pixels,
            labels: Some(labels),
            classes: self.entry.classes.clone(),
            largest: self.entry.values[1],
            name: self.entry.name.clone(),
            revision,
            device: Device::Cpu,
        };
        if let Some(part) = self.part(rows) {
            let chosen: Vec<u32> = part.iter().map(|row| *row as u32).collect();
            images.pixels = super::select(&images.pixels, &chosen)?;
            let labels = images.labels.take().unwrap_or_default();
            images.labels = Some(part.iter().map(|row| labels[*row]).collect());
            images.revision = format!("{}, {} of {rows}", images.revision, part.len());
        }
        Ok(images)
    }

    // The rows of a split's part, in order; none if the split is taken whole.
    fn part(&self, rows: usize) -> Option<Vec<usize>> {
        let limit = self.limit.filter(|limit| *limit < rows)?;
        let mut part = Key::new(0).stream("limit").permutation(rows);
        part.truncate(limit);
        part.sort_unstable();
        Some(part)
    }

    fn decode(&self, split: &str, files: &[PathBuf]) -> Result<Decoded> {
        match &self.place {
            Place::Folders(folders) => self.decode_folder(split, folders),
            _ => self.decode_tables(files),
        }
    }

    fn decode_folder(&self, split: &str, folders: &folder::Splits) -> Result<Decoded> {
        let classes = folder::classes(folders)?;
        let folder::Files { mut files, mut labels } = folder::images(&folders[split], &classes)?;
        if let Some(part) = self.part(files.len()) {
            if !labels.is_empty() {
                labels = part.iter().map(|row| labels[*row]).collect();
            }
            files = part.iter().map(|row| std::mem::take(&mut files[*row])).collect();
        }
        let mut sheet = Sheet::new(&self.entry, files.len())?;
        let mut bar = Bar::new(format!("decoding {}", self.entry.name), files.len() as u64);
        for part in files.chunks(1024) {
            let coded = part.par_iter().map(|file| {
                std::fs::read(file).with_context(|| format!("reading {}", file.display()))
            });
            let coded: Vec<Vec<u8>> = coded.collect::<Result<_>>()?;
            let slices: Vec<&[u8]> = coded.iter().map(Vec::as_slice).collect();
            sheet.add(&slices, &|row| part[row].display().to_string())?;
            bar.add(part.len() as u64)?;
        }
        // Beside each other, images have no classes, whatever another split has.
        let classes = if labels.is_empty() { Vec::new() } else { classes };
        sheet.end(labels, classes)
    }

    fn decode_tables(&self, files: &[PathBuf]) -> Result<Decoded> {
        let columns = Columns { image: self.entry.image.clone(), label: self.entry.label.clone() };
        let tables: Vec<Table> =
            files.iter().map(|file| Table::open(file)).collect::<Result<_>>()?;
        tables.iter().try_for_each(|table| table.check(&columns))?;
        let rows = tables.iter().map(Table::rows).fold(0, usize::saturating_add);
        let part = self.part(rows);
        let mut sheet = Sheet::new(&self.entry, part.as_ref().map_or(rows, Vec::len))?;
        let mut labels = Labels::new(&self.entry, &tables)?;
        let mut first = 0;
        let all = part.as_ref().map_or(rows, Vec::len) as u64;
        let mut bar = Bar::new(format!("decoding {}", self.entry.name), all);
        for table in &tables {
            let within = first..first + table.rows();
            let wanted = part.as_ref().map(|part| -> Vec<usize> {
                part.iter().filter(|row| within.contains(row)).map(|row| row - first).collect()
            });
            table.read(&columns, wanted.as_deref(), |rows| {
                sheet.add(&rows.coded, &|row| table.at(rows.numbers[row]))?;
                for (row, label) in rows.numbers.iter().zip(&rows.labels) {
                    labels.add(*label, || table.at(*row))?;
                }
                bar.add(rows.numbers.len() as u64)
            })?;
            first = within.end;
        }
        let (labels, classes) = labels.end()?;
        sheet.end(labels, classes)
    }
}
