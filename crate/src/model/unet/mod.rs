//! The U-Net of diffusers' `UNet2DModel`, under its configuration keys and parameter names:
//! ADM for ImageNet 64x64 (Dhariwal and Nichol 2021), its unconditional form for LSUN, DDPM
//! for CIFAR-10 (Ho et al. 2020), and small ones for a laptop.

mod config;
mod json;

pub use config::{DownBlock, SampleSize, SizeChange, TimeScaleShift, UNetConfig, UpBlock};
pub(crate) use json::DIFFUSERS;

use super::blocks::{Common, Names, ResBlock, Size};
use super::network::{Condition, Network, OnTape, Taped};
use super::time::{Features, TimeEmbedding, Times};
use crate::nn::{
    Act, Attention, ClassEmbedding, Conv2d, GroupNorm, Linear, Padding, PositionalEmbedding, Scope,
    Tape, Value, concatenate, silu, upsample_nearest2,
};
use crate::{Result, ensure};

/// c_noise = ln(t) / 4 is given to a U-Net as the time step 1000 c_noise, as the paper's
/// ImageNet and LSUN models take it.
pub const TIME_SCALE: f64 = 1000.0;

const NAMES: Names = Names {
    norms: ["norm1", "norm2"],
    convs: ["conv1", "conv2"],
    time: "time_emb_proj",
    shortcut: "conv_shortcut",
};

/// One level: residual blocks, an attention after each where the level has them, and what changes
/// the size after them.
#[derive(Clone, Debug)]
struct Level {
    blocks: Vec<ResBlock>,
    attentions: Vec<Attention>,
    change: Option<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Resnet(Box<ResBlock>),
    Down(Conv2d),
    Up(Conv2d),
}

impl Change {
    fn forward(&self, tape: &mut Tape, xs: &Value, emb: &Value, on: Condition) -> Result<Value> {
        match self {
            Self::Resnet(block) => block.forward(tape, xs, emb, on.dropout),
            Self::Down(conv) => conv.forward(tape, xs),
            Self::Up(conv) => {
                let wide = upsample_nearest2(tape, xs)?;
                conv.forward(tape, &wide)
            }
        }
    }
}

/// A U-Net.
#[derive(Clone, Debug)]
pub struct UNet {
    time: TimeEmbedding,
    classes: Option<ClassEmbedding>,
    input: Conv2d,
    down: Vec<Level>,
    middle: (ResBlock, Option<Attention>, ResBlock),
    up: Vec<Level>,
    norm: GroupNorm,
    output: Conv2d,
    centre: bool,
    patch: usize,
}

