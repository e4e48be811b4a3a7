//! The configurations that make a network.

use super::convnet::ConvNetConfig;
use super::mlp::{Mlp, MlpConfig};
use super::ncsnpp::{Ncsnpp, NcsnppConfig};
use super::network::{Network, Taped};
use super::time::Times;
use super::unet::{UNet, UNetConfig};
use crate::Result;
use crate::nn::{Scope, Shapes};
use serde::{Deserialize, Serialize};

/// A network's kind and sizes, as in a configuration file.
///
/// ```
/// use consistency::prelude::*;
/// let config = NetworkConfig::Mlp(MlpConfig { width: 16, ..MlpConfig::default() });
/// let mut params = Params::new(DType::F32, &Device::Cpu);
/// let network = params.init(&Key::new(0), |scope| config.build(scope, &[1, 8, 8]))?;
/// assert_eq!(params.count(), config.parameters(&[1, 8, 8])?);
/// let x = Tensor::zeros((2, 1, 8, 8), DType::F32, &Device::Cpu)?;
/// assert_eq!(network.forward(&x, (&vec![0.0]).into())?.dims(), x.dims());
/// # Ok::<(), consistency::Error>(())
/// ```
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
    /// A classifier, whose outputs are logits: for the method `classification` alone.
    Convnet(ConvNetConfig),
}

impl NetworkConfig {
    /// How many classes the network is conditioned on; none for a network without classes.
    pub fn classes(&self) -> Option<usize> {
        match self {
            Self::Unet(config) => config.num_class_embeds,
            Self::Ncsnpp(_) | Self::Mlp(_) | Self::Convnet(_) => None,
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
            Self::Convnet(config) => config.check(),
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
        self.build_for(scope, shape, Times::One)
    }

    /// The same, conditioned on `times` noise levels. What the second adds starts at zero.
    pub fn build_for(
        &self,
        scope: &mut Scope,
        shape: &[usize],
        times: Times,
    ) -> Result<Box<dyn Network>> {
        Ok(match self {
            Self::Mlp(config) => {
                let network = Mlp::new(scope, config, shape, times)?;
                Box::new(Taped::new(scope, network))
            }
            Self::Unet(config) => {
                let network = UNet::new(scope, &config.for_images(shape)?, times)?;
                Box::new(Taped::new(scope, network))
            }
            Self::Ncsnpp(config) => {
                let network = Ncsnpp::new(scope, &config.for_images(shape)?, times)?;
                Box::new(Taped::new(scope, network))
            }
            Self::Convnet(config) => config.build(scope, shape)?,
        })
    }
}
