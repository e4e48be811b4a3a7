//! Scaled dot-product attention, softmax(q k' / sqrt(d)) v for each sample and head. The
//! weights are computed again in the backward pass: at 1024 positions they would be the
//! largest thing in memory.

use super::simd::{self, Kernel, Vector};
use super::{Real, Shared, with_scratch};
use gemm::Parallelism;
use rayon::prelude::*;

/// Queries of one task.
const QUERIES: usize = 128;

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
        let (n, stride, d) = (self.positions, self.channels, self.width());
        let mut ys = vec![T::zero(); q.len()];
        let to = Shared::new(ys.as_mut_ptr());
        let blocks = n.div_ceil(QUERIES);
        let work = |w: &mut [T], task: usize| {
            let (start, first) = (self.start(task / blocks), task % blocks * QUERIES);
            let count = QUERIES.min(n - first);
            let q = Rows { at: q[start + first * stride..].as_ptr(), stride };
            let k = Rows { at: k[start..].as_ptr(), stride };
            let v = Rows { at: v[start..].as_ptr(), stride };
            // SAFETY: the matrices lie within their slices, which `check` has measured.
            unsafe {
                let weights = Rows { at: w.as_ptr(), stride: n };
                product((count, d, n), q.plain(), k.turned(), (w.as_mut_ptr(), n), T::zero());
                simd::dispatch(Softmax { rows: &mut w[..count * n], across: n, scale: self.scale() });
                let ys = to.at(start + first * stride);
                product((count, n, d), weights.plain(), v.plain(), (ys, stride), T::zero());
            }
        };
        (0..self.batch * self.heads * blocks)
            .into_par_iter()
            .for_each(|task| with_scratch(QUERIES * n, |w| work(w, task)));
        ys
    }

    /// The gradients by q, k and v from that by the output.
    pub fn backward<T: Real>(&self, q: &[T], k: &[T], v: &[T], dys: &[T]) -> [Vec<T>; 3] {
        self.check(&[q, k, v, dys]);
        let (n, stride, d) = (self.positions, self.channels, self.width());
        let mut out = [(); 3].map(|()| vec![T::zero(); q.len()]);
        let [dq, dk, dv] = &mut out;
        let (dq, dk, dv) = (
            Shared::new(dq.as_mut_ptr()),
            Shared::new(dk.as_mut_ptr()),
            Shared::new(dv.as_mut_ptr()),
        );
        let work = |(w, dw): (&mut [T], &mut [T]), part: usize| {
            let start = self.start(part);
            let k = Rows { at: k[start..].as_ptr(), stride };
            let v = Rows { at: v[start..].as_ptr(), stride };
            for first in (0..n).step_by(QUERIES) {
                let count = QUERIES.min(n - first);
                let from = start + first * stride;
                let q = Rows { at: q[from..].as_ptr(), stride };
                let dy = Rows { at: dys[from..].as_ptr(), stride };
                let weights = Rows { at: w.as_ptr(), stride: n };
                let slopes = Rows { at: dw.as_ptr(), stride: n };
                // SAFETY: as in `forward`; each part writes its own rows and columns.
                unsafe {
                    product((count, d, n), q.plain(), k.turned(), (w.as_mut_ptr(), n), T::zero());
                    let rows = &mut w[..count * n];
                    simd::dispatch(Softmax { rows, across: n, scale: self.scale() });
                    // dv += w' dy; dw = dy v'
                    let to = (dv.at(start), stride);
                    product((n, count, d), weights.turned(), dy.plain(), to, T::one());
                    product((count, d, n), dy.plain(), v.turned(), (dw.as_mut_ptr(), n), T::zero());
                    simd::dispatch(Slopes {
                        rows: &w[..count * n],
                        grads: &mut dw[..count * n],
                        across: n,
                        scale: self.scale(),
                    });
                    let to = (dq.at(from), stride);
                    product((count, n, d), slopes.plain(), k.plain(), to, T::zero());
                    let to = (dk.at(start), stride);
                    product((n, count, d), slopes.turned(), q.plain(), to, T::one());
                }
            }
        };
        (0..self.batch * self.heads).into_par_iter().for_each(|part| {
            with_scratch(2 * QUERIES * n, |both| work(both.split_at_mut(QUERIES * n), part));
        });
        out
    }
}

// A matrix whose rows begin `stride` elements apart.
#[derive(Clone, Copy)]
struct Rows<T> {
    at: *const T,
    stride: usize,
}

impl<T> Rows<T> {
    // With the strides of (row, column).
    fn plain(self) -> (*const T, usize, usize) {
        (self.at, self.stride, 1)
    }

    fn turned(self) -> (*const T, usize, usize) {
        (self.at, 1, self.stride)
    }
}

// ys (m, n) = keep ys + a (m, k) b (k, n), on this thread.
unsafe fn product<T: Real>(
    (m, k, n): (usize, usize, usize),
    a: (*const T, usize, usize),
    b: (*const T, usize, usize),
    (to, stride): (*mut T, usize),
    keep: T,
) {
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            to,
            1,
            stride as isize,
            keep != T::zero(),
            a.0,
            a.2 as isize,
            a.1 as isize,
            b.0,
            b.2 as isize,
            b.1 as isize,
            keep,
            T::one(),
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

struct Softmax<'a, T> {
    rows: &'a mut [T],
    across: usize,
    scale: T,
}

impl<T: Real> Kernel<T> for Softmax<'_, T> {
    #[inline(always)]
    unsafe fn run<V: Vector<T>>(self) {
        for row in self.rows.chunks_exact_mut(self.across) {
            let mut most = [T::neg_infinity(); 16];
            for part in row.chunks(16) {
                // A NaN in the row reaches the sum below: this need not keep it.
                most.iter_mut().zip(part).for_each(|(most, x)| *most = if *x > *most { *x } else { *most });
            }
            let most = most.into_iter().fold(T::neg_infinity(), |a, b| if b > a { b } else { a });
            let mut sums = [T::zero(); 16];
            for part in row.chunks_mut(16) {
                for (sum, x) in sums.iter_mut().zip(part) {
                    *x = ((*x - most) * self.scale).exponential();
                    *sum = *sum + *x;
                }
            }
            let inverse = T::one() / sums.into_iter().sum::<T>();
            row.iter_mut().for_each(|x| *x = *x * inverse);
        }
    }
}

// ds = w (dw - sum(w dw)) scale, row by row.
struct Slopes<'a, T> {
    rows: &'a [T],
    grads: &'a mut [T],
    across: usize,
    scale: T,
}

impl<T: Real> Kernel<T> for Slopes<'_, T> {
    #[inline(always)]
    unsafe fn run<V: Vector<T>>(self) {
        let rows = self.rows.chunks_exact(self.across);
        for (w, dw) in rows.zip(self.grads.chunks_exact_mut(self.across)) {
            let mut sums = [T::zero(); 16];
            for (w, dw) in w.chunks(16).zip(dw.chunks(16)) {
                for ((sum, w), dw) in sums.iter_mut().zip(w).zip(dw) {
                    *sum = *sum + *w * *dw;
                }
            }
            let dot = sums.into_iter().sum::<T>();
            for (w, dw) in w.iter().zip(dw) {
                *dw = *w * (*dw - dot) * self.scale;
            }
        }
    }
}
