//! A small U-Net (Ronneberger et al. 2015; Ho et al. 2020) for images of 8x8 to 32x32.

use super::network::Network;
use crate::nn::{
    Conv2d, GroupNorm, Linear, Scope, SelfAttention, SinusoidalEmbedding, average_pool2, silu,
    upsample_nearest2,
};
use crate::{Result, ensure};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// The sizes of a [`UNet`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UNetConfig {
    /// Channels of each level, from the full resolution down; each level halves the size.
    pub channels: Vec<usize>,
    /// Residual blocks a level.
    pub blocks: usize,
    /// Groups of every group norm; divides all channels.
    pub groups: usize,
    /// Heads of the attention at the lowest level.
    pub heads: usize,
}

impl Default for UNetConfig {
    fn default() -> Self {
        Self { channels: vec![32, 64], blocks: 2, groups: 8, heads: 4 }
    }
}

/// Levels of residual blocks with skip connections, and attention at the lowest.
#[derive(Clone, Debug)]
pub struct UNet {
    embedding: SinusoidalEmbedding,
    time: (Linear, Linear),
    input: Conv2d,
    down: Vec<Vec<ResBlock>>,
    middle: (ResBlock, SelfAttention, ResBlock),
    up: Vec<Vec<ResBlock>>,
    norm: GroupNorm,
    output: Conv2d,
}

impl UNet {
    /// A U-Net for images of `shape` (C, H, W).
    ///
    /// # Errors
    /// A size that cannot be halved for each level below the first.
    pub fn new(scope: &mut Scope, config: &UNetConfig, shape: &[usize]) -> Result<Self> {
        let UNetConfig { channels, blocks, groups, heads } = config;
        ensure!(!channels.is_empty() && *blocks > 0, "a U-Net needs levels and blocks: {config:?}");
        let &[c, h, w] = shape else {
            crate::bail!("a U-Net takes images (C, H, W), got the shape {shape:?}");
        };
        let factor = 1 << (channels.len() - 1);
        ensure!(
            h % factor == 0 && w % factor == 0,
            "images of {h}x{w} cannot be halved {} times",
            channels.len() - 1
        );
        let width = 4 * channels[0];
        let features = channels[0].max(32);
        let time = (
            Linear::new(&mut scope.at("time.0"), features, width, 1.0)?,
            Linear::new(&mut scope.at("time.1"), width, width, 1.0)?,
        );
        let input = Conv2d::new(&mut scope.at("input"), c, channels[0], 3, 1.0)?;
        let sizes = Sizes { time: width, groups: *groups };

        let mut skips = vec![channels[0]];
        let mut now = channels[0];
        let mut down = Vec::new();
        for (level, &out) in channels.iter().enumerate() {
            let mut row = Vec::new();
            for i in 0..*blocks {
                let mut scope = scope.at(format!("down.{level}.{i}"));
                row.push(ResBlock::new(&mut scope, now, out, sizes)?);
                now = out;
                skips.push(out);
            }
            down.push(row);
        }
        let middle = (
            ResBlock::new(&mut scope.at("middle.0"), now, now, sizes)?,
            SelfAttention::new(&mut scope.at("middle.attention"), now, *heads, *groups)?,
            ResBlock::new(&mut scope.at("middle.1"), now, now, sizes)?,
        );
        let mut up = Vec::new();
        for (level, &out) in channels.iter().enumerate().rev() {
            // The highest level also takes the input convolution's output.
            let count = blocks + usize::from(level == 0);
            let mut row = Vec::new();
            for i in 0..count {
                let mut scope = scope.at(format!("up.{level}.{i}"));
                let skip = skips.pop().unwrap_or(0);
                row.push(ResBlock::new(&mut scope, now + skip, out, sizes)?);
                now = out;
            }
            up.push(row);
        }
        Ok(Self {
            embedding: SinusoidalEmbedding::new(features, 16.0),
            time,
            input,
            down,
            middle,
            up,
            norm: GroupNorm::new(&mut scope.at("norm"), *groups, now, 1e-5)?,
            output: Conv2d::new(&mut scope.at("output"), now, c, 3, 0.0)?,
        })
    }
}

impl Network for UNet {
    fn forward(&self, xs: &Tensor, c_noise: &[f64]) -> Result<Tensor> {
        let features = self.embedding.forward(c_noise, xs.dtype(), xs.device())?;
        let emb = silu(&self.time.1.forward(&silu(&self.time.0.forward(&features)?)?)?)?;

        let mut h = self.input.forward(xs)?;
        let mut skips = vec![h.clone()];
        for (level, row) in self.down.iter().enumerate() {
            if level > 0 {
                h = average_pool2(&h)?;
            }
            for block in row {
                h = block.forward(&h, &emb)?;
                skips.push(h.clone());
            }
        }
        h = self.middle.0.forward(&h, &emb)?;
        h = self.middle.1.forward(&h)?;
        h = self.middle.2.forward(&h, &emb)?;
        for (i, row) in self.up.iter().enumerate() {
            if i > 0 {
                h = upsample_nearest2(&h)?;
            }
            for block in row {
                if let Some(skip) = skips.pop() {
                    h = Tensor::cat(&[&h, &skip], 1)?;
                }
                h = block.forward(&h, &emb)?;
            }
        }
        self.output.forward(&silu(&self.norm.forward(&h)?)?)
    }
}

#[derive(Clone, Copy)]
struct Sizes {
    time: usize,
    groups: usize,
}

// norm, SiLU, conv, + embedding, norm, SiLU, conv on a residual.
#[derive(Clone, Debug)]
struct ResBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    time: Linear,
    norm2: GroupNorm,
    conv2: Conv2d,
    shortcut: Option<Conv2d>,
}

impl ResBlock {
    fn new(scope: &mut Scope, inputs: usize, outputs: usize, sizes: Sizes) -> Result<Self> {
        let shortcut = if inputs == outputs {
            None
        } else {
            Some(Conv2d::new(&mut scope.at("conv_shortcut"), inputs, outputs, 1, 1.0)?)
        };
        Ok(Self {
            norm1: GroupNorm::new(&mut scope.at("norm1"), sizes.groups, inputs, 1e-5)?,
            conv1: Conv2d::new(&mut scope.at("conv1"), inputs, outputs, 3, 1.0)?,
            time: Linear::new(&mut scope.at("time_emb_proj"), sizes.time, outputs, 1.0)?,
            norm2: GroupNorm::new(&mut scope.at("norm2"), sizes.groups, outputs, 1e-5)?,
            conv2: Conv2d::new(&mut scope.at("conv2"), outputs, outputs, 3, 0.1)?,
            shortcut,
        })
    }

    fn forward(&self, xs: &Tensor, emb: &Tensor) -> Result<Tensor> {
        let h = self.conv1.forward(&silu(&self.norm1.forward(xs)?)?)?;
        let emb = self.time.forward(emb)?; // (B or 1, C)
        let emb = emb.unsqueeze(2)?.unsqueeze(3)?;
        let h = h.broadcast_add(&emb)?;
        let h = self.conv2.forward(&silu(&self.norm2.forward(&h)?)?)?;
        match &self.shortcut {
            Some(shortcut) => Ok((shortcut.forward(xs)? + h)?),
            None => Ok((xs + h)?),
        }
    }
}
