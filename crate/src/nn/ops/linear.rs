//! y = x W^T + b as one operation.

use super::Real;
use super::layer::{Layer, apply};
use super::product::{add_product, rows, turned};
use candle_core::{Result, Shape, Tensor, bail};
use gemm::Parallelism;

/// `xs` (M, in), `weight` (out, in), `bias` (out): (M, out).
pub(crate) fn linear(xs: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    apply(Linear, xs, weight, bias)
}

struct Linear;

impl Layer for Linear {
    const NAME: &'static str = "linear";

    fn shape(&self, xs: &Shape, weight: &Shape) -> Result<Shape> {
        let ((count, inputs), (outputs, of)) = (xs.dims2()?, weight.dims2()?);
        if inputs != of {
            bail!("a linear layer for {of} features was given {inputs}");
        }
        Ok(Shape::from((count, outputs)))
    }

    fn forward<T: Real>(
        &self,
        [x, w, bias]: [&[T]; 3],
        [xs, weight]: [&Shape; 2],
    ) -> Result<Vec<T>> {
        let ((count, inputs), (outputs, _)) = (xs.dims2()?, weight.dims2()?);
        let mut ys = bias.repeat(count);
        let (a, b) = (rows(x, inputs), turned(w, inputs));
        add_product(&mut ys, (count, inputs, outputs), a, b, Parallelism::Rayon(0));
        Ok(ys)
    }

    // dx = dy W, dW = dy^T x, db = the sum of dy over the rows.
    fn backward<T: Real>(
        &self,
        [x, w, dy]: [&[T]; 3],
        [xs, weight]: [&Shape; 2],
    ) -> Result<[Vec<T>; 3]> {
        let ((count, inputs), (outputs, _)) = (xs.dims2()?, weight.dims2()?);
        let on = Parallelism::Rayon(0);
        let mut dx = vec![T::zero(); count * inputs];
        add_product(&mut dx, (count, outputs, inputs), rows(dy, outputs), rows(w, inputs), on);
        let mut dw = vec![T::zero(); outputs * inputs];
        add_product(&mut dw, (outputs, count, inputs), turned(dy, outputs), rows(x, inputs), on);
        let mut db = vec![T::zero(); outputs];
        for dy in dy.chunks_exact(outputs) {
            db.iter_mut().zip(dy).for_each(|(sum, dy)| *sum += *dy);
        }
        Ok([dx, dw, db])
    }
}
