//! The two inner products that every dense layer is made of.
//!
//! [`multiply`] adds rows times a panel to rows of the output; the rows are given one by one, so a
//! convolution gathers them from wherever its window lies. [`outer`] adds the products of columns,
//! for gradients with respect to weights. Both hold a tile of the output in registers: where there
//! are 32, 24 of them hold sums, so that each load serves four to six multiplications.

// By index: registers are arrays of constant length, and every loop is unrolled.
#![allow(clippy::needless_range_loop)]

use super::Real;
use super::panels::Panel;
use super::simd::Vector;

/// Terms of a sum before the tile goes back to memory: what is read of a panel in this many rows
/// stays in the first-level cache.
pub(crate) const DEPTH: usize = 128;

/// Where the sums start.
#[derive(Clone, Copy)]
pub(crate) enum Start<T> {
    /// At these values, one per column, as many as the panel is wide with its padding.
    From(*const T),
    /// At what stands in the output.
    There,
}

/// outs(r)\[first..first + columns\] = start + sum over i < depth of rows(r)\[i\] panel\[i\], for
/// r < count.
///
/// # Safety
/// `rows(r)` is readable for `depth` elements, the panel for `depth` rows, and `outs(r)`
/// writable (and readable with [`Start::There`]) up to `first + columns`.
#[inline(always)]
pub(crate) unsafe fn multiply<T: Real, V: Vector<T>>(
    count: usize,
    depth: usize,
    rows: impl Fn(usize) -> *const T,
    panel: Panel<T>,
    outs: impl Fn(usize) -> *mut T,
    start: Start<T>,
) {
    unsafe {
        match (V::WIDE, panel.vectors) {
            (true, 4) => tiles::<T, V, 6, 4>(count, depth, rows, panel, outs, start),
            (true, 3) => tiles::<T, V, 8, 3>(count, depth, rows, panel, outs, start),
            (true, 2) => tiles::<T, V, 12, 2>(count, depth, rows, panel, outs, start),
            (true, _) => tiles::<T, V, 12, 1>(count, depth, rows, panel, outs, start),
            (false, 2) => tiles::<T, V, 6, 2>(count, depth, rows, panel, outs, start),
            (false, _) => tiles::<T, V, 8, 1>(count, depth, rows, panel, outs, start),
        }
    }
}

#[inline(always)]
unsafe fn tiles<T: Real, V: Vector<T>, const M: usize, const N: usize>(
    count: usize,
    depth: usize,
    rows: impl Fn(usize) -> *const T,
    panel: Panel<T>,
    outs: impl Fn(usize) -> *mut T,
    start: Start<T>,
) {
    let mut r = 0;
    while r < count {
        // A tile that reaches past the end computes the last row again and stores it once.
        let live = M.min(count - r);
        let mut from = [std::ptr::null(); M];
        for (m, from) in from.iter_mut().enumerate() {
            *from = rows(r + m.min(live - 1));
        }
        unsafe {
            let mut sums = [[V::splat(T::zero()); N]; M];
            let whole = panel.columns == N * V::LANES;
            for m in 0..M {
                let at = match start {
                    Start::From(values) => values,
                    Start::There if whole => {
                        outs(r + m.min(live - 1)).add(panel.first).cast_const()
                    }
                    Start::There => {
                        sums[m] = partial::<T, V, N>(outs(r + m.min(live - 1)), panel);
                        continue;
                    }
                };
                for n in 0..N {
                    sums[m][n] = V::load(at.add(n * V::LANES));
                }
            }
            let mut column = panel.values;
            for i in 0..depth {
                let mut b = [V::splat(T::zero()); N];
                for n in 0..N {
                    b[n] = V::load(column.add(n * V::LANES));
                }
                for m in 0..M {
                    let a = V::splat(*from[m].add(i));
                    for n in 0..N {
                        sums[m][n] = a.mul_add(b[n], sums[m][n]);
                    }
                }
                column = column.add(N * V::LANES);
            }
            for m in 0..live {
                let to = outs(r + m).add(panel.first);
                if whole {
                    for n in 0..N {
                        sums[m][n].store(to.add(n * V::LANES));
                    }
                } else {
                    let mut buffer = [T::zero(); 64];
                    for n in 0..N {
                        sums[m][n].store(buffer.as_mut_ptr().add(n * V::LANES));
                    }
                    std::ptr::copy_nonoverlapping(buffer.as_ptr(), to, panel.columns);
                }
            }
        }
        r += M;
    }
}

