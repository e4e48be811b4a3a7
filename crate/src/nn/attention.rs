//! Self-attention over the positions of an image.

use super::layers::{GroupNorm, Linear};
use super::params::Scope;
use crate::{Result, ensure};
use candle_core::{D, Tensor};

/// Multi-head self-attention with a residual: x + proj(attend(norm(x))).
#[derive(Clone, Debug)]
pub struct SelfAttention {
    norm: GroupNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    project: Linear,
    heads: usize,
}

impl SelfAttention {
    /// Attention over `channels` in `heads` heads, normalised in `groups` groups. The
    /// projection starts at zero: the layer starts as the identity.
    ///
    /// # Errors
    /// Heads that do not divide the channels.
    pub fn new(scope: &mut Scope, channels: usize, heads: usize, groups: usize) -> Result<Self> {
        ensure!(
            heads > 0 && channels.is_multiple_of(heads),
            "{channels} channels do not divide into {heads} heads"
        );
        Ok(Self {
            norm: GroupNorm::new(&mut scope.at("group_norm"), groups, channels, 1e-5)?,
            query: Linear::new(&mut scope.at("to_q"), channels, channels, 1.0)?,
            key: Linear::new(&mut scope.at("to_k"), channels, channels, 1.0)?,
            value: Linear::new(&mut scope.at("to_v"), channels, channels, 1.0)?,
            project: Linear::new(&mut scope.at("to_out.0"), channels, channels, 0.0)?,
            heads,
        })
    }

    /// `xs`: (B, C, H, W), the same out.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let (b, c, h, w) = xs.dims4()?;
        let (n, d) = (h * w, c / self.heads);
        let tokens = self.norm.forward(xs)?.reshape((b, c, n))?.transpose(1, 2)?; // (B, N, C)
        let tokens = tokens.contiguous()?;
        let split = |layer: &Linear| -> Result<Tensor> {
            let ys = layer.forward(&tokens)?.reshape((b, n, self.heads, d))?;
            Ok(ys.transpose(1, 2)?.contiguous()?) // (B, heads, N, d)
        };
        let (q, k, v) = (split(&self.query)?, split(&self.key)?, split(&self.value)?);
        let scores = (q.matmul(&k.t()?)? * (d as f64).powf(-0.5))?; // (B, heads, N, N)
        // `softmax` is made of primitives; candle's `softmax_last_dim` has no backward.
        let weights = candle_nn::ops::softmax(&scores, D::Minus1)?;
        let mixed = weights.matmul(&v)?.transpose(1, 2)?.reshape((b, n, c))?;
        let ys = self.project.forward(&mixed)?.transpose(1, 2)?.reshape((b, c, h, w))?;
        Ok((xs + ys)?)
    }
}
