//! In-place updates of parameters, moments and averages: one pass each.

use super::{PARALLEL, PIECE, Real, values, with_real, with_values, zip3};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, InplaceOp2, InplaceOp3, Layout, Result, Tensor, bail};
use rayon::prelude::*;

/// target = target + weight (value - target).
pub(crate) fn lerp(target: &Tensor, value: &Tensor, weight: f64) -> Result<()> {
    target.inplace_op2(
        &value.contiguous()?,
        &Moment { keep: 1.0 - weight, add: weight, square: false },
    )
}

/// first = beta1 first + (1 - beta1) grad; second = beta2 second + (1 - beta2) grad^2.
pub(crate) fn adam_moments(
    first: &Tensor,
    second: &Tensor,
    grad: &Tensor,
    (beta1, beta2): (f64, f64),
) -> Result<()> {
    let grad = grad.contiguous()?;
    first.inplace_op2(&grad, &Moment { keep: beta1, add: 1.0 - beta1, square: false })?;
    second.inplace_op2(&grad, &Moment { keep: beta2, add: 1.0 - beta2, square: true })
}

/// target -= scale first / (sqrt(second correction) + eps), or scale first alone.
pub(crate) fn subtract_scaled(
    target: &Tensor,
    first: &Tensor,
    second: &Tensor,
    scale: f64,
    adaptive: Option<(f64, f64)>,
) -> Result<()> {
    target.inplace_op3(first, second, &Subtract { scale, adaptive })
}

/// The sum of the squares of all elements, in f64.
pub(crate) fn sum_of_squares(xs: &Tensor) -> Result<f64> {
    let xs = xs.contiguous()?;
    with_real!(xs, T => with_values([&xs], |[xs]: [&[T]; 1]| {
        // Pieces of a fixed size, so that the order of additions is fixed too.
        let pieces = xs.chunks(256).map(|piece| {
            let sum: T = piece.iter().map(|x| *x * *x).sum();
            candle_core::WithDType::to_f64(sum)
        });
        Ok(pieces.sum())
    }))
}

struct Moment {
    keep: f64,
    add: f64,
    square: bool,
}

impl InplaceOp2 for Moment {
    fn name(&self) -> &'static str {
        "moving-average"
    }

    fn cpu_fwd(
        &self,
        target: &mut CpuStorage,
        target_layout: &Layout,
        value: &CpuStorage,
        value_layout: &Layout,
    ) -> Result<()> {
        with_real!(target, T => {
            let value = values::<T>(value, value_layout)?;
            let target = values_mut::<T>(target, target_layout)?;
            let (keep, add) = (self.keep as T, self.add as T);
            let update = |target: &mut [T], value: &[T]| {
                let pairs = target.iter_mut().zip(value);
                if self.square {
                    pairs.for_each(|(t, v)| *t = keep * *t + add * *v * *v);
                } else {
                    pairs.for_each(|(t, v)| *t = keep * *t + add * *v);
                }
            };
            if target.len() < PARALLEL {
                update(target, value);
            } else {
                let pieces = target.par_chunks_mut(PIECE).zip(value.par_chunks(PIECE));
                pieces.for_each(|(target, value)| update(target, value));
            }
            Ok(())
        })
    }
}

struct Subtract {
    scale: f64,
    /// (correction, eps) where the second moment divides.
    adaptive: Option<(f64, f64)>,
}

impl InplaceOp3 for Subtract {
    fn name(&self) -> &'static str {
        "optimizer-step"
    }

    fn cpu_fwd(
        &self,
        target: &mut CpuStorage,
        target_layout: &Layout,
        first: &CpuStorage,
        first_layout: &Layout,
        second: &CpuStorage,
        second_layout: &Layout,
    ) -> Result<()> {
        with_real!(target, T => {
            let first = values::<T>(first, first_layout)?;
            let second = values::<T>(second, second_layout)?;
            let target = values_mut::<T>(target, target_layout)?;
            let scale = self.scale as T;
            match self.adaptive {
                Some((correction, eps)) => {
                    let (correction, eps) = (correction as T, eps as T);
                    zip3(target, first, second, |target, first, second| {
                        for ((t, m), v) in target.iter_mut().zip(first).zip(second) {
                            *t -= scale * *m / ((*v * correction).sqrt() + eps);
                        }
                    });
                }
                None => zip3(target, first, second, |target, first, _| {
                    target.iter_mut().zip(first).for_each(|(t, m)| *t -= scale * *m);
                }),
            }
            Ok(())
        })
    }
}

fn values_mut<'a, T: Real>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [T]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("a parameter of shape {:?} is not contiguous", layout.shape());
    };
    match T::slice_mut(storage) {
        Some(values) => Ok(&mut values[start..end]),
        None => bail!("a parameter and its update have different dtypes"),
    }
}
