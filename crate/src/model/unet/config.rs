//! A U-Net's configuration under diffusers' keys.

use crate::bounds::{LARGEST, within};
use crate::model::json::short;
use crate::model::limits::{BLOCKS, CHANNELS, CLASSES, EMBEDDING, LEVELS, SIDE, within_if_given};
use crate::{Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// The largest side of a patch.
const PATCH: usize = 16;

/// A level on the way down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DownBlock {
    /// Residual blocks.
    DownBlock2D,
    /// Residual blocks with an attention after each.
    AttnDownBlock2D,
    /// Residual blocks; the size is halved by one more.
    ResnetDownsampleBlock2D,
}

/// A level on the way up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpBlock {
    /// Residual blocks.
    UpBlock2D,
    /// Residual blocks with an attention after each.
    AttnUpBlock2D,
    /// Residual blocks; the size is doubled by one more.
    ResnetUpsampleBlock2D,
}

/// What changes the size after a level with attention.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SizeChange {
    /// A convolution.
    #[default]
    Conv,
    /// A residual block.
    Resnet,
}

/// How a residual block takes the noise level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeScaleShift {
    /// Its projection is added before the second norm.
    #[default]
    Default,
    /// Its projection scales and shifts the second norm.
    ScaleShift,
}

/// Height and width of images; one number for both where they are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a number of pixels, or [height, width]")]
pub enum SampleSize {
    /// As high as wide.
    Square(usize),
    /// Height and width.
    Pair([usize; 2]),
}

impl SampleSize {
    /// Height and width.
    pub fn sides(self) -> [usize; 2] {
        match self {
            Self::Square(side) => [side, side],
            Self::Pair(sides) => sides,
        }
    }
}

/// A U-Net's configuration, under diffusers' keys. What is left out of an experiment has the value
/// that is stated here: diffusers' default, except for the channels, the kinds of levels and the
/// heads. (In diffusers' own files it has diffusers' default everywhere:
/// [`UNetConfig::from_json`].)
///
/// Up to 16 levels of up to 64 blocks, 65536 channels and a million classes.
///
/// ```
/// use consistency::prelude::*;
/// let plain = UNetConfig::small(&[32, 64], 2);
/// let classes = UNetConfig { num_class_embeds: Some(10), ..plain.clone() };
/// let count = |config| NetworkConfig::Unet(config).parameters(&[1, 8, 8]);
/// // An embedding of 4 x 32 numbers for each class.
/// assert_eq!(count(classes)? - count(plain)?, 10 * 128);
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UNetConfig {
    /// Height and width of the images it was made for. It runs at any size that its levels
    /// can halve.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample_size: Option<SampleSize>,
    /// Channels of the input; those of the data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_channels: Option<usize>,
    /// Channels of the output; those of the data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub out_channels: Option<usize>,
    /// Map the input from \[0, 1\] to \[-1, 1\] first.
    pub center_input_sample: bool,
    /// `positional`.
    pub time_embedding_type: String,
    /// Features of the embedding; 4 times the first channels where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_embedding_dim: Option<usize>,
    /// Subtracted from half the features in the frequencies' exponent.
    pub freq_shift: f64,
    /// Whether the cosines come before the sines.
    pub flip_sin_to_cos: bool,
    /// The levels on the way down; with attention only at the lowest where they are left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub down_block_types: Option<Vec<DownBlock>>,
    /// `UNetMidBlock2D`.
    pub mid_block_type: String,
    /// The levels on the way up; the mirror image of those down where they are left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub up_block_types: Option<Vec<UpBlock>>,
    /// The side p of the square patches of pixels that become one pixel, with p^2 times the channels,
    /// before the first level. 1 is as diffusers has it; with 2 the levels see a quarter of the pixels.
    #[serde(skip_serializing_if = "is_one")]
    pub patch: usize,
    /// Channels of each level.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks per level on the way down; one more per level on the way up.
    pub layers_per_block: usize,
    /// The middle's sums are divided by it.
    pub mid_block_scale_factor: f64,
    /// Zeros around an image before a halving convolution; 0 puts one row below and one
    /// column right of it.
    pub downsample_padding: usize,
    /// What halves the size after a level with attention.
    pub downsample_type: SizeChange,
    /// What doubles it.
    pub upsample_type: SizeChange,
    /// The rate of the dropout in each residual block.
    pub dropout: f64,
    /// `silu`.
    pub act_fn: String,
    /// Channels of an attention head; one head where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attention_head_dim: Option<usize>,
    /// Groups of the norms.
    pub norm_num_groups: usize,
    /// Groups of the norm in the middle's attention.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attn_norm_num_groups: Option<usize>,
    /// Added to the variance.
    pub norm_eps: f64,
    /// How a residual block takes the noise level.
    pub resnet_time_scale_shift: TimeScaleShift,
    /// Attention in the middle.
    pub add_attention: bool,
    /// Left out: classes are embedded by a table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_embed_type: Option<String>,
    /// How many classes there are, for a network that is conditioned on them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_class_embeds: Option<usize>,
    /// Read and not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_train_timesteps: Option<usize>,
}

