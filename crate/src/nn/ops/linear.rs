//! y = x W^T + b as one operation.

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
        let (rows, inputs) = xs_layout.shape().dims2()?;
        let (outputs, of) = weight_layout.shape().dims2()?;
        if inputs != of {
            bail!("a linear layer for {of} features was given {inputs}");
        }
        with_real!(xs, T => {
            let (xs, weight) = (values::<T>(xs, xs_layout)?, values::<T>(weight, weight_layout)?);
            let mut ys = values::<T>(bias, bias_layout)?.repeat(rows);
            add_product(&mut ys, (rows, inputs, outputs), (xs, (inputs, 1)), (weight, (1, inputs)));
            Ok((T::wrap(ys), Shape::from((rows, outputs))))
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
    let ((rows, inputs), outputs) = (xs.dims2()?, weight.dim(0)?);
    with_values([xs, weight, dys], |[x, w, dy]: [&[T]; 3]| {
        let mut dx = vec![T::zero(); rows * inputs];
        let rows_of = |width| (width, 1);
        let columns_of = |width| (1, width);
        add_product(&mut dx, (rows, outputs, inputs), (dy, rows_of(outputs)), (w, rows_of(inputs)));
        let mut dw = vec![T::zero(); outputs * inputs];
        add_product(
            &mut dw,
            (outputs, rows, inputs),
            (dy, columns_of(outputs)),
            (x, rows_of(inputs)),
        );
        let mut db = vec![T::zero(); outputs];
        for dy in dy.chunks_exact(outputs) {
            db.iter_mut().zip(dy).for_each(|(sum, dy)| *sum += *dy);
        }
        let device = xs.device();
        Ok((
            Some(Tensor::from_vec(dx, (rows, inputs), device)?),
            Some(Tensor::from_vec(dw, (outputs, inputs), device)?),
            Some(Tensor::from_vec(db, outputs, device)?),
        ))
    })
}

// ys (m, n) += a (m, k) b (k, n); a and b with their strides (row, column).
fn add_product<T: Real>(
    ys: &mut [T],
    (m, k, n): (usize, usize, usize),
    (a, a_strides): (&[T], (usize, usize)),
    (b, b_strides): (&[T], (usize, usize)),
) {
    let last = |rows: usize, columns: usize, (row, column): (usize, usize)| {
        rows.saturating_sub(1) * row + columns.saturating_sub(1) * column
    };
    assert!(ys.len() == m * n);
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    assert!(last(m, k, a_strides) < a.len() && last(k, n, b_strides) < b.len());
    // SAFETY: the last element of each matrix lies within its slice, as checked above.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            ys.as_mut_ptr(),
            1,
            n as isize,
            true,
            a.as_ptr(),
            a_strides.1 as isize,
            a_strides.0 as isize,
            b.as_ptr(),
            b_strides.1 as isize,
            b_strides.0 as isize,
            T::one(),
            T::one(),
            false,
            false,
            false,
            Parallelism::Rayon(0),
        );
    }
}
