//! The gradient of an attention.

use super::{Attention, Matrix, ROWS, product};
use crate::nn::kernels::product::outer;
use crate::nn::kernels::simd::{self, Kernel, Vector};
use crate::nn::kernels::{Real, Shared, each, filled, panels, with_scratch};

impl Attention {
    /// The gradients with respect to q, k and v, from the output, its sums and the gradient with
    /// respect to the output.
    pub fn backward<T: Real>(
        &self,
        [q, k, v]: [&[T]; 3],
        (ys, sums): (&[T], &[T]),
        dys: &[T],
    ) -> [Vec<T>; 3] {
        self.check(&[q, k, v, ys, dys]);
        let (n, d) = (self.positions, self.width());
        let (turned, plain) = (panels::len::<T>(d, n), panels::len::<T>(n, d));
        let len = 2 * turned + 3 * plain + panels::len::<T>(ROWS, d) + 2 * ROWS * self.across() + n;
        let (mut dk, mut dv) = (Vec::new(), Vec::new());
        let compute = |dq: Shared<T>| {
            let compute = |dk: Shared<T>| {
                let compute = |dv: Shared<T>| {
                    each(self.batch * self.heads, usize::MAX, |part| {
                        let sums = &sums[part * n..][..n];
                        with_scratch(len, |scratch| {
                            let (of, out) = (self, [dq, dk, dv]);
                            let work = Backward { of, part, q, k, v, ys, sums, dys, scratch, out };
                            simd::dispatch(work);
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

struct Backward<'a, T> {
    of: &'a Attention,
    part: usize,
    q: &'a [T],
    k: &'a [T],
    v: &'a [T],
    ys: &'a [T],
    /// Of this part.
    sums: &'a [T],
    dys: &'a [T],
    scratch: &'a mut [T],
    out: [Shared<T>; 3],
}

impl<T: Real> Kernel<T> for Backward<'_, T> {
    // With w the weights: dv = w' dy, dw = dy v', ds = w (dw - dy . y) scale, dq = ds k,
    // dk = ds' q. The rows here are keys: w' and ds' are what two of the three need, and what
    // belongs to a query stands beside its column.
    #[inline(always)]
    unsafe fn run<V: Vector<T>>(self) {
        let Self { of, q, k, v, ys, sums, dys, scratch, out: [dq, dk, dv], .. } = self;
        let (n, stride, d, across) = (of.positions, of.channels, of.width(), of.across());
        let start = of.start(self.part);
        let block = |from: &[T], first: usize, rows: usize| {
            let first = from[start + first * stride..].as_ptr();
            Matrix { first, stride, rows, columns: d }
        };
        // SAFETY: the part's rows lie within slices that `check` has measured.
        let (turned_queries, rest) = unsafe { block(q, 0, n).pack_turned(scratch) };
        // SAFETY: as above.
        let (turned_dys, rest) = unsafe { block(dys, 0, n).pack_turned(rest) };
        // SAFETY: as above.
        let (queries, rest) = unsafe { block(q, 0, n).pack(rest) };
        // SAFETY: as above.
        let (packed_dys, rest) = unsafe { block(dys, 0, n).pack(rest) };
        let (by_query, rest) = rest.split_at_mut(panels::len::<T>(n, d));
        let (dots, rest) = rest.split_at_mut(n);
        for (p, dot) in dots.iter_mut().enumerate() {
            let at = start + p * stride;
            *dot = dot_product(&dys[at..][..d], &ys[at..][..d]);
        }
        let (few, rest) = rest.split_at_mut(panels::len::<T>(ROWS, d));
        let (weights, slopes) = rest.split_at_mut(ROWS * across);
        let (w, ds) = (Shared::new(weights.as_mut_ptr()), Shared::new(slopes.as_mut_ptr()));
        let scale = of.scale::<T>();
        for first in (0..n).step_by(ROWS) {
            let rows = ROWS.min(n - first);
            let from = start + first * stride;
            let keys = block(k, first, rows);
            // SAFETY: `rows` rows of each fit the scratch memory.
            unsafe {
                product::<T, V>(keys, turned_queries, n, |r| w.at(r * across));
                product::<T, V>(block(v, first, rows), turned_dys, n, |r| ds.at(r * across));
            }
            for r in 0..rows {
                let (w, ds) = (&mut weights[r * across..][..n], &mut slopes[r * across..][..n]);
                for (((w, ds), sum), dot) in w.iter_mut().zip(ds).zip(sums).zip(dots.iter()) {
                    *w = (*w * scale - *sum).exponential(V::FUSED);
                    *ds = *w * (*ds - *dot) * scale;
                }
            }
            let made = |of: Shared<T>| Matrix {
                first: of.at(0).cast_const(),
                stride: across,
                rows,
                columns: n,
            };
            let mut pointers = [std::ptr::null(); ROWS];
            for (r, pointer) in pointers[..rows].iter_mut().enumerate() {
                *pointer = made(ds).row(r);
            }
            // SAFETY: the part's channels of these rows, and of all rows by query.
            unsafe {
                product::<T, V>(made(w), packed_dys, d, |r| dv.at(from + r * stride));
                product::<T, V>(made(ds), queries, d, |r| dk.at(from + r * stride));
                let (few, _) = keys.pack(few);
                for index in 0..panels::count::<T>(d) {
                    let (vectors, at, _) = panels::place::<T>(d, index);
                    let (keys, sums) = (few[at * rows..].as_ptr(), by_query[at * n..].as_mut_ptr());
                    outer::<T, V>(&pointers[..rows], n, keys, vectors, sums, first == 0);
                }
            }
        }
        for index in 0..panels::count::<T>(d) {
            let (vectors, first, columns) = panels::place::<T>(d, index);
            let across = vectors * V::LANES;
            for p in 0..n {
                let row = &by_query[first * n + p * across..][..columns];
                // SAFETY: these channels of this row are the part's own.
                unsafe {
                    let to = dq.at(start + p * stride + first);
                    std::ptr::copy_nonoverlapping(row.as_ptr(), to, columns);
                }
            }
        }
    }
}

#[inline(always)]
fn dot_product<T: Real>(a: &[T], b: &[T]) -> T {
    let mut sums = [T::zero(); 16];
    let (mut a, mut b) = (a.chunks_exact(16), b.chunks_exact(16));
    for (a, b) in (&mut a).zip(&mut b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += *a * *b;
        }
    }
    for ((sum, a), b) in sums.iter_mut().zip(a.remainder()).zip(b.remainder()) {
        *sum += *a * *b;
    }
    sums.into_iter().sum()
}
