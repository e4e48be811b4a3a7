//! NCSN++ (Song et al. 2021), the paper's CIFAR-10 network: BigGAN residual blocks that
//! resample with the filter \[1, 3, 3, 1\], Fourier features of the noise level, sums divided by
//! sqrt(2), and the input, resampled, added on the way down. Under score_sde_pytorch's
//! parameter names.

use super::blocks::{Common, Names, ResBlock, Size};
use super::json;
use super::limits::{BLOCKS, CHANNELS, LEVELS, SIDE, within_if_given};
use super::network::{Condition, OnTape};
use super::time::{Features, TimeEmbedding, Times};
use super::unet::attend;
use crate::bounds::{LARGEST, positive, within};
use crate::nn::{
    Act, Attention, Conv2d, ConvEpilogue, FourierEmbedding, GroupNorm, Linear, Padding, Scope,
    Tape, Value, concatenate, fir_blur, silu,
};
use crate::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::f64::consts::FRAC_1_SQRT_2;

const EPS: f64 = 1e-6;

/// The sizes of a network of this kind under score_sde's keys; the defaults are the paper's. Up
/// to 16 levels of up to 64 blocks and 65536 channels.
///
/// ```
/// use consistency::prelude::*;
/// let paper = NetworkConfig::Ncsnpp(NcsnppConfig::default());
/// let parameters = paper.parameters(&[3, 32, 32])?; // for CIFAR-10
/// assert_eq!((parameters as f64 / 1e5).round(), 564.0); // 56.4 million
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NcsnppConfig {
    /// Height and width of the images; those of the data where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_size: Option<usize>,
    /// Channels of the images; those of the data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<usize>,
    /// Channels of the first level, of which the others are multiples.
    pub nf: usize,
    /// Channels of each level, as a multiple of `nf`.
    pub ch_mult: Vec<usize>,
    /// Residual blocks per level on the way down; one more per level on the way up.
    pub num_res_blocks: usize,
    /// The sizes at which every block has attention.
    pub attn_resolutions: Vec<usize>,
    /// The rate of the dropout in each residual block.
    pub dropout: f64,
    /// The standard deviation of the Fourier frequencies.
    pub fourier_scale: f64,
}

impl Default for NcsnppConfig {
    fn default() -> Self {
        Self {
            image_size: None,
            channels: None,
            nf: 128,
            ch_mult: vec![2, 2, 2],
            num_res_blocks: 4,
            attn_resolutions: vec![16],
            dropout: 0.0,
            fourier_scale: 16.0,
        }
    }
}

impl NcsnppConfig {
    /// Read score_sde's `config.model` as JSON.
    ///
    /// # Errors
    /// A key or value that this network does not have, by name.
    pub fn from_json(text: &str) -> Result<Self> {
        let mut keys = json::object(text)?;
        // What all of the paper's networks have, and this one too.
        for (key, known) in [
            ("_class_name", serde_json::json!("NCSNpp")),
            ("normalization", serde_json::json!("GroupNorm")),
            ("nonlinearity", serde_json::json!("swish")),
            ("resamp_with_conv", serde_json::json!(true)),
            ("conditional", serde_json::json!(true)),
            ("fir", serde_json::json!(true)),
            ("fir_kernel", serde_json::json!([1, 3, 3, 1])),
            ("skip_rescale", serde_json::json!(true)),
            ("resblock_type", serde_json::json!("biggan")),
            ("progressive", serde_json::json!("none")),
            ("progressive_input", serde_json::json!("residual")),
            ("progressive_combine", serde_json::json!("sum")),
            ("attention_type", serde_json::json!("ddpm")),
            ("embedding_type", serde_json::json!("fourier")),
            ("conv_size", serde_json::json!(3)),
        ] {
            if let Some(value) = keys.remove(key) {
                let got = json::shown(&value);
                ensure!(value == known, "{key} = {got}: this NCSN++ has {known} alone");
            }
        }
        // How the last convolutions start does not matter for weights that are given.
        keys.remove("init_scale");
        let read = || -> Result<Self> {
            let config: Self = json::typed(keys)?;
            config.check()?;
            Ok(config)
        };
        read().context("NCSN++'s configuration")
    }

