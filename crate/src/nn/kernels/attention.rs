//! Scaled dot-product attention, softmax(q k' / sqrt(d)) v for each sample and head. The
//! weights are computed again in the backward pass: at 1024 positions they would be the
//! largest thing in memory.

use super::panels::{self, Panel};
use super::product::{Start, multiply, outer};
use super::simd::{self, Kernel, Vector};
use super::{Real, Shared, filled, with_scratch};
use rayon::prelude::*;

/// Queries of one task.
const QUERIES: usize = 96;

/// Queries, keys and values are (B, N, C), C in `heads` parts.
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

    /// (B, N, C)
    pub fn forward<T: Real>(&self, q: &[T], k: &[T], v: &[T]) -> Vec<T> {
        self.check(&[q, k, v]);
        let (n, d) = (self.positions, self.width());
        let len = panels::len::<T>(d, n) + panels::len::<T>(n, d) + QUERIES * n;
        let compute = |ys: Shared<T>| {
            (0..self.batch * self.heads).into_par_iter().for_each(|part| {
                with_scratch(len, |scratch| {
                    simd::dispatch(Forward { of: self, part, q, k, v, scratch, ys });
                });
            });
        };
        // SAFETY: the parts cover all channels of all samples.
        unsafe { filled(q.len(), compute) }
    }

    /// The gradients by q, k and v from that by the output.
    pub fn backward<T: Real>(&self, q: &[T], k: &[T], v: &[T], dys: &[T]) -> [Vec<T>; 3] {
        self.check(&[q, k, v, dys]);
        let (n, d) = (self.positions, self.width());
        let (turned, plain) = (panels::len::<T>(d, n), panels::len::<T>(n, d));
        let len = 2 * turned + 3 * plain + 2 * panels::len::<T>(QUERIES, d) + 2 * QUERIES * n;
        let (mut dk, mut dv) = (Vec::new(), Vec::new());
        let compute = |dq: Shared<T>| {
            let compute = |to: Shared<T>| {
                let compute = |by_value: Shared<T>| {
                    (0..self.batch * self.heads).into_par_iter().for_each(|part| {
                        with_scratch(len, |scratch| {
                            let out = [dq, to, by_value];
                            simd::dispatch(Backward { of: self, part, q, k, v, dys, scratch, out });
                        });
                    });
                };
                // SAFETY: the parts cover all channels of all samples, in all three.
                dv = unsafe { filled(q.len(), compute) };
            };
            // SAFETY: as above.
            dk = unsafe { filled(q.len(), compute) };
        };
        // SAFETY: as above.
        let dq = unsafe { filled(q.len(), compute) };
        [dq, dk, dv]
    }
}

// A matrix of `rows` rows of `columns` in panels, written into the beginning of `to`; what is
// left of it. Element (r, c) is `at(r, c)`.
#[inline(always)]
fn pack<T: Real>(
    to: &mut [T],
    (rows, columns): (usize, usize),
    at: impl Fn(usize, usize) -> T,
) -> (&mut [T], &mut [T]) {
    let (here, rest) = to.split_at_mut(panels::len::<T>(rows, columns));
    for index in 0..panels::count::<T>(columns) {
        let (vectors, first, count) = panels::place::<T>(columns, index);
        let across = vectors * simd::lanes::<T>();
        let panel = &mut here[first * rows..][..rows * across];
        for (r, row) in panel.chunks_exact_mut(across).enumerate() {
            for (c, value) in row.iter_mut().enumerate() {
                *value = if c < count { at(r, first + c) } else { T::zero() };
            }
        }
    }
    (here, rest)
}

// Panel `index` of packed values.
#[inline(always)]
fn panel<T: Real>(packed: &[T], (rows, columns): (usize, usize), index: usize) -> Panel<T> {
    let (vectors, first, count) = panels::place::<T>(columns, index);
    Panel { values: packed[first * rows..].as_ptr(), vectors, first, columns: count }
}

