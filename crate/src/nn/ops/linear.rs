//! y = x W^T + b as one operation.

use super::product::{add_product, rows, turned};
use super::{Real, values, with_real, with_values};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use gemm::Parallelism;

/// `xs` (M, in), `weight` (out, in), `bias` (out): (M, out).
pub(crate) fn linear(xs: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    xs.contiguous()?.apply_op3(weight, bias, Linear)
}

struct Linear;

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        xs: &CpuStorage,
        xs_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (count, inputs) = xs_layout.shape().dims2()?;
        let (outputs, of) = weight_layout.shape().dims2()?;
        if inputs != of {
            bail!("a linear layer for {of} features was given {inputs}");
        }
        with_real!(xs, T => {
            let (xs, weight) = (values::<T>(xs, xs_layout)?, values::<T>(weight, weight_layout)?);
            let mut ys = values::<T>(bias, bias_layout)?.repeat(count);
            let (a, b) = (rows(xs, inputs), turned(weight, inputs));
            add_product(&mut ys, (count, inputs, outputs), a, b, Parallelism::Rayon(0));
            Ok((T::wrap(ys), Shape::from((count, outputs))))
        })
    }

    fn bwd(
        &self,
        xs: &Tensor,
        weight: &Tensor,
        _bias: &Tensor,
        _ys: &Tensor,
        dys: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (xs, weight, dys) = (xs.detach(), weight.detach(), dys.contiguous()?);
        with_real!(dys, T => gradients::<T>(&xs, &weight, &dys))
    }
}

// dx = dy W, dW = dy^T x, db = the sum of dy over the rows.
#[allow(clippy::type_complexity)]
fn gradients<T: Real>(
    xs: &Tensor,
    weight: &Tensor,
    dys: &Tensor,
) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
    let ((count, inputs), outputs) = (xs.dims2()?, weight.dim(0)?);
    let on = Parallelism::Rayon(0);
    with_values([xs, weight, dys], |[x, w, dy]: [&[T]; 3]| {
        let mut dx = vec![T::zero(); count * inputs];
        add_product(&mut dx, (count, outputs, inputs), rows(dy, outputs), rows(w, inputs), on);
        let mut dw = vec![T::zero(); outputs * inputs];
        add_product(&mut dw, (outputs, count, inputs), turned(dy, outputs), rows(x, inputs), on);
        let mut db = vec![T::zero(); outputs];
        for dy in dy.chunks_exact(outputs) {
            db.iter_mut().zip(dy).for_each(|(sum, dy)| *sum += *dy);
        }
        let device = xs.device();
        Ok((
            Some(Tensor::from_vec(dx, (count, inputs), device)?),
            Some(Tensor::from_vec(dw, (outputs, inputs), device)?),
            Some(Tensor::from_vec(db, outputs, device)?),
        ))
    })
}
