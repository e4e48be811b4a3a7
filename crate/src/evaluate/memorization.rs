//! Whether samples are copies of training images.

use super::manifold::kth;
use super::points::Points;
use crate::bar::Bar;
use crate::plot::Figure;
use crate::{Result, ensure};
use candle_core::Tensor;

/// A sample that is nearer to a training image than all but this share of the held-out images
/// counts as near.
const RARE: f64 = 0.05;

/// How far samples are from the training images, beside held-out images, which no training has
/// seen: fresh samples of the data are as far as those, copies are nearer.
///
/// ```
/// use consistency::prelude::*;
/// let normal = |name: &str, count: u64| {
///     Key::new(0).stream(name).normal(0..count, &[4], DType::F64, &Device::Cpu)
/// };
/// let (train, held_out) = (normal("train", 400)?, normal("held out", 400)?);
/// let fresh = Memorization::of(&normal("samples", 400)?, &train, &held_out)?;
/// assert!((fresh.ratio() - 1.0).abs() < 0.15 && fresh.near() < 0.1);
/// // Training images with a little noise.
/// let copies = (&train + (normal("noise", 400)? * 0.01)?)?;
/// let copied = Memorization::of(&copies, &train, &held_out)?;
/// assert!(copied.ratio() < 0.1 && copied.near() > 0.9);
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Memorization {
    /// The distance of each sample from its nearest training image, root mean square a pixel, in
    /// ascending order.
    pub samples: Vec<f64>,
    /// The same of each held-out image.
    pub held_out: Vec<f64>,
}

impl Memorization {
    /// Of `samples`, beside the images `held_out`, for a model trained on the images `train`: shapes
    /// (N, ..), (M, ..) and (K, ..), of which the last dimensions are equal. Distances are exact.
    ///
    /// # Errors
    /// An empty set, sizes that differ, or a number that is not finite.
    pub fn of(samples: &Tensor, train: &Tensor, held_out: &Tensor) -> Result<Self> {
        let read = |what: &str, set: &Tensor| -> Result<Points> {
            let points = Points::new(what, set)?;
            ensure!(points.rows() > 0, "memorization: there are no {what}");
            Ok(points)
        };
        let train = read("training images", train)?;
        let (samples, held_out) = (read("samples", samples)?, read("held-out images", held_out)?);
        for (what, points) in [("samples", &samples), ("held-out images", &held_out)] {
            ensure!(
                points.dim() == train.dim(),
                "{what} of {} numbers each, training images of {}",
                points.dim(),
                train.dim()
            );
        }
        let mut bar = Bar::new("nearest images", (samples.rows() + held_out.rows()) as u64);
        let mut nearest = |of: &Points| -> Result<Vec<f64>> {
            let squares = kth(&train, Some(of), 1, &mut bar)?;
            let size = train.dim() as f64;
            let mut all: Vec<f64> = squares.into_iter().map(|s| (s / size).sqrt()).collect();
            all.sort_by(f64::total_cmp);
            Ok(all)
        };
        Ok(Self { samples: nearest(&samples)?, held_out: nearest(&held_out)? })
    }

    /// The median distance of the samples over that of the held-out images: 1 for fresh samples of
    /// the data, 0 for copies. Above 1, samples are unlike any image.
    pub fn ratio(&self) -> f64 {
        quantile(&self.samples, 0.5) / quantile(&self.held_out, 0.5)
    }

    /// The share of samples that are nearer to a training image than 95 % of the held-out images
    /// are: 0.05 for fresh samples of the data, 1 for copies.
    pub fn near(&self) -> f64 {
        let limit = quantile(&self.held_out, RARE);
        let near = self.samples.partition_point(|distance| *distance < limit);
        near as f64 / self.samples.len() as f64
    }

    /// Both sets of distances: the share that is nearer than each distance.
    pub fn figure(&self, title: &str) -> Figure {
        let line = |all: &[f64]| -> (Vec<f64>, Vec<f64>) {
            let share = |i: usize| (i as f64 + 0.5) / all.len() as f64;
            (all.to_vec(), (0..all.len()).map(share).collect())
        };
        let (samples, held_out) = (line(&self.samples), line(&self.held_out));
        Figure::new(title)
            .x("distance from the nearest training image, rms a pixel")
            .y("share that is nearer")
            .line("samples", &samples.0, &samples.1)
            .line("held-out images", &held_out.0, &held_out.1)
    }
}

// A quantile of numbers in ascending order, between two of them where it falls there.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    sorted[below] + (place - place.floor()) * (sorted[above] - sorted[below])
}
