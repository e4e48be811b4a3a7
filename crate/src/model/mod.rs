//! Networks, and the wrappers that make denoisers, consistency functions, two-time maps and
//! generators out of them.

mod blocks;
mod config;
mod convnet;
mod generator;
mod inception;
mod json;
mod learner;
mod limits;
mod mlp;
mod ncsnpp;
mod network;
pub mod pretrained;
mod time;
mod unet;
mod vgg;
mod vp;
mod wrap;

pub use config::NetworkConfig;
pub use convnet::ConvNetConfig;
pub(crate) use convnet::{ConvNet, FEATURES as CONVNET_FEATURES};
pub use generator::OneStepGenerator;
pub(crate) use inception::{FEATURES as INCEPTION_FEATURES, InceptionV3};
pub use learner::Learner;
pub use mlp::MlpConfig;
pub use ncsnpp::NcsnppConfig;
pub(crate) use network::Taped;
pub use network::{Condition, Network};
pub use pretrained::{LoadOptions, Pretrained};
pub(crate) use time::SECOND;
pub use time::Times;
pub(crate) use unet::DIFFUSERS;
pub use unet::{
    DownBlock, SampleSize, SizeChange, TIME_SCALE, TimeScaleShift, UNet, UNetConfig, UpBlock,
};
pub(crate) use vgg::{CHANNELS as VGG_CHANNELS, Vgg16};
pub use vp::VariancePreserving;
pub use wrap::{Conditioned, ConsistencyModel, EdmDenoiser, TwoTimeModel};
