//! A small convolutional classifier of images.

use super::limits::{CHANNELS, CLASSES, SIDE};
use super::network::{Condition, Network, OnTape, Taped};
use crate::bounds::within;
use crate::nn::{Conv2d, Linear, Padding, Scope, Tape, Value, position_mean, relu};
use crate::{Result, bail};
use serde::{Deserialize, Serialize};

/// How many features it has.
pub(crate) const FEATURES: usize = 64;
/// The channels that each convolution makes, and its stride.
const LAYERS: [(usize, usize); 3] = [(32, 1), (64, 2), (64, 2)];

/// A network from images (B, C, H, W) to logits (B, classes): three convolutions, the mean
/// over positions, one hidden layer, whose 64 activations are its features, and the logits. It has
/// no conditioning.
///
/// The outputs of all other networks have the shape of the images; this one is for classifiers.
///
/// ```
/// use consistency::model::Condition;
/// use consistency::prelude::*;
/// let mut params = Params::new(DType::F32, &Device::Cpu);
/// let config = ConvNetConfig { classes: 3 };
/// let network = params.init(&Key::new(0), |scope| config.build(scope, &[1, 8, 8]))?;
/// let x = Key::new(1).normal(0..5, &[1, 8, 8], DType::F32, &Device::Cpu)?;
/// assert_eq!(network.forward(&x, Condition::default())?.dims(), [5, 3]);
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvNetConfig {
    /// How many logits there are for an image.
    pub classes: usize,
}

impl ConvNetConfig {
    /// Build the network in `scope` for images of `shape` (C, H, W).
    ///
    /// # Errors
    /// No classes, or more than a million; a shape that is not an image's.
    pub fn build(&self, scope: &mut Scope, shape: &[usize]) -> Result<Box<dyn Network>> {
        Ok(Box::new(self.taped(scope, shape)?))
    }

    pub(super) fn check(&self) -> Result<()> {
        within("classes", self.classes, 1..=CLASSES)
    }

    /// The same as [`ConvNetConfig::build`], with access to its features.
    pub(crate) fn taped(&self, scope: &mut Scope, shape: &[usize]) -> Result<Taped<ConvNet>> {
        self.check()?;
        let [channels, height, width] = *shape else {
            bail!(
                "a convolutional network on samples of shape {shape:?}: it takes images, (C, H, W)"
            );
        };
        within("channels", channels, 1..=CHANNELS)?;
        for (side, value) in [("height", height), ("width", width)] {
            within(side, value, 1..=SIDE)?;
        }
        Taped::build(scope, |scope| ConvNet::new(scope, channels, self.classes))
    }
}

/// The layers.
pub(crate) struct ConvNet {
    convolutions: Vec<Conv2d>,
    hidden: Linear,
    classes: Linear,
}

impl ConvNet {
    fn new(scope: &mut Scope, channels: usize, classes: usize) -> Result<Self> {
        let gain = 2f64.sqrt();
        let (mut convolutions, mut inputs) = (Vec::new(), channels);
        for (i, (outputs, stride)) in LAYERS.into_iter().enumerate() {
            let place = &mut scope.at(format!("convolution.{i}"));
            let widths = (inputs, outputs);
            convolutions.push(Conv2d::strided(place, widths, 3, gain, stride, Padding::Each(1))?);
            inputs = outputs;
        }
        Ok(Self {
            convolutions,
            hidden: Linear::new(&mut scope.at("hidden"), inputs, FEATURES, gain)?,
            classes: Linear::new(&mut scope.at("classes"), FEATURES, classes, 1.0)?,
        })
    }

    /// The features (B, 64) of images (B, C, H, W).
    pub fn features(&self, tape: &mut Tape, xs: &Value) -> Result<Value> {
        let mut xs = tape.channels_last(xs)?;
        for convolution in &self.convolutions {
            let ys = convolution.forward(tape, &xs)?;
            xs = relu(tape, &ys)?;
        }
        let pooled = position_mean(tape, &xs)?;
        let ys = self.hidden.forward(tape, &pooled)?;
        relu(tape, &ys)
    }
}

impl OnTape for ConvNet {
    fn run(&self, tape: &mut Tape, xs: &Value, _: Condition) -> Result<Value> {
        let features = self.features(tape, xs)?;
        self.classes.forward(tape, &features)
    }
}
