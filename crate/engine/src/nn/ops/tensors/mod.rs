//! The same steps in candle's tensor operations, for devices that the kernels do not run on. Images
//! are (B, H, W, C) here too.

mod attention;

pub(super) use attention::{attention, attention_back, attention_moved};

use crate::nn::kernels::group_norm::GroupNorm;
use crate::nn::kernels::resample::Taps;
use crate::nn::kernels::window::Window;
use crate::nn::tape::{Settings, factor_type};
use candle_core::{Device, Result, Tensor};

/// a b, the factors in the precision of `settings`.
pub(super) fn product(settings: Settings, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let dtype = factor_type(settings, a);
    let (a, b) = (a.to_dtype(dtype)?.contiguous()?, b.to_dtype(dtype)?.contiguous()?);
    a.matmul(&b)?.to_dtype(if dtype == candle_core::DType::BF16 {
        candle_core::DType::F32
    } else {
        dtype
    })
}

// The windows of all positions as rows, (B H' W', k k C).
fn unfold(xs: &Tensor, window: &Window) -> Result<Tensor> {
    let (batch, _, _, channels) = xs.dims4()?;
    let ((rows, columns), stride) = (window.output(), window.stride);
    let [top, left, bottom, right] = window.padding;
    // Room for a whole stride after the last window.
    let xs = xs.pad_with_zeros(1, top, bottom + stride - 1)?.pad_with_zeros(
        2,
        left,
        right + stride - 1,
    )?;
    let mut places = Vec::with_capacity(window.places());
    for u in 0..window.kernel.0 {
        for v in 0..window.kernel.1 {
            let seen = xs.narrow(1, u, rows * stride)?.narrow(2, v, columns * stride)?;
            places.push(every(&seen, stride)?);
        }
    }
    Tensor::cat(&places, 3)?.reshape((batch * rows * columns, window.places() * channels))
}

// Every `stride`-th row and column.
fn every(xs: &Tensor, stride: usize) -> Result<Tensor> {
    if stride == 1 {
        return xs.contiguous();
    }
    let (b, h, w, c) = xs.dims4()?;
    let rows = xs.contiguous()?.reshape((b, h / stride, stride, w, c))?.narrow(2, 0, 1)?;
    let rows = rows.contiguous()?.reshape((b, h / stride, w / stride, stride, c))?;
    rows.narrow(3, 0, 1)?.contiguous()?.reshape((b, h / stride, w / stride, c))
}

// (O, C, k, k) as a matrix (k k C, O).
fn matrix(weight: &Tensor) -> Result<Tensor> {
    let (outputs, inputs, rows, columns) = weight.dims4()?;
    weight.permute((2, 3, 1, 0))?.contiguous()?.reshape((rows * columns * inputs, outputs))
}

pub(super) fn convolution(
    settings: Settings,
    xs: &Tensor,
    weight: &Tensor,
    window: &Window,
) -> Result<Tensor> {
    let (rows, columns) = window.output();
    let ys = product(settings, &unfold(xs, window)?, &matrix(weight)?)?;
    ys.reshape((xs.dims()[0], rows, columns, weight.dims()[0]))
}

pub(super) fn convolution_weight(
    settings: Settings,
    xs: &Tensor,
    dys: &Tensor,
    window: &Window,
    weight: &Tensor,
) -> Result<Tensor> {
    let (outputs, inputs, rows, columns) = weight.dims4()?;
    let dys = dys.reshape(((), outputs))?;
    let dw = product(settings, &unfold(xs, window)?.t()?, &dys)?; // (k k C, O)
    dw.reshape((rows, columns, inputs, outputs))?.permute((3, 2, 0, 1))?.contiguous()
}

pub(super) fn convolution_input(
    settings: Settings,
    dys: &Tensor,
    weight: &Tensor,
    window: &Window,
) -> Result<Tensor> {
    let (batch, rows, columns, outputs) = dys.dims4()?;
    let inputs = weight.dims()[1];
    let flat = dys.reshape((batch * rows * columns, outputs))?;
    let seen = product(settings, &flat, &matrix(weight)?.t()?)?; // (B H' W', k k C)
    let seen = seen.reshape((batch, rows, columns, window.places() * inputs))?;
    put_back(window, &mut |place| seen.narrow(3, place * inputs, inputs)?.contiguous())
}

