//! A folder of images as a dataset: its subfolders are the classes, or the splits.

use super::{decode, part_rows};
use crate::rng::Key;
use crate::{Context, Result, bail};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Folders of these names are splits.
const SPLITS: [&str; 5] = ["train", "test", "validation", "val", "held_out"];

/// The images of a split in the order of their names, class by class.
pub(super) struct Files {
    pub files: Vec<PathBuf>,
    /// One a file; none where the images lie in no subfolders.
    pub labels: Vec<u32>,
    pub classes: Vec<String>,
}

// What is in a folder, in the order of the names: subfolders, and images.
fn entries(folder: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let (mut folders, mut images) = (Vec::new(), Vec::new());
    let reading = || format!("reading {}", folder.display());
    for entry in std::fs::read_dir(folder).with_context(reading)? {
        let path = entry.with_context(reading)?.path();
        let image = path
            .extension()
            .is_some_and(|e| ["png", "jpg", "jpeg"].iter().any(|end| e.eq_ignore_ascii_case(end)));
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        match (path.is_dir(), image, hidden) {
            (true, _, false) => folders.push(path),
            (false, true, false) => images.push(path),
            _ => {}
        }
    }
    folders.sort();
    images.sort();
    Ok((folders, images))
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The folders of the splits: `train`, `test` and the like, or the whole as `train`.
pub(super) fn splits(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let (folders, _) = entries(folder)?;
    let splits: BTreeMap<String, PathBuf> = folders
        .into_iter()
        .filter(|path| SPLITS.contains(&name(path).as_str()))
        .map(|path| (name(&path), path))
        .collect();
    Ok(match splits.is_empty() {
        true => BTreeMap::from([("train".to_string(), folder.to_path_buf())]),
        false => splits,
    })
}

/// (C, H, W) of an image; three channels where any of a hundred has colours, which a fixed key
/// chooses from all classes.
pub(super) fn shape(splits: &BTreeMap<String, PathBuf>) -> Result<[usize; 3]> {
    for folder in splits.values() {
        let mut shape = None;
        let Files { files, .. } = images(folder)?;
        let key = Key::new(0).stream("shape");
        for file in part_rows(files.len(), 100, &key).into_iter().map(|row| &files[row as usize]) {
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
    bail!("{} holds no images (.png, .jpg, .jpeg)", folders.join(", "))
}

/// The images of a split.
pub(super) fn images(folder: &Path) -> Result<Files> {
    let (folders, mut files) = entries(folder)?;
    let (mut labels, mut classes) = (Vec::new(), Vec::new());
    if !folders.is_empty() && !files.is_empty() {
        bail!(
            "{} holds images and folders: put all images into folders, one a class, or all beside \
             each other",
            folder.display()
        );
    }
    for (label, folder) in folders.iter().enumerate() {
        let (_, images) = entries(folder)?;
        labels.extend(std::iter::repeat_n(label as u32, images.len()));
        files.extend(images);
        classes.push(name(folder));
    }
    Ok(Files { files, labels, classes })
}

/// What the images of a split depend on: names below the folder, and contents.
pub(super) fn content(folder: &Path) -> Result<Vec<String>> {
    let Files { files, .. } = images(folder)?;
    let of = |file: &PathBuf| {
        let below = file.strip_prefix(folder).unwrap_or(file).display();
        Ok(format!("{below} {}", super::decoded::content(file)?))
    };
    files.par_iter().map(of).collect()
}
