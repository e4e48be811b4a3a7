//! y = x W' + b over the last dimension.

use super::{tensor, tensors, with_real, with_values};
use crate::nn::Parameter;
use crate::nn::kernels::convolution::{Convolution, sum_rows};
use crate::nn::kernels::epilogue::Epilogue;
use crate::nn::kernels::window::Window;
use crate::nn::tape::{Slots, Tape, Value};
use candle_core::{Result, Tensor, bail};

impl Tape {
    /// `xs` (.., in), `weight` (out, in), `bias` (out): (.., out); with `turned` the weight is
    /// (in, out).
    pub(crate) fn linear(
        &mut self,
        xs: &Value,
        weight: &Parameter,
        bias: &Parameter,
        turned: bool,
    ) -> Result<Value> {
        let straight =
            if turned { weight.tensor().t()?.contiguous()? } else { weight.tensor().clone() };
        let (outputs, inputs) = straight.dims2()?;
        let mut dims = xs.dims().to_vec();
        match dims.last_mut() {
            Some(last) if *last == inputs => *last = outputs,
            _ => bail!("a linear layer for {inputs} features was given {:?}", xs.dims()),
        }
        let rows = xs.tensor().elem_count() / inputs.max(1);
        // A 1x1 convolution of one image, whose single row holds all the rows.
        let window = Window::new((1, rows), (1, 1), 1, [0; 4])?;
        let of = Convolution { batch: 1, window, inputs, outputs };
        let (on_kernels, settings) = (self.on_kernels(xs.tensor()), self.settings());
        let product = |xs: &Tensor, bias: Option<&Tensor>| -> Result<Tensor> {
            if on_kernels {
                return with_real!(xs, T => {
                    let operands = [xs, &straight, bias.unwrap_or(&straight)];
                    let ys = with_values(operands, |[x, w, b]: [&[T]; 3]| {
                        let bias = bias.is_some().then_some(b);
                        Ok(of.forward(x, w, Epilogue { bias, ..Epilogue::none() }))
                    })?;
                    tensor(ys, dims.as_slice())
                });
            }
            let flat = xs.reshape((rows, inputs))?;
            let ys = tensors::product(settings, &flat, &straight.t()?)?;
            let ys = if let Some(bias) = bias { ys.broadcast_add(bias)? } else { ys };
            ys.reshape(dims.as_slice())
        };
        let ys = product(xs.tensor(), Some(bias.tensor()))?;
        let tangent = xs.moved(|dx| product(dx, None))?;
        let (saved, weights, biases) = (xs.clone(), weight.clone(), bias.clone());
        let backward = move |dys: Tensor, slots: &mut Slots| {
            slots.parameter(&biases, || {
                if !on_kernels {
                    return dys.reshape((rows, outputs))?.sum(0);
                }
                with_real!(dys, T => {
                    let sums = with_values([&dys], |[dys]: [&[T]; 1]| Ok(sum_rows(dys, outputs)))?;
                    tensor(sums, outputs)
                })
            })?;
            slots.parameter(&weights, || {
                let dw = if on_kernels {
                    with_real!(dys, T => {
                        let dw = with_values([saved.tensor(), &dys], |[x, dy]: [&[T]; 2]| {
                            Ok(of.weight_gradient(x, dy))
                        })?;
                        tensor(dw, (outputs, inputs))
                    })?
                } else {
                    let (x, dy) =
                        (saved.tensor().reshape((rows, inputs))?, dys.reshape((rows, outputs))?);
                    tensors::product(settings, &dy.t()?, &x)?
                };
                if turned { dw.t()?.contiguous() } else { Ok(dw) }
            })?;
            if Slots::wants(&saved) {
                let dx = if on_kernels {
                    with_real!(dys, T => {
                        let dx = with_values([&dys, &straight], |[dy, w]: [&[T]; 2]| {
                            Ok(of.input_gradient(dy, w))
                        })?;
                        tensor(dx, saved.tensor().shape().clone())
                    })?
                } else {
                    let dy = dys.reshape((rows, outputs))?;
                    tensors::product(settings, &dy, &straight)?.reshape(saved.dims())?
                };
                slots.give(&saved, dx)?;
            }
            Ok(())
        };
        Ok(self.push((ys, tangent), &[xs], &[weight, bias], backward))
    }
}