// outs(r) = rows(r) times packed (depth, columns), for r < count.
#[inline(always)]
unsafe fn product<T: Real, V: Vector<T>>(
    (count, depth, columns): (usize, usize, usize),
    rows: impl Fn(usize) -> *const T,
    packed: &[T],
    outs: impl Fn(usize) -> *mut T,
) {
    let zeros = [T::zero(); 64];
    for index in 0..panels::count::<T>(columns) {
        let panel = panel(packed, (depth, columns), index);
        // SAFETY: the caller's.
        unsafe {
            let start = Start::From(zeros.as_ptr());
            multiply::<T, V>(count, depth, &rows, panel, &outs, start);
        }
    }
}

// The weights of `count` queries: softmax of q k' scale, row by row.
#[inline(always)]
unsafe fn weights<T: Real, V: Vector<T>>(
    of: &Attention,
    q: *const T,
    count: usize,
    keys: &[T],
    to: &mut [T],
) {
    let (n, stride, d) = (of.positions, of.channels, of.width());
    let at = Shared::new(to.as_mut_ptr());
    // SAFETY: `count` queries begin at `q`, and `to` has a row of n for each.
    unsafe {
        product::<T, V>((count, d, n), |r| q.add(r * stride), keys, |r| at.at(r * n));
    }
    softmax(&mut to[..count * n], n, of.scale());
}

struct Forward<'a, T> {
    of: &'a Attention,
    part: usize,
    q: &'a [T],
    k: &'a [T],
    v: &'a [T],
    scratch: &'a mut [T],
    ys: Shared<T>,
}

impl<T: Real> Kernel<T> for Forward<'_, T> {
    #[inline(always)]
    unsafe fn run<V: Vector<T>>(self) {
        let Self { of, q, k, v, scratch, ys, .. } = self;
        let (n, stride, d) = (of.positions, of.channels, of.width());
        let start = of.start(self.part);
        let (keys, rest) = pack(scratch, (d, n), |c, p| k[start + p * stride + c]);
        let (values, w) = pack(rest, (n, d), |p, c| v[start + p * stride + c]);
        for first in (0..n).step_by(QUERIES) {
            let count = QUERIES.min(n - first);
            let from = start + first * stride;
            // SAFETY: rows of this part's, within slices that `check` has measured.
            unsafe {
                weights::<T, V>(of, q[from..].as_ptr(), count, keys, w);
                let row = |r: usize| w[r * n..].as_ptr();
                product::<T, V>((count, n, d), row, values, |r| ys.at(from + r * stride));
            }
        }
    }
}

struct Backward<'a, T> {
    of: &'a Attention,
    part: usize,
    q: &'a [T],
    k: &'a [T],
    v: &'a [T],
    dys: &'a [T],
    scratch: &'a mut [T],
    out: [Shared<T>; 3],
}

