//! Elementwise steps, and those that only move numbers.

use super::computed;
use crate::nn::Parameter;
use crate::nn::kernels::pointwise::{columns, join, map, silu, silu_slope, turn, zip};
use crate::nn::tape::{Slots, Tape, Value};
use candle_core::{D, Device, Result, Tensor, bail};

impl Tape {
    /// SiLU, x sigmoid(x).
    pub(crate) fn silu(&mut self, xs: &Value) -> Result<Value> {
        let on_kernels = self.on_kernels(xs.tensor());
        let ys = if on_kernels {
            computed!(xs.tensor().shape().clone(), [xs.tensor()], |[x]| map(x, silu))?
        } else {
            xs.tensor().silu()?
        };
        let saved = xs.clone();
        let backward = move |dys: Tensor, slots: &mut Slots| {
            let x = saved.tensor();
            let dx = if on_kernels {
                let shape = x.shape().clone();
                computed!(shape, [x, &dys], |[x, dy]| zip(x, dy, |x, dy, fused| dy
                    * silu_slope(x, fused)))?
            } else {
                let s = (x.neg()?.exp()? + 1.0)?.recip()?;
                (dys * (&s * (((s.affine(-1.0, 1.0)? * x)? + 1.0)?))?)?
            };
            slots.give(&saved, dx)
        };
        Ok(self.push(ys, &[xs], &[], backward))
    }

    /// (a + b) factor, for tensors of one shape.
    pub fn add(&mut self, a: &Value, b: &Value, factor: f64) -> Result<Value> {
        if a.dims() != b.dims() {
            bail!("a sum of {:?} and {:?}", a.dims(), b.dims());
        }
        let ys = if self.on_kernels(a.tensor()) {
            let shape = a.tensor().shape().clone();
            computed!(shape, [a.tensor(), b.tensor()], |[a, b]| {
                let factor = factor as T;
                zip(a, b, move |a, b, _| (a + b) * factor)
            })?
        } else {
            ((a.tensor() + b.tensor())? * factor)?
        };
        let saved = [a.clone(), b.clone()];
        let backward = move |dys: Tensor, slots: &mut Slots| {
            let dys = if factor == 1.0 { dys } else { (dys * factor)? };
            slots.share(&saved[0], &dys)?;
            slots.share(&saved[1], &dys)
        };
        Ok(self.push(ys, &[a, b], &[], backward))
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
        let ys = if on_kernels {
            computed!(dims, [at, bt], |[a, b]| join(a, b, across))?
        } else {
            Tensor::cat(&[at, bt], D::Minus1)?
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
        Ok(self.push(ys, &[a, b], &[], backward))
    }

    /// An image (B, C, H, W) with its channels last, (B, H, W, C).
    pub fn channels_last(&mut self, xs: &Value) -> Result<Value> {
        let (b, c, h, w) = xs.tensor().dims4()?;
        let on_kernels = self.on_kernels(xs.tensor());
        let ys = turned(xs.tensor(), (c, h * w), (b, h, w, c), on_kernels)?;
        let saved = xs.clone();
        let backward = move |dys: Tensor, slots: &mut Slots| {
            slots.give(&saved, turned(&dys, (h * w, c), (b, c, h, w), on_kernels)?)
        };
        Ok(self.push(ys, &[xs], &[], backward))
    }

    /// An image (B, H, W, C) with its channels first, (B, C, H, W).
    pub fn channels_first(&mut self, xs: &Value) -> Result<Value> {
        let (b, h, w, c) = xs.tensor().dims4()?;
        let on_kernels = self.on_kernels(xs.tensor());
        let ys = turned(xs.tensor(), (h * w, c), (b, c, h, w), on_kernels)?;
        let saved = xs.clone();
        let backward = move |dys: Tensor, slots: &mut Slots| {
            slots.give(&saved, turned(&dys, (c, h * w), (b, h, w, c), on_kernels)?)
        };
        Ok(self.push(ys, &[xs], &[], backward))
    }

    /// The same numbers in another shape.
    pub fn reshape(&mut self, xs: &Value, dims: &[usize]) -> Result<Value> {
        let ys = xs.tensor().reshape(dims)?;
        let saved = xs.clone();
        let backward = move |dys: Tensor, slots: &mut Slots| {
            // A view of the gradient, which its other holders may still read.
            let dx = dys.reshape(saved.dims())?;
            slots.share(&saved, &dx)
        };
        Ok(self.push(ys, &[xs], &[], backward))
    }

    /// `xs` times `mask`, which takes no gradient.
    pub(crate) fn masked(&mut self, xs: &Value, mask: Tensor) -> Result<Value> {
        let ys = (xs.tensor() * &mask)?;
        let saved = xs.clone();
        let backward = move |dys: Tensor, slots: &mut Slots| slots.give(&saved, (dys * &mask)?);
        Ok(self.push(ys, &[xs], &[], backward))
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
        Ok(self.push(ys, &[], &[table], backward))
    }
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