// What stands in an output row whose last register is not full.
#[inline(always)]
unsafe fn partial<T: Real, V: Vector<T>, const N: usize>(out: *mut T, panel: Panel<T>) -> [V; N] {
    let mut buffer = [T::zero(); 64];
    unsafe {
        std::ptr::copy_nonoverlapping(out.add(panel.first), buffer.as_mut_ptr(), panel.columns);
        let mut sums = [V::splat(T::zero()); N];
        for n in 0..N {
            sums[n] = V::load(buffer.as_ptr().add(n * V::LANES));
        }
        sums
    }
}

/// sums\[c\] += sum over r of rows\[r\]\[c\] grads\[r\], for c < channels: a matrix (channels,
/// vectors x lanes) of `vectors` registers across. With `fresh` it starts at zero.
///
/// # Safety
/// Each of `rows` is readable for `channels` elements, `grads` for a padded row each, and
/// `sums` writable for `channels` padded rows.
#[inline(always)]
pub(crate) unsafe fn outer<T: Real, V: Vector<T>>(
    rows: &[*const T],
    channels: usize,
    grads: *const T,
    vectors: usize,
    sums: *mut T,
    fresh: bool,
) {
    unsafe {
        match (V::WIDE, vectors) {
            (true, 4) => columns::<T, V, 6, 4>(rows, channels, grads, sums, fresh),
            (true, 3) => columns::<T, V, 4, 3>(rows, channels, grads, sums, fresh),
            (true, 2) => columns::<T, V, 8, 2>(rows, channels, grads, sums, fresh),
            (true, _) => columns::<T, V, 8, 1>(rows, channels, grads, sums, fresh),
            (false, 2) => columns::<T, V, 4, 2>(rows, channels, grads, sums, fresh),
            (false, _) => columns::<T, V, 4, 1>(rows, channels, grads, sums, fresh),
        }
    }
}

#[inline(always)]
unsafe fn columns<T: Real, V: Vector<T>, const M: usize, const N: usize>(
    rows: &[*const T],
    channels: usize,
    grads: *const T,
    sums: *mut T,
    fresh: bool,
) {
    let mut c = 0;
    unsafe {
        while c + M <= channels {
            column::<T, V, M, N>(rows, c, grads, sums.add(c * N * V::LANES), fresh);
            c += M;
        }
        while c + 4 <= channels {
            column::<T, V, 4, N>(rows, c, grads, sums.add(c * N * V::LANES), fresh);
            c += 4;
        }
        while c < channels {
            column::<T, V, 1, N>(rows, c, grads, sums.add(c * N * V::LANES), fresh);
            c += 1;
        }
    }
}

#[inline(always)]
unsafe fn column<T: Real, V: Vector<T>, const M: usize, const N: usize>(
    rows: &[*const T],
    c: usize,
    grads: *const T,
    to: *mut T,
    fresh: bool,
) {
    unsafe {
        let mut sums = [[V::splat(T::zero()); N]; M];
        if !fresh {
            for m in 0..M {
                for n in 0..N {
                    sums[m][n] = V::load(to.add((m * N + n) * V::LANES));
                }
            }
        }
        let mut grad = grads;
        for row in rows {
            let row = row.add(c);
            let mut b = [V::splat(T::zero()); N];
            for n in 0..N {
                b[n] = V::load(grad.add(n * V::LANES));
            }
            grad = grad.add(N * V::LANES);
            for m in 0..M {
                let a = V::splat(*row.add(m));
                for n in 0..N {
                    sums[m][n] = a.mul_add(b[n], sums[m][n]);
                }
            }
        }
        for m in 0..M {
            for n in 0..N {
                sums[m][n].store(to.add((m * N + n) * V::LANES));
            }
        }
    }
}