fn is_one(patch: &usize) -> bool {
    *patch == 1
}

impl Default for UNetConfig {
    fn default() -> Self {
        Self {
            sample_size: None,
            in_channels: None,
            out_channels: None,
            center_input_sample: false,
            time_embedding_type: "positional".to_string(),
            time_embedding_dim: None,
            freq_shift: 0.0,
            flip_sin_to_cos: true,
            down_block_types: None,
            mid_block_type: "UNetMidBlock2D".to_string(),
            up_block_types: None,
            patch: 1,
            block_out_channels: vec![32, 64],
            layers_per_block: 2,
            mid_block_scale_factor: 1.0,
            downsample_padding: 1,
            downsample_type: SizeChange::Conv,
            upsample_type: SizeChange::Conv,
            dropout: 0.0,
            act_fn: "silu".to_string(),
            attention_head_dim: None,
            norm_num_groups: 32,
            attn_norm_num_groups: None,
            norm_eps: 1e-5,
            resnet_time_scale_shift: TimeScaleShift::Default,
            add_attention: true,
            class_embed_type: None,
            num_class_embeds: None,
            num_train_timesteps: None,
        }
    }
}

impl UNetConfig {
    /// A small U-Net: these channels, this many blocks per level, norms in groups of four
    /// channels or more, residual blocks that change the size (cheaper than convolutions at
    /// the full one) and attention in 16-channel heads at the lowest level.
    pub fn small(channels: &[usize], blocks: usize) -> Self {
        let levels = channels.len();
        let groups = channels.iter().map(|c| (c / 4).max(1)).min().unwrap_or(1).min(32);
        Self {
            block_out_channels: channels.to_vec(),
            layers_per_block: blocks,
            norm_num_groups: groups,
            attention_head_dim: channels.last().map(|c| (*c).min(16)),
            down_block_types: Some(
                (1..=levels)
                    .map(|i| match i == levels {
                        true => DownBlock::AttnDownBlock2D,
                        false => DownBlock::ResnetDownsampleBlock2D,
                    })
                    .collect(),
            ),
            up_block_types: Some(
                (0..levels)
                    .map(|i| match i {
                        0 => UpBlock::AttnUpBlock2D,
                        _ => UpBlock::ResnetUpsampleBlock2D,
                    })
                    .collect(),
            ),
            downsample_type: SizeChange::Resnet,
            upsample_type: SizeChange::Resnet,
            ..Self::default()
        }
    }

    /// The same with the sizes of the data in place of what is left out.
    ///
    /// # Errors
    /// Sizes that contradict the data's.
    pub fn for_images(&self, shape: &[usize]) -> Result<Self> {
        let &[channels, height, width] = shape else {
            bail!("a U-Net takes images (C, H, W), got the shape {shape:?}");
        };
        self.check()?;
        let given = |what: &str, given: Option<usize>, own: usize| -> Result<Option<usize>> {
            ensure!(
                given.is_none_or(|given| given == own),
                "the network's {what} is {}, the data's {own}",
                given.unwrap_or_default()
            );
            Ok(Some(own))
        };
        let halvings = self.block_out_channels.len() - 1;
        let (factor, patch) = ((1 << halvings) * self.patch, self.patch);
        ensure!(
            height % factor == 0 && width % factor == 0,
            "images of {height}x{width}: the sides must be multiples of {factor} ({halvings} halvings of \
             patches of {patch}); take fewer block_out_channels or a smaller patch"
        );
        Ok(Self {
            in_channels: given("in_channels", self.in_channels, channels)?,
            out_channels: given("out_channels", self.out_channels, channels)?,
            ..self.clone()
        })
    }

