//! Updates of parameters, moments and averages: in place on the CPU, on all threads; by
//! candle's operations elsewhere.

use super::{values, with_real, with_values};
use crate::nn::kernels::pointwise::update;
use crate::nn::kernels::{PIECE, Real, Shared, each};
use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, InplaceOp1, InplaceOp2, InplaceOp3, Layout, Result, Tensor, Var, bail,
};

/// What an optimizer does to one parameter: the moments' rates, then
/// target = keep target - scale m / (sqrt(correction v) + eps), or keep target - scale m.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub betas: (f64, f64),
    pub keep: f64,
    pub scale: f64,
    /// (correction, eps) where the second moment divides.
    pub adaptive: Option<(f64, f64)>,
}

/// Move `target` along `grad`, and its moments with it.
pub(crate) fn step(
    target: &Var,
    first: &mut Tensor,
    second: &mut Tensor,
    grad: &Tensor,
    by: &Step,
) -> Result<()> {
    let (beta1, beta2) = by.betas;
    if target.device().is_cpu() {
        let grad = grad.contiguous()?;
        first.inplace_op2(&grad, &Mix { keep: beta1, add: 1.0 - beta1, square: false })?;
        second.inplace_op2(&grad, &Mix { keep: beta2, add: 1.0 - beta2, square: true })?;
        return target.as_tensor().inplace_op3(first, second, by);
    }
    *first = ((&*first * beta1)? + (grad * (1.0 - beta1))?)?;
    *second = ((&*second * beta2)? + (grad.sqr()? * (1.0 - beta2))?)?;
    let moved = match by.adaptive {
        Some((correction, eps)) => (&*first / ((&*second * correction)?.sqrt()? + eps)?)?,
        None => first.clone(),
    };
    target.set(&((target.as_detached_tensor() * by.keep)? - (moved * by.scale)?)?)
}

/// target = target + weight (value - target).
pub(crate) fn lerp(target: &Var, value: &Tensor, weight: f64) -> Result<()> {
    if target.device().is_cpu() {
        let mix = Mix { keep: 1.0 - weight, add: weight, square: false };
        return target.as_tensor().inplace_op2(&value.contiguous()?, &mix);
    }
    let there = target.as_detached_tensor();
    target.set(&((there * (1.0 - weight))? + (value * weight)?)?)
}

/// target = target + value, on the CPU.
pub(crate) fn add_in_place(target: &Tensor, value: &Tensor) -> Result<()> {
    target.inplace_op2(&value.contiguous()?, &Mix { keep: 1.0, add: 1.0, square: false })
}

/// target = factor target, in place where that can be done.
pub(crate) fn scale_in_place(target: &mut Tensor, factor: f64) -> Result<()> {
    if target.device().is_cpu() {
        return target.inplace_op1(&Scale(factor));
    }
    *target = (&*target * factor)?;
    Ok(())
}

/// The sum of the squares of all elements, in f64, in an order that is always the same.
pub(crate) fn sum_of_squares(xs: &Tensor) -> Result<f64> {
    if !xs.device().is_cpu() {
        let sum = xs.sqr()?.sum_all()?.to_dtype(candle_core::DType::F64)?;
        return sum.to_scalar::<f64>();
    }
    let xs = xs.contiguous()?;
    with_real!(xs, T => with_values([&xs], |[xs]: [&[T]; 1]| {
        let pieces = xs.len().div_ceil(PIECE);
        let mut sums = vec![0f64; pieces];
        let to = Shared::new(sums.as_mut_ptr());
        each(pieces, xs.len(), |piece| {
            let xs = &xs[piece * PIECE..((piece + 1) * PIECE).min(xs.len())];
            let sum = xs.chunks(256).map(|part| {
                let sum: T = part.iter().map(|x| *x * *x).sum();
                candle_core::WithDType::to_f64(sum)
            });
            // SAFETY: each piece has a place of its own.
            unsafe { to.at(piece).write(sum.sum()) };
        });
        Ok(sums.into_iter().sum())
    }))
}

// target = keep target + add value, or of the value's square.
struct Mix {
    keep: f64,
    add: f64,
    square: bool,
}

impl InplaceOp2 for Mix {
    fn name(&self) -> &'static str {
        "mix"
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
            match (self.square, self.keep == 1.0 && self.add == 1.0) {
                (true, _) => update(target, value, move |t, v| keep * t + add * v * v),
                (false, true) => update(target, value, |t, v| t + v),
                (false, false) => update(target, value, move |t, v| keep * t + add * v),
            }
            Ok(())
        })
    }
}

struct Scale(f64);

impl InplaceOp1 for Scale {
    fn name(&self) -> &'static str {
        "scale"
    }

    fn cpu_fwd(&self, target: &mut CpuStorage, layout: &Layout) -> Result<()> {
        with_real!(target, T => {
            let factor = self.0 as T;
            values_mut::<T>(target, layout)?.iter_mut().for_each(|x| *x *= factor);
            Ok(())
        })
    }
}

impl InplaceOp3 for Step {
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
            let (len, to) = (target.len(), Shared::new(target.as_mut_ptr()));
            let (keep, scale) = (self.keep as T, self.scale as T);
            each(len.div_ceil(PIECE), len, |piece| {
                let range = piece * PIECE..((piece + 1) * PIECE).min(len);
                let (first, second) = (&first[range.clone()], &second[range.clone()]);
                // SAFETY: the pieces do not overlap.
                let target =
                    unsafe { std::slice::from_raw_parts_mut(to.at(range.start), range.len()) };
                let all = target.iter_mut().zip(first).zip(second);
                match self.adaptive {
                    Some((correction, eps)) => {
                        let (correction, eps) = (correction as T, eps as T);
                        all.for_each(|((t, m), v)| {
                            *t = keep * *t - scale * *m / ((*v * correction).sqrt() + eps);
                        });
                    }
                    None => all.for_each(|((t, m), _)| *t = keep * *t - scale * *m),
                }
            });
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