    /// Whether every value is one that a network may have; nothing is built.
    ///
    /// # Errors
    /// The key with its value.
    pub(super) fn check(&self) -> Result<()> {
        within_if_given("image_size", self.image_size, 1..=SIDE)?;
        within_if_given("channels", self.channels, 1..=CHANNELS)?;
        within("nf", self.nf, 4..=CHANNELS)?;
        within("number of ch_mult", self.ch_mult.len(), 1..=LEVELS)?;
        // Their products with nf are the channels.
        let most = CHANNELS / self.nf;
        self.ch_mult.iter().try_for_each(|times| within("ch_mult", *times, 1..=most))?;
        within("num_res_blocks", self.num_res_blocks, 1..=BLOCKS)?;
        within("dropout", self.dropout, 0.0..1.0)?;
        within("fourier_scale", self.fourier_scale, positive(LARGEST))
    }

    /// The same with the sizes of the data in place of what is left out.
    ///
    /// # Errors
    /// Sizes that contradict the data's, or that cannot be halved.
    pub fn for_images(&self, shape: &[usize]) -> Result<Self> {
        let &[channels, height, width] = shape else {
            crate::bail!("NCSN++ takes images (C, H, W), got the shape {shape:?}");
        };
        ensure!(height == width, "NCSN++ takes square images, got {height}x{width}");
        ensure!(
            self.image_size.is_none_or(|s| s == height)
                && self.channels.is_none_or(|c| c == channels),
            "a network for {:?} channels and images of {:?}, data of {shape:?}",
            self.channels,
            self.image_size
        );
        self.check()?;
        let halvings = self.ch_mult.len() - 1;
        ensure!(
            height.is_multiple_of(1 << halvings),
            "images of {height}x{height} cannot be halved {halvings} times"
        );
        Ok(Self { image_size: Some(height), channels: Some(channels), ..self.clone() })
    }
}

const NAMES: Names = Names {
    norms: ["GroupNorm_0", "GroupNorm_1"],
    convs: ["Conv_0", "Conv_1"],
    time: "Dense_0",
    shortcut: "Conv_2",
};

fn groups(channels: usize) -> usize {
    (channels / 4).min(32)
}

/// The steps of a network, in the order in which score_sde counts its modules.
#[derive(Clone, Debug)]
enum Module {
    /// A residual block whose output is kept for the way up, and its attention.
    Keep(ResBlock, Option<Attention>),
    /// Halve the size and add the input, filtered, halved and mapped to as many channels.
    Halve(ResBlock, Conv2d),
    /// A residual block.
    Block(ResBlock),
    Attend(Attention),
    /// A residual block over the current value and the last one that was kept, and its attention.
    Take(ResBlock, Option<Attention>),
}

/// NCSN++.
#[derive(Clone, Debug)]
pub(super) struct Ncsnpp {
    time: TimeEmbedding,
    input: Conv2d,
    modules: Vec<Module>,
    norm: GroupNorm,
    output: Conv2d,
}

