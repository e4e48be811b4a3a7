//! A folder of images as a dataset: its subfolders are the classes, or the splits.

use super::decode::{self, ENDINGS, READ};
use crate::rng::Key;
use crate::{Context, Result, bail};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Folders of these names are splits.
const SPLITS: [&str; 5] = ["train", "test", "validation", "val", "held_out"];

/// The folders of the splits, by name.
pub(super) type Splits = BTreeMap<String, PathBuf>;

/// The images of a split in the order of their names, class by class.
pub(super) struct Files {
    pub files: Vec<PathBuf>,
    /// One per file; none if the images are not in subfolders.
    pub labels: Vec<u32>,
}

// What is in a folder, in the order of the names. Names that begin with a dot are skipped.
#[derive(Default)]
struct Entries {
    folders: Vec<PathBuf>,
    images: Vec<PathBuf>,
    /// How many other files there are, by their endings.
    others: BTreeMap<String, usize>,
}

fn entries(folder: &Path) -> Result<Entries> {
    let mut found = Entries::default();
    let reading = || format!("reading {}", folder.display());
    for entry in std::fs::read_dir(folder).with_context(reading)? {
        let path = entry.with_context(reading)?.path();
        let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase());
        if name(&path).starts_with('.') {
            continue;
        }
        if path.is_dir() {
            found.folders.push(path);
        } else if ending.as_ref().is_some_and(|ending| ENDINGS.contains(&ending.as_str())) {
            found.images.push(path);
        } else {
            let ending = ending.map_or("without an ending".to_string(), |e| format!(".{e}"));
            *found.others.entry(ending).or_default() += 1;
        }
    }
    found.folders.sort();
    found.images.sort();
    Ok(found)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The folders of the splits: `train`, `test` and the like, or the whole as `train`.
pub(super) fn splits(folder: &Path) -> Result<Splits> {
    let folders = entries(folder)?.folders.into_iter();
    let splits: Splits = folders
        .filter(|path| SPLITS.contains(&name(path).as_str()))
        .map(|path| (name(&path), path))
        .collect();
    Ok(match splits.is_empty() {
        true => BTreeMap::from([("train".to_string(), folder.to_path_buf())]),
        false => splits,
    })
}

/// The names of the classes, sorted: those of the folders of all splits, so that a class has the
/// same number in all of them.
pub(super) fn classes(splits: &Splits) -> Result<Vec<String>> {
    let mut classes = BTreeSet::new();
    for folder in splits.values() {
        classes.extend(entries(folder)?.folders.iter().map(|path| name(path)));
    }
    Ok(classes.into_iter().collect())
}

/// (C, H, W) of the first image; three channels if any of a hundred images, which a fixed key
/// chooses from all classes, has colours.
pub(super) fn shape(splits: &Splits) -> Result<[usize; 3]> {
    let classes = classes(splits)?;
    for folder in splits.values() {
        let mut shape = None;
        let Files { files, .. } = images(folder, &classes)?;
        let order = Key::new(0).stream("shape").permutation(files.len());
        let some = order.into_iter().take(100).map(|row| &files[row]);
        for file in files.first().into_iter().chain(some) {
            let reading = || format!("reading {}", file.display());
            let bytes = std::fs::read(file).with_context(reading)?;
            let picture = decode::decode(&bytes).with_context(reading)?;
            let [channels, ..] =
                shape.get_or_insert([picture.channels, picture.height, picture.width]);
            *channels = picture.channels.max(*channels);
        }
        if let Some(shape) = shape {
            return Ok(shape);
        }
    }
    let folders: Vec<String> = splits.values().map(|f| f.display().to_string()).collect();
    let mut words = vec![format!("{} holds no images ({READ})", folders.join(", "))];
    for folder in splits.values() {
        words.extend(left_out(folder)?);
    }
    bail!("{}", words.join("; "))
}

/// The images of a split whose class folders have the numbers of `classes`.
pub(super) fn images(folder: &Path, classes: &[String]) -> Result<Files> {
    let Entries { folders, images: mut files, .. } = entries(folder)?;
    let mut labels = Vec::new();
    if !folders.is_empty() && !files.is_empty() {
        bail!(
            "{} holds images and folders: put all images into folders, one a class, or all beside \
             each other",
            folder.display()
        );
    }
    for class in &folders {
        let images = entries(class)?.images;
        let Ok(label) = classes.binary_search(&name(class)) else {
            bail!("{} appeared while the dataset was read: read it again", class.display());
        };
        labels.extend(std::iter::repeat_n(label as u32, images.len()));
        files.extend(images);
    }
    Ok(Files { files, labels })
}

/// What the images of a split depend on: names below the folder, and contents.
pub(super) fn content(folder: &Path, files: &[PathBuf]) -> Result<Vec<String>> {
    let of = |file: &PathBuf| {
        let below = file.strip_prefix(folder).unwrap_or(file).display();
        Ok(format!("{below} {}", super::decoded::content(file)?))
    };
    files.par_iter().map(of).collect()
}

/// What lies in the dataset `root` and is not read, one line each.
pub(super) fn notes(root: &Path, splits: &Splits) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    if !splits.values().any(|folder| folder == root) {
        let Entries { folders, images, others } = entries(root)?;
        let mut beside: Vec<String> =
            folders.iter().map(|f| name(f)).filter(|name| !splits.contains_key(name)).collect();
        beside.extend((!images.is_empty()).then(|| format!("images ({})", images.len())));
        beside.extend(counts(&others));
        if !beside.is_empty() {
            notes.push(format!(
                "beside the splits, and not read: {} (a split is a folder called {})",
                beside.join(", "),
                SPLITS.join(", ")
            ));
        }
    }
    for (split, folder) in splits {
        notes.extend(left_out(folder)?.into_iter().map(|words| format!("{split}: {words}")));
    }
    Ok(notes)
}

fn counts(others: &BTreeMap<String, usize>) -> Vec<String> {
    others.iter().map(|(ending, count)| format!("{count} {ending}")).collect()
}

// What lies in a split and is not read.
fn left_out(folder: &Path) -> Result<Vec<String>> {
    let Entries { folders, images, mut others } = entries(folder)?;
    let (mut read, mut inner) = (images.len(), Vec::new());
    for class in &folders {
        let of_class = entries(class)?;
        read += of_class.images.len();
        inner.extend(of_class.folders);
        for (ending, count) in of_class.others {
            *others.entry(ending).or_default() += count;
        }
    }
    let mut words = Vec::new();
    let count: usize = others.values().sum();
    if count > 0 {
        let counts = counts(&others).join(", ");
        words.push(format!("images read: {read}; files not read: {count} ({counts}); {READ}"));
    }
    if let Some(first) = inner.first() {
        let below = first.strip_prefix(folder).unwrap_or(first).display();
        words.push(format!(
            "folders inside class folders, not read: {} (the first is {below}); images must lie \
             directly in the folder of their class",
            inner.len()
        ));
    }
    Ok(words)
}
