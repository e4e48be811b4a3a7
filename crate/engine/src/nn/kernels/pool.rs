//! The largest number of each window, channel by channel.

use super::simd::{self, Kernel, Vector};
use super::window::Window;
use super::{Real, Shared, each, filled};

/// (B, H, W, C) to (B, H', W', C): the largest number that each window sees within the image. A NaN
/// stays a NaN.
pub(crate) fn largest<T: Real>(xs: &[T], channels: usize, window: &Window) -> Vec<T> {
    let image = window.positions() * channels;
    let batch = xs.len() / image.max(1);
    let (table, positions) = (window.table(), window.output_positions());
    let (rows, columns) = window.output();
    let len = batch * positions * channels;
    let compute = |ys: Shared<T>| {
        each(batch * rows, len * window.places(), |row| {
            simd::dispatch(Row {
                xs: &xs[row / rows * image..][..image],
                channels,
                table: &table,
                positions,
                first: row % rows * columns,
                columns,
                ys: ys.at(row * columns * channels),
            });
        });
    };
    // SAFETY: each row of the output is written by its task.
    unsafe { filled(len, compute) }
}

struct Row<'a, T> {
    xs: &'a [T],
    channels: usize,
    table: &'a [i32],
    positions: usize,
    first: usize,
    columns: usize,
    ys: *mut T,
}

impl<T: Real> Kernel<T> for Row<'_, T> {
    #[inline(always)]
    unsafe fn run<V: Vector<T>>(self) {
        let channels = self.channels;
        for column in 0..self.columns {
            // SAFETY: the output's row has `columns` positions of `channels` elements.
            let to = unsafe { self.ys.add(column * channels) };
            for c in 0..channels {
                // SAFETY: as above.
                unsafe { to.add(c).write(T::neg_infinity()) };
            }
            // SAFETY: written just now.
            let to = unsafe { std::slice::from_raw_parts_mut(to, channels) };
            for input in self.table[self.first + column..].iter().step_by(self.positions) {
                if *input >= 0 {
                    let from = &self.xs[*input as usize * channels..][..channels];
                    for (most, x) in to.iter_mut().zip(from) {
                        *most = if *x > *most || x.is_nan() { *x } else { *most };
                    }
                }
            }
        }
    }
}

/// The gradient with respect to the input: each window's goes to the first place that has the
/// largest number.
pub(crate) fn largest_back<T: Real>(
    xs: &[T],
    ys: &[T],
    dys: &[T],
    channels: usize,
    window: &Window,
) -> Vec<T> {
    assert_eq!(ys.len(), dys.len());
    let mut dxs = vec![T::zero(); xs.len()];
    let to = Shared::new(dxs.as_mut_ptr());
    // SAFETY: `xs` and the gradient are of one length, and a place belongs to one image's task.
    winners(xs, ys, channels, window, |from, seen| unsafe { *to.at(seen) += dys[from] });
    dxs
}

/// What the largest numbers move along where the input moves along `dxs`: each window's is that of
/// the first place that has the largest number.
pub(crate) fn largest_moved<T: Real>(
    xs: &[T],
    ys: &[T],
    dxs: &[T],
    channels: usize,
    window: &Window,
) -> Vec<T> {
    assert_eq!(xs.len(), dxs.len());
    let mut dys = vec![T::zero(); ys.len()];
    let to = Shared::new(dys.as_mut_ptr());
    // SAFETY: `ys` and what it moves along are of one length; each of its numbers is met once.
    winners(xs, ys, channels, window, |from, seen| unsafe { *to.at(from) = dxs[seen] });
    dys
}

/// Call `hit` with the index of each number of `ys` and that of the first number of `xs` in its window
/// that is as large; one image's in one task.
fn winners<T: Real>(
    xs: &[T],
    ys: &[T],
    channels: usize,
    window: &Window,
    hit: impl Fn(usize, usize) + Sync + Send,
) {
    let (image, table) = (window.positions() * channels, window.table());
    let positions = window.output_positions();
    let batch = xs.len() / image.max(1);
    assert_eq!(ys.len(), batch * positions * channels);
    each(batch, xs.len() * window.places(), |sample| {
        let mut open = vec![true; channels];
        for position in 0..positions {
            let at = (sample * positions + position) * channels;
            open.fill(true);
            for input in table[position..].iter().step_by(positions) {
                if *input >= 0 {
                    let seen = sample * image + *input as usize * channels;
                    for c in 0..channels {
                        if open[c] && xs[seen + c] == ys[at + c] {
                            open[c] = false;
                            hit(at + c, seen + c);
                        }
                    }
                }
            }
        }
    });
}
