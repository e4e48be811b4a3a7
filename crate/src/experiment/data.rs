//! What an experiment is trained on.

use crate::bounds::within;
use crate::data::{Dataset, Images, digits, moons, select, spirals};
use crate::rng::Key;
use crate::{Result, ensure};
use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

/// The most points in the plane: 80 MB of them.
const MOST_POINTS: usize = 10_000_000;
/// The largest side of images.
const LARGEST_SIDE: usize = 1 << 15;

/// A dataset by name.
///
/// ```
/// use consistency::prelude::*;
/// assert_eq!(DataConfig::Digits.images()?.len(), 1347);
/// assert!(DataConfig::Moons { count: 100 }.images().is_err()); // points, not images
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "name", deny_unknown_fields)]
pub enum DataConfig {
    /// The embedded handwritten digits, the part to train on.
    Digits,
    /// Two spirals in the plane.
    Spirals {
        /// How many points.
        count: usize,
    },
    /// Two half moons in the plane.
    Moons {
        /// How many points.
        count: usize,
    },
    /// Images: from the catalog, or the user's own.
    Images {
        /// A name in the catalog, or a path (see [`Dataset::find`]).
        of: String,
        /// The split to train on.
        #[serde(default = "train")]
        split: String,
        /// Crop and reduce them to this side.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size: Option<usize>,
        /// Only this many of them, spread over all classes (see [`Dataset::limited`]).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<usize>,
        /// The column of a Parquet file that holds the images, in place of the one that
        /// [`Dataset`] takes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        image: Option<String>,
        /// The column of its labels, likewise.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        label: Option<String>,
        /// Mirror each with probability 1/2, as the paper does on CIFAR-10.
        #[serde(default)]
        flip: bool,
    },
}

fn train() -> String {
    "train".to_string()
}

/// A dataset, with batches on a device.
pub(super) struct Data {
    samples: Samples,
    pub revision: String,
}

enum Samples {
    Numbers(Tensor),
    Images { images: Images, flip: bool },
}

impl Data {
    pub fn rows(&self) -> usize {
        match &self.samples {
            Samples::Numbers(samples) => samples.dims()[0],
            Samples::Images { images, .. } => images.len(),
        }
    }

    /// The shape of one sample.
    pub fn shape(&self) -> &[usize] {
        match &self.samples {
            Samples::Numbers(samples) => &samples.dims()[1..],
            Samples::Images { images, .. } => images.shape(),
        }
    }

    /// The classes of the samples `rows`; none where the data have none.
    pub fn labels(&self, rows: &[u32]) -> Option<Vec<u32>> {
        let Samples::Images { images, .. } = &self.samples else { return None };
        let labels = images.labels()?;
        Some(rows.iter().map(|row| labels[*row as usize]).collect())
    }

    /// How many classes the data have; none where they have none.
    pub fn classes(&self) -> Option<usize> {
        match &self.samples {
            Samples::Images { images, .. } => images.labels().map(|_| images.classes().count()),
            Samples::Numbers(_) => None,
        }
    }

    /// All samples, none mirrored.
    pub fn all(&self) -> Result<Tensor> {
        match &self.samples {
            Samples::Numbers(samples) => Ok(samples.clone()),
            Samples::Images { images, .. } => {
                images.batch(&(0..images.len() as u32).collect::<Vec<_>>(), DType::F32)
            }
        }
    }

    /// The samples `rows`: those from number `first` on of a batch whose random numbers are under
    /// `key`.
    pub fn batch(&self, rows: &[u32], first: u64, key: &Key) -> Result<Tensor> {
        match &self.samples {
            Samples::Numbers(samples) => select(samples, rows),
            Samples::Images { images, flip: false } => images.batch(rows, DType::F32),
            Samples::Images { images, flip: true } => {
                images.batch_flipped(rows, DType::F32, &key.stream("flip"), first)
            }
        }
    }
}

