//! `evaluate.by = ["held-out"]`: samples beside images that no training has seen, on the features of
//! the one classifier that comes with the lab for them.

use super::evaluator::{Measurement, all, named};
use crate::data::{Images, select};
use crate::evaluate::{
    Classifier, Memorization, NEIGHBOURS, Statistics, kernel_distance, precision_recall,
};
use crate::experiment::{Experiment, Trained};
use crate::method::Gives;
use crate::rng::Key;
use crate::{Result, bail, ensure};
use candle_core::{DType, Tensor};

/// The classifier that judges images, and what it says of those that are held out.
pub(super) struct HeldOut {
    classifier: Classifier,
    /// The training images, and those that are held out, in the order in which they are taken.
    train: Tensor,
    images: Tensor,
    features: Tensor,
    /// Columns `judge` and `reference`.
    judge: String,
    reference: String,
}

/// The samples so far.
#[derive(Default)]
pub(super) struct Seen {
    pixels: Vec<Tensor>,
    features: Vec<Tensor>,
}

impl HeldOut {
    /// For samples of a network that was trained as `experiment` says.
    ///
    /// # Errors
    /// Data without a held-out part, or for which no classifier comes with the lab.
    pub fn new(experiment: &Experiment) -> Result<Self> {
        let data = &experiment.data;
        let (train, held_out) = (data.images()?, data.held_out()?);
        let classifier = classifier_of(experiment)?;
        let order = Key::new(0).stream("judge").stream("held out");
        let rows = in_random_order(held_out.len(), &order);
        let images = held_out.batch(&rows, DType::F32)?;
        Ok(Self {
            features: classifier.evaluate(&images)?,
            judge: classifier.features().name().to_string(),
            reference: named(&held_out, data.held_out_split()?, &rows)?,
            train: train.all(DType::F32)?,
            classifier,
            images,
        })
    }

    /// Take in samples, (B, C, H, W), clipped, on the CPU.
    pub fn add(&self, seen: &mut Seen, samples: &Tensor) -> Result<()> {
        seen.features.push(self.classifier.evaluate(samples)?);
        seen.pixels.push(samples.clone());
        Ok(())
    }

    /// The value of each metric. Of Frechet distances with as many held-out images as samples, that
    /// of n on both sides exceeds the limit by about c / n: with it and that of n / 2, the limit is
    /// extrapolated.
    pub fn measure(&self, seen: &Seen) -> Result<Vec<Measurement>> {
        let features = Tensor::cat(&seen.features, 0)?;
        let pixels = Tensor::cat(&seen.pixels, 0)?;
        let (count, known) = (features.dims()[0], self.images.dims()[0]);
        // As many on both sides: with fewer, a Frechet distance is larger.
        let each = count.min(known);
        ensure!(each > 2 * NEIGHBOURS, "{count} samples beside {known} held-out images: too few");
        let real = self.features.narrow(0, 0, each)?;
        let sets = count / each;
        let (mut precision, mut recall) = (0.0, 0.0);
        for set in 0..sets {
            let part = features.narrow(0, set * each, each)?;
            let manifold = precision_recall(&real, &part, NEIGHBOURS)?;
            precision += manifold.precision / sets as f64;
            recall += manifold.recall / sets as f64;
        }
        let taken = features.narrow(0, 0, sets * each)?;
        let (whole, half) = (frechet(&taken, &real, each)?, frechet(&taken, &real, each / 2)?);
        let kernel = kernel_distance(&features, &self.features)?;
        let pixels_each = pixels.narrow(0, 0, each)?;
        let copies = Memorization::of(&pixels_each, &self.train, &self.images)?;
        let variance =
            Statistics::of(&pixels)?.variance()? / Statistics::of(&self.images)?.variance()?;
        let of = |metric, value, judge: &str| Measurement {
            metric,
            value,
            judge: judge.to_string(),
            reference: self.reference.clone(),
        };
        let judge = self.judge.as_str();
        Ok(vec![
            of("kernel distance", kernel, judge),
            of("Frechet distance to held-out images", whole, judge),
            of("Frechet distance, extrapolated", 2.0 * whole - half, judge),
            of("precision on classifier features", precision, judge),
            of("recall on classifier features", recall, judge),
            of("variance over the held-out", variance, "pixels"),
            of("nearest training image over the held-out", copies.ratio(), "pixels"),
            of("share near a training image", copies.near(), "pixels"),
        ])
    }
}

