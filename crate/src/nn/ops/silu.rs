//! SiLU, x sigmoid(x), with its derivative in one pass.

use super::{PARALLEL, PIECE, Real, values, with_real, with_values, zip3};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use num_traits::Float;
use rayon::prelude::*;

/// x sigmoid(x), elementwise.
pub(crate) fn silu(xs: &Tensor) -> Result<Tensor> {
    xs.contiguous()?.apply_op1(Silu)
}

struct Silu;

impl CustomOp1 for Silu {
    fn name(&self) -> &'static str {
        "silu"
    }

    fn cpu_fwd(&self, xs: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        with_real!(xs, T => {
            let xs = values::<T>(xs, layout)?;
            let ys = if xs.len() < PARALLEL {
                xs.iter().map(|x| *x * sigmoid(*x)).collect()
            } else {
                let mut ys = vec![0.0; xs.len()];
                ys.par_chunks_mut(PIECE).zip(xs.par_chunks(PIECE)).for_each(|(ys, xs)| {
                    ys.iter_mut().zip(xs).for_each(|(y, x)| *y = *x * sigmoid(*x));
                });
                ys
            };
            Ok((T::wrap(ys), layout.shape().clone()))
        })
    }

    fn bwd(&self, xs: &Tensor, _ys: &Tensor, dys: &Tensor) -> Result<Option<Tensor>> {
        let (xs, dys) = (xs.detach(), dys.contiguous()?);
        with_real!(xs, T => gradient::<T>(&xs, &dys)).map(Some)
    }
}

// dx = dy s (1 + x (1 - s))
fn gradient<T: Real>(xs: &Tensor, dys: &Tensor) -> Result<Tensor> {
    let dxs = with_values([xs, dys], |[xs, dys]: [&[T]; 2]| {
        let mut dxs = vec![T::zero(); xs.len()];
        zip3(&mut dxs, xs, dys, |dxs, xs, dys| {
            for ((dx, x), dy) in dxs.iter_mut().zip(xs).zip(dys) {
                let s = sigmoid(*x);
                *dx = *dy * s * (T::one() + *x * (T::one() - s));
            }
        });
        Ok(dxs)
    })?;
    Tensor::from_vec(dxs, xs.shape(), xs.device())
}

fn sigmoid<T: Float>(x: T) -> T {
    T::one() / (T::one() + (-x).exp())
}
