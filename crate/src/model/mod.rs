//! Networks, and the wrappers that make denoisers, consistency functions, two-time maps and
//! generators out of them.

mod blocks;
mod config;
mod generator;
mod json;
mod learner;
mod limits;
mod mlp;
mod ncsnpp;
mod network;
pub mod pretrained;
mod time;
mod unet;
mod vp;
mod wrap;

pub use config::NetworkConfig;
pub use generator::OneStepGenerator;
pub use learner::Learner;
pub use mlp::MlpConfig;
pub use ncsnpp::NcsnppConfig;
pub use network::{Condition, Network};
pub use pretrained::{LoadOptions, Pretrained};
pub(crate) use time::SECOND;
pub use time::Times;
pub(crate) use unet::DIFFUSERS;
pub use unet::{
    DownBlock, SampleSize, SizeChange, TIME_SCALE, TimeScaleShift, UNet, UNetConfig, UpBlock,
};
pub use vp::VariancePreserving;
pub use wrap::{Conditioned, ConsistencyModel, EdmDenoiser, TwoTimeModel};
