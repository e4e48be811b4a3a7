//! The catalog: what is known about each dataset, one TOML file per dataset in `datasets/`.

use crate::bounds::within;
use crate::record::from_toml;
use crate::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

// One line per file: the library knows its datasets wherever it runs.
const FILES: [(&str, &str); 9] = [
    ("digits.toml", include_str!("../../../../datasets/digits.toml")),
    ("fashion_10k.toml", include_str!("../../../../datasets/fashion_10k.toml")),
    ("fashion_10k_tinted.toml", include_str!("../../../../datasets/fashion_10k_tinted.toml")),
    ("mnist.toml", include_str!("../../../../datasets/mnist.toml")),
    ("fashion_mnist.toml", include_str!("../../../../datasets/fashion_mnist.toml")),
    ("cifar10.toml", include_str!("../../../../datasets/cifar10.toml")),
    ("imagenet64.toml", include_str!("../../../../datasets/imagenet64.toml")),
    ("lsun_bedroom.toml", include_str!("../../../../datasets/lsun_bedroom.toml")),
    ("lsun_cat.toml", include_str!("../../../../datasets/lsun_cat.toml")),
];

/// The largest height or width of an image.
const LARGEST_SIDE: usize = 1 << 15;
/// The most classes that a dataset may have.
const MOST_CLASSES: usize = 10_000_000;
/// The most files that one range may stand for.
const MOST_FILES: u32 = 100_000;

/// How images are coded in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// PNG, or another lossless format (BMP, TIFF, GIF, lossless WebP).
    Png,
    /// Lossy WebP.
    Webp,
    /// JPEG, which is lossy.
    Jpeg,
}

impl Encoding {
    /// The encoding of images of both kinds together: the lossier one.
    pub(super) fn with(self, other: Self) -> Self {
        if (self as u8) < other as u8 { other } else { self }
    }
}

/// The classes of a dataset: their names, or how many there are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Classes {
    /// By name, in the order of the labels.
    Named(Vec<String>),
    /// Without names.
    Count(usize),
}

impl Default for Classes {
    fn default() -> Self {
        Self::Count(0)
    }
}

impl Classes {
    /// How many there are; 0 for a dataset without labels.
    pub fn count(&self) -> usize {
        match self {
            Self::Named(names) => names.len(),
            Self::Count(count) => *count,
        }
    }

    /// The name of the class of `label`; its number if the class has no name.
    pub fn name(&self, label: u32) -> String {
        match self {
            Self::Named(names) => names.get(label as usize).cloned(),
            Self::Count(_) => None,
        }
        .unwrap_or_else(|| label.to_string())
    }
}

/// A part of a dataset.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// How many images it has, where that is known.
    pub rows: Option<usize>,
    /// Its files in the repository, in order. `{00..07}` stands for each number, `*` for
    /// whatever the repository has there.
    #[serde(default)]
    pub files: Vec<String>,
}

/// An entry of the catalog.
///
/// ```
/// use consistency::data::entry;
/// let cifar10 = entry("cifar10")?;
/// assert_eq!((cifar10.shape, cifar10.classes.count()), ([3, 32, 32], 10));
/// assert_eq!(cifar10.splits["train"].rows, Some(50_000));
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The name that users write.
    pub name: String,
    /// The name that it is known by.
    pub title: String,
    /// Part of the library.
    #[serde(default)]
    pub embedded: bool,
    /// Its repository on the Hub, `owner/name`.
    pub hub: Option<String>,
    /// The commit, or a branch where no commit could be pinned.
    pub revision: Option<String>,
    /// Whether repository and revision were confirmed.
    #[serde(default = "yes")]
    pub verified: bool,
    /// What the Hub requires before it serves the files.
    pub login: Option<String>,
    /// How to obtain it, where it is not on the Hub.
    pub how: Option<String>,
    /// The column of the images: a struct with the field `bytes`.
    #[serde(default = "image")]
    pub image: String,
    /// The column of the labels.
    pub label: Option<String>,
    /// How its images are encoded; a copy that is encoded differently is another dataset.
    pub encoding: Option<Encoding>,
    /// (C, H, W) of the images as they are used.
    pub shape: [usize; 3],
    /// The side of the square to which images are cropped and reduced.
    pub resize: Option<usize>,
    /// The smallest and the largest value of a pixel.
    pub values: [u8; 2],
    /// The classes.
    #[serde(default)]
    pub classes: Classes,
    /// The licence.
    pub licence: String,
    /// How much there is to fetch.
    pub size: String,
    /// What to cite.
    pub citation: String,
    /// How many images are published by this name to train on, where the entry has fewer.
    pub whole: Option<usize>,
    /// What else there is to know.
    pub note: Option<String>,
    /// Its parts by name.
    pub splits: BTreeMap<String, Split>,
}

