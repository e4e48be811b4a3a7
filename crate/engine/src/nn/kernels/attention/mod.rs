//! Scaled dot-product attention, softmax(q k' / sqrt(d)) v for each sample and head. The
//! weights are computed again in the backward pass, from the logarithm of each query's sum:
//! at 1024 positions they would be the largest thing in memory.

mod backward;
mod moved;

use super::panels::{self, Panel};
use super::product::{DEPTH, Start, multiply};
use super::simd::{self, Kernel, Vector};
use super::{Real, Shared, each, filled, with_scratch};

/// Rows of weights that are computed and used at a time.
const ROWS: usize = 96;

/// Queries, keys and values are (B, N, C), with C split into `heads` parts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attention {
    pub batch: usize,
    pub positions: usize,
    pub channels: usize,
    pub heads: usize,
}

impl Attention {
    fn width(&self) -> usize {
        self.channels / self.heads
    }

    fn scale<T: Real>(&self) -> T {
        T::from_f64((self.width() as f64).powf(-0.5))
    }

    // Where sample and head begin.
    fn start(&self, part: usize) -> usize {
        part / self.heads * self.positions * self.channels + part % self.heads * self.width()
    }

    fn check<T>(&self, tensors: &[&[T]]) {
        let len = self.batch * self.positions * self.channels;
        assert!(tensors.iter().all(|t| t.len() == len) && self.channels.is_multiple_of(self.heads));
    }

    // The distance between rows of weights. It is not a power of two: multiples of one share few
    // sets of the cache.
    fn across(&self) -> usize {
        self.positions.next_multiple_of(16) + 16
    }

    /// The output (B, N, C), and for each sample, head and query the logarithm of its sum of
    /// exponentials (B, heads, N).
    pub fn forward<T: Real>(&self, q: &[T], k: &[T], v: &[T]) -> (Vec<T>, Vec<T>) {
        self.check(&[q, k, v]);
        let (n, d) = (self.positions, self.width());
        let len = panels::len::<T>(d, n) + panels::len::<T>(n, d) + ROWS * self.across();
        let parts = self.batch * self.heads;
        let mut sums = Vec::new();
        let compute = |ys: Shared<T>| {
            let compute = |sums: Shared<T>| {
                each(parts, usize::MAX, |part| {
                    with_scratch(len, |scratch| {
                        simd::dispatch(Forward { of: self, part, q, k, v, scratch, sums, ys });
                    });
                });
            };
            // SAFETY: each part writes its queries' sums.
            sums = unsafe { filled(parts * n, compute) };
        };
        // SAFETY: the parts cover all channels of all samples.
        let ys = unsafe { filled(q.len(), compute) };
        (ys, sums)
    }
}

/// `rows` rows of `columns` numbers, `stride` apart.
#[derive(Clone, Copy)]
struct Matrix<T> {
    first: *const T,
    stride: usize,
    rows: usize,
    columns: usize,
}

impl<T: Real> Matrix<T> {
    #[inline(always)]
    fn row(&self, row: usize) -> *const T {
        self.first.wrapping_add(row * self.stride)
    }

    // Panels of its columns, at the beginning of `to`, and the rest of `to`.
    #[inline(always)]
    unsafe fn pack(self, to: &mut [T]) -> (&mut [T], &mut [T]) {
        let (here, rest) = to.split_at_mut(panels::len::<T>(self.rows, self.columns));
        for index in 0..panels::count::<T>(self.columns) {
            let (vectors, first, count) = panels::place::<T>(self.columns, index);
            let across = vectors * simd::lanes::<T>();
            let panel = &mut here[first * self.rows..][..self.rows * across];
            for (r, to) in panel.chunks_exact_mut(across).enumerate() {
                // SAFETY: the matrix is readable, as the caller says.
                let from =
                    unsafe { std::slice::from_raw_parts(self.row(r).wrapping_add(first), count) };
                to[..count].copy_from_slice(from);
                to[count..].fill(T::zero());
            }
        }
        (here, rest)
    }

    // Panels of its rows: those of the transposed matrix.
    #[inline(always)]
    unsafe fn pack_turned(self, to: &mut [T]) -> (&mut [T], &mut [T]) {
        const TOGETHER: usize = 16;
        let (here, rest) = to.split_at_mut(panels::len::<T>(self.columns, self.rows));
        for index in 0..panels::count::<T>(self.rows) {
            let (vectors, first, count) = panels::place::<T>(self.rows, index);
            let across = vectors * simd::lanes::<T>();
            let panel = &mut here[first * self.columns..][..self.columns * across];
            for p in (0..across).step_by(TOGETHER) {
                let width = TOGETHER.min(across - p);
                let mut from = [self.first; TOGETHER];
                for (i, from) in from.iter_mut().enumerate() {
                    // A row past the last is read as the last; it fills the padding.
                    *from = self.row(first + (p + i).min(count - 1));
                }
                for (c, to) in panel.chunks_exact_mut(across).enumerate() {
                    for (to, from) in to[p..p + width].iter_mut().zip(&from) {
                        // SAFETY: the matrix is readable, as the caller says.
                        *to = unsafe { *from.add(c) };
                    }
                }
            }
        }
        (here, rest)
    }
}

