//! The embedded handwritten digits: 1797 images of 8x8 (UCI Optical Recognition of
//! Handwritten Digits, CC BY 4.0; see `datasets/README.md`).

use super::embedded::{Bytes, Part};
use crate::{Context, Error, Result, ensure};
use candle_core::{DType, Device, Tensor};
use std::io::Read;
use xxhash_rust::xxh3::xxh3_64;

static ARCHIVE: &[u8] = include_bytes!("../../../../datasets/digits.csv.gz");

const SIDE: usize = 8;
const PIXELS: usize = SIDE * SIDE;
/// Every fourth image is held out.
const HELD_OUT: usize = 4;

/// The digits in two parts that never change: one to train on, one held out.
///
/// ```
/// use consistency::prelude::*;
/// let digits = digits(DType::F32, &Device::Cpu)?;
/// assert_eq!((digits.train_labels.len(), digits.held_out_labels.len()), (1347, 450));
/// assert_eq!(digits.train_labels.iter().max(), Some(&9));
/// let pixels = values(&digits.train)?;
/// assert!(pixels.iter().all(|pixel| (-1.0..=1.0).contains(pixel)));
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Digits {
    /// 1347 images to train on, (N, 1, 8, 8) in \[-1, 1\].
    pub train: Tensor,
    /// Their labels, 0 to 9.
    pub train_labels: Vec<u8>,
    /// 450 images held out, (N, 1, 8, 8) in \[-1, 1\].
    pub held_out: Tensor,
    /// Their labels, 0 to 9.
    pub held_out_labels: Vec<u8>,
    /// The revision of the data: a hash of the embedded file.
    pub revision: String,
}

/// The embedded digits.
///
/// ```
/// use candle_core::{DType, Device};
/// let digits = consistency::data::digits(DType::F32, &Device::Cpu)?;
/// assert_eq!(digits.train.dims(), [1347, 1, 8, 8]);
/// assert_eq!(digits.held_out.dims(), [450, 1, 8, 8]);
/// # Ok::<(), consistency::Error>(())
/// ```
pub fn digits(dtype: DType, device: &Device) -> Result<Digits> {
    let Bytes { train, held_out, revision } = bytes()?;
    let images = |(pixels, labels): &Part| -> Result<Tensor> {
        let values: Vec<f64> = pixels.iter().map(|p| f64::from(*p) / 8.0 - 1.0).collect();
        Ok(Tensor::from_vec(values, (labels.len(), 1, SIDE, SIDE), &Device::Cpu)?
            .to_dtype(dtype)?
            .to_device(device)?)
    };
    let labels = |part: Part| part.1.into_iter().map(|label| label as u8).collect();
    Ok(Digits {
        train: images(&train)?,
        held_out: images(&held_out)?,
        train_labels: labels(train),
        held_out_labels: labels(held_out),
        revision,
    })
}

/// Read the embedded file.
pub(super) fn bytes() -> Result<Bytes> {
    let mut text = String::new();
    flate2::read::GzDecoder::new(ARCHIVE)
        .read_to_string(&mut text)
        .context("the embedded digits.csv.gz")?;
    let (mut train, mut held_out) = (Part::default(), Part::default());
    for (row, line) in text.lines().enumerate() {
        let values: Vec<u8> = line
            .split(',')
            .map(|v| v.trim().parse().map_err(|_| Error::new(format!("'{v}' is not a number"))))
            .collect::<Result<_>>()
            .with_context(|| format!("digits, line {}", row + 1))?;
        ensure!(
            values.len() == PIXELS + 1,
            "digits, line {}: {} numbers, an image and its label are {}",
            row + 1,
            values.len(),
            PIXELS + 1
        );
        let (pixels, label) = (&values[..PIXELS], values[PIXELS]);
        ensure!(
            pixels.iter().all(|p| *p <= 16) && label <= 9,
            "digits, line {}: a pixel above 16 or a label above 9",
            row + 1
        );
        let part = if row % HELD_OUT == 0 { &mut held_out } else { &mut train };
        part.0.extend(pixels);
        part.1.push(u32::from(label));
    }
    let revision = format!("{:016x}", xxh3_64(ARCHIVE));
    Ok(Bytes { train, held_out, revision })
}