    pub(super) fn levels(&self) -> Result<(Vec<DownBlock>, Vec<UpBlock>)> {
        let count = self.block_out_channels.len();
        let attends = |i: usize| i + 1 == count;
        let down = self.down_block_types.clone().unwrap_or_else(|| {
            let of = |i| match attends(i) {
                true => DownBlock::AttnDownBlock2D,
                false => DownBlock::DownBlock2D,
            };
            (0..count).map(of).collect()
        });
        let up = self.up_block_types.clone().unwrap_or_else(|| {
            let mirror = |block: &DownBlock| match block {
                DownBlock::DownBlock2D => UpBlock::UpBlock2D,
                DownBlock::AttnDownBlock2D => UpBlock::AttnUpBlock2D,
                DownBlock::ResnetDownsampleBlock2D => UpBlock::ResnetUpsampleBlock2D,
            };
            down.iter().rev().map(mirror).collect()
        });
        ensure!(
            down.len() == count && up.len() == count,
            "a U-Net with {count} block_out_channels, {} down_block_types and {} up_block_types: \
             it needs as many of each",
            down.len(),
            up.len()
        );
        Ok((down, up))
    }

    /// Whether every value is one that this U-Net may have, on its own; nothing is built.
    ///
    /// # Errors
    /// The key with its value.
    pub(crate) fn check(&self) -> Result<()> {
        for (key, value, known) in [
            ("time_embedding_type", &self.time_embedding_type, "positional"),
            ("mid_block_type", &self.mid_block_type, "UNetMidBlock2D"),
            ("act_fn", &self.act_fn, "silu"),
        ] {
            let value = short(value);
            ensure!(value == known, "{key} = '{value}': this U-Net has '{known}' alone");
        }
        if let Some(kind) = &self.class_embed_type {
            let kind = short(kind);
            bail!("class_embed_type = '{kind}': this U-Net has a table of classes alone");
        }
        self.check_sizes()?;
        let scale = self.mid_block_scale_factor;
        ensure!(scale != 0.0, "mid_block_scale_factor = 0: the middle's sums are divided by it");
        within("mid_block_scale_factor", scale, -LARGEST..=LARGEST)?;
        within("norm_eps", self.norm_eps, 1e-12..=1.0)?;
        // The frequencies of the noise level's features; there are as many features as first
        // channels.
        let half = (self.block_out_channels[0] / 2) as f64;
        within("freq_shift", self.freq_shift, 0.0..half)?;
        within("dropout", self.dropout, 0.0..1.0)
    }

    fn check_sizes(&self) -> Result<()> {
        let levels = &self.block_out_channels;
        within("number of block_out_channels", levels.len(), 1..=LEVELS)?;
        levels
            .iter()
            .try_for_each(|channels| within("block_out_channels", *channels, 1..=CHANNELS))?;
        within("first of block_out_channels", levels[0], 2..=CHANNELS)?;
        within("layers_per_block", self.layers_per_block, 1..=BLOCKS)?;
        within("patch", self.patch, 1..=PATCH)?;
        within("norm_num_groups", self.norm_num_groups, 1..=CHANNELS)?;
        if let Some(odd) = levels.iter().find(|c| !c.is_multiple_of(self.norm_num_groups)) {
            bail!(
                "norm_num_groups = {}: {odd} channels do not divide into them",
                self.norm_num_groups
            );
        }
        within_if_given("in_channels", self.in_channels, 1..=CHANNELS)?;
        within_if_given("out_channels", self.out_channels, 1..=CHANNELS)?;
        within_if_given("time_embedding_dim", self.time_embedding_dim, 1..=EMBEDDING)?;
        within_if_given("attention_head_dim", self.attention_head_dim, 1..=CHANNELS)?;
        within_if_given("attn_norm_num_groups", self.attn_norm_num_groups, 0..=CHANNELS)?;
        within_if_given("num_class_embeds", self.num_class_embeds, 1..=CLASSES)?;
        for side in self.sample_size.map(SampleSize::sides).into_iter().flatten() {
            within("sample_size", side, 1..=SIDE)?;
        }
        // With more than one zero on a side, the sizes on the way up do not match those on the way
        // down.
        within("downsample_padding", self.downsample_padding, 0..=1)
    }

    /// Heads of an attention over `channels`.
    pub(super) fn heads(&self, channels: usize) -> Result<usize> {
        let width = self.attention_head_dim.unwrap_or(channels).min(channels);
        ensure!(
            channels.is_multiple_of(width),
            "{channels} channels do not divide into heads of {width}"
        );
        Ok(channels / width)
    }
}