impl Ncsnpp {
    /// The network of `config`, in which the sizes of the images must be given.
    ///
    /// # Errors
    /// A configuration that no network has.
    pub(super) fn new(scope: &mut Scope, config: &NcsnppConfig, times: Times) -> Result<Self> {
        let (Some(size), Some(channels)) = (config.image_size, config.channels) else {
            crate::bail!("NCSN++'s configuration without image_size and channels");
        };
        let nf = config.nf;
        // score_sde numbers its modules as it makes them.
        let mut count = 0;
        let mut next = || {
            count += 1;
            format!("all_modules.{}", count - 1)
        };
        let common = Common {
            time: 4 * nf,
            eps: EPS,
            modulated: false,
            dropout: config.dropout,
            factor: FRAC_1_SQRT_2,
            last: 0.0,
        };
        let block = |scope: &mut Scope, name: String, from: usize, to: usize, size: Size| {
            let both = [groups(from), groups(to)];
            let how = (size, size != Size::Same);
            ResBlock::new(&mut scope.at(name), &NAMES, (from, to), both, how, common)
        };
        let attention = |scope: &mut Scope, name: String, of: usize| {
            Attention::nin(&mut scope.at(name), of, (groups(of), EPS), FRAC_1_SQRT_2)
        };
        let embedding = FourierEmbedding::new(&mut scope.at(next()), nf, config.fourier_scale)?;
        let embedding = (Features::Fourier(embedding), 1.0);
        let layers = (
            Linear::new(&mut scope.at(next()), 2 * nf, 4 * nf, 1.0)?,
            Linear::new(&mut scope.at(next()), 4 * nf, 4 * nf, 1.0)?,
        );
        let time = TimeEmbedding::new(scope, embedding, layers, (2 * nf, 4 * nf), times)?;
        let input = Conv2d::new(&mut scope.at(next()), channels, nf, 3, 1.0)?;

        let mut modules = Vec::new();
        let (mut now, mut kept, mut pyramid) = (nf, vec![nf], channels);
        let attends = |level: usize| config.attn_resolutions.contains(&(size >> level));
        for (level, times) in config.ch_mult.iter().enumerate() {
            let to = nf * times;
            for _ in 0..config.num_res_blocks {
                let res = block(scope, next(), now, to, Size::Same)?;
                let attend =
                    if attends(level) { Some(attention(scope, next(), to)?) } else { None };
                modules.push(Module::Keep(res, attend));
                now = to;
                kept.push(to);
            }
            if level + 1 < config.ch_mult.len() {
                let res = block(scope, next(), now, now, Size::Down { fir: true })?;
                let mut scope = scope.at(next());
                let mut scope = scope.at("Conv2d_0");
                let sizes = (pyramid, now);
                let conv = Conv2d::strided(&mut scope, sizes, 3, 1.0, 2, Padding::Each(0))?;
                modules.push(Module::Halve(res, conv));
                pyramid = now;
                kept.push(now);
            }
        }
        modules.push(Module::Block(block(scope, next(), now, now, Size::Same)?));
        modules.push(Module::Attend(attention(scope, next(), now)?));
        modules.push(Module::Block(block(scope, next(), now, now, Size::Same)?));
        for (level, times) in config.ch_mult.iter().enumerate().rev() {
            let to = nf * times;
            for i in 0..=config.num_res_blocks {
                let from = now + kept.pop().unwrap_or_default();
                let res = block(scope, next(), from, to, Size::Same)?;
                // One attention per level here, after its last block.
                let last = i == config.num_res_blocks;
                let attend =
                    if attends(level) && last { Some(attention(scope, next(), to)?) } else { None };
                modules.push(Module::Take(res, attend));
                now = to;
            }
            if level > 0 {
                modules.push(Module::Block(block(
                    scope,
                    next(),
                    now,
                    now,
                    Size::Up { fir: true },
                )?));
            }
        }
        let norm = GroupNorm::new(&mut scope.at(next()), groups(now), now, EPS)?;
        let output = Conv2d::new(&mut scope.at(next()), now, channels, 3, 0.0)?;
        Ok(Self { time, input, modules, norm, output })
    }
}

impl OnTape for Ncsnpp {
    fn run(&self, tape: &mut Tape, xs: &Value, condition: Condition) -> Result<Value> {
        ensure!(condition.labels.is_none(), "this network knows no classes");
        let emb = self.time.forward(tape, xs, condition)?;
        let emb = silu(tape, &emb)?;

        let mut pyramid = tape.channels_last(xs)?;
        let mut h = self.input.forward(tape, &pyramid)?;
        let mut kept = vec![h.clone()];
        for module in &self.modules {
            match module {
                Module::Keep(block, attention) => {
                    h = block.forward(tape, &h, &emb, condition.dropout)?;
                    if let Some(attention) = attention {
                        h = attend(tape, attention, &h)?;
                    }
                    kept.push(h.clone());
                }
                Module::Halve(block, conv) => {
                    h = block.forward(tape, &h, &emb, condition.dropout)?;
                    let filtered = fir_blur(tape, &pyramid)?;
                    let epilogue = ConvEpilogue {
                        residual: Some(&h),
                        factor: FRAC_1_SQRT_2,
                        ..ConvEpilogue::default()
                    };
                    pyramid = conv.forward_with(tape, &filtered, epilogue)?;
                    h = pyramid.clone();
                    kept.push(h.clone());
                }
                Module::Block(block) => h = block.forward(tape, &h, &emb, condition.dropout)?,
                Module::Attend(attention) => h = attend(tape, attention, &h)?,
                Module::Take(block, attention) => {
                    if let Some(skip) = kept.pop() {
                        h = concatenate(tape, &h, &skip)?;
                    }
                    h = block.forward(tape, &h, &emb, condition.dropout)?;
                    if let Some(attention) = attention {
                        h = attend(tape, attention, &h)?;
                    }
                }
            }
        }
        let h = self.norm.forward(tape, &h, Act::Silu)?;
        let ys = self.output.forward(tape, &h)?;
        Ok(tape.channels_first(&ys)?)
    }
}