impl<T: Real> Kernel<T> for Backward<'_, T> {
    // With w the weights: dv = w' dy, dw = dy v', ds = w (dw - sum(w dw)) scale, dq = ds k,
    // dk = ds' q.
    #[inline(always)]
    unsafe fn run<V: Vector<T>>(self) {
        let Self { of, q, k, v, dys, scratch, out, .. } = self;
        let (n, stride, d) = (of.positions, of.channels, of.width());
        let start = of.start(self.part);
        let (turned_keys, rest) = pack(scratch, (d, n), |c, p| k[start + p * stride + c]);
        let (turned_values, rest) = pack(rest, (d, n), |c, p| v[start + p * stride + c]);
        let (keys, rest) = pack(rest, (n, d), |p, c| k[start + p * stride + c]);
        let plain = panels::len::<T>(n, d);
        let (by_value, rest) = rest.split_at_mut(plain);
        let (by_key, rest) = rest.split_at_mut(plain);
        let few = panels::len::<T>(QUERIES, d);
        let (packed, rest) = rest.split_at_mut(2 * few);
        let (w, dw) = rest.split_at_mut(QUERIES * n);
        for first in (0..n).step_by(QUERIES) {
            let count = QUERIES.min(n - first);
            let from = start + first * stride;
            let (dy_rows, rest) = pack(packed, (count, d), |r, c| dys[from + r * stride + c]);
            let (q_rows, _) = pack(rest, (count, d), |r, c| q[from + r * stride + c]);
            // SAFETY: as in `Forward`.
            unsafe {
                weights::<T, V>(of, q[from..].as_ptr(), count, turned_keys, w);
                let at = Shared::new(dw.as_mut_ptr());
                let dy = |r: usize| dys[from + r * stride..].as_ptr();
                product::<T, V>((count, d, n), dy, turned_values, |r| at.at(r * n));
                outer_rows::<T, V>((count, n, d), w, dy_rows, by_value, first == 0);
                slopes(&w[..count * n], &mut dw[..count * n], n, of.scale());
                let slope = |r: usize| at.at(r * n).cast_const();
                product::<T, V>((count, n, d), slope, keys, |r| out[0].at(from + r * stride));
                outer_rows::<T, V>((count, n, d), dw, q_rows, by_key, first == 0);
            }
        }
        for (sums, to) in [(by_key, out[1]), (by_value, out[2])] {
            for index in 0..panels::count::<T>(d) {
                let (vectors, first, columns) = panels::place::<T>(d, index);
                let across = vectors * V::LANES;
                for p in 0..n {
                    let row = &sums[first * n + p * across..][..columns];
                    // SAFETY: these channels of this row are the part's own.
                    unsafe {
                        let to = to.at(start + p * stride + first);
                        std::ptr::copy_nonoverlapping(row.as_ptr(), to, columns);
                    }
                }
            }
        }
    }
}

// sums (n, d) += w' rows, for w (count, n) and packed rows (count, d).
#[inline(always)]
unsafe fn outer_rows<T: Real, V: Vector<T>>(
    (count, n, d): (usize, usize, usize),
    w: &[T],
    rows: &[T],
    sums: &mut [T],
    fresh: bool,
) {
    let mut pointers = [std::ptr::null(); QUERIES];
    for (r, pointer) in pointers[..count].iter_mut().enumerate() {
        *pointer = w[r * n..].as_ptr();
    }
    for index in 0..panels::count::<T>(d) {
        let (vectors, first, _) = panels::place::<T>(d, index);
        let (rows, sums) = (rows[first * count..].as_ptr(), sums[first * n..].as_mut_ptr());
        // SAFETY: the caller's.
        unsafe { outer::<T, V>(&pointers[..count], n, rows, vectors, sums, fresh) };
    }
}

#[inline(always)]
fn softmax<T: Real>(rows: &mut [T], across: usize, scale: T) {
    for row in rows.chunks_exact_mut(across) {
        let mut most = [T::neg_infinity(); 16];
        for part in row.chunks(16) {
            // A NaN in the row reaches the sum below: this need not keep it.
            for (most, x) in most.iter_mut().zip(part) {
                *most = if *x > *most { *x } else { *most };
            }
        }
        let most = most.into_iter().fold(T::neg_infinity(), |a, b| if b > a { b } else { a });
        let mut sums = [T::zero(); 16];
        for part in row.chunks_mut(16) {
            for (sum, x) in sums.iter_mut().zip(part) {
                *x = ((*x - most) * scale).exponential();
                *sum += *x;
            }
        }
        let inverse = T::one() / sums.into_iter().sum::<T>();
        row.iter_mut().for_each(|x| *x *= inverse);
    }
}

// ds = w (dw - sum(w dw)) scale, row by row.
#[inline(always)]
fn slopes<T: Real>(rows: &[T], grads: &mut [T], across: usize, scale: T) {
    for (w, dw) in rows.chunks_exact(across).zip(grads.chunks_exact_mut(across)) {
        let mut sums = [T::zero(); 16];
        for (w, dw) in w.chunks(16).zip(dw.chunks(16)) {
            for ((sum, w), dw) in sums.iter_mut().zip(w).zip(dw) {
                *sum += *w * *dw;
            }
        }
        let dot = sums.into_iter().sum::<T>();
        for (w, dw) in w.iter().zip(dw) {
            *dw = *w * (*dw - dot) * scale;
        }
    }
}