impl DataConfig {
    pub(super) fn load(&self, device: &Device) -> Result<Data> {
        // The points of the plane are the same for every experiment.
        let key = Key::new(0).stream("data");
        let made = |samples: Tensor| Data {
            samples: Samples::Numbers(samples),
            revision: "made".to_string(),
        };
        Ok(match self {
            Self::Digits => {
                let digits = digits(DType::F32, device)?;
                Data { samples: Samples::Numbers(digits.train), revision: digits.revision }
            }
            Self::Spirals { count } => made(spirals(*count, 0.03, &key, DType::F32, device)?),
            Self::Moons { count } => made(moons(*count, 0.03, &key, DType::F32, device)?),
            Self::Images { split, flip, .. } => {
                let images = self.dataset()?.split(split)?.to_device(device)?;
                let revision = images.revision().to_string();
                Data { samples: Samples::Images { images, flip: *flip }, revision }
            }
        })
    }

    /// The shape of one sample and the revision of the data.
    pub(super) fn describe(&self) -> Result<(Vec<usize>, String)> {
        match self {
            Self::Images { split, .. } => self.dataset()?.describe(split),
            _ => {
                let data = self.load(&Device::Cpu)?;
                Ok((data.shape().to_vec(), data.revision))
            }
        }
    }

    /// The revision of the data, as provenance has it.
    ///
    /// # Errors
    /// Data that cannot be read.
    pub fn revision(&self) -> Result<String> {
        Ok(self.describe()?.1)
    }

    /// The name that the data go by: the catalog's, or that of a copy that is encoded differently.
    ///
    /// # Errors
    /// As [`DataConfig::images`].
    pub fn reported_name(&self) -> Result<String> {
        let (_, revision) = self.describe()?;
        Ok(crate::data::name_in_revision(&revision).to_string())
    }

    /// The repository on the Hub that the data come from, if they come from one.
    pub(super) fn repository(&self) -> Result<Option<String>> {
        match self {
            Self::Images { .. } => Ok(self.dataset()?.entry().hub.clone()),
            Self::Digits | Self::Spirals { .. } | Self::Moons { .. } => Ok(None),
        }
    }

    /// The split that it trains on.
    pub fn split(&self) -> &str {
        match self {
            Self::Images { split, .. } => split,
            Self::Digits | Self::Spirals { .. } | Self::Moons { .. } => "train",
        }
    }

    /// The split that no experiment trains on: `held_out`, or what is published as `test`.
    ///
    /// # Errors
    /// Points, or images that are not found.
    pub fn held_out_split(&self) -> Result<&'static str> {
        let known = self.catalogued()?.entry().splits.contains_key("held_out");
        Ok(if known { "held_out" } else { "test" })
    }

    /// The images of that split.
    ///
    /// # Errors
    /// Data without it.
    pub fn held_out(&self) -> Result<Images> {
        self.catalogued()?.split(self.held_out_split()?)
    }

    /// The images that it trains on.
    ///
    /// # Errors
    /// Data that are not images, or that cannot be read.
    pub fn images(&self) -> Result<Images> {
        self.catalogued()?.split(self.split())
    }

    // What its images come from.
    fn catalogued(&self) -> Result<Dataset> {
        match self {
            Self::Digits => Dataset::find("digits"),
            Self::Images { .. } => self.dataset(),
            Self::Spirals { .. } | Self::Moons { .. } => {
                crate::bail!("{self:?} is a set of points, not of images")
            }
        }
    }

    fn dataset(&self) -> Result<Dataset> {
        let Self::Images { of, size, limit, image, label, .. } = self else {
            crate::bail!("{self:?} is not a dataset of images");
        };
        let mut dataset = Dataset::find_with_columns(of, image.as_deref(), label.as_deref())?;
        if let Some(size) = size {
            dataset = dataset.resized(*size);
        }
        if let Some(limit) = limit {
            dataset = dataset.limited(*limit);
        }
        Ok(dataset)
    }

    pub(super) fn check(&self) -> Result<()> {
        match self {
            Self::Spirals { count } | Self::Moons { count } => {
                within("count", *count, 1..=MOST_POINTS)?;
            }
            Self::Images { size, limit, .. } => {
                within("size", size.unwrap_or(1), 1..=LARGEST_SIDE)?;
                ensure!(*limit != Some(0), "limit = 0: give at least 1");
            }
            Self::Digits => {}
        }
        Ok(())
    }
}