// outs(r) = row r of `rows` times packed (depth, columns).
#[inline(always)]
unsafe fn product<T: Real, V: Vector<T>>(
    rows: Matrix<T>,
    packed: &[T],
    columns: usize,
    outs: impl Fn(usize) -> *mut T,
) {
    // SAFETY: as the caller promises.
    unsafe { product_onto::<T, V>(rows, packed, columns, outs, false) }
}

// The same, added to what is there where `onto` says so.
#[inline(always)]
unsafe fn product_onto<T: Real, V: Vector<T>>(
    rows: Matrix<T>,
    packed: &[T],
    columns: usize,
    outs: impl Fn(usize) -> *mut T,
    onto: bool,
) {
    let zeros = [T::zero(); 64];
    let depth = rows.columns;
    for index in 0..panels::count::<T>(columns) {
        let (vectors, first, count) = panels::place::<T>(columns, index);
        let values = packed[first * depth..].as_ptr();
        for from in (0..depth).step_by(DEPTH) {
            let fresh = from == 0 && !onto;
            let start = if fresh { Start::From(zeros.as_ptr()) } else { Start::There };
            let values = values.wrapping_add(from * vectors * V::LANES);
            let panel = Panel { values, vectors, first, columns: count };
            let row = |r: usize| rows.row(r).wrapping_add(from);
            // SAFETY: as the caller promises.
            unsafe {
                multiply::<T, V>(rows.rows, DEPTH.min(depth - from), row, panel, &outs, start);
            }
        }
    }
}

struct Forward<'a, T> {
    of: &'a Attention,
    part: usize,
    q: &'a [T],
    k: &'a [T],
    v: &'a [T],
    scratch: &'a mut [T],
    sums: Shared<T>,
    ys: Shared<T>,
}

impl<T: Real> Kernel<T> for Forward<'_, T> {
    #[inline(always)]
    unsafe fn run<V: Vector<T>>(self) {
        let Self { of, q, k, v, scratch, ys, .. } = self;
        let (n, stride, d, across) = (of.positions, of.channels, of.width(), of.across());
        let start = of.start(self.part);
        let all =
            |from: &[T]| Matrix { first: from[start..].as_ptr(), stride, rows: n, columns: d };
        // SAFETY: the part's rows lie within slices that `check` has measured.
        let (keys, rest) = unsafe { all(k).pack_turned(scratch) };
        // SAFETY: as above.
        let (values, weights) = unsafe { all(v).pack(rest) };
        let at = Shared::new(weights.as_mut_ptr());
        let scale = of.scale::<T>();
        for first in (0..n).step_by(ROWS) {
            let rows = ROWS.min(n - first);
            let from = start + first * stride;
            let queries = Matrix { first: q[from..].as_ptr(), stride, rows, columns: d };
            // SAFETY: `rows` rows of weights fit the scratch memory.
            unsafe { product::<T, V>(queries, keys, n, |r| at.at(r * across)) };
            let mut inverses = [T::zero(); ROWS];
            for (r, inverse) in inverses[..rows].iter_mut().enumerate() {
                let (most, sum) = exponentials(&mut weights[r * across..][..n], scale, V::FUSED);
                *inverse = T::one() / sum;
                // SAFETY: this query's own.
                unsafe {
                    self.sums.at(self.part * n + first + r).write(most * scale + sum.ln());
                }
            }
            let made = Matrix { first: at.at(0).cast_const(), stride: across, rows, columns: n };
            // SAFETY: the part's channels of these rows.
            unsafe { product::<T, V>(made, values, d, |r| ys.at(from + r * stride)) };
            for (r, inverse) in inverses[..rows].iter().enumerate() {
                // SAFETY: as above.
                let y = unsafe { std::slice::from_raw_parts_mut(ys.at(from + r * stride), d) };
                y.iter_mut().for_each(|y| *y *= *inverse);
            }
        }
    }
}

// x = exp((x - max) scale); the maximum and the sum.
#[inline(always)]
fn exponentials<T: Real>(row: &mut [T], scale: T, fused: bool) -> (T, T) {
    // A NaN in the row reaches the sum: the maximum need not keep it.
    let greater = |a: T, b: T| if b > a { b } else { a };
    let mut most = [T::neg_infinity(); 16];
    let mut parts = row.chunks_exact(16);
    for part in &mut parts {
        for (most, x) in most.iter_mut().zip(part) {
            *most = if *x > *most { *x } else { *most };
        }
    }
    let most = most.iter().chain(parts.remainder()).copied().fold(T::neg_infinity(), greater);
    let mut sums = [T::zero(); 16];
    let mut parts = row.chunks_exact_mut(16);
    for part in &mut parts {
        for (sum, x) in sums.iter_mut().zip(part) {
            *x = ((*x - most) * scale).exponential(fused);
            *sum += *x;
        }
    }
    for (sum, x) in sums.iter_mut().zip(parts.into_remainder()) {
        *x = ((*x - most) * scale).exponential(fused);
        *sum += *x;
    }
    (most, sums.into_iter().sum())
}
