//! Images as bytes, the labels beside them.

use super::catalog::Classes;
use crate::rng::Key;
use crate::{Result, bail, ensure};
use candle_core::{DType, Device, Tensor};
use xxhash_rust::xxh3::Xxh3;

/// A split of a dataset: images as bytes (N, C, H, W), a quarter of what f32 takes; a batch
/// becomes numbers in \[-1, 1\] when it is asked for. An orientation in the EXIF data of a file
/// is not applied.
///
/// ```
/// use consistency::prelude::*;
/// let pixels = Tensor::new(&[0u8, 16, 8, 16], &Device::Cpu)?.reshape((2, 1, 1, 2))?;
/// let images = Images::new("two", pixels, 16, Some(vec![0, 1]))?; // 16 is white
/// assert_eq!((images.len(), images.shape()), (2, &[1, 1, 2][..]));
/// assert_eq!(values(&images.batch(&[1, 0], DType::F32)?)?, [0.0, 1.0, -1.0, 1.0]);
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Images {
    pub(super) pixels: Tensor,
    pub(super) labels: Option<Vec<u32>>,
    pub(super) classes: Classes,
    pub(super) largest: u8,
    pub(super) name: String,
    pub(super) revision: String,
    pub(super) device: Device,
}

impl Images {
    /// Images from bytes (N, C, H, W) whose largest possible value is `largest`.
    ///
    /// # Errors
    /// Another shape or dtype, or labels that are not one per image.
    pub fn new(name: &str, pixels: Tensor, largest: u8, labels: Option<Vec<u32>>) -> Result<Self> {
        ensure!(
            pixels.rank() == 4 && pixels.dtype() == DType::U8 && largest > 0,
            "images are bytes (N, C, H, W), these {:?} of {:?}",
            pixels.dims(),
            pixels.dtype()
        );
        if let Some(labels) = &labels {
            let rows = pixels.dims()[0];
            ensure!(labels.len() == rows, "{} labels for {rows} images", labels.len());
        }
        let count = labels.iter().flatten().max().map_or(0, |l| *l as usize + 1);
        let device = pixels.device().clone();
        let (name, revision) = (name.to_string(), "made".to_string());
        Ok(Self { pixels, labels, classes: Classes::Count(count), largest, name, revision, device })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.pixels.dims()[0]
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// (C, H, W).
    pub fn shape(&self) -> &[usize] {
        &self.pixels.dims()[1..]
    }

    /// The bytes, (N, C, H, W).
    pub fn pixels(&self) -> &Tensor {
        &self.pixels
    }

    /// The class of each image, for a dataset with classes.
    pub fn labels(&self) -> Option<&[u32]> {
        self.labels.as_deref()
    }

    /// The classes.
    pub fn classes(&self) -> &Classes {
        &self.classes
    }

    /// The dataset's name; the name of a copy that is encoded differently says so (`cifar10-jpeg`).
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where they come from: repository, commit and a hash of the content.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// The images `rows` in \[-1, 1\], (B, C, H, W), on the device that the batches go to.
    pub fn batch(&self, rows: &[u32], dtype: DType) -> Result<Tensor> {
        let bytes = super::select(&self.pixels, rows)?.to_device(&self.device)?;
        // In f64, so that the digits' sixteenths are exact; a batch is small.
        let scale = 2.0 / f64::from(self.largest);
        Ok(bytes.to_dtype(dtype)?.affine(scale, -1.0)?)
    }

    /// The same with each image mirrored, left to right, with probability 1/2 under `key`. Each
    /// sample has its own random draw; the batch holds the samples from `first` on.
    pub fn batch_flipped(
        &self,
        rows: &[u32],
        dtype: DType,
        key: &Key,
        first: u64,
    ) -> Result<Tensor> {
        let images = self.batch(rows, dtype)?;
        let coins = key.uniforms(first..first + rows.len() as u64);
        let coins: Vec<u8> = coins.iter().map(|u| u8::from(*u < 0.5)).collect();
        let width = images.dims()[3];
        let back: Vec<u32> = (0..width as u32).rev().collect();
        let back = Tensor::from_vec(back, width, images.device())?;
        let mirrored = images.contiguous()?.index_select(&back, 3)?;
        let coins = Tensor::from_vec(coins, (rows.len(), 1, 1, 1), images.device())?;
        Ok(coins.broadcast_as(images.shape())?.where_cond(&mirrored, &images)?)
    }

    /// All images in \[-1, 1\], (N, C, H, W): four or eight times the memory of the bytes.
    pub fn all(&self, dtype: DType) -> Result<Tensor> {
        self.batch(&(0..self.len() as u32).collect::<Vec<_>>(), dtype)
    }

    /// `count` of the images, chosen by [`part_rows`](super::part_rows), so from all classes
    /// whatever order the dataset is in; the whole dataset in its own order if it has no more. The
    /// revision of a part says that it is one.
    pub fn part(&self, count: usize, key: &Key) -> Result<Self> {
        if count >= self.len() {
            return Ok(self.clone());
        }
        let rows = super::part_rows(self.len(), count, key);
        let labels = self.labels.as_ref();
        let labels = labels.map(|all| rows.iter().map(|row| all[*row as usize]).collect());
        Ok(Self {
            pixels: super::select(&self.pixels, &rows)?,
            labels,
            revision: format!("{}, {count} of {}", self.revision, self.len()),
            ..self.clone()
        })
    }

    /// A hash of the bytes of the images `rows`, in this order, and of their shape: 16 hexadecimal
    /// digits. Two sets of images with the same hash are the same set.
    pub fn hash_of(&self, rows: &[u32]) -> Result<String> {
        let mut hash = Xxh3::new();
        self.shape().iter().for_each(|side| hash.update(&(*side as u64).to_le_bytes()));
        // A part at a time, as in `mean_std`.
        for part in rows.chunks(1024) {
            let bytes = super::select(&self.pixels, part)?.to_device(&Device::Cpu)?;
            hash.update(&bytes.flatten_all()?.to_vec1::<u8>()?);
        }
        Ok(format!("{:016x}", hash.digest()))
    }

    /// The images with batches on `device`: the bytes go there as a whole if they fit, so that no
    /// step waits for them; otherwise they stay where they are.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        let pixels = match self.pixels.to_device(device) {
            Ok(pixels) => pixels,
            Err(error) if device.is_cuda() => {
                eprintln!(
                    "note: {}: the images stay on the host, a batch moves at a time ({error})",
                    self.name
                );
                self.pixels.clone()
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Self { pixels, device: device.clone(), ..self.clone() })
    }

    /// The mean and the standard deviation of the pixels in \[-1, 1\]; the latter is what the
    /// scalings call sigma_data.
    ///
    /// # Errors
    /// No images.
    pub fn mean_std(&self) -> Result<(f64, f64)> {
        if self.is_empty() {
            bail!("{} has no images", self.name);
        }
        let mut counts = [0u64; 256];
        // A part at a time: a copy of everything would be as large again.
        for first in (0..self.len()).step_by(1024) {
            let part = self.pixels.narrow(0, first, 1024.min(self.len() - first))?;
            let bytes = part.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<u8>()?;
            bytes.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
        }
        let total = self.pixels.elem_count() as f64;
        let value = |byte: usize| 2.0 * byte as f64 / f64::from(self.largest) - 1.0;
        let mean_of = |f: &dyn Fn(f64) -> f64| {
            let sum: f64 = counts.iter().enumerate().map(|(b, n)| *n as f64 * f(value(b))).sum();
            sum / total
        };
        let mean = mean_of(&|v| v);
        Ok((mean, mean_of(&|v| (v - mean).powi(2)).sqrt()))
    }
}
