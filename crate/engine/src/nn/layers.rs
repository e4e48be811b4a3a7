//! Layers on a tape: parameters under their names, and what they do.

use super::ops::{ConvEpilogue, Norm, Resampling, Shape2d};
use super::params::{Init, Parameter, Scope};
use super::tape::{Tape, Value};
use crate::rng::Key;
use crate::{Result, ensure};
use candle_core::Tensor;
use std::sync::Arc;

/// y = x W' + b over the last dimension.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Parameter, // (out, in), or (in, out) where it is turned
    bias: Parameter,   // (out)
    turned: bool,
}

impl Linear {
    /// A layer from `inputs` to `outputs` features; weights start normal with standard
    /// deviation `gain / sqrt(inputs)`, the bias at 0.
    pub fn new(scope: &mut Scope, inputs: usize, outputs: usize, gain: f64) -> Result<Self> {
        let std = gain / (inputs as f64).sqrt();
        Ok(Self {
            weight: scope.parameter("weight", &[outputs, inputs], Init::Normal(std))?,
            bias: scope.parameter("bias", &[outputs], Init::Constant(0.0))?,
            turned: false,
        })
    }

    /// The same under score_sde's names, `W` (in, out) and `b`: its "network in network".
    pub fn nin(scope: &mut Scope, inputs: usize, outputs: usize, gain: f64) -> Result<Self> {
        let std = gain / (inputs as f64).sqrt();
        Ok(Self {
            weight: scope.parameter("W", &[inputs, outputs], Init::Normal(std))?,
            bias: scope.parameter("b", &[outputs], Init::Constant(0.0))?,
            turned: true,
        })
    }

    /// `xs`: (.., in) to (.., out).
    pub fn forward(&self, tape: &mut Tape, xs: &Value) -> Result<Value> {
        Ok(tape.linear(xs, &self.weight, &self.bias, self.turned)?)
    }
}

/// Where a convolution puts zeros around its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// As many on each side as it takes to keep the size at stride 1; the kernel must be odd.
    Same,
    /// This many on each side.
    Each(usize),
    /// Above, left of, below and right of the image.
    Sides([usize; 4]),
}

/// A two-dimensional convolution with a square kernel.
#[derive(Clone, Debug)]
pub struct Conv2d {
    weight: Parameter, // (C_out, C_in, k, k)
    bias: Parameter,   // (C_out)
    shape: Shape2d,
}

impl Conv2d {
    /// From `inputs` to `outputs` channels with a `kernel` x `kernel` window, at stride 1 with
    /// the padding that keeps the size; weights start normal with standard deviation
    /// `gain / sqrt(inputs kernel^2)`.
    ///
    /// # Errors
    /// An even kernel: say with [`Conv2d::strided`] where its zeros go.
    pub fn new(
        scope: &mut Scope,
        inputs: usize,
        outputs: usize,
        kernel: usize,
        gain: f64,
    ) -> Result<Self> {
        Self::strided(scope, (inputs, outputs), kernel, gain, 1, Padding::Same)
    }

    /// The same with any stride and padding.
    ///
    /// # Errors
    /// A kernel or stride of zero, or [`Padding::Same`] with an even kernel.
    pub fn strided(
        scope: &mut Scope,
        (inputs, outputs): (usize, usize),
        kernel: usize,
        gain: f64,
        stride: usize,
        padding: Padding,
    ) -> Result<Self> {
        ensure!(kernel > 0 && stride > 0, "a convolution with kernel {kernel} and stride {stride}");
        let padding = match padding {
            Padding::Same => {
                ensure!(kernel % 2 == 1, "no padding keeps the size with a kernel of {kernel}");
                [kernel / 2; 4]
            }
            Padding::Each(count) => [count; 4],
            Padding::Sides(sides) => sides,
        };
        Self::windowed(scope, (inputs, outputs), (kernel, kernel), gain, stride, padding)
    }

    /// The same with a window of any `rows` and `columns` and zeros above, left of, below and
    /// right of the image.
    pub fn windowed(
        scope: &mut Scope,
        (inputs, outputs): (usize, usize),
        (rows, columns): (usize, usize),
        gain: f64,
        stride: usize,
        padding: [usize; 4],
    ) -> Result<Self> {
        let std = gain / ((inputs * rows * columns) as f64).sqrt();
        let weight = [outputs, inputs, rows, columns];
        Ok(Self {
            weight: scope.parameter("weight", &weight, Init::Normal(std))?,
            bias: scope.parameter("bias", &[outputs], Init::Constant(0.0))?,
            shape: Shape2d { stride, padding },
        })
    }

