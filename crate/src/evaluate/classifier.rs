//! A small classifier, trained on the spot, and its features: for data that Inception says little
//! about. A distance on them is "Frechet distance on classifier features", never FID.

use super::features::Features;
use super::statistics::Statistics;
use crate::data::{batch_rows, select};
use crate::nn::{
    Conv2d, Linear, Optimizer, OptimizerConfig, OptimizerKind, Padding, Params, Scope, Settings,
    Tape, Value, on_tape, position_mean, relu,
};
use crate::rng::Key;
use crate::{Result, ensure};
use candle_core::{D, DType, Device, Tensor};
use xxhash_rust::xxh3::Xxh3;

/// How many features it has.
const FEATURES: usize = 64;
/// Images in one training step, and in one pass without training.
const BATCH: usize = 64;
const MANY: usize = 500;

/// How a classifier is trained.
///
/// ```
/// use consistency::prelude::*;
/// let config = ClassifierConfig { steps: 1000, ..ClassifierConfig::default() };
/// assert_eq!(config.learning_rate, 3e-3);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassifierConfig {
    /// Training steps of 64 images each.
    pub steps: u64,
    /// Adam's learning rate; it falls to zero along half a cosine.
    pub learning_rate: f64,
}

impl Default for ClassifierConfig {
    fn default() -> Self {
        Self { steps: 400, learning_rate: 3e-3 }
    }
}

/// A small convolutional network: three convolutions, the mean over positions, one hidden layer,
/// whose 64 activations are the features, and the class logits.
///
/// ```
/// use consistency::prelude::*;
/// let digits = digits(DType::F32, &Device::Cpu)?;
/// let labels: Vec<u32> = digits.train_labels.iter().map(|label| u32::from(*label)).collect();
/// let config = ClassifierConfig { steps: 20, ..ClassifierConfig::default() };
/// let classifier = Classifier::train(&digits.train, &labels, 10, config, &Key::new(0))?;
/// assert_eq!(classifier.evaluate(&digits.held_out)?.dims(), [450, 64]);
/// assert_eq!(classifier.logits(&digits.held_out)?.dims(), [450, 10]);
/// assert!(!classifier.features().is_inception());
/// # Ok::<(), consistency::Error>(())
/// ```
pub struct Classifier {
    network: Network,
    features: Features,
    shape: [usize; 3],
}

struct Network {
    convolutions: Vec<Conv2d>,
    hidden: Linear,
    classes: Linear,
}

impl std::fmt::Debug for Classifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Classifier({}, {:?})", self.features.name(), self.shape)
    }
}

impl Network {
    fn new(scope: &mut Scope, channels: usize, classes: usize) -> Result<Self> {
        let gain = 2f64.sqrt();
        let mut convolutions = Vec::new();
        for (i, (widths, stride)) in
            [((channels, 32), 1), ((32, 64), 2), ((64, 64), 2)].into_iter().enumerate()
        {
            let place = &mut scope.at(format!("convolution.{i}"));
            convolutions.push(Conv2d::strided(place, widths, 3, gain, stride, Padding::Each(1))?);
        }
        Ok(Self {
            convolutions,
            hidden: Linear::new(&mut scope.at("hidden"), 64, FEATURES, gain)?,
            classes: Linear::new(&mut scope.at("classes"), FEATURES, classes, 1.0)?,
        })
    }

    fn features(&self, tape: &mut Tape, xs: &Value) -> Result<Value> {
        let mut xs = tape.channels_last(xs)?;
        for convolution in &self.convolutions {
            let ys = convolution.forward(tape, &xs)?;
            xs = relu(tape, &ys)?;
        }
        let pooled = position_mean(tape, &xs)?;
        let ys = self.hidden.forward(tape, &pooled)?;
        relu(tape, &ys)
    }

    fn logits(&self, tape: &mut Tape, xs: &Value) -> Result<Value> {
        let features = self.features(tape, xs)?;
        self.classes.forward(tape, &features)
    }
}

