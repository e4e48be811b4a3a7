//! Layers whose gradients are right, parameters in a fixed order, optimizers that can
//! be saved, and moving averages.
//!
//! candle's nearest-neighbour upsampling overwrites gradients and several of its layers
//! cut the graph silently, so everything that trains here is made of primitives or has
//! its own backward, and each layer is checked against finite differences in f64.

mod attention;
mod conv;
mod ema;
mod embedding;
mod layers;
mod ops;
mod optim;
mod params;

pub use attention::SelfAttention;
pub use conv::Conv2d;
pub use ema::Ema;
pub use embedding::{FourierEmbedding, SinusoidalEmbedding};
pub use layers::{GroupNorm, Linear, average_pool2, silu, upsample_nearest2};
pub use optim::{Optimizer, OptimizerConfig, OptimizerKind};
pub use params::{Init, Params, Scope};
