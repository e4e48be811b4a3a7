//! An operation of an input, a weight and a bias, as candle takes it: a layer says how it
//! goes forward and backward on slices, and what stands here is the same for all.

use super::{Real, values, with_real, with_values};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};

/// What a layer does; shapes are those of the input and of the weight.
pub(crate) trait Layer: Send + Sync + 'static {
    /// Its name in candle's messages.
    const NAME: &'static str;

    /// The shape of the output.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn shape(&self, xs: &Shape, weight: &Shape) -> Result<Shape>;

    /// The output of input, weight and bias.
    fn forward<T: Real>(&self, values: [&[T]; 3], shapes: [&Shape; 2]) -> Result<Vec<T>>;

    /// The gradients by input, weight and bias, from input, weight and the gradient by the
    /// output.
    fn backward<T: Real>(&self, values: [&[T]; 3], shapes: [&Shape; 2]) -> Result<[Vec<T>; 3]>;
}

/// The layer's output as a tensor.
pub(crate) fn apply(
    layer: impl Layer,
    xs: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
) -> Result<Tensor> {
    xs.contiguous()?.apply_op3(weight, bias, Operation(layer))
}

struct Operation<L>(L);

impl<L: Layer> CustomOp3 for Operation<L> {
    fn name(&self) -> &'static str {
        L::NAME
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
        let shapes = [xs_layout.shape(), weight_layout.shape()];
        let shape = self.0.shape(shapes[0], shapes[1])?;
        with_real!(xs, T => {
            let values =
                [values::<T>(xs, xs_layout)?, values(weight, weight_layout)?, values(bias, bias_layout)?];
            Ok((T::wrap(self.0.forward(values, shapes)?), shape))
        })
    }

    fn bwd(
        &self,
        xs: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _ys: &Tensor,
        dys: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (dys, shapes) = (dys.contiguous()?, [xs.shape(), weight.shape()]);
        with_real!(dys, T => {
            let [dx, dw, db] = with_values([xs, weight, &dys], |values: [&[T]; 3]| {
                self.0.backward(values, shapes)
            })?;
            let tensor = |values, like: &Tensor| Tensor::from_vec(values, like.shape(), like.device());
            Ok((Some(tensor(dx, xs)?), Some(tensor(dw, weight)?), Some(tensor(db, bias)?)))
        })
    }
}
