//! What a network is, and the configurations that make one.

use super::mlp::{Mlp, MlpConfig};
use super::unet::{UNet, UNetConfig};
use crate::Result;
use crate::nn::Scope;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// F in `c_skip x + c_out F(c_in x, c_noise)`: an image and the noise level's features
/// in, an image out.
pub trait Network: Send + Sync {
    /// `xs`: (B, C, H, W), the same out; `c_noise` holds one number or one a sample.
    fn forward(&self, xs: &Tensor, c_noise: &[f64]) -> Result<Tensor>;
}

impl<N: Network + ?Sized> Network for Box<N> {
    fn forward(&self, xs: &Tensor, c_noise: &[f64]) -> Result<Tensor> {
        (**self).forward(xs, c_noise)
    }
}

/// A network's kind and sizes, as in a configuration file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum NetworkConfig {
    /// A residual multilayer perceptron on the pixels.
    Mlp(MlpConfig),
    /// A small U-Net.
    Unet(UNetConfig),
}

impl NetworkConfig {
    /// Build the network in `scope` for images of `shape` (C, H, W).
    pub fn build(&self, scope: &mut Scope, shape: &[usize]) -> Result<Box<dyn Network>> {
        Ok(match self {
            Self::Mlp(config) => Box::new(Mlp::new(scope, config, shape)?),
            Self::Unet(config) => Box::new(UNet::new(scope, config, shape)?),
        })
    }
}