fn yes() -> bool {
    true
}

fn image() -> String {
    "image".to_string()
}

impl Entry {
    /// How many images are published by this name to train on, where that is known. What has fewer
    /// or more is not that dataset.
    pub fn published_rows(&self) -> Option<usize> {
        self.whole.or_else(|| self.splits.get("train")?.rows)
    }

    /// An entry from TOML.
    ///
    /// # Errors
    /// Text that is not an entry, by line and field; sizes that no images have.
    pub fn parse(text: &str) -> Result<Self> {
        let entry: Self = from_toml(text)?;
        ensure!(
            entry.values[0] == 0 && entry.values[1] > 0,
            "values = {:?}: needs [0, the largest value]",
            entry.values
        );
        ensure!(
            entry.shape.iter().all(|size| *size > 0),
            "shape = {:?}: needs [channels, height, width]",
            entry.shape
        );
        let [channels, height, width] = entry.shape;
        within("shape.channels", channels, 1..=4)?;
        within("shape.height", height, 1..=LARGEST_SIDE)?;
        within("shape.width", width, 1..=LARGEST_SIDE)?;
        if let Some(side) = entry.resize {
            within("resize", side, 1..=LARGEST_SIDE)?;
        }
        within("classes", entry.classes.count(), ..=MOST_CLASSES)?;
        for (name, split) in &entry.splits {
            let patterns = split.files.iter().filter(|pattern| !pattern.contains('*'));
            patterns
                .map(|pattern| expand(pattern))
                .collect::<Result<Vec<_>>>()
                .context(format!("splits.{name}.files"))?;
        }
        if entry.hub.is_some() {
            ensure!(entry.revision.is_some(), "hub without revision");
            for (name, split) in &entry.splits {
                ensure!(!split.files.is_empty(), "splits.{name} has no files");
            }
        }
        Ok(entry)
    }
}

/// All entries, in the order in which they are shown.
///
/// ```
/// use consistency::data::catalog;
/// let names: Vec<String> = catalog()?.into_iter().map(|entry| entry.name).collect();
/// assert!(names.contains(&"digits".to_string()) && names.contains(&"imagenet64".to_string()));
/// # Ok::<(), consistency::Error>(())
/// ```
pub fn catalog() -> Result<Vec<Entry>> {
    FILES
        .iter()
        .map(|(file, text)| Entry::parse(text).context(format!("datasets/{file}")))
        .collect()
}

/// The entry `name`.
///
/// # Errors
/// No such entry; the message lists those that exist.
pub fn entry(name: &str) -> Result<Entry> {
    let all = catalog()?;
    let names: Vec<String> = all.iter().map(|entry| entry.name.clone()).collect();
    match all.into_iter().find(|entry| entry.name == name.replace('-', "_")) {
        Some(entry) => Ok(entry),
        None => bail!(
            not_found: "there is no dataset '{name}'; there are {}, and a path names a folder of \
             images, a Parquet file or an entry of your own (.toml)",
            names.join(", ")
        ),
    }
}

/// The files that a pattern with one range `{00..07}` stands for.
///
/// # Errors
/// An invalid range.
pub(super) fn expand(pattern: &str) -> Result<Vec<String>> {
    let Some((before, rest)) = pattern.split_once('{') else {
        return Ok(vec![pattern.to_string()]);
    };
    let parts =
        rest.split_once('}').and_then(|(range, after)| Some((range.split_once("..")?, after)));
    let numbers = parts.and_then(|((first, last), after)| {
        Some((first.parse::<u32>().ok()?, last.parse::<u32>().ok()?, first.len(), after))
    });
    let Some((first, last, width, after)) = numbers else {
        bail!("'{pattern}': a range of files is {{00..07}}");
    };
    ensure!(
        first <= last && last - first < MOST_FILES && width < 10,
        "'{pattern}': a range goes up, in numbers of 9 digits or fewer, and has {MOST_FILES} files \
         or fewer"
    );
    Ok((first..=last).map(|n| format!("{before}{n:0width$}{after}")).collect())
}