// The gradient of each place of the window, (B, H', W', C), put back where that place lay.
fn put_back(window: &Window, part: &mut dyn FnMut(usize) -> Result<Tensor>) -> Result<Tensor> {
    let ((height, width), stride) = (window.size, window.stride);
    let [top, left, bottom, right] = window.padding;
    let (tall, wide) = (height + top + bottom, width + left + right);
    let mut sum: Option<Tensor> = None;
    for u in 0..window.kernel.0 {
        for v in 0..window.kernel.1 {
            let part = spread(&part(u * window.kernel.1 + v)?, stride)?;
            let (h, w) = (part.dims()[1], part.dims()[2]);
            let (h, w) = (h.min(tall - u), w.min(wide - v));
            let part = part.narrow(1, 0, h)?.narrow(2, 0, w)?;
            let part =
                part.pad_with_zeros(1, u, tall - u - h)?.pad_with_zeros(2, v, wide - v - w)?;
            sum = Some(match sum {
                Some(sum) => (sum + part)?,
                None => part,
            });
        }
    }
    let Some(sum) = sum else { candle_core::bail!("a window without a place") };
    sum.narrow(1, top, height)?.narrow(2, left, width)?.contiguous()
}

// What each place of the window sees, (B, H', W', C), and `beyond` outside the image.
fn seen(xs: &Tensor, window: &Window, beyond: f32) -> Result<Vec<Tensor>> {
    let ((rows, columns), stride) = (window.output(), window.stride);
    let [top, left, bottom, right] = window.padding;
    let none = |dim: usize, count: usize, like: &Tensor| -> Result<Tensor> {
        let mut dims = like.dims().to_vec();
        dims[dim] = count;
        Tensor::full(beyond, dims, like.device())?.to_dtype(like.dtype())
    };
    let (above, below) = (none(1, top, xs)?, none(1, bottom + stride - 1, xs)?);
    let tall = Tensor::cat(&[&above, xs, &below], 1)?;
    let (before, behind) = (none(2, left, &tall)?, none(2, right + stride - 1, &tall)?);
    let all = Tensor::cat(&[&before, &tall, &behind], 2)?;
    let mut places = Vec::with_capacity(window.places());
    for u in 0..window.kernel.0 {
        for v in 0..window.kernel.1 {
            let part = all.narrow(1, u, rows * stride)?.narrow(2, v, columns * stride)?;
            places.push(every(&part, stride)?);
        }
    }
    Ok(places)
}

/// The largest of each window.
pub(super) fn largest(xs: &Tensor, window: &Window) -> Result<Tensor> {
    let mut places = seen(xs, window, f32::NEG_INFINITY)?.into_iter();
    let Some(first) = places.next() else { candle_core::bail!("a window without a place") };
    places.try_fold(first, |most, place| most.maximum(&place))
}

/// Its gradient, which goes to the first place that has the largest.
pub(super) fn largest_back(
    xs: &Tensor,
    ys: &Tensor,
    dys: &Tensor,
    window: &Window,
) -> Result<Tensor> {
    let places = seen(xs, window, f32::NEG_INFINITY)?;
    let mut open = ys.ones_like()?;
    put_back(window, &mut |place| {
        let hit = (places[place].eq(ys)?.to_dtype(ys.dtype())? * &open)?;
        open = (&open - &hit)?;
        dys * hit
    })
}

/// What the largest numbers move along: that of the first place that has the largest.
pub(super) fn largest_moved(
    xs: &Tensor,
    ys: &Tensor,
    dxs: &Tensor,
    window: &Window,
) -> Result<Tensor> {
    let places = seen(xs, window, f32::NEG_INFINITY)?;
    let (mut open, mut sum) = (ys.ones_like()?, ys.zeros_like()?);
    for (place, moved) in places.iter().zip(seen(dxs, window, 0.0)?) {
        let hit = (place.eq(ys)?.to_dtype(ys.dtype())? * &open)?;
        open = (&open - &hit)?;
        sum = (sum + (hit * moved)?)?;
    }
    Ok(sum)
}

