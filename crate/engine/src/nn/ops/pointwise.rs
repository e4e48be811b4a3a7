//! Elementwise steps, and those that only move numbers.

use super::{computed, tensor, with_real, with_values};
use crate::nn::Parameter;
use crate::nn::kernels::pointwise::{columns, join, map, silu, silu_moved, silu_slope, turn, zip};
use crate::nn::tape::{Slots, Tape, Value};
use candle_core::{D, Device, Result, Tensor, bail};

impl Tape {
    /// SiLU, x sigmoid(x).
    pub(crate) fn silu(&mut self, xs: &Value) -> Result<Value> {
        let on_kernels = self.on_kernels(xs.tensor());
        let (ys, tangent) = match (on_kernels, xs.tangent()) {
            (true, Some(dx)) => with_real!(dx, T => {
                let (ys, dys) = with_values([xs.tensor(), dx], |[x, dx]: [&[T]; 2]| {
                    Ok(silu_moved(x, dx))
                })?;
                (tensor(ys, dx.shape().clone())?, Some(tensor(dys, dx.shape().clone())?))
            }),
            (true, None) => {
                let shape = xs.tensor().shape().clone();
                (computed!(shape, [xs.tensor()], |[x]| map(x, silu))?, None)
            }
            (false, moving) => {
                let along = |dx| times_slope(xs.tensor(), dx, false);
                (xs.tensor().silu()?, moving.map(along).transpose()?)
            }
        };
        let saved = xs.clone();
        let backward = move |dys: Tensor, slots: &mut Slots| {
            slots.give(&saved, times_slope(saved.tensor(), &dys, on_kernels)?)
        };
        Ok(self.push((ys, tangent), &[xs], &[], backward))
    }

    /// (a + b) factor, for tensors of one shape.
    pub fn add(&mut self, a: &Value, b: &Value, factor: f64) -> Result<Value> {
        if a.dims() != b.dims() {
            bail!("a sum of {:?} and {:?}", a.dims(), b.dims());
        }
        let on_kernels = self.on_kernels(a.tensor());
        let sum = |a: &Tensor, b: &Tensor| {
            if on_kernels {
                computed!(a.shape().clone(), [a, b], |[a, b]| {
                    let factor = factor as T;
                    zip(a, b, move |a, b, _| (a + b) * factor)
                })
            } else {
                (a + b)? * factor
            }
        };
        let ys = sum(a.tensor(), b.tensor())?;
        let tangent = match (a.tangent(), b.tangent()) {
            (Some(da), Some(db)) => Some(sum(da, db)?),
            (Some(one), None) | (None, Some(one)) if factor == 1.0 => Some(one.clone()),
            (Some(one), None) | (None, Some(one)) => Some((one * factor)?),
            (None, None) => None,
        };
        let saved = [a.clone(), b.clone()];
        let backward = move |dys: Tensor, slots: &mut Slots| {
            let dys = if factor == 1.0 { dys } else { (dys * factor)? };
            slots.share(&saved[0], &dys)?;
            slots.share(&saved[1], &dys)
        };
        Ok(self.push((ys, tangent), &[a, b], &[], backward))
    }

    /// (.., C) and (.., C') to (.., C + C').
    pub(crate) fn concatenate(&mut self, a: &Value, b: &Value) -> Result<Value> {
        let (at, bt) = (a.tensor(), b.tensor());
        let across = (at.dim(D::Minus1)?, bt.dim(D::Minus1)?);
        let on_kernels = self.on_kernels(at);
        let mut dims = at.dims().to_vec();
        let last = dims.len() - 1;
        if dims[..last] != bt.dims()[..last] {
            bail!("{:?} and {:?} side by side", at.dims(), bt.dims());
        }
        dims[last] = across.0 + across.1;
        let beside = |a: &Tensor, b: &Tensor| {
            if on_kernels {
                computed!(dims.as_slice(), [a, b], |[a, b]| join(a, b, across))
            } else {
                Tensor::cat(&[a, b], D::Minus1)
            }
        };
        let ys = beside(at, bt)?;
        let tangent = match (a.tangent(), b.tangent()) {
            (None, None) => None,
            _ => Some(beside(&a.tangent_or_zeros()?, &b.tangent_or_zeros()?)?),
        };
        let saved = [a.clone(), b.clone()];
        let backward = move |dys: Tensor, slots: &mut Slots| {
            let width = across.0 + across.1;
            let parts = [(&saved[0], 0, across.0), (&saved[1], across.0, across.1)];
            for (value, from, count) in parts {
                if !Slots::wants(value) {
                    continue;
                }
                let part = if on_kernels {
                    let shape = value.tensor().shape().clone();
                    computed!(shape, [&dys], |[dy]| columns(dy, width, from, count))?
                } else {
                    dys.narrow(D::Minus1, from, count)?.contiguous()?
                };
                slots.give(value, part)?;
            }
            Ok(())
        };
        Ok(self.push((ys, tangent), &[a, b], &[], backward))
    }

