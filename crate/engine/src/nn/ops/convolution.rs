//! Convolution, with what is added to its output before it is stored.

use super::{tensor, tensors, with_real, with_values};
use crate::nn::Parameter;
use crate::nn::kernels::convolution::{Convolution, sum_positions, sum_rows};
use crate::nn::kernels::epilogue::Epilogue;
use crate::nn::kernels::window::Window;
use crate::nn::tape::{Settings, Slots, Tape, Value};
use candle_core::{Result, Tensor, bail};

/// Stride and zeros above, left of, below and right of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape2d {
    pub stride: usize,
    pub padding: [usize; 4],
}

/// What a convolution adds: (y + per_sample + residual) factor.
#[derive(Clone, Copy, Debug)]
pub struct ConvEpilogue<'a> {
    /// (B, C) or (1, C), the same at every position.
    pub per_sample: Option<&'a Value>,
    /// A tensor of the output's shape.
    pub residual: Option<&'a Value>,
    /// The factor on everything.
    pub factor: f64,
}

impl Default for ConvEpilogue<'_> {
    fn default() -> Self {
        Self { per_sample: None, residual: None, factor: 1.0 }
    }
}

impl Tape {
    /// `xs` (B, H, W, C_in), `weight` (C_out, C_in, k, k), `bias` (C_out): (B, H', W', C_out).
    pub(crate) fn convolution(
        &mut self,
        xs: &Value,
        weight: &Parameter,
        bias: &Parameter,
        shape: Shape2d,
        epilogue: ConvEpilogue,
    ) -> Result<Value> {
        let (batch, height, width, inputs) = xs.tensor().dims4()?;
        let (outputs, of, rows, columns) = weight.tensor().dims4()?;
        if inputs != of {
            bail!("a convolution over {of} channels was given {inputs}");
        }
        let window = Window::new((height, width), (rows, columns), shape.stride, shape.padding)?;
        let (down, across) = window.output();
        let dims = (batch, down, across, outputs);
        if let Some(residual) = epilogue.residual
            && residual.tensor().dims4()? != dims
        {
            bail!("a convolution's output is {dims:?}, its residual {:?}", residual.dims());
        }
        if let Some(added) = epilogue.per_sample
            && added
                .tensor()
                .dims2()
                .ok()
                .is_none_or(|(b, c)| c != outputs || (b != batch && b != 1))
        {
            bail!("{:?} cannot be added to the samples of {dims:?}", added.dims());
        }
        let of = Convolution { batch, window, inputs, outputs };
        let per_sample = epilogue.per_sample.cloned();
        let residual = epilogue.residual.cloned();
        let on_kernels = self.on_kernels(xs.tensor());
        let settings = self.settings();
        let pass = Pass { of: &of, weight: weight.tensor(), factor: epilogue.factor };
        let of_values = Operands {
            xs: xs.tensor(),
            bias: Some(bias.tensor()),
            per_sample: per_sample.as_ref().map(Value::tensor),
            residual: residual.as_ref().map(Value::tensor),
        };
        let run = |operands: Operands| {
            if on_kernels { pass.kernels(operands) } else { pass.tensors(settings, operands) }
        };
        let ys = run(of_values)?;
        let added = per_sample.as_ref().and_then(Value::tangent);
        let other = residual.as_ref().and_then(Value::tangent);
        let tangent = if xs.tangent().or(added).or(other).is_some() {
            let moved = xs.tangent_or_zeros()?;
            Some(run(Operands { xs: &moved, bias: None, per_sample: added, residual: other })?)
        } else {
            None
        };
        let inputs: Vec<&Value> =
            [Some(xs), per_sample.as_ref(), residual.as_ref()].into_iter().flatten().collect();
        let (saved, added, residual) = (xs.clone(), per_sample.clone(), residual.clone());
        let (weights, biases) = (weight.clone(), bias.clone());
        let factor = epilogue.factor;
        let backward = move |dys: Tensor, slots: &mut Slots| {
            let dys = if factor == 1.0 { dys } else { (dys * factor)? };
            if let Some(residual) = &residual {
                slots.share(residual, &dys)?;
            }
            let by_sample = || -> Result<Tensor> {
                if !on_kernels {
                    return dys.flatten(1, 2)?.sum(1);
                }
                with_real!(dys, T => {
                    let sums = with_values([&dys], |[dys]: [&[T]; 1]| {
                        Ok(sum_positions(dys, of.batch, of.outputs))
                    })?;
                    tensor(sums, (of.batch, of.outputs))
                })
            };
            let needs_sample = added.as_ref().is_some_and(Slots::wants);
            let sums = if needs_sample { Some(by_sample()?) } else { None };
            slots.parameter(&biases, || match &sums {
                Some(sums) => sums.sum(0),
                None if on_kernels => with_real!(dys, T => {
                    let sums = with_values([&dys], |[dys]: [&[T]; 1]| Ok(sum_rows(dys, of.outputs)))?;
                    tensor(sums, of.outputs)
                }),
                None => dys.flatten(0, 2)?.sum(0),
            })?;
            if let (Some(added), Some(sums)) = (&added, sums) {
                let sums = if added.dims()[0] == 1 { sums.sum_keepdim(0)? } else { sums };
                slots.give(added, sums)?;
            }
            slots.parameter(&weights, || {
                if !on_kernels {
                    let x = saved.tensor();
                    return tensors::convolution_weight(
                        settings,
                        x,
                        &dys,
                        &of.window,
                        weights.tensor(),
                    );
                }
                with_real!(dys, T => {
                    let dw = with_values([saved.tensor(), &dys], |[x, dy]: [&[T]; 2]| {
                        Ok(of.weight_gradient(x, dy))
                    })?;
                    tensor(dw, weights.tensor().shape().clone())
                })
            })?;
            if Slots::wants(&saved) {
                let dx = if on_kernels {
                    with_real!(dys, T => {
                        let dx = with_values([&dys, weights.tensor()], |[dy, w]: [&[T]; 2]| {
                            Ok(of.input_gradient(dy, w))
                        })?;
                        tensor(dx, saved.tensor().shape().clone())
                    })?
                } else {
                    tensors::convolution_input(settings, &dys, weights.tensor(), &of.window)?
                };
                slots.give(&saved, dx)?;
            }
            Ok(())
        };
        Ok(self.push((ys, tangent), &inputs, &[weight, bias], backward))
    }
}

