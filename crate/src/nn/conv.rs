//! Two-dimensional convolution at stride 1 with its own backward.
//!
//! candle's backward takes the input's gradient by scalar loops and the weight's as a
//! convolution with an image-sized kernel. Here both are matrix products: the input's
//! gradient is a forward convolution with the turned kernel, the weight's one product a
//! kernel position.

use super::params::{Init, Scope};
use crate::{Result, ensure};
use candle_core::{CpuStorage, CustomOp2, Layout, Shape, Storage, Tensor};

/// A convolution with an odd square kernel, stride 1 and the padding that keeps the size.
#[derive(Clone, Debug)]
pub struct Conv2d {
    weight: Tensor, // (C_out, C_in, k, k)
    bias: Tensor,   // (C_out)
}

impl Conv2d {
    /// From `inputs` to `outputs` channels with a `kernel` x `kernel` window; weights
    /// start normal with standard deviation `gain / sqrt(inputs kernel^2)`.
    ///
    /// # Errors
    /// An even kernel.
    pub fn new(
        scope: &mut Scope,
        inputs: usize,
        outputs: usize,
        kernel: usize,
        gain: f64,
    ) -> Result<Self> {
        ensure!(kernel % 2 == 1, "a convolution's kernel must be odd, got {kernel}");
        let std = gain / ((inputs * kernel * kernel) as f64).sqrt();
        let shape = [outputs, inputs, kernel, kernel];
        Ok(Self {
            weight: scope.tensor("weight", &shape, Init::Normal(std))?,
            bias: scope.tensor("bias", &[outputs], Init::Constant(0.0))?,
        })
    }

    /// `xs`: (B, C_in, H, W) to (B, C_out, H, W).
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let outputs = self.weight.dims()[0];
        let ys = xs.contiguous()?.apply_op2(&self.weight.contiguous()?, Convolution)?;
        Ok(ys.broadcast_add(&self.bias.reshape((1, outputs, 1, 1))?)?)
    }
}

struct Convolution;

impl CustomOp2 for Convolution {
    fn name(&self) -> &'static str {
        "same-convolution"
    }

    fn cpu_fwd(
        &self,
        xs: &CpuStorage,
        xs_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        // The operands arrive contiguous (see `forward`), so that a copy is a tensor.
        let xs = tensor(xs, xs_layout)?;
        let weight = tensor(weight, weight_layout)?;
        let ys = convolve(&xs, &weight)?;
        let shape = ys.shape().clone();
        let (storage, _) = ys.storage_and_layout();
        match &*storage {
            Storage::Cpu(values) => Ok((values.clone(), shape)),
            _ => candle_core::bail!("a convolution on the CPU gave a tensor elsewhere"),
        }
    }

    fn bwd(
        &self,
        xs: &Tensor,
        weight: &Tensor,
        _ys: &Tensor,
        dys: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let (xs, weight) = (xs.detach(), weight.detach());
        let dys = dys.contiguous()?;
        let turned = weight.flip(&[2, 3])?.transpose(0, 1)?.contiguous()?;
        let dxs = convolve(&dys, &turned)?;
        Ok((Some(dxs), Some(weight_gradient(&xs, &dys, weight.dim(2)?)?)))
    }
}

fn convolve(xs: &Tensor, weight: &Tensor) -> candle_core::Result<Tensor> {
    xs.conv2d(weight, weight.dim(2)? / 2, 1, 1, 1)?.contiguous()
}

// dW[o, i, u, v] = sum over batch and positions of dy[o, p] x[i, p + (u, v) - pad].
fn weight_gradient(xs: &Tensor, dys: &Tensor, kernel: usize) -> candle_core::Result<Tensor> {
    let (b, c_in, h, w) = xs.dims4()?;
    let c_out = dys.dim(1)?;
    let pad = kernel / 2;
    let padded = xs.pad_with_zeros(2, pad, pad)?.pad_with_zeros(3, pad, pad)?;
    let padded = padded.transpose(0, 1)?.contiguous()?; // (C_in, B, H', W')
    let dys = dys.transpose(0, 1)?.reshape((c_out, b * h * w))?; // (C_out, B H W)
    let mut positions = Vec::with_capacity(kernel * kernel);
    for u in 0..kernel {
        for v in 0..kernel {
            let shifted = padded.narrow(2, u, h)?.narrow(3, v, w)?;
            let shifted = shifted.contiguous()?.reshape((c_in, b * h * w))?;
            positions.push(dys.matmul(&shifted.t()?)?); // (C_out, C_in)
        }
    }
    Tensor::stack(&positions, 2)?.reshape((c_out, c_in, kernel, kernel))
}

fn tensor(storage: &CpuStorage, layout: &Layout) -> candle_core::Result<Tensor> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        candle_core::bail!("a convolution's operand must be contiguous");
    };
    let device = candle_core::Device::Cpu;
    match storage {
        CpuStorage::F32(v) => Tensor::from_slice(&v[start..end], layout.shape(), &device),
        CpuStorage::F64(v) => Tensor::from_slice(&v[start..end], layout.shape(), &device),
        _ => candle_core::bail!("a convolution on the CPU takes f32 or f64"),
    }
}