impl UNet {
    /// The U-Net of `config`, in which the sizes of the images must be given.
    ///
    /// # Errors
    /// A configuration that no network has.
    pub(super) fn new(scope: &mut Scope, config: &UNetConfig, times: Times) -> Result<Self> {
        config.check()?;
        let (down_types, up_types) = config.levels()?;
        let (Some(inputs), Some(outputs)) = (config.in_channels, config.out_channels) else {
            crate::bail!("a U-Net's configuration without in_channels and out_channels");
        };
        let channels = &config.block_out_channels;
        let features = channels[0];
        let width = config.time_embedding_dim.unwrap_or(4 * channels[0]);
        let groups = config.norm_num_groups;
        let common = Common {
            time: width,
            eps: config.norm_eps,
            modulated: config.resnet_time_scale_shift == TimeScaleShift::ScaleShift,
            dropout: config.dropout,
            factor: 1.0,
            last: 0.1,
        };
        let block = |scope: &mut Scope, from: usize, to: usize, size: Size| {
            ResBlock::new(scope, &NAMES, (from, to), [groups, groups], (size, false), common)
        };
        let attention = |scope: &mut Scope, of: usize| {
            Attention::new(scope, of, config.heads(of)?, (groups, config.norm_eps), 1.0)
        };

        let embedding =
            PositionalEmbedding::new(features, config.flip_sin_to_cos, config.freq_shift)?;
        let embedding = (Features::Positional(embedding), TIME_SCALE);
        let layers = (
            Linear::new(&mut scope.at("time_embedding.linear_1"), features, width, 1.0)?,
            Linear::new(&mut scope.at("time_embedding.linear_2"), width, width, 1.0)?,
        );
        let time = TimeEmbedding::new(scope, embedding, layers, (features, width), times)?;
        let classes = match config.num_class_embeds {
            Some(count) => {
                Some(ClassEmbedding::new(&mut scope.at("class_embedding"), count, width)?)
            }
            None => None,
        };
        let each = config.patch * config.patch;
        let input = Conv2d::new(&mut scope.at("conv_in"), each * inputs, channels[0], 3, 1.0)?;

        // ---- down: every block's output is kept for the way up
        let (mut now, mut skips) = (channels[0], vec![channels[0]]);
        let mut down = Vec::new();
        for (i, (&to, kind)) in channels.iter().zip(&down_types).enumerate() {
            let mut scope = scope.at(format!("down_blocks.{i}"));
            let (mut blocks, mut attentions) = (Vec::new(), Vec::new());
            for j in 0..config.layers_per_block {
                blocks.push(block(&mut scope.at(format!("resnets.{j}")), now, to, Size::Same)?);
                if *kind == DownBlock::AttnDownBlock2D {
                    attentions.push(attention(&mut scope.at(format!("attentions.{j}")), to)?);
                }
                now = to;
                skips.push(to);
            }
            let by_block = match kind {
                DownBlock::DownBlock2D => false,
                DownBlock::AttnDownBlock2D => config.downsample_type == SizeChange::Resnet,
                DownBlock::ResnetDownsampleBlock2D => true,
            };
            let mut change = None;
            if i + 1 < channels.len() {
                let mut scope = scope.at("downsamplers.0");
                skips.push(to);
                change = Some(if by_block {
                    Change::Resnet(Box::new(block(&mut scope, to, to, Size::Down { fir: false })?))
                } else {
                    let padding = match config.downsample_padding {
                        0 => Padding::Sides([0, 0, 1, 1]),
                        count => Padding::Each(count),
                    };
                    let mut scope = scope.at("conv");
                    Change::Down(Conv2d::strided(&mut scope, (to, to), 3, 1.0, 2, padding)?)
                });
            }
            down.push(Level { blocks, attentions, change });
        }

        // ---- middle
        let middle = {
            let mut scope = scope.at("mid_block");
            let factor = 1.0 / config.mid_block_scale_factor;
            let common = Common { factor, ..common };
            let block = |scope: &mut Scope| {
                ResBlock::new(
                    scope,
                    &NAMES,
                    (now, now),
                    [groups, groups],
                    (Size::Same, false),
                    common,
                )
            };
            // diffusers leaves the norm out of a modulated network's middle attention unless
            // its groups are given.
            let of_attention = match config.resnet_time_scale_shift {
                TimeScaleShift::Default => config.attn_norm_num_groups.unwrap_or(groups),
                TimeScaleShift::ScaleShift => config.attn_norm_num_groups.unwrap_or(0),
            };
            let first = block(&mut scope.at("resnets.0"))?;
            let attention = if config.add_attention {
                let (heads, norm) = (config.heads(now)?, (of_attention, config.norm_eps));
                Some(Attention::new(&mut scope.at("attentions.0"), now, heads, norm, factor)?)
            } else {
                None
            };
            (first, attention, block(&mut scope.at("resnets.1"))?)
        };

        // ---- up: each block takes the last output that is left
        let mut up = Vec::new();
        for (i, (&to, kind)) in channels.iter().rev().zip(&up_types).enumerate() {
            let mut scope = scope.at(format!("up_blocks.{i}"));
            let (mut blocks, mut attentions) = (Vec::new(), Vec::new());
            for j in 0..=config.layers_per_block {
                let from = now + skips.pop().unwrap_or_default();
                blocks.push(block(&mut scope.at(format!("resnets.{j}")), from, to, Size::Same)?);
                if *kind == UpBlock::AttnUpBlock2D {
                    attentions.push(attention(&mut scope.at(format!("attentions.{j}")), to)?);
                }
                now = to;
            }
            let by_block = match kind {
                UpBlock::UpBlock2D => false,
                UpBlock::AttnUpBlock2D => config.upsample_type == SizeChange::Resnet,
                UpBlock::ResnetUpsampleBlock2D => true,
            };
            let mut change = None;
            if i + 1 < channels.len() {
                let mut scope = scope.at("upsamplers.0");
                change = Some(if by_block {
                    Change::Resnet(Box::new(block(&mut scope, to, to, Size::Up { fir: false })?))
                } else {
                    Change::Up(Conv2d::new(&mut scope.at("conv"), to, to, 3, 1.0)?)
                });
            }
            up.push(Level { blocks, attentions, change });
        }
        let norm = GroupNorm::new(&mut scope.at("conv_norm_out"), groups, now, config.norm_eps)?;
        let output = Conv2d::new(&mut scope.at("conv_out"), now, each * outputs, 3, 0.0)?;
        let (centre, patch) = (config.center_input_sample, config.patch);
        Ok(Self { time, classes, input, down, middle, up, norm, output, centre, patch })
    }

