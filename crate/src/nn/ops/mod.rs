//! Operations with their own backward, on the values themselves: one pass forward, one
//! backward, instead of candle's chains of elementwise operations.
//!
//! CPU, f32 and f64. Work above [`PARALLEL`] elements is split over rayon's threads into
//! pieces that do not depend on their number, so results do not either.

mod convolution;
mod group_norm;
mod layer;
mod linear;
mod product;
mod silu;
mod update;

pub(crate) use convolution::convolution;
pub(crate) use group_norm::group_norm;
pub(crate) use linear::linear;
pub(crate) use silu::silu;
pub(crate) use update::{adam_moments, lerp, subtract_scaled, sum_of_squares};

use candle_core::{CpuStorage, Layout, Result, Storage, Tensor, WithDType, bail};
use num_traits::Float;
use rayon::prelude::*;

/// Below this many elements a split costs more than it gains.
const PARALLEL: usize = 1 << 16;
/// Elements of one piece of split work.
const PIECE: usize = 1 << 14;

/// The element types of training and of its tests.
pub(crate) trait Real: WithDType + Float + std::iter::Sum {
    fn wrap(values: Vec<Self>) -> CpuStorage;
    fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [Self]>;
}

impl Real for f32 {
    fn wrap(values: Vec<Self>) -> CpuStorage {
        CpuStorage::F32(values)
    }

    fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [Self]> {
        match storage {
            CpuStorage::F32(values) => Some(values),
            _ => None,
        }
    }
}

impl Real for f64 {
    fn wrap(values: Vec<Self>) -> CpuStorage {
        CpuStorage::F64(values)
    }

    fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [Self]> {
        match storage {
            CpuStorage::F64(values) => Some(values),
            _ => None,
        }
    }
}

/// Run `$body` with `$t` the element type of the storage `$storage`.
macro_rules! with_real {
    ($storage:expr, $t:ident => $body:expr) => {
        match $storage.dtype() {
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
            _ => bail!("this layer runs on the CPU"),
        }
    }
    f(slices)
}

/// `f(out, a, b)` on corresponding pieces of three slices of one length.
pub(crate) fn zip3<T: Real>(
    out: &mut [T],
    a: &[T],
    b: &[T],
    f: impl Fn(&mut [T], &[T], &[T]) + Sync + Send,
) {
    if out.len() < PARALLEL {
        f(out, a, b);
    } else {
        out.par_chunks_mut(PIECE)
            .zip(a.par_chunks(PIECE))
            .zip(b.par_chunks(PIECE))
            .for_each(|((out, a), b)| f(out, a, b));
    }
}