// `stride - 1` zeros after every row and column.
fn spread(xs: &Tensor, stride: usize) -> Result<Tensor> {
    if stride == 1 {
        return Ok(xs.clone());
    }
    let (b, h, w, c) = xs.dims4()?;
    let xs = xs.reshape((b, h, 1, w, 1, c))?;
    let xs = xs.pad_with_zeros(2, 0, stride - 1)?.pad_with_zeros(4, 0, stride - 1)?;
    xs.reshape((b, h * stride, w * stride, c))
}

// The value of each group, spread over its channels: (B, G) to (B, 1, C).
fn by_channel(of: &GroupNorm, values: &Tensor) -> Result<Tensor> {
    let each = of.channels / of.groups;
    let wide =
        values.reshape((of.batch, of.groups, 1))?.broadcast_as((of.batch, of.groups, each))?;
    wide.contiguous()?.reshape((of.batch, 1, of.channels))
}

// The sum over positions and over the channels of each group: (B, P, C) to (B, G).
fn by_group(of: &GroupNorm, values: &Tensor) -> Result<Tensor> {
    let each = of.channels / of.groups;
    values.sum(1)?.reshape((of.batch, of.groups, each))?.sum(2)
}

// weight (1 + scale) and bias (1 + scale) + shift, (B or 1, 1, C).
fn lines(
    of: &GroupNorm,
    weight: &Tensor,
    bias: &Tensor,
    modulation: Option<&Tensor>,
) -> Result<(Tensor, Tensor)> {
    let (weight, bias) = (weight.reshape((1, 1, of.channels))?, bias.reshape((1, 1, of.channels))?);
    let Some(modulation) = modulation else { return Ok((weight, bias)) };
    let half = |from: usize| -> Result<Tensor> {
        modulation.narrow(1, from, of.channels)?.contiguous()?.reshape((of.batch, 1, of.channels))
    };
    let factor = (half(0)? + 1.0)?;
    let shift = half(of.channels)?;
    Ok((factor.broadcast_mul(&weight)?, (factor.broadcast_mul(&bias)? + shift)?))
}

/// The output and the moments (B, G, 2).
pub(super) fn group_norm(
    of: &GroupNorm,
    xs: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    modulation: Option<&Tensor>,
) -> Result<(Tensor, Tensor)> {
    let flat = xs.reshape((of.batch, of.positions, of.channels))?;
    let count = (of.positions * of.channels / of.groups) as f64;
    let mean = (by_group(of, &flat)? / count)?;
    let centred = flat.broadcast_sub(&by_channel(of, &mean)?)?;
    let variance = (by_group(of, &centred.sqr()?)? / count)?;
    let inverse = (variance + of.eps)?.sqrt()?.recip()?;
    let (weight, bias) = lines(of, weight, bias, modulation)?;
    let normal = centred.broadcast_mul(&by_channel(of, &inverse)?)?;
    let z = normal.broadcast_mul(&weight)?.broadcast_add(&bias)?;
    let ys = if of.silu { z.silu()? } else { z };
    Ok((ys.reshape(xs.dims())?, Tensor::stack(&[mean, inverse], 2)?))
}

/// The gradients with respect to input, weight, bias and modulation.
pub(super) fn group_norm_back(
    of: &GroupNorm,
    xs: &Tensor,
    dys: &Tensor,
    moments: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    modulation: Option<&Tensor>,
) -> Result<[Tensor; 4]> {
    let dims = (of.batch, of.positions, of.channels);
    let moment = |i: usize| moments.narrow(2, i, 1)?.contiguous()?.reshape((of.batch, of.groups));
    let (mean, inverse) = (by_channel(of, &moment(0)?)?, by_channel(of, &moment(1)?)?);
    let normal = xs.reshape(dims)?.broadcast_sub(&mean)?.broadcast_mul(&inverse)?;
    let (line, offset) = lines(of, weight, bias, modulation)?;
    let mut dz = dys.reshape(dims)?;
    if of.silu {
        let z = normal.broadcast_mul(&line)?.broadcast_add(&offset)?;
        let s = (z.neg()?.exp()? + 1.0)?.recip()?;
        dz = (dz * (&s * ((s.affine(-1.0, 1.0)? * z)? + 1.0)?)?)?;
    }
    let by_shift = dz.sum(1)?; // (B, C)
    let by_scale = (&dz * &normal)?.sum(1)?;
    let g = dz.broadcast_mul(&line)?;
    let count = (of.positions * of.channels / of.groups) as f64;
    let mean_g = by_channel(of, &(by_group(of, &g)? / count)?)?;
    let mean_gn = by_channel(of, &(by_group(of, &(&g * &normal)?)? / count)?)?;
    let dx = (g.broadcast_sub(&mean_g)? - normal.broadcast_mul(&mean_gn)?)?;
    let dx = dx.broadcast_mul(&inverse)?.reshape(xs.dims())?;
    let Some(modulation) = modulation else {
        let none = by_shift.narrow(1, 0, 0)?;
        return Ok([dx, by_scale.sum(0)?, by_shift.sum(0)?, none]);
    };
    let factor = (modulation.narrow(1, 0, of.channels)? + 1.0)?;
    let dw = (&factor * &by_scale)?.sum(0)?;
    let db = (&factor * &by_shift)?.sum(0)?;
    let scale = (by_scale.broadcast_mul(weight)? + by_shift.broadcast_mul(bias)?)?;
    Ok([dx, dw, db, Tensor::cat(&[scale, by_shift], 1)?])
}

