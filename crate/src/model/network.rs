//! What a network is, and the configurations that make one.

use super::mlp::{Mlp, MlpConfig};
use super::ncsnpp::{Ncsnpp, NcsnppConfig};
use super::unet::{UNet, UNetConfig};
use crate::Result;
use crate::nn::{Link, Masks, Scope, Settings, Shapes, Tape, Value, on_tape};
use crate::seam::one_a_sample;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// What a network is conditioned on besides its input.
#[derive(Clone, Copy, Debug, Default)]
pub struct Condition<'a> {
    /// c_noise, the number that stands for the noise level: one, or one per sample.
    pub noise: &'a [f64],
    /// The class of each sample, for a network that is conditioned on classes.
    pub labels: Option<&'a [u32]>,
    /// The dropout's masks; without them nothing is dropped.
    pub dropout: Option<Masks>,
}

impl<'a> From<&'a [f64]> for Condition<'a> {
    fn from(noise: &'a [f64]) -> Self {
        Self { noise, ..Self::default() }
    }
}

impl<'a> From<&'a Vec<f64>> for Condition<'a> {
    fn from(noise: &'a Vec<f64>) -> Self {
        Self::from(noise.as_slice())
    }
}

impl Condition<'_> {
    /// c_noise for each of `batch` samples.
    pub(super) fn noise_of(&self, batch: usize) -> Result<Vec<f64>> {
        if let Some(bad) = self.noise.iter().find(|c| !c.is_finite()) {
            crate::bail!("the noise level's number is {bad}");
        }
        one_a_sample(self.noise, batch)
    }
}

/// F in `c_skip x + c_out F(c_in x, c_noise)`: an image and c_noise in, an image out.
pub trait Network: Send + Sync {
    /// `xs`: (B, C, H, W), the same out.
    fn forward(&self, xs: &Tensor, condition: Condition) -> Result<Tensor>;
}

impl<N: Network + ?Sized> Network for Box<N> {
    fn forward(&self, xs: &Tensor, condition: Condition) -> Result<Tensor> {
        (**self).forward(xs, condition)
    }
}

/// A network as steps of a tape.
pub(super) trait OnTape: Send + Sync {
    fn run(&self, tape: &mut Tape, xs: &Value, condition: Condition) -> Result<Value>;
}

/// A network that runs on a tape, with the link to its parameters' gradients.
pub(super) struct Taped<N> {
    network: N,
    link: Option<Link>,
    settings: Settings,
}

impl<N: OnTape> Taped<N> {
    pub fn new(scope: &Scope, network: N) -> Self {
        Self { network, link: scope.link(), settings: scope.settings() }
    }
}

impl<N: OnTape> Network for Taped<N> {
    fn forward(&self, xs: &Tensor, condition: Condition) -> Result<Tensor> {
        on_tape(xs, self.link.as_ref(), self.settings, |tape, xs| {
            self.network.run(tape, xs, condition)
        })
    }
}

/// A network's kind and sizes, as in a configuration file.
// There is only one of it, and people write it by hand.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum NetworkConfig {
    /// A residual multilayer perceptron on the pixels.
    Mlp(MlpConfig),
    /// A U-Net under diffusers' keys.
    Unet(UNetConfig),
    /// The paper's CIFAR-10 network.
    Ncsnpp(NcsnppConfig),
}

impl NetworkConfig {
    /// How many classes the network is conditioned on; none for a network without classes.
    pub fn classes(&self) -> Option<usize> {
        match self {
            Self::Unet(config) => config.num_class_embeds,
            Self::Ncsnpp(_) | Self::Mlp(_) => None,
        }
    }

    /// Whether every value is one that a network may have; nothing is built.
    ///
    /// # Errors
    /// The key with its value.
    pub fn check(&self) -> Result<()> {
        match self {
            Self::Mlp(config) => config.check(),
            Self::Unet(config) => config.check(),
            Self::Ncsnpp(config) => config.check(),
        }
    }

    /// How many parameters it trains, for images of `shape` (C, H, W); nothing is allocated.
    ///
    /// # Errors
    /// A configuration that makes no network for such images.
    pub fn parameters(&self, shape: &[usize]) -> Result<usize> {
        Ok(Shapes::of(|scope| self.build(scope, shape))?.count())
    }

    /// Build the network in `scope` for images of `shape` (C, H, W).
    pub fn build(&self, scope: &mut Scope, shape: &[usize]) -> Result<Box<dyn Network>> {
        Ok(match self {
            Self::Mlp(config) => {
                let network = Mlp::new(scope, config, shape)?;
                Box::new(Taped::new(scope, network))
            }
            Self::Unet(config) => {
                let network = UNet::new(scope, &config.for_images(shape)?)?;
                Box::new(Taped::new(scope, network))
            }
            Self::Ncsnpp(config) => {
                let network = Ncsnpp::new(scope, &config.for_images(shape)?)?;
                Box::new(Taped::new(scope, network))
            }
        })
    }
}
