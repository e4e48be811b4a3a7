//! What the output of an attention moves along where its queries, keys and values move.

use super::{Attention, Matrix, ROWS, product, product_onto};
use crate::nn::kernels::simd::{self, Kernel, Vector};
use crate::nn::kernels::{Real, Shared, each, filled, panels, with_scratch};

impl Attention {
    /// What the output moves along where q, k and v move along `moved`, from the output and its
    /// sums.
    pub fn tangent<T: Real>(
        &self,
        values: [&[T]; 3],
        (ys, sums): (&[T], &[T]),
        moved: [&[T]; 3],
    ) -> Vec<T> {
        self.check(&values);
        self.check(&moved);
        self.check(&[ys]);
        let (n, d) = (self.positions, self.width());
        let (turned, plain) = (panels::len::<T>(d, n), panels::len::<T>(n, d));
        let len = 2 * turned + 2 * plain + 2 * ROWS * self.across();
        let compute = |dys: Shared<T>| {
            each(self.batch * self.heads, usize::MAX, |part| {
                let sums = &sums[part * n..][..n];
                with_scratch(len, |scratch| {
                    simd::dispatch(Moved { of: self, part, values, ys, sums, moved, scratch, dys });
                });
            });
        };
        // SAFETY: the parts cover all channels of all samples.
        unsafe { filled(ys.len(), compute) }
    }
}

struct Moved<'a, T> {
    of: &'a Attention,
    part: usize,
    /// q, k and v.
    values: [&'a [T]; 3],
    ys: &'a [T],
    /// Of this part.
    sums: &'a [T],
    moved: [&'a [T]; 3],
    scratch: &'a mut [T],
    dys: Shared<T>,
}

impl<T: Real> Kernel<T> for Moved<'_, T> {
    // With w the weights and ds = (dq k' + q dk') scale: g = w ds, and
    // dy = g v + w dv - (sum of g) y for each query.
    #[inline(always)]
    unsafe fn run<V: Vector<T>>(self) {
        let Self { of, values: [q, k, v], ys, sums, moved: [dq, dk, dv], scratch, dys, .. } = self;
        let (n, stride, d, across) = (of.positions, of.channels, of.width(), of.across());
        let start = of.start(self.part);
        let block = |from: &[T], first: usize, rows: usize| {
            let first = from[start + first * stride..].as_ptr();
            Matrix { first, stride, rows, columns: d }
        };
        // SAFETY: the part's rows lie within slices that `check` has measured.
        let (keys, rest) = unsafe { block(k, 0, n).pack_turned(scratch) };
        // SAFETY: as above.
        let (moved_keys, rest) = unsafe { block(dk, 0, n).pack_turned(rest) };
        // SAFETY: as above.
        let (packed, rest) = unsafe { block(v, 0, n).pack(rest) };
        // SAFETY: as above.
        let (moved_values, rest) = unsafe { block(dv, 0, n).pack(rest) };
        let (weights, slopes) = rest.split_at_mut(ROWS * across);
        let (w, g) = (Shared::new(weights.as_mut_ptr()), Shared::new(slopes.as_mut_ptr()));
        let scale = of.scale::<T>();
        for first in (0..n).step_by(ROWS) {
            let rows = ROWS.min(n - first);
            let from = start + first * stride;
            let queries = block(q, first, rows);
            // SAFETY: `rows` rows of each fit the scratch memory.
            unsafe {
                product::<T, V>(queries, keys, n, |r| w.at(r * across));
                product::<T, V>(block(dq, first, rows), keys, n, |r| g.at(r * across));
                product_onto::<T, V>(queries, moved_keys, n, |r| g.at(r * across), true);
            }
            let mut totals = [T::zero(); ROWS];
            for (r, total) in totals[..rows].iter_mut().enumerate() {
                let (w, g) = (&mut weights[r * across..][..n], &mut slopes[r * across..][..n]);
                let sum = sums[first + r];
                for (w, g) in w.iter_mut().zip(g.iter_mut()) {
                    *w = (*w * scale - sum).exponential(V::FUSED);
                    *g = *w * *g * scale;
                }
                *total = g.iter().copied().sum();
            }
            let made = |of: Shared<T>| Matrix {
                first: of.at(0).cast_const(),
                stride: across,
                rows,
                columns: n,
            };
            // SAFETY: the part's channels of these rows.
            unsafe {
                product::<T, V>(made(g), packed, d, |r| dys.at(from + r * stride));
                product_onto::<T, V>(made(w), moved_values, d, |r| dys.at(from + r * stride), true);
            }
            for (r, total) in totals[..rows].iter().enumerate() {
                let at = from + r * stride;
                // SAFETY: as above.
                let dy = unsafe { std::slice::from_raw_parts_mut(dys.at(at), d) };
                dy.iter_mut().zip(&ys[at..]).for_each(|(dy, y)| *dy -= *total * *y);
            }
        }
    }
}
