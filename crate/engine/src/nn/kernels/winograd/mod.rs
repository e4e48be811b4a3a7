//! 3x3 convolutions at stride 1 by Winograd's minimal filtering (Lavin and Gray 2016):
//! F(2x2, 3x3) takes 16 products in place of 36 for a 2x2 tile of the output, F(4x4, 3x3) 36
//! in place of 144 for a 4x4 tile.
//!
//! With d the tile of the input and g a filter, the output's tile is `A' [(G g G') (B' d B)] A`;
//! the filter's gradient from the output's dy is `G' [(A dy A') (B' d B)] G`, summed over the
//! tiles. The products over channels are matrix products, one for each element of a transformed
//! tile.
//!
//! The entries of F(2x2)'s transforms are 0, 1, -1 and 1/2: it loses no more digits than a direct
//! sum. The forward pass uses it, so that a network's outputs agree in training, in sampling and
//! with those of other programs. The entries of F(4x4)'s transforms reach 8 and 1/24, and it loses
//! about one digit of f32: good enough for gradients, which use it.

// By index: registers are arrays of constant length, and every loop is unrolled.
#![allow(clippy::needless_range_loop)]

mod convolve;
mod filtering;
mod gradient;

pub(crate) use convolve::{convolve, weights};
pub(crate) use filtering::{Filtering, Four, Two};
pub(crate) use gradient::weight_gradient;

use super::Real;
use super::simd::Vector;
use super::window::Window;

/// From this many tiles on, transforming the weights pays off.
const TILES: usize = 96;

/// Whether a convolution should be computed this way.
pub(crate) fn pays<F: Filtering>(
    _: F,
    batch: usize,
    window: &Window,
    inputs: usize,
    outputs: usize,
) -> bool {
    let (rows, columns) = tiles::<F>(window);
    // An image smaller than a tile would be mostly padding.
    window.is_same3()
        && window.size.0.min(window.size.1) + 1 >= F::OUT
        && inputs.min(outputs) >= 16
        && batch * rows * columns >= TILES
}

/// Tiles down and across an image.
fn tiles<F: Filtering>(window: &Window) -> (usize, usize) {
    (window.size.0.div_ceil(F::OUT), window.size.1.div_ceil(F::OUT))
}

/// The positions of an image that each of its tiles sees (SIDE^2) or holds (OUT^2), -1
/// outside.
struct Places {
    seen: Vec<[i32; 36]>,
    held: Vec<[i32; 16]>,
}

impl Places {
    fn new<F: Filtering>(window: &Window) -> Self {
        let (height, width) = window.size;
        let (down, across) = tiles::<F>(window);
        let (mut seen, mut held) = (Vec::new(), Vec::new());
        let at = |y: usize, x: usize| {
            if y < height && x < width { (y * width + x) as i32 } else { -1 }
        };
        for tile in 0..down * across {
            let (y, x) = (tile / across * F::OUT, tile % across * F::OUT);
            // The tile begins one position above and left of its output.
            seen.push(std::array::from_fn(|place| {
                let (y, x) = (y + place / F::SIDE, x + place % F::SIDE);
                if y == 0 || x == 0 { -1 } else { at(y - 1, x - 1) }
            }));
            held.push(std::array::from_fn(|place| at(y + place / F::OUT, x + place % F::OUT)));
        }
        Self { seen, held }
    }
}

// The rows of `image` at these positions; `outside` where there is none.
#[inline(always)]
fn rows<T, const N: usize>(
    image: *const T,
    channels: usize,
    positions: &[i32; N],
    outside: *const T,
) -> [*const T; N] {
    let mut rows = [outside; N];
    for (row, position) in rows.iter_mut().zip(positions) {
        if *position >= 0 {
            *row = image.wrapping_add(*position as usize * channels);
        }
    }
    rows
}

// B' d B from channel `first` on in whole registers, each element stored where `to` says; returns
// where it stopped.
#[inline(always)]
unsafe fn transform<T: Real, V: Vector<T>, F: Filtering>(
    seen: &[*const T; 36],
    first: usize,
    channels: usize,
    to: impl Fn(usize, usize) -> *mut T,
) -> usize {
    let mut c = first;
    unsafe {
        while c + V::LANES <= channels {
            let mut columns = [[V::splat(T::zero()); 6]; 6];
            for (v, column) in columns.iter_mut().take(F::SIDE).enumerate() {
                let mut d = [V::splat(T::zero()); 6];
                for (u, d) in d.iter_mut().take(F::SIDE).enumerate() {
                    *d = V::load(seen[F::SIDE * u + v].add(c));
                }
                *column = F::input(d);
            }
            for u in 0..F::SIDE {
                let mut row = [V::splat(T::zero()); 6];
                for (row, column) in row.iter_mut().zip(&columns) {
                    *row = column[u];
                }
                for (v, value) in F::input(row).into_iter().take(F::SIDE).enumerate() {
                    value.store(to(F::SIDE * u + v, c));
                }
            }
            c += V::LANES;
        }
    }
    c
}