/// The mean Frechet distance between sets of `each` rows of `a` and of `b`, as many on both sides.
fn frechet(a: &Tensor, b: &Tensor, each: usize) -> Result<f64> {
    let of = |all: &Tensor, set: usize| Statistics::of(&all.narrow(0, set * each, each)?);
    let real = b.dims()[0] / each;
    let real = (0..real).map(|set| of(b, set)).collect::<Result<Vec<_>>>()?;
    let sets = a.dims()[0] / each;
    let distance = |set: usize| of(a, set)?.frechet_distance(&real[set % real.len()]);
    Ok((0..sets).map(distance).sum::<Result<f64>>()? / sets as f64)
}

/// The accuracies of the classifier that `trained` is, on held-out and on training images.
pub(super) fn accuracies(trained: &Trained) -> Result<Vec<Measurement>> {
    let (classifier, data) = (trained.classifier()?, &trained.experiment().data);
    let judge = classifier.features().name();
    let of = |metric, images: &Images, split| -> Result<Measurement> {
        let Some(labels) = images.labels() else {
            bail!("{} has no classes", images.name());
        };
        Ok(Measurement {
            metric,
            value: classifier.accuracy(&images.all(DType::F32)?, labels)?,
            judge: judge.to_string(),
            reference: named(images, split, &all(images))?,
        })
    };
    let (held_out, train) = (data.held_out()?, data.images()?);
    Ok(vec![
        of("accuracy on held-out images", &held_out, data.held_out_split()?)?,
        of("accuracy on training images", &train, data.split())?,
    ])
}

/// The classifier that comes with the lab for the images that `experiment` trains on.
///
/// # Errors
/// There is none for them.
fn classifier_of(experiment: &Experiment) -> Result<Classifier> {
    let wanted = experiment.data.reported_name()?;
    let shape = experiment.data.images()?.shape().to_vec();
    for name in Trained::shipped_names() {
        let trained = Trained::shipped(name)?;
        let of = &trained.experiment().data;
        if trained.experiment().method.gives() == Gives::Classifier
            && of.reported_name()? == wanted
            && of.images()?.shape() == shape
        {
            return trained.classifier();
        }
    }
    bail!(
        "evaluate.by: no classifier comes with the lab for {wanted} of shape {shape:?}; judge it by \
         'classifier', which trains one"
    )
}

// So that each part of them is like the whole.
fn in_random_order(count: usize, key: &Key) -> Vec<u32> {
    key.permutation(count).into_iter().map(|row| row as u32).collect()
}

/// What the numbers of samples lie between, and what needs no training: drawn from the images
/// alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FromImages {
    /// Training images themselves: the floor of a distance, which is not 0 at finite numbers.
    Training,
    /// A Gaussian with the mean and the covariance of the training images.
    Gaussian,
    /// Gaussian noise of variance 1, the ceiling.
    Noise,
}

impl FromImages {
    pub(super) const ALL: [Self; 3] = [Self::Training, Self::Gaussian, Self::Noise];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Training => "training images (the floor)",
            Self::Gaussian => "a Gaussian of the images' mean and covariance",
            Self::Noise => "noise (the ceiling)",
        }
    }

    /// `count` of them, (count, C, H, W) on the CPU, not clipped. They depend on the images alone,
    /// and are the same for every seed.
    ///
    /// # Errors
    /// An error of the images.
    pub fn draw(self, images: &Images, count: usize) -> Result<Tensor> {
        let key = Key::new(0).stream("judge").stream(self.name());
        let (shape, device) = (images.shape(), candle_core::Device::Cpu);
        let numbers =
            |count: usize, shape: &[usize]| key.normal(0..count as u64, shape, DType::F32, &device);
        match self {
            Self::Training => {
                let rows = in_random_order(images.len(), &key);
                let some: Vec<u32> = (0..count).map(|i| rows[i % rows.len()]).collect();
                select(&images.all(DType::F32)?, &some)
            }
            // With g ~ N(0, 1) for each image, (N - 1)^-1/2 sum g (x - mean) has the covariance of
            // the images exactly.
            Self::Gaussian => {
                let x = images.all(DType::F32)?.flatten_from(1)?;
                let mean = x.mean_keepdim(0)?;
                let g = (numbers(count, &[images.len()])? / ((images.len() - 1) as f64).sqrt())?;
                let drawn = g.matmul(&x.broadcast_sub(&mean)?)?.broadcast_add(&mean)?;
                Ok(drawn.reshape([&[count], shape].concat())?)
            }
            Self::Noise => numbers(count, shape),
        }
    }
}
