//! Steps of networks that evaluate images: ReLU, pooling, resizing.

use super::ops::Resampling;
use super::tape::{Tape, Value};
use crate::{Result, ensure};

/// ReLU, max(x, 0).
pub fn relu(tape: &mut Tape, xs: &Value) -> Result<Value> {
    Ok(tape.relu(xs)?)
}

/// The largest of each `kernel` x `kernel` window: (B, H, W, C) to (B, H', W', C). What
/// `padding` adds on each side is never the largest.
///
/// # Errors
/// A window that does not fit its image, or sees only padding.
pub fn max_pool(
    tape: &mut Tape,
    xs: &Value,
    kernel: usize,
    stride: usize,
    padding: usize,
) -> Result<Value> {
    Ok(tape.max_pool(xs, kernel, stride, padding)?)
}

/// The mean of the part of each 3x3 window at stride 1 that lies within the image: the same shape.
pub fn average_pool3(tape: &mut Tape, xs: &Value) -> Result<Value> {
    Ok(tape.resample(xs, Resampling::Mean3)?)
}

/// The mean over all positions: (B, H, W, C) to (B, C).
pub fn position_mean(tape: &mut Tape, xs: &Value) -> Result<Value> {
    Ok(tape.position_mean(xs)?)
}

/// Bilinear interpolation between the centres of pixels ("without aligned corners"), without
/// a filter before it: (B, H, W, C) to (B, `height`, `width`, C).
///
/// # Errors
/// A size of zero.
pub fn resize_bilinear(
    tape: &mut Tape,
    xs: &Value,
    (height, width): (usize, usize),
) -> Result<Value> {
    ensure!(
        height > 0 && width > 0 && xs.dims().iter().all(|size| *size > 0),
        "images of {:?} resized to {height}x{width}",
        xs.dims()
    );
    Ok(tape.resize_bilinear(xs, (height, width))?)
}