    /// The network of `config` in `scope`, which takes time steps as they are rather than c_noise:
    /// for weights and schedules of other programs.
    ///
    /// # Errors
    /// A configuration that no network has.
    pub fn at_time_steps(scope: &mut Scope, config: &UNetConfig) -> Result<Box<dyn Network>> {
        let mut network = Self::new(scope, config, Times::One)?;
        network.time.scale = 1.0;
        Ok(Box::new(Taped::new(scope, network)))
    }
}

/// An attention as a block of its own for checkpointing.
pub(super) fn attend(tape: &mut Tape, attention: &Attention, xs: &Value) -> Result<Value> {
    let own = attention.clone();
    tape.block(&[xs], move |tape, v| own.forward(tape, &v[0]))
}

impl OnTape for UNet {
    fn run(&self, tape: &mut Tape, xs: &Value, on: Condition) -> Result<Value> {
        let batch = xs.dims()[0];
        let mut emb = self.time.forward(tape, xs, on)?;
        match (&self.classes, on.labels) {
            (Some(classes), Some(labels)) => {
                ensure!(labels.len() == batch, "{} classes for {batch} samples", labels.len());
                let class = classes.forward(tape, labels)?;
                emb = tape.add(&emb, &class, 1.0)?;
            }
            (Some(_), None) => {
                crate::bail!("this network is conditioned on classes: give one per sample")
            }
            (None, Some(_)) => crate::bail!("this network knows no classes"),
            (None, None) => {}
        }
        let emb = silu(tape, &emb)?;
        let xs = if self.centre {
            // 2 x - 1
            let half = tape.constant((xs.tensor().ones_like()? * -0.5)?);
            tape.add(xs, &half, 2.0)?
        } else {
            xs.clone()
        };

        let mut xs = tape.channels_last(&xs)?;
        if self.patch > 1 {
            xs = tape.fold(&xs, self.patch)?;
        }
        let mut h = self.input.forward(tape, &xs)?;
        let mut skips = vec![h.clone()];
        for level in &self.down {
            for (j, block) in level.blocks.iter().enumerate() {
                h = block.forward(tape, &h, &emb, on.dropout)?;
                if let Some(attention) = level.attentions.get(j) {
                    h = attend(tape, attention, &h)?;
                }
                skips.push(h.clone());
            }
            if let Some(change) = &level.change {
                h = change.forward(tape, &h, &emb, on)?;
                skips.push(h.clone());
            }
        }
        h = self.middle.0.forward(tape, &h, &emb, on.dropout)?;
        if let Some(attention) = &self.middle.1 {
            h = attend(tape, attention, &h)?;
        }
        h = self.middle.2.forward(tape, &h, &emb, on.dropout)?;
        for level in &self.up {
            for (j, block) in level.blocks.iter().enumerate() {
                if let Some(skip) = skips.pop() {
                    h = concatenate(tape, &h, &skip)?;
                }
                h = block.forward(tape, &h, &emb, on.dropout)?;
                if let Some(attention) = level.attentions.get(j) {
                    h = attend(tape, attention, &h)?;
                }
            }
            if let Some(change) = &level.change {
                h = change.forward(tape, &h, &emb, on)?;
            }
        }
        let h = self.norm.forward(tape, &h, Act::Silu)?;
        let mut ys = self.output.forward(tape, &h)?;
        if self.patch > 1 {
            ys = tape.unfold(&ys, self.patch)?;
        }
        Ok(tape.channels_first(&ys)?)
    }
}
