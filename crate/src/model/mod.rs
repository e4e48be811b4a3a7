//! Networks, and the wrappers that make denoisers and consistency functions of them.

mod mlp;
mod network;
mod unet;
mod wrap;

pub use mlp::{Mlp, MlpConfig};
pub use network::{Network, NetworkConfig};
pub use unet::{UNet, UNetConfig};
pub use wrap::{ConsistencyModel, EdmDenoiser};