/// What the output moves along, where the input and the modulation move along `dxs` and
/// `d_modulation`.
pub(super) fn group_norm_moved(
    of: &GroupNorm,
    (xs, dxs): (&Tensor, &Tensor),
    moments: &Tensor,
    (weight, bias): (&Tensor, &Tensor),
    modulation: Option<&Tensor>,
    d_modulation: Option<&Tensor>,
) -> Result<Tensor> {
    let dims = (of.batch, of.positions, of.channels);
    let moment = |i: usize| moments.narrow(2, i, 1)?.contiguous()?.reshape((of.batch, of.groups));
    let (mean, inverse) = (by_channel(of, &moment(0)?)?, by_channel(of, &moment(1)?)?);
    let normal = xs.reshape(dims)?.broadcast_sub(&mean)?.broadcast_mul(&inverse)?;
    let (line, offset) = lines(of, weight, bias, modulation)?;
    let dx = dxs.reshape(dims)?;
    let count = (of.positions * of.channels / of.groups) as f64;
    let mean_d = by_channel(of, &(by_group(of, &dx)? / count)?)?;
    let mean_dn = by_channel(of, &(by_group(of, &(&dx * &normal)?)? / count)?)?;
    let dn = (dx.broadcast_sub(&mean_d)? - normal.broadcast_mul(&mean_dn)?)?;
    let mut dz = dn.broadcast_mul(&inverse)?.broadcast_mul(&line)?;
    if let Some(d_modulation) = d_modulation {
        let half = |from: usize| -> Result<Tensor> {
            let half = d_modulation.narrow(1, from, of.channels)?.contiguous()?;
            half.reshape((of.batch, 1, of.channels))
        };
        let own = normal.broadcast_mul(&weight.reshape((1, 1, of.channels))?)?;
        let own = own.broadcast_add(&bias.reshape((1, 1, of.channels))?)?;
        dz = (dz + own.broadcast_mul(&half(0)?)?)?.broadcast_add(&half(of.channels)?)?;
    }
    if of.silu {
        let z = normal.broadcast_mul(&line)?.broadcast_add(&offset)?;
        let s = (z.neg()?.exp()? + 1.0)?.recip()?;
        dz = (dz * (&s * ((s.affine(-1.0, 1.0)? * z)? + 1.0)?)?)?;
    }
    dz.reshape(xs.dims())
}

pub(super) fn resample(xs: &Tensor, down: &Taps, across: &Taps) -> Result<Tensor> {
    let (batch, height, width, channels) = xs.dims4()?;
    let dense = |taps: &Taps, copies: usize| -> Result<Tensor> {
        let matrix =
            Tensor::from_vec(taps.dense(), (1, taps.outputs(), taps.inputs()), &Device::Cpu)?;
        let matrix = matrix.to_dtype(xs.dtype())?.to_device(xs.device())?;
        matrix.broadcast_as((copies, taps.outputs(), taps.inputs()))?.contiguous()
    };
    let rows = xs.reshape((batch, height, width * channels))?;
    let rows = dense(down, batch)?.matmul(&rows)?; // (B, H', W C)
    let lines = rows.reshape((batch * down.outputs(), width, channels))?;
    let ys = dense(across, batch * down.outputs())?.matmul(&lines)?;
    ys.reshape((batch, down.outputs(), across.outputs(), channels))
}