    /// `xs`: (B, H, W, C_in) to (B, H', W', C_out).
    pub fn forward(&self, tape: &mut Tape, xs: &Value) -> Result<Value> {
        self.forward_with(tape, xs, ConvEpilogue::default())
    }

    /// The same with what `epilogue` adds, in the same pass.
    pub fn forward_with(
        &self,
        tape: &mut Tape,
        xs: &Value,
        epilogue: ConvEpilogue,
    ) -> Result<Value> {
        Ok(tape.convolution(xs, &self.weight, &self.bias, self.shape, epilogue)?)
    }
}

/// Group normalisation over channels and space, with a scale and a shift per channel.
#[derive(Clone, Debug)]
pub struct GroupNorm {
    weight: Parameter, // (C)
    bias: Parameter,   // (C)
    groups: usize,
    eps: f64,
}

/// What follows a norm in the same pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Nothing.
    None,
    /// SiLU.
    Silu,
}

impl GroupNorm {
    /// Normalise `channels` in `groups`.
    ///
    /// # Errors
    /// Groups that do not divide the channels.
    pub fn new(scope: &mut Scope, groups: usize, channels: usize, eps: f64) -> Result<Self> {
        ensure!(
            groups > 0 && channels.is_multiple_of(groups),
            "{channels} channels do not divide into {groups} groups"
        );
        Ok(Self {
            weight: scope.parameter("weight", &[channels], Init::Constant(1.0))?,
            bias: scope.parameter("bias", &[channels], Init::Constant(0.0))?,
            groups,
            eps,
        })
    }

    /// `xs`: (B, .., C), normalised, then `act`.
    pub fn forward(&self, tape: &mut Tape, xs: &Value, act: Act) -> Result<Value> {
        Ok(tape.group_norm(xs, &self.weight, &self.bias, self.norm(act), None)?)
    }

    /// `xs`: (B, .., C), normalised, times 1 + scale plus shift, then `act`; `modulation`
    /// (B, 2C) holds the scales of each sample and then its shifts.
    pub fn modulated(
        &self,
        tape: &mut Tape,
        xs: &Value,
        modulation: &Value,
        act: Act,
    ) -> Result<Value> {
        Ok(tape.group_norm(xs, &self.weight, &self.bias, self.norm(act), Some(modulation))?)
    }

    fn norm(&self, act: Act) -> Norm {
        Norm { groups: self.groups, eps: self.eps, silu: act == Act::Silu }
    }
}

/// Multi-head self-attention over the positions of an image, with a residual:
/// (x + project(attend(norm(x)))) factor.
#[derive(Clone, Debug)]
pub struct Attention {
    norm: Option<GroupNorm>,
    query: Linear,
    key: Linear,
    value: Linear,
    project: Linear,
    heads: usize,
    factor: f64,
}

impl Attention {
    /// Attention over `channels` in `heads` heads, normalised in `groups` groups (0: not at
    /// all), under diffusers' names. The projection starts at zero: the layer starts as the
    /// identity times `factor`.
    ///
    /// # Errors
    /// Heads that do not divide the channels.
    pub fn new(
        scope: &mut Scope,
        channels: usize,
        heads: usize,
        (groups, eps): (usize, f64),
        factor: f64,
    ) -> Result<Self> {
        ensure!(
            heads > 0 && channels.is_multiple_of(heads),
            "{channels} channels do not divide into {heads} heads"
        );
        let norm = if groups == 0 {
            None
        } else {
            Some(GroupNorm::new(&mut scope.at("group_norm"), groups, channels, eps)?)
        };
        Ok(Self {
            norm,
            query: Linear::new(&mut scope.at("to_q"), channels, channels, 1.0)?,
            key: Linear::new(&mut scope.at("to_k"), channels, channels, 1.0)?,
            value: Linear::new(&mut scope.at("to_v"), channels, channels, 1.0)?,
            project: Linear::new(&mut scope.at("to_out.0"), channels, channels, 0.0)?,
            heads,
            factor,
        })
    }

    /// One head under score_sde's names.
    pub fn nin(
        scope: &mut Scope,
        channels: usize,
        (groups, eps): (usize, f64),
        factor: f64,
    ) -> Result<Self> {
        let mut nin = |name: &str, gain: f64| -> Result<Linear> {
            Linear::nin(&mut scope.at(name), channels, channels, gain)
        };
        let (query, key) = (nin("NIN_0", 1.0)?, nin("NIN_1", 1.0)?);
        let (value, project) = (nin("NIN_2", 1.0)?, nin("NIN_3", 0.0)?);
        let norm = Some(GroupNorm::new(&mut scope.at("GroupNorm_0"), groups, channels, eps)?);
        Ok(Self { norm, query, key, value, project, heads: 1, factor })
    }

