//! Linear, group norm, resampling.

use super::ops;
use super::params::{Init, Scope};
use crate::{Result, ensure};
use candle_core::Tensor;

/// y = x W^T + b over the last dimension.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Tensor, // (out, in)
    bias: Tensor,   // (out)
}

impl Linear {
    /// A layer from `inputs` to `outputs` features; weights start normal with standard
    /// deviation `gain / sqrt(inputs)`, the bias at 0.
    pub fn new(scope: &mut Scope, inputs: usize, outputs: usize, gain: f64) -> Result<Self> {
        let std = gain / (inputs as f64).sqrt();
        Ok(Self {
            weight: scope.tensor("weight", &[outputs, inputs], Init::Normal(std))?,
            bias: scope.tensor("bias", &[outputs], Init::Constant(0.0))?,
        })
    }

    /// `xs`: (.., in) to (.., out).
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let (outputs, inputs) = self.weight.dims2()?;
        let mut dims = xs.dims().to_vec();
        // One product over all leading dimensions: a batched one would copy the weight.
        let flat = xs.reshape(((), inputs))?; // (B*, in)
        let ys = ops::linear(&flat, &self.weight, &self.bias)?; // (B*, out)
        if let Some(last) = dims.last_mut() {
            *last = outputs;
        }
        Ok(ys.reshape(dims)?)
    }
}

/// Group normalisation over channels and space, with a scale and a shift a channel.
#[derive(Clone, Debug)]
pub struct GroupNorm {
    weight: Tensor, // (C)
    bias: Tensor,   // (C)
    groups: usize,
    eps: f64,
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
            weight: scope.tensor("weight", &[channels], Init::Constant(1.0))?,
            bias: scope.tensor("bias", &[channels], Init::Constant(0.0))?,
            groups,
            eps,
        })
    }

    /// `xs`: (B, C, ..), any number of trailing dimensions.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        ensure!(
            xs.rank() >= 2 && xs.dims()[1] == self.weight.elem_count(),
            "a group norm over {} channels was given the shape {:?}",
            self.weight.elem_count(),
            xs.dims()
        );
        Ok(ops::group_norm(xs, &self.weight, &self.bias, self.groups, self.eps)?)
    }
}

/// SiLU, x sigmoid(x).
pub fn silu(xs: &Tensor) -> Result<Tensor> {
    Ok(ops::silu(xs)?)
}

/// Nearest-neighbour upsampling by 2: (B, C, H, W) to (B, C, 2H, 2W).
///
/// By broadcast, whose backward adds up; candle's own op overwrites the gradient of an
/// input that is used twice.
pub fn upsample_nearest2(xs: &Tensor) -> Result<Tensor> {
    let (b, c, h, w) = xs.dims4()?;
    let wide = xs.reshape((b, c, h, 1, w, 1))?.broadcast_as((b, c, h, 2, w, 2))?;
    Ok(wide.reshape((b, c, 2 * h, 2 * w))?)
}

/// Average pooling by 2: (B, C, H, W) to (B, C, H/2, W/2).
///
/// # Errors
/// An odd height or width.
pub fn average_pool2(xs: &Tensor) -> Result<Tensor> {
    let (b, c, h, w) = xs.dims4()?;
    ensure!(
        h.is_multiple_of(2) && w.is_multiple_of(2),
        "average pooling by 2 needs an even size, got {h}x{w}"
    );
    let cells = xs.reshape((b, c, h / 2, 2, w / 2, 2))?;
    Ok((cells.sum(5)?.sum(3)? * 0.25)?)
}
