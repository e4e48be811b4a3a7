//! The steps of a tape: each runs forward on tensors and says how its gradient flows back.
//!
//! On the CPU the work is that of [`kernels`](super::kernels). On any other device, and where
//! [`Settings::tensors`](super::Settings) asks for it, the same step is made of candle's tensor
//! operations (`tensors`), which run there; tests check that the two agree.

mod attention;
mod convolution;
mod group_norm;
mod linear;
mod patch;
mod pointwise;
mod pool;
mod resample;
mod tensors;
mod update;

pub use convolution::ConvEpilogue;
pub(crate) use convolution::Shape2d;
pub(crate) use group_norm::Norm;
pub(crate) use resample::Resampling;
pub(crate) use update::{Step, add_in_place, lerp, scale_in_place, step, sum_of_squares};

use super::kernels::Real;
use candle_core::{CpuStorage, Layout, Result, Shape, Storage, Tensor, bail};

/// Run `$body` with `$t` the element type of `$of`.
macro_rules! with_real {
    ($of:expr, $t:ident => $body:expr) => {
        match $of.dtype() {
            candle_core::DType::F32 => {
                type $t = f32;
                $body
            }
            candle_core::DType::F64 => {
                type $t = f64;
                $body
            }
            other => candle_core::bail!("a layer on the CPU takes f32 or f64, not {other:?}"),
        }
    };
}
pub(crate) use with_real;

/// The values of a contiguous operand.
pub(crate) fn values<'a, T: Real>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("an operand of shape {:?} is not contiguous", layout.shape());
    };
    Ok(&storage.as_slice::<T>()?[start..end])
}

/// Call `f` with the values of contiguous CPU tensors of one dtype.
pub(crate) fn with_values<T: Real, R, const N: usize>(
    tensors: [&Tensor; N],
    f: impl FnOnce([&[T]; N]) -> Result<R>,
) -> Result<R> {
    let guards: Vec<_> = tensors.iter().map(|t| t.storage_and_layout()).collect();
    let mut slices: [&[T]; N] = [&[]; N];
    for (slice, (storage, layout)) in slices.iter_mut().zip(&guards) {
        match &**storage {
            Storage::Cpu(storage) => *slice = values(storage, layout)?,
            _ => bail!("this operation runs on the CPU"),
        }
    }
    f(slices)
}

/// The tensor that `f` makes from the values of `tensors`, on the CPU.
macro_rules! computed {
    ($shape:expr, $tensors:expr, |$values:pat_param| $body:expr) => {{
        let tensors = $tensors;
        $crate::nn::ops::with_real!(tensors[0], T => {
            let values = $crate::nn::ops::with_values::<T, _, _>(tensors, |$values| Ok($body))?;
            candle_core::Tensor::from_vec(values, $shape, &candle_core::Device::Cpu)
        })
    }};
}
pub(crate) use computed;

/// A tensor of these values, shaped as asked.
pub(crate) fn tensor<T: Real>(values: Vec<T>, shape: impl Into<Shape>) -> Result<Tensor> {
    Tensor::from_vec(values, shape.into(), &candle_core::Device::Cpu)
}