    /// `xs`: (B, H, W, C), the same out.
    pub fn forward(&self, tape: &mut Tape, xs: &Value) -> Result<Value> {
        let tokens = match &self.norm {
            Some(norm) => norm.forward(tape, xs, Act::None)?,
            None => xs.clone(),
        };
        let query = self.query.forward(tape, &tokens)?;
        let key = self.key.forward(tape, &tokens)?;
        let value = self.value.forward(tape, &tokens)?;
        let mixed = tape.attention(&query, &key, &value, self.heads)?;
        let ys = self.project.forward(tape, &mixed)?;
        Ok(tape.add(xs, &ys, self.factor)?)
    }
}

/// The masks of every dropout in one evaluation of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Masks {
    /// What they are a function of.
    pub key: Key,
    /// The index of the batch's first sample, where the batch is part of a larger one.
    pub first: u64,
}

impl From<Key> for Masks {
    fn from(key: Key) -> Self {
        Self { key, first: 0 }
    }
}

/// Dropout whose mask is a function of a key: student and target can be given the same.
#[derive(Clone, Debug)]
pub struct Dropout {
    rate: f64,
    name: Arc<str>,
}

impl Dropout {
    /// Set each number to zero with probability `rate`, and divide the others by 1 - rate.
    ///
    /// # Errors
    /// A rate outside \[0, 1).
    pub fn new(scope: &Scope, rate: f64) -> Result<Self> {
        ensure!((0.0..1.0).contains(&rate), "a dropout of {rate}: needs 0 <= rate < 1");
        Ok(Self { rate, name: Arc::from(scope.name("dropout")) })
    }

    /// `xs`: (B, ..). Without masks nothing is dropped, as in sampling. The mask of sample i
    /// depends on the key, the layer's name and i alone.
    pub fn forward(&self, tape: &mut Tape, xs: &Value, masks: Option<Masks>) -> Result<Value> {
        let Some(Masks { key, first }) = masks.filter(|_| self.rate > 0.0) else {
            return Ok(xs.clone());
        };
        let dims = xs.dims();
        let samples = first..first + dims[0] as u64;
        let kept = key.stream(&self.name).kept(samples, &dims[1..], self.rate);
        let device = xs.tensor().device();
        let mask = Tensor::from_vec(kept, dims, &candle_core::Device::Cpu)?
            .to_dtype(xs.tensor().dtype())?
            .to_device(device)?;
        Ok(tape.masked(xs, mask)?)
    }
}

/// SiLU, x sigmoid(x).
pub fn silu(tape: &mut Tape, xs: &Value) -> Result<Value> {
    Ok(tape.silu(xs)?)
}

/// (.., C) and (.., C') side by side: (.., C + C').
pub fn concatenate(tape: &mut Tape, a: &Value, b: &Value) -> Result<Value> {
    Ok(tape.concatenate(a, b)?)
}

/// Nearest-neighbour upsampling by 2: (B, H, W, C) to (B, 2H, 2W, C).
pub fn upsample_nearest2(tape: &mut Tape, xs: &Value) -> Result<Value> {
    Ok(tape.resample(xs, Resampling::NearestUp)?)
}

/// Average pooling by 2: (B, H, W, C) to (B, H/2, W/2, C).
///
/// # Errors
/// An odd height or width.
pub fn average_pool2(tape: &mut Tape, xs: &Value) -> Result<Value> {
    Ok(tape.resample(xs, Resampling::MeanDown)?)
}

/// Upsampling by 2 with the filter \[1, 3, 3, 1\] (Karras et al. 2019).
pub fn fir_up2(tape: &mut Tape, xs: &Value) -> Result<Value> {
    Ok(tape.resample(xs, Resampling::FirUp)?)
}

/// Downsampling by 2 with the filter \[1, 3, 3, 1\].
///
/// # Errors
/// An odd height or width.
pub fn fir_down2(tape: &mut Tape, xs: &Value) -> Result<Value> {
    Ok(tape.resample(xs, Resampling::FirDown)?)
}

/// The filter \[1, 3, 3, 1\] before a 3x3 convolution at stride 2 without padding: (B, H, W, C)
/// to (B, H + 1, W + 1, C).
pub fn fir_blur(tape: &mut Tape, xs: &Value) -> Result<Value> {
    Ok(tape.resample(xs, Resampling::FirBlur)?)
}
