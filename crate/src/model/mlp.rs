//! A residual multilayer perceptron on the pixels: for small images on a laptop.

use super::network::Network;
use crate::nn::{GroupNorm, Linear, Scope, SinusoidalEmbedding, silu};
use crate::{Result, ensure};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// The sizes of an [`Mlp`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MlpConfig {
    /// Features between the blocks.
    pub width: usize,
    /// Residual blocks.
    pub blocks: usize,
    /// Features of the noise level.
    pub time_features: usize,
}

impl Default for MlpConfig {
    fn default() -> Self {
        Self { width: 256, blocks: 4, time_features: 64 }
    }
}

/// Blocks of norm, linear, SiLU, linear on a residual stream; the noise level's
/// embedding is added inside each block.
#[derive(Clone, Debug)]
pub struct Mlp {
    embedding: SinusoidalEmbedding,
    time: (Linear, Linear),
    input: Linear,
    blocks: Vec<Block>,
    norm: GroupNorm,
    output: Linear,
}

#[derive(Clone, Debug)]
struct Block {
    norm: GroupNorm,
    expand: Linear,
    time: Linear,
    project: Linear,
}

impl Mlp {
    /// An MLP for images of `shape`.
    pub fn new(scope: &mut Scope, config: &MlpConfig, shape: &[usize]) -> Result<Self> {
        let pixels: usize = shape.iter().product();
        let MlpConfig { width, blocks, time_features } = *config;
        ensure!(
            pixels > 0 && width > 0 && time_features > 1,
            "an MLP of width {width} with {time_features} time features on {shape:?}"
        );
        let block = |scope: &mut Scope| -> Result<Block> {
            Ok(Block {
                norm: GroupNorm::new(&mut scope.at("norm"), 1, width, 1e-5)?,
                expand: Linear::new(&mut scope.at("expand"), width, width, 1.0)?,
                time: Linear::new(&mut scope.at("time"), 2 * time_features, width, 1.0)?,
                project: Linear::new(&mut scope.at("project"), width, width, 0.1)?,
            })
        };
        Ok(Self {
            embedding: SinusoidalEmbedding::new(time_features, 16.0),
            time: (
                Linear::new(&mut scope.at("time.0"), time_features, 2 * time_features, 1.0)?,
                Linear::new(&mut scope.at("time.1"), 2 * time_features, 2 * time_features, 1.0)?,
            ),
            input: Linear::new(&mut scope.at("input"), pixels, width, 1.0)?,
            blocks: (0..blocks)
                .map(|i| block(&mut scope.at(format!("block.{i}"))))
                .collect::<Result<_>>()?,
            norm: GroupNorm::new(&mut scope.at("norm"), 1, width, 1e-5)?,
            output: Linear::new(&mut scope.at("output"), width, pixels, 0.0)?,
        })
    }
}

impl Network for Mlp {
    fn forward(&self, xs: &Tensor, c_noise: &[f64]) -> Result<Tensor> {
        let features = self.embedding.forward(c_noise, xs.dtype(), xs.device())?;
        let emb = silu(&self.time.1.forward(&silu(&self.time.0.forward(&features)?)?)?)?;
        let mut h = self.input.forward(&xs.flatten_from(1)?)?; // (B, W)
        for block in &self.blocks {
            let inner = block.expand.forward(&block.norm.forward(&h)?)?;
            let inner = silu(&inner.broadcast_add(&block.time.forward(&emb)?)?)?;
            h = (h + block.project.forward(&inner)?)?;
        }
        let ys = self.output.forward(&silu(&self.norm.forward(&h)?)?)?; // (B, pixels)
        Ok(ys.reshape(xs.dims())?)
    }
}