impl Classifier {
    /// Train on `images`, (N, C, H, W) in f32, and their `labels`, below `classes`. Everything
    /// is a function of the key: weights, order of the batches.
    ///
    /// # Errors
    /// Labels that do not fit the images or the classes, or a loss that is not finite.
    pub fn train(
        images: &Tensor,
        labels: &[u32],
        classes: usize,
        config: ClassifierConfig,
        key: &Key,
    ) -> Result<Self> {
        let (count, channels, height, width) = images.dims4()?;
        ensure!(count > 0 && labels.len() == count, "{} labels for {count} images", labels.len());
        if let Some(bad) = labels.iter().find(|l| **l as usize >= classes) {
            crate::bail!("label {bad} with {classes} classes");
        }
        let device = images.device();
        let targets = Tensor::from_slice(labels, count, &Device::Cpu)?.to_device(device)?;
        let mut params = Params::new(DType::F32, device);
        let mut link = None;
        let network = params.init(&key.stream("classifier"), |scope| {
            link = scope.link();
            Network::new(scope, channels, classes)
        })?;
        let adam = OptimizerConfig {
            kind: OptimizerKind::Adam,
            learning_rate: config.learning_rate,
            ..OptimizerConfig::default()
        };
        let mut optimizer = Optimizer::new(adam, &params)?;
        let order = key.stream("batches");
        for step in 0..config.steps {
            let rows = batch_rows(count, BATCH, step, &order);
            let (xs, ys) = (select(images, &rows)?, select(&targets, &rows)?);
            let logits = on_tape(&xs, link.as_ref(), Settings::default(), |tape, xs| {
                network.logits(tape, xs)
            })?;
            let loss = cross_entropy(&logits, &ys)?;
            let gradients = params.gradients(&loss)?;
            let norm = gradients.norm()?;
            ensure!(norm.is_finite(), "the classifier's gradient at step {step} is {norm}");
            let done = step as f64 / config.steps as f64;
            let rate = 0.5 * (1.0 + (std::f64::consts::PI * done).cos());
            optimizer.step(&params, &gradients, rate)?;
        }
        Ok(Self {
            network: params.frozen(|scope| Network::new(scope, channels, classes))?,
            features: Features::named(&format!("classifier {}", fingerprint(&params)?))?,
            shape: [channels, height, width],
        })
    }

    /// What the features are: a hash of the trained weights is in their name.
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// The features (N, 64) of `images`.
    ///
    /// # Errors
    /// Images of a shape other than those it was trained on.
    pub fn evaluate(&self, images: &Tensor) -> Result<Tensor> {
        self.by_parts(images, |tape, xs| self.network.features(tape, xs))
    }

    /// The logits (N, classes) of `images`.
    ///
    /// # Errors
    /// As [`Classifier::evaluate`].
    pub fn logits(&self, images: &Tensor) -> Result<Tensor> {
        self.by_parts(images, |tape, xs| self.network.logits(tape, xs))
    }

    fn by_parts(
        &self,
        images: &Tensor,
        network: impl Fn(&mut Tape, &Value) -> Result<Value>,
    ) -> Result<Tensor> {
        let (count, channels, height, width) = images.dims4()?;
        ensure!(
            [channels, height, width] == self.shape && count > 0,
            "images of shape {:?} for a classifier of (N, {:?})",
            images.dims(),
            self.shape
        );
        let images = images.to_dtype(DType::F32)?;
        let mut parts = Vec::new();
        for first in (0..count).step_by(MANY) {
            let part = images.narrow(0, first, MANY.min(count - first))?;
            parts.push(on_tape(&part, None, Settings::default(), &network)?);
        }
        Ok(Tensor::cat(&parts, 0)?)
    }

    /// The share of `images` whose predicted class is their label.
    ///
    /// # Errors
    /// As [`Classifier::evaluate`]; a number of labels that differs from the number of images.
    pub fn accuracy(&self, images: &Tensor, labels: &[u32]) -> Result<f64> {
        let said = self.logits(images)?.argmax(D::Minus1)?.to_vec1::<u32>()?;
        ensure!(said.len() == labels.len(), "{} labels for {} images", labels.len(), said.len());
        let right = said.iter().zip(labels).filter(|(said, label)| said == label).count();
        Ok(right as f64 / labels.len() as f64)
    }

    /// The mean and covariance of the features of `images`.
    ///
    /// # Errors
    /// As [`Classifier::evaluate`], and features that are not finite.
    pub fn statistics(&self, images: &Tensor) -> Result<Statistics> {
        let mut statistics = Statistics::new(self.features.clone(), FEATURES)?;
        statistics.add(&self.evaluate(images)?)?;
        Ok(statistics)
    }

    /// The Frechet distance on classifier features between two sets of images.
    ///
    /// # Errors
    /// As [`Classifier::statistics`]; fewer than two images in a set.
    pub fn frechet_distance(&self, a: &Tensor, b: &Tensor) -> Result<f64> {
        self.statistics(a)?.frechet_distance(&self.statistics(b)?)
    }
}

/// The mean of -ln softmax(logits) at the labels (N).
fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let most = logits.max_keepdim(D::Minus1)?.detach();
    let shifted = logits.broadcast_sub(&most)?;
    let sums = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
    let own = shifted.gather(&labels.unsqueeze(1)?, 1)?;
    Ok((sums - own)?.mean_all()?)
}

fn fingerprint(params: &Params) -> Result<String> {
    let mut hash = Xxh3::new();
    for (name, var) in params.iter() {
        hash.update(name.as_bytes());
        for value in var.as_detached_tensor().flatten_all()?.to_vec1::<f32>()? {
            hash.update(&value.to_le_bytes());
        }
    }
    Ok(format!("{:016x}", hash.digest()))
}
