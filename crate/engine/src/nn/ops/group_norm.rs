//! Group normalisation, with modulation and SiLU in the same pass.

use super::{tensor, tensors, with_real, with_values};
use crate::nn::Parameter;
use crate::nn::kernels::group_norm::{Affine, Gradients, GroupNorm};
use crate::nn::tape::{Slots, Tape, Value};
use candle_core::{Result, Tensor, bail};

/// The options of a group norm.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Norm {
    pub groups: usize,
    pub eps: f64,
    pub silu: bool,
}

impl Tape {
    /// `xs` (B, .., C) normalised over each of the groups of channels, times `weight` (C)
    /// plus `bias` (C); then times 1 + scale plus shift, the halves of `modulation` (B, 2C);
    /// then SiLU where it is asked for.
    pub(crate) fn group_norm(
        &mut self,
        xs: &Value,
        weight: &Parameter,
        bias: &Parameter,
        norm: Norm,
        modulation: Option<&Value>,
    ) -> Result<Value> {
        let dims = xs.dims();
        let channels = weight.tensor().elem_count();
        if dims.len() < 2 || dims[dims.len() - 1] != channels {
            bail!("a group norm over {channels} channels was given {dims:?}");
        }
        let batch = dims[0];
        if let Some(given) = modulation
            && given.dims() != [batch, 2 * channels]
        {
            bail!("a modulation of {:?} for {batch} samples of {channels} channels", given.dims());
        }
        let positions = dims[1..dims.len() - 1].iter().product();
        let Norm { groups, eps, silu } = norm;
        let of = GroupNorm { batch, positions, channels, groups, eps, silu };
        let modulation = modulation.cloned();
        let on_kernels = self.on_kernels(xs.tensor());
        let (ys, moments) = if on_kernels {
            let none = bias.tensor();
            let given = modulation.as_ref().map_or(none, Value::tensor);
            with_real!(xs.tensor(), T => {
                let operands = [xs.tensor(), weight.tensor(), bias.tensor(), given];
                let (ys, moments) = with_values(operands, |[x, weight, bias, m]: [&[T]; 4]| {
                    let modulation = modulation.is_some().then_some(m);
                    Ok(of.forward(x, Affine { weight, bias, modulation }))
                })?;
                (tensor(ys, xs.tensor().shape().clone())?, tensor(moments, (batch, groups, 2))?)
            })
        } else {
            let given = modulation.as_ref().map(Value::tensor);
            tensors::group_norm(&of, xs.tensor(), weight.tensor(), bias.tensor(), given)?
        };
        let moved = modulation.as_ref().and_then(Value::tangent);
        let tangent = if xs.tangent().or(moved).is_some() {
            let dxs = xs.tangent_or_zeros()?;
            let given = modulation.as_ref().map(Value::tensor);
            Some(if on_kernels {
                // An absent operand is passed as a view of one that is there, and is not read.
                let none = bias.tensor();
                let (m, dm) = (given.unwrap_or(none), moved.unwrap_or(none));
                with_real!(dxs, T => {
                    let operands =
                        [xs.tensor(), &dxs, &moments, weight.tensor(), bias.tensor(), m, dm];
                    let compute = |[x, dx, moments, weight, bias, m, dm]: [&[T]; 7]| {
                        let modulation = given.is_some().then_some(m);
                        let d_modulation = moved.is_some().then_some(dm);
                        let affine = Affine { weight, bias, modulation };
                        Ok(of.tangent((x, dx), moments, affine, d_modulation))
                    };
                    let dys = with_values(operands, compute)?;
                    tensor(dys, xs.tensor().shape().clone())
                })?
            } else {
                let affine = (weight.tensor(), bias.tensor());
                let xs = (xs.tensor(), &dxs);
                tensors::group_norm_moved(&of, xs, &moments, affine, given, moved)?
            })
        } else {
            None
        };
        let (saved, weights, biases) = (xs.clone(), weight.clone(), bias.clone());
        let modulated = modulation.clone();
        let backward = move |dys: Tensor, slots: &mut Slots| {
            let x = saved.tensor();
            let given = modulated.as_ref().map(Value::tensor);
            let [dx, dw, db, dm] = if on_kernels {
                with_real!(dys, T => {
                    let operands =
                        [x, &dys, &moments, weights.tensor(), biases.tensor(), given.unwrap_or(x)];
                    let Gradients { input, weight, bias, modulation } =
                        with_values(operands, |[x, dy, moments, weight, bias, m]: [&[T]; 6]| {
                            let modulation = given.is_some().then_some(m);
                            Ok(of.backward(x, dy, moments, Affine { weight, bias, modulation }))
                        })?;
                    let of_modulation = (batch, modulation.len() / batch.max(1));
                    [
                        tensor(input, x.shape().clone())?,
                        tensor(weight, channels)?,
                        tensor(bias, channels)?,
                        tensor(modulation, of_modulation)?,
                    ]
                })
            } else {
                let (w, b) = (weights.tensor(), biases.tensor());
                tensors::group_norm_back(&of, x, &dys, &moments, w, b, given)?
            };
            slots.parameter(&weights, || Ok(dw))?;
            slots.parameter(&biases, || Ok(db))?;
            if let Some(modulation) = &modulated {
                slots.give(modulation, dm)?;
            }
            slots.give(&saved, dx)
        };
        let inputs: Vec<&Value> = [Some(xs), modulation.as_ref()].into_iter().flatten().collect();
        Ok(self.push((ys, tangent), &inputs, &[weight, bias], backward))
    }
}
