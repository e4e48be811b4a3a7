//! Elementwise work, in one pass on all threads.

use super::simd::{self, Kernel, Vector, mul_add};
use super::{PIECE, Real, Shared, each, filled};

/// e^x to two units in the last place: 2^n times a polynomial (the coefficients are those of
/// Cephes' `expf`). It has no branch and no call, so that loops vectorise. It stays finite above
/// 88.3, and a NaN stays a NaN.
#[inline(always)]
pub(crate) fn exponential(x: f32, fused: bool) -> f32 {
    // Adding 1.5 2^23 rounds to a whole number, which then stands in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.3, 88.3);
    let shifted = mul_add(x, std::f32::consts::LOG2_E, ROUND, fused);
    let n = shifted - ROUND;
    let r = mul_add(n, -0.693_359_4, x, fused);
    let r = mul_add(n, 2.121_944_4e-4, r, fused);
    let p = 1.987_569_1e-4;
    let p = mul_add(p, r, 1.398_199_9e-3, fused);
    let p = mul_add(p, r, 8.333_452e-3, fused);
    let p = mul_add(p, r, 4.166_579_6e-2, fused);
    let p = mul_add(p, r, 1.666_666_5e-1, fused);
    let p = mul_add(p, r, 0.5, fused);
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    mul_add(p, r * r, r + 1.0, fused) * power
}

/// SiLU, x s with s = 1 / (1 + e^-x), and its derivative, s (1 + x (1 - s)).
#[inline(always)]
fn silu_with_slope<T: Real>(x: T, fused: bool) -> (T, T) {
    let around = T::one() + (-x).exponential(fused);
    let s = T::one() / around;
    (x / around, s * mul_add(x, T::one() - s, T::one(), fused))
}

/// x / (1 + e^-x)
#[inline(always)]
pub(crate) fn silu<T: Real>(x: T, fused: bool) -> T {
    silu_with_slope(x, fused).0
}

/// The derivative of SiLU.
#[inline(always)]
pub(crate) fn silu_slope<T: Real>(x: T, fused: bool) -> T {
    silu_with_slope(x, fused).1
}

/// f of each element, and of whether products and sums are [fused](Vector::FUSED).
pub(crate) fn map<T: Real>(xs: &[T], f: impl Fn(T, bool) -> T + Sync + Send + Copy) -> Vec<T> {
    zip(xs, xs, move |x, _, fused| f(x, fused))
}

/// f of the elements of two slices of the same length, and of whether products and sums are
/// [fused](Vector::FUSED).
pub(crate) fn zip<T: Real>(
    xs: &[T],
    ys: &[T],
    f: impl Fn(T, T, bool) -> T + Sync + Send + Copy,
) -> Vec<T> {
    assert_eq!(xs.len(), ys.len());
    let compute = |to: Shared<T>| {
        each(xs.len().div_ceil(PIECE), xs.len(), |piece| {
            let (from, end) = (piece * PIECE, ((piece + 1) * PIECE).min(xs.len()));
            simd::dispatch(Zip { xs: &xs[from..end], ys: &ys[from..end], to: to.at(from), f });
        });
    };
    // SAFETY: the pieces cover the slice.
    unsafe { filled(xs.len(), compute) }
}

/// SiLU of `xs`, and what it moves along where `xs` moves along `dxs`: one exponential for both.
pub(crate) fn silu_moved<T: Real>(xs: &[T], dxs: &[T]) -> (Vec<T>, Vec<T>) {
    assert_eq!(xs.len(), dxs.len());
    let len = xs.len();
    let both = |ys: Shared<T>, dys: Shared<T>| {
        each(len.div_ceil(PIECE), len, |piece| {
            let (from, end) = (piece * PIECE, ((piece + 1) * PIECE).min(len));
            let (xs, dxs) = (&xs[from..end], &dxs[from..end]);
            simd::dispatch(SiluMoved { xs, dxs, ys: ys.at(from), dys: dys.at(from) });
        });
    };
    let mut dys = Vec::new();
    // SAFETY: the pieces cover both.
    let ys = unsafe { filled(len, |ys| dys = filled(len, |dys| both(ys, dys))) };
    (ys, dys)
}

struct SiluMoved<'a, T> {
    xs: &'a [T],
    dxs: &'a [T],
    ys: *mut T,
    dys: *mut T,
}

impl<T: Real> Kernel<T> for SiluMoved<'_, T> {
    #[inline(always)]
    unsafe fn run<V: Vector<T>>(self) {
        for (i, (x, dx)) in self.xs.iter().zip(self.dxs).enumerate() {
            let (y, slope) = silu_with_slope(*x, V::FUSED);
            // SAFETY: both have room for as many elements as there are.
            unsafe {
                self.ys.add(i).write(y);
                self.dys.add(i).write(*dx * slope);
            }
        }
    }
}

