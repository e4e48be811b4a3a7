//! ReLU, pooling and the comparison of features: the steps of networks that evaluate images.

use super::{computed, tensors};
use crate::nn::kernels::pointwise::{map, zip};
use crate::nn::kernels::pool::{largest, largest_back, largest_moved};
use crate::nn::kernels::window::Window;
use crate::nn::tape::{Slots, Tape, Value};
use candle_core::{D, DType, Result, Tensor, bail};

impl Tape {
    /// max(x, 0); its slope at 0 is 0. A NaN stays a NaN.
    pub(crate) fn relu(&mut self, xs: &Value) -> Result<Value> {
        let on_kernels = self.on_kernels(xs.tensor());
        let shape = xs.tensor().shape().clone();
        let ys = if on_kernels {
            computed!(shape.clone(), [xs.tensor()], |[x]| {
                let zero = 0 as T;
                map(x, move |x, _| if x < zero { zero } else { x })
            })?
        } else {
            xs.tensor().relu()?
        };
        let where_positive = move |y: &Tensor, dy: &Tensor| {
            if on_kernels {
                computed!(shape.clone(), [y, dy], |[y, dy]| {
                    let zero = 0 as T;
                    zip(y, dy, move |y, dy, _| if y > zero { dy } else { zero })
                })
            } else {
                dy * y.gt(0.0)?.to_dtype(y.dtype())?
            }
        };
        let tangent = xs.moved(|dx| where_positive(&ys, dx))?;
        let (saved, output) = (xs.clone(), ys.clone());
        let backward = move |dys: Tensor, slots: &mut Slots| {
            slots.give(&saved, where_positive(&output, &dys)?)
        };
        Ok(self.push((ys, tangent), &[xs], &[], backward))
    }

    /// The largest number that each `kernel` x `kernel` window sees within the image: (B, H, W, C)
    /// to (B, H', W', C).
    pub(crate) fn max_pool(
        &mut self,
        xs: &Value,
        kernel: usize,
        stride: usize,
        padding: usize,
    ) -> Result<Value> {
        let (batch, height, width, channels) = xs.tensor().dims4()?;
        let window = Window::new((height, width), (kernel, kernel), stride, [padding; 4])?;
        if padding >= kernel {
            bail!("pooling by {kernel} with a padding of {padding}: some windows see nothing");
        }
        let (down, across) = window.output();
        let on_kernels = self.on_kernels(xs.tensor());
        let dims = (batch, down, across, channels);
        let ys = if on_kernels {
            computed!(dims, [xs.tensor()], |[x]| largest(x, channels, &window))?
        } else {
            tensors::largest(xs.tensor(), &window)?
        };
        let tangent = xs.moved(|dx| {
            if on_kernels {
                computed!(dims, [xs.tensor(), &ys, dx], |[x, y, dx]| {
                    largest_moved(x, y, dx, channels, &window)
                })
            } else {
                tensors::largest_moved(xs.tensor(), &ys, dx, &window)
            }
        })?;
        let (saved, output) = (xs.clone(), ys.clone());
        let backward = move |dys: Tensor, slots: &mut Slots| {
            let x = saved.tensor();
            let dx = if on_kernels {
                let shape = x.shape().clone();
                computed!(shape, [x, &output, &dys], |[x, y, dy]| {
                    largest_back(x, y, dy, channels, &window)
                })?
            } else {
                tensors::largest_back(x, &output, &dys, &window)?
            };
            slots.give(&saved, dx)
        };
        Ok(self.push((ys, tangent), &[xs], &[], backward))
    }

    /// The mean over all positions: (B, H, W, C) to (B, C).
    pub(crate) fn position_mean(&mut self, xs: &Value) -> Result<Value> {
        let (batch, height, width, channels) = xs.tensor().dims4()?;
        let mean = |t: &Tensor| t.flatten(1, 2)?.mean(1);
        let out = (mean(xs.tensor())?, xs.moved(mean)?);
        let saved = xs.clone();
        let backward = move |dys: Tensor, slots: &mut Slots| {
            let each = (dys / (height * width) as f64)?.reshape((batch, 1, 1, channels))?;
            slots.give(&saved, each.broadcast_as(saved.dims())?.contiguous()?)
        };
        Ok(self.push(out, &[xs], &[], backward))
    }

    /// How far features (B, H, W, C) are from `others`, which take no gradient: both divided by
    /// their norm over the channels plus `eps`, the squared differences weighted by `weights` (C),
    /// summed over channels and averaged over positions: (B).
    pub fn unit_difference(
        &mut self,
        xs: &Value,
        others: &Tensor,
        weights: &Tensor,
        eps: f64,
    ) -> Result<Value> {
        let (batch, height, width, channels) = xs.tensor().dims4()?;
        if others.dims() != xs.dims() || weights.dims() != [channels] {
            bail!("{:?} and {:?} under {:?}", xs.dims(), others.dims(), weights.dims());
        }
        let positions = height * width;
        let rows = move |t: &Tensor| t.reshape((batch * positions, channels));
        let norm = |t: &Tensor| -> Result<Tensor> { t.sqr()?.sum_keepdim(1)?.sqrt() };
        let (x, y) = (rows(xs.tensor())?, rows(others)?);
        let norms = norm(&x)?;
        let unit = x.broadcast_div(&(&norms + eps)?)?;
        let gap = (&unit - y.broadcast_div(&(norm(&y)? + eps)?)?)?;
        let weights = weights.reshape((1, channels))?;
        let dtype = xs.tensor().dtype();
        let summed = |each: Tensor| -> Result<Tensor> {
            let each = each.broadcast_mul(&weights)?.sum(D::Minus1)?;
            // Means over tens of thousands of positions: in f64.
            let each = each.to_dtype(DType::F64)?.reshape((batch, positions))?;
            each.mean(1)?.to_dtype(dtype)
        };
        let ys = summed(gap.sqr()?)?;
        // u = x / (n + eps) moves along (dx - u (x.dx) / n) / (n + eps), nothing along n where x = 0.
        let tangent = xs.moved(|dx| {
            let dx = rows(dx)?;
            let zero = norms.eq(0.0)?.to_dtype(dtype)?;
            let along = ((&x * &dx)?.sum_keepdim(1)? / (&norms + zero)?)?;
            let du = (&dx - unit.broadcast_mul(&along)?)?.broadcast_div(&(&norms + eps)?)?;
            summed(((&gap * du)? * 2.0)?)
        })?;
        let saved = xs.clone();
        let backward = move |dys: Tensor, slots: &mut Slots| {
            let by_position = (dys / positions as f64)?.reshape((batch, 1))?;
            let by_position =
                by_position.broadcast_as((batch, positions))?.contiguous()?.reshape(((), 1))?;
            let du = (gap * 2.0)?.broadcast_mul(&weights)?.broadcast_mul(&by_position)?;
            // u = x / (n + eps): du/(n + eps) - u (u.du) / n, nothing where x = 0.
            let zero = norms.eq(0.0)?.to_dtype(dtype)?;
            let along = ((&unit * &du)?.sum_keepdim(1)? / (&norms + zero)?)?;
            let dx = (du.broadcast_div(&(&norms + eps)?)? - unit.broadcast_mul(&along)?)?;
            slots.give(&saved, dx.reshape(saved.dims())?)
        };
        Ok(self.push((ys, tangent), &[xs], &[], backward))
    }
}