    /// An image (B, C, H, W) with its channels last, (B, H, W, C).
    pub fn channels_last(&mut self, xs: &Value) -> Result<Value> {
        let (b, c, h, w) = xs.tensor().dims4()?;
        let on_kernels = self.on_kernels(xs.tensor());
        let last = |t: &Tensor| turned(t, (c, h * w), (b, h, w, c), on_kernels);
        let out = (last(xs.tensor())?, xs.moved(last)?);
        let saved = xs.clone();
        let backward = move |dys: Tensor, slots: &mut Slots| {
            slots.give(&saved, turned(&dys, (h * w, c), (b, c, h, w), on_kernels)?)
        };
        Ok(self.push(out, &[xs], &[], backward))
    }

    /// An image (B, H, W, C) with its channels first, (B, C, H, W).
    pub fn channels_first(&mut self, xs: &Value) -> Result<Value> {
        let (b, h, w, c) = xs.tensor().dims4()?;
        let on_kernels = self.on_kernels(xs.tensor());
        let first = |t: &Tensor| turned(t, (h * w, c), (b, c, h, w), on_kernels);
        let out = (first(xs.tensor())?, xs.moved(first)?);
        let saved = xs.clone();
        let backward = move |dys: Tensor, slots: &mut Slots| {
            slots.give(&saved, turned(&dys, (c, h * w), (b, h, w, c), on_kernels)?)
        };
        Ok(self.push(out, &[xs], &[], backward))
    }

    /// The same numbers in another shape.
    pub fn reshape(&mut self, xs: &Value, dims: &[usize]) -> Result<Value> {
        let out = (xs.tensor().reshape(dims)?, xs.moved(|dx| dx.reshape(dims))?);
        let saved = xs.clone();
        let backward = move |dys: Tensor, slots: &mut Slots| {
            // A view of the gradient, which its other holders may still read.
            let dx = dys.reshape(saved.dims())?;
            slots.share(&saved, &dx)
        };
        Ok(self.push(out, &[xs], &[], backward))
    }

    /// `xs` times `mask`, which takes no gradient.
    pub(crate) fn masked(&mut self, xs: &Value, mask: Tensor) -> Result<Value> {
        let out = ((xs.tensor() * &mask)?, xs.moved(|dx| dx * &mask)?);
        let saved = xs.clone();
        let backward = move |dys: Tensor, slots: &mut Slots| slots.give(&saved, (dys * &mask)?);
        Ok(self.push(out, &[xs], &[], backward))
    }

    /// Rows `labels` of `table` (K, F): (B, F).
    pub(crate) fn rows(&mut self, table: &Parameter, labels: &[u32]) -> Result<Value> {
        let device = table.tensor().device();
        let (count, _) = table.tensor().dims2()?;
        if let Some(bad) = labels.iter().find(|l| **l as usize >= count) {
            bail!("class {bad}: this network knows the classes 0 to {}", count.saturating_sub(1));
        }
        let index = Tensor::from_slice(labels, labels.len(), &Device::Cpu)?.to_device(device)?;
        let ys = table.tensor().index_select(&index, 0)?;
        let tables = table.clone();
        let backward = move |dys: Tensor, slots: &mut Slots| {
            slots.parameter(&tables, || tables.tensor().zeros_like()?.index_add(&index, &dys, 0))
        };
        Ok(self.push((ys, None), &[], &[table], backward))
    }
}

// dx times the slope of SiLU at x.
fn times_slope(x: &Tensor, dx: &Tensor, on_kernels: bool) -> Result<Tensor> {
    if on_kernels {
        let shape = x.shape().clone();
        return computed!(shape, [x, dx], |[x, dx]| zip(x, dx, |x, dx, fused| dx
            * silu_slope(x, fused)));
    }
    let s = (x.neg()?.exp()? + 1.0)?.recip()?;
    dx * (&s * (((s.affine(-1.0, 1.0)? * x)? + 1.0)?))?
}

fn turned(
    xs: &Tensor,
    (rows, columns): (usize, usize),
    dims: (usize, usize, usize, usize),
    on_kernels: bool,
) -> Result<Tensor> {
    if on_kernels {
        return computed!(dims, [xs], |[x]| turn(x, rows, columns));
    }
    let batch = dims.0;
    xs.reshape((batch, rows, columns))?.transpose(1, 2)?.contiguous()?.reshape(dims)
}