struct Zip<'a, T, F> {
    xs: &'a [T],
    ys: &'a [T],
    to: *mut T,
    f: F,
}

impl<T: Real, F: Fn(T, T, bool) -> T> Kernel<T> for Zip<'_, T, F> {
    #[inline(always)]
    unsafe fn run<V: Vector<T>>(self) {
        for (i, (x, y)) in self.xs.iter().zip(self.ys).enumerate() {
            // SAFETY: `to` has room for as many elements as there are.
            unsafe { self.to.add(i).write((self.f)(*x, *y, V::FUSED)) };
        }
    }
}

/// x = f(x, y) for the elements of two slices of the same length.
pub(crate) fn update<T: Real>(xs: &mut [T], ys: &[T], f: impl Fn(T, T) -> T + Sync + Send + Copy) {
    assert_eq!(xs.len(), ys.len());
    let (len, to) = (xs.len(), Shared::new(xs.as_mut_ptr()));
    each(len.div_ceil(PIECE), len, |piece| {
        let (from, end) = (piece * PIECE, ((piece + 1) * PIECE).min(len));
        // SAFETY: the pieces do not overlap.
        let xs = unsafe { std::slice::from_raw_parts_mut(to.at(from), end - from) };
        simd::dispatch(Update { xs, ys: &ys[from..end], f });
    });
}

struct Update<'a, T, F> {
    xs: &'a mut [T],
    ys: &'a [T],
    f: F,
}

impl<T: Real, F: Fn(T, T) -> T> Kernel<T> for Update<'_, T, F> {
    #[inline(always)]
    unsafe fn run<V: Vector<T>>(self) {
        for (x, y) in self.xs.iter_mut().zip(self.ys) {
            *x = (self.f)(*x, *y);
        }
    }
}

/// Rows of `a` and of `b` side by side: (rows, across) and (rows, across') to (rows, across +
/// across').
pub(crate) fn join<T: Real>(a: &[T], b: &[T], across: (usize, usize)) -> Vec<T> {
    let rows = a.len() / across.0.max(1);
    let width = across.0 + across.1;
    let block = (PIECE / width.max(1)).max(1);
    let compute = |to: Shared<T>| {
        each(rows.div_ceil(block), rows * width, |piece| {
            for r in piece * block..((piece + 1) * block).min(rows) {
                // SAFETY: row `r` of each has these elements, and is written by one piece.
                unsafe {
                    let (a, b) = (&a[r * across.0..][..across.0], &b[r * across.1..][..across.1]);
                    std::ptr::copy_nonoverlapping(a.as_ptr(), to.at(r * width), across.0);
                    std::ptr::copy_nonoverlapping(
                        b.as_ptr(),
                        to.at(r * width + across.0),
                        across.1,
                    );
                }
            }
        });
    };
    // SAFETY: every row is written.
    unsafe { filled(rows * width, compute) }
}

/// Columns `from..from + count` of rows of `width`.
pub(crate) fn columns<T: Real>(xs: &[T], width: usize, from: usize, count: usize) -> Vec<T> {
    let rows = xs.len() / width.max(1);
    let block = (PIECE / width.max(1)).max(1);
    let compute = |to: Shared<T>| {
        each(rows.div_ceil(block), xs.len(), |piece| {
            for r in piece * block..((piece + 1) * block).min(rows) {
                let row = &xs[r * width + from..][..count];
                // SAFETY: a row of the output, written once.
                unsafe { std::ptr::copy_nonoverlapping(row.as_ptr(), to.at(r * count), count) };
            }
        });
    };
    // SAFETY: every row is written.
    unsafe { filled(rows * count, compute) }
}

/// (B, C, P) to (B, P, C), or back with the sizes exchanged.
pub(crate) fn turn<T: Real>(xs: &[T], rows: usize, columns: usize) -> Vec<T> {
    let size = (rows * columns).max(1);
    let compute = |to: Shared<T>| {
        each(xs.len() / size, xs.len(), |image| {
            let xs = &xs[image * size..][..size];
            for column in 0..columns {
                for row in 0..rows {
                    let at = image * size + column * rows + row;
                    // SAFETY: each element of the image is written once.
                    unsafe { to.at(at).write(xs[row * columns + column]) };
                }
            }
        });
    };
    // SAFETY: every element of every image is written.
    unsafe { filled(xs.len(), compute) }
}
