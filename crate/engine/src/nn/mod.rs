//! Layers whose gradients are correct, parameters in a fixed order, optimizers that can be saved,
//! and moving averages.
//!
//! candle's nearest-neighbour upsampling overwrites gradients, several of its layers cut the graph
//! silently, and its convolution's backward pass uses no matrix products. So the layers here have
//! their own arithmetic (`kernels`) and their own backward pass ([`Tape`]), and each is checked
//! against finite differences in f64.

mod boundary;
mod ema;
mod embedding;
mod gradients;
mod kernels;
mod layers;
pub mod memory;
mod ops;
mod optim;
mod params;
mod pool;
mod shapes;
mod tape;

pub use boundary::{Link, on_tape, pull_back, push_forward};
pub use ema::Ema;
pub use embedding::{ClassEmbedding, FourierEmbedding, PositionalEmbedding};
pub use gradients::Gradients;
pub use layers::{
    Act, Attention, Conv2d, Dropout, GroupNorm, Linear, Masks, Padding, average_pool2, concatenate,
    fir_blur, fir_down2, fir_up2, silu, upsample_nearest2,
};
pub use ops::ConvEpilogue;
pub use optim::{Optimizer, OptimizerConfig, OptimizerKind};
pub use params::{Init, Parameter, Params, Scope};
pub use pool::{average_pool3, max_pool, position_mean, relu, resize_bilinear};
pub use shapes::Shapes;
pub use tape::{Precision, Settings, Tape, Value};

/// The vectors that the layers compute with on this processor.
pub fn vectors() -> &'static str {
    kernels::simd::name()
}
