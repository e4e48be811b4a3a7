//! A residual multilayer perceptron on the pixels: for small images on a laptop.

use super::limits::{CHANNELS, MLP_BLOCKS};
use super::network::{Condition, OnTape};
use super::time::{Features, TimeEmbedding, Times};
use crate::bounds::within;
use crate::nn::{Act, GroupNorm, Linear, PositionalEmbedding, Scope, Tape, Value, silu};
use crate::{Result, ensure};
use serde::{Deserialize, Serialize};

/// c_noise is multiplied by this before its features are taken.
const NOISE_SCALE: f64 = 16.0;

/// The sizes of a network of this kind: up to 65536 features and 1024 blocks.
///
/// ```
/// use consistency::prelude::*;
/// let parameters = |blocks| {
///     NetworkConfig::Mlp(MlpConfig { blocks, ..MlpConfig::default() }).parameters(&[1, 8, 8])
/// };
/// // A block of 256 features: two layers, one for the noise level, and a norm.
/// assert_eq!(parameters(5)? - parameters(4)?, 2 * 257 * 256 + 129 * 256 + 2 * 256);
/// # Ok::<(), consistency::Error>(())
/// ```
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

impl MlpConfig {
    /// Whether every size is one that a network may have.
    ///
    /// # Errors
    /// The key with its value.
    pub(super) fn check(&self) -> Result<()> {
        within("width", self.width, 1..=CHANNELS)?;
        within("blocks", self.blocks, 0..=MLP_BLOCKS)?;
        within("time_features", self.time_features, 2..=CHANNELS)
    }
}

/// Blocks of norm, linear, SiLU, linear on a residual stream; the noise level's
/// embedding is added inside each block.
#[derive(Clone, Debug)]
pub(super) struct Mlp {
    time: TimeEmbedding,
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

impl Block {
    fn forward(&self, tape: &mut Tape, h: &Value, emb: &Value) -> Result<Value> {
        let inner = self.norm.forward(tape, h, Act::None)?;
        let inner = self.expand.forward(tape, &inner)?;
        let time = self.time.forward(tape, emb)?;
        let inner = tape.add(&inner, &time, 1.0)?;
        let inner = silu(tape, &inner)?;
        let inner = self.project.forward(tape, &inner)?;
        Ok(tape.add(h, &inner, 1.0)?)
    }
}

impl Mlp {
    /// An MLP for images of `shape`.
    pub(super) fn new(
        scope: &mut Scope,
        config: &MlpConfig,
        shape: &[usize],
        times: Times,
    ) -> Result<Self> {
        config.check()?;
        let pixels: usize = shape.iter().product();
        let MlpConfig { width, blocks, time_features } = *config;
        ensure!(pixels > 0, "an MLP on {shape:?}: no pixels");
        let block = |scope: &mut Scope| -> Result<Block> {
            Ok(Block {
                norm: GroupNorm::new(&mut scope.at("norm"), 1, width, 1e-5)?,
                expand: Linear::new(&mut scope.at("expand"), width, width, 1.0)?,
                time: Linear::new(&mut scope.at("time"), 2 * time_features, width, 1.0)?,
                project: Linear::new(&mut scope.at("project"), width, width, 0.1)?,
            })
        };
        let (inputs, inner) = (time_features, 2 * time_features);
        let features = Features::Positional(PositionalEmbedding::new(inputs, true, 0.0)?);
        let layers = (
            Linear::new(&mut scope.at("time.0"), inputs, inner, 1.0)?,
            Linear::new(&mut scope.at("time.1"), inner, inner, 1.0)?,
        );
        let both = (features, NOISE_SCALE);
        Ok(Self {
            time: TimeEmbedding::new(scope, both, layers, (inputs, inner), times)?,
            input: Linear::new(&mut scope.at("input"), pixels, width, 1.0)?,
            blocks: (0..blocks)
                .map(|i| block(&mut scope.at(format!("block.{i}"))))
                .collect::<Result<_>>()?,
            norm: GroupNorm::new(&mut scope.at("norm"), 1, width, 1e-5)?,
            output: Linear::new(&mut scope.at("output"), width, pixels, 0.0)?,
        })
    }
}

impl OnTape for Mlp {
    fn run(&self, tape: &mut Tape, xs: &Value, condition: Condition) -> Result<Value> {
        let dims = xs.dims().to_vec();
        let (batch, pixels) = (dims[0], dims[1..].iter().product());
        let emb = self.time.forward(tape, xs, condition)?;
        let emb = silu(tape, &emb)?;
        let flat = tape.reshape(xs, &[batch, pixels])?;
        let mut h = self.input.forward(tape, &flat)?; // (B, W)
        for block in &self.blocks {
            let own = block.clone();
            h = tape.block(&[&h, &emb], move |tape, v| own.forward(tape, &v[0], &v[1]))?;
        }
        let h = self.norm.forward(tape, &h, Act::Silu)?;
        let ys = self.output.forward(tape, &h)?; // (B, pixels)
        Ok(tape.reshape(&ys, &dims)?)
    }
}