/// One convolution: of the values, or of their tangents.
struct Pass<'a> {
    of: &'a Convolution,
    weight: &'a Tensor,
    factor: f64,
}

#[derive(Clone, Copy)]
struct Operands<'a> {
    xs: &'a Tensor,
    bias: Option<&'a Tensor>,
    per_sample: Option<&'a Tensor>,
    residual: Option<&'a Tensor>,
}

impl Pass<'_> {
    fn kernels(&self, operands: Operands) -> Result<Tensor> {
        let Operands { xs, bias, per_sample, residual } = operands;
        let (down, across) = self.of.window.output();
        // An absent operand is passed as a view of one that is there, and is not read.
        let there = |operand: Option<&'_ Tensor>| operand.unwrap_or(self.weight).clone();
        let (b, added, other) = (there(bias), there(per_sample), there(residual));
        with_real!(xs, T => {
            let all = [xs, self.weight, &b, &added, &other];
            let ys = with_values(all, |[x, w, b, added, other]: [&[T]; 5]| {
                let epilogue = Epilogue {
                    bias: bias.is_some().then_some(b),
                    per_sample: per_sample.is_some().then_some(added),
                    residual: residual.is_some().then_some(other),
                    factor: self.factor as T,
                };
                Ok(self.of.forward(x, w, epilogue))
            })?;
            tensor(ys, (self.of.batch, down, across, self.of.outputs))
        })
    }

    fn tensors(&self, settings: Settings, operands: Operands) -> Result<Tensor> {
        let Operands { xs, bias, per_sample, residual } = operands;
        let mut ys = tensors::convolution(settings, xs, self.weight, &self.of.window)?;
        if let Some(bias) = bias {
            ys = ys.broadcast_add(bias)?;
        }
        if let Some(added) = per_sample {
            ys = ys.broadcast_add(&added.unsqueeze(1)?.unsqueeze(1)?)?;
        }
        if let Some(residual) = residual {
            ys = (ys + residual)?;
        }
        if self.factor == 1.0 { Ok(ys) } else { ys * self.factor }
    }
}
