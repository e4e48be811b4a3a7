//! Networks, and the wrappers that make denoisers and consistency functions of them.

mod blocks;
mod mlp;
mod ncsnpp;
mod network;
mod unet;
mod wrap;

pub use mlp::MlpConfig;
pub use ncsnpp::NcsnppConfig;
pub use network::{Condition, Network, NetworkConfig};
pub use unet::{DownBlock, SizeChange, TIME_SCALE, TimeScaleShift, UNet, UNetConfig, UpBlock};
pub use wrap::{Conditioned, ConsistencyModel, EdmDenoiser};
