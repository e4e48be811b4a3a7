//! The gradient with respect to the weight.

// By index: registers are arrays of constant length, and every loop is unrolled.
#![allow(clippy::needless_range_loop)]

use super::super::panels;
use super::super::product::outer;
use super::super::simd::{self, Kernel, Lanes, Vector};
use super::super::window::Window;
use super::super::{Real, Shared, each, with_scratch};
use super::{Filtering, Places, rows, tiles, transform};
use std::marker::PhantomData;

/// Bytes of the transformed tiles of one pass of the weight's gradient, all threads together.
const PASS: usize = 6 << 20;
/// The gradient with respect to the weight (O, C, 3, 3).
pub(crate) fn weight_gradient<T: Real, F: Filtering>(
    _: F,
    batch: usize,
    window: &Window,
    (inputs, outputs): (usize, usize),
    xs: &[T],
    dys: &[T],
) -> Vec<T> {
    let (down, across) = tiles::<F>(window);
    let all = batch * down * across;
    let lanes = simd::lanes::<T>();
    let padded = inputs.div_ceil(lanes) * lanes;
    // Transformed tiles: of the input by blocks of channels, (16, block, tiles, lanes); of
    // the gradient by panels, (16, panel, tiles, columns). Each task of the products then
    // reads rows that follow each other.
    let elements = F::SIDE * F::SIDE;
    let pass = pass::<T, F>(padded, outputs).min(all);
    let lens = [
        elements * pass * padded,
        elements * panels::len::<T>(pass, outputs),
        panels::len::<T>(elements * inputs, outputs),
    ];
    let mut dw = Vec::new();
    with_scratch(lens.iter().sum(), |scratch: &mut [T]| {
        let (spread, rest) = scratch.split_at_mut(lens[0]);
        let (grads, sums) = rest.split_at_mut(lens[1]);
        accumulate::<T, F>(batch, window, (inputs, outputs), (xs, dys), (spread, grads, sums));
        dw = join::<T, F>(sums, inputs, outputs);
    });
    dw
}

// Tiles of one pass.
fn pass<T: Real, F: Filtering>(padded: usize, outputs: usize) -> usize {
    let bytes = F::SIDE * F::SIDE * (padded + outputs) * size_of::<T>();
    (PASS / bytes / 96 * 96).clamp(96, 384)
}

// The sums over the tiles, as SIDE^2 matrices in one: (SIDE^2 x inputs, outputs) in panels.
fn accumulate<T: Real, F: Filtering>(
    batch: usize,
    window: &Window,
    (inputs, outputs): (usize, usize),
    (xs, dys): (&[T], &[T]),
    (spread, grads, sums): (&mut [T], &mut [T], &mut [T]),
) {
    let (down, across) = tiles::<F>(window);
    let all = batch * down * across;
    let lanes = simd::lanes::<T>();
    let padded = inputs.div_ceil(lanes) * lanes;
    let panel_count = panels::count::<T>(outputs);
    let elements = F::SIDE * F::SIDE;
    let pass = pass::<T, F>(padded, outputs).min(all);
    let grads_each = panels::len::<T>(pass, outputs);
    let places = Places::new::<F>(window);
    let (outside, none) = (vec![T::zero(); inputs], vec![T::zero(); outputs]);
    let (spread, grads, sums_at) = (
        Shared::new(spread.as_mut_ptr()),
        Shared::new(grads.as_mut_ptr()),
        Shared::new(sums.as_mut_ptr()),
    );
    let mut from = 0;
    while from < all {
        let count = pass.min(all - from);
        let chunks = count.div_ceil(16);
        each(chunks, usize::MAX, |chunk| {
            simd::dispatch(Spread {
                of: PhantomData::<F>,
                window,
                places: &places,
                sizes: (inputs, outputs),
                tiles: (from, chunk * 16, ((chunk + 1) * 16).min(count)),
                count,
                values: (xs, dys),
                outside: (&outside, &none),
                spread,
                grads,
                grads_each,
            });
        });
        let blocks = padded / lanes;
        // A task is one element of the tiles, one panel and a few blocks of channels.
        let group = blocks.div_ceil(4).max(1);
        let groups = blocks.div_ceil(group);
        each(elements * panel_count * groups, usize::MAX, |task| {
            let (element, rest) = (task / (panel_count * groups), task % (panel_count * groups));
            let (panel, part) = (rest / groups, rest % groups);
            simd::dispatch(Products {
                of: PhantomData::<F>,
                element,
                panel,
                blocks: (part * group, ((part + 1) * group).min(blocks)),
                count,
                sizes: (inputs, outputs),
                padded,
                spread,
                grads: grads.at(element * grads_each),
                sums: sums_at,
                fresh: from == 0,
            });
        });
        from += count;
    }
}

struct Spread<'a, T, F> {
    of: PhantomData<F>,
    window: &'a Window,
    places: &'a Places,
    sizes: (usize, usize),
    /// The first of all, and the range of this task after it.
    tiles: (usize, usize, usize),
    count: usize,
    values: (&'a [T], &'a [T]),
    outside: (&'a [T], &'a [T]),
    spread: Shared<T>,
    grads: Shared<T>,
    grads_each: usize,
}

impl<T: Real, F: Filtering> Kernel<T> for Spread<'_, T, F> {
    #[inline(always)]
    unsafe fn run<V: Vector<T>>(self) {
        let Self { window, sizes: (inputs, outputs), tiles: (first, from, to), count, .. } = self;
        let padded = inputs.div_ceil(V::LANES) * V::LANES;
        let each = self.places.seen.len();
        for t in from..to {
            unsafe {
                let (image, tile) = ((first + t) / each, (first + t) % each);
                let base = image * window.positions();
                let (x, dy) = (&self.values.0[base * inputs..], &self.values.1[base * outputs..]);
                let outside = (self.outside.0.as_ptr(), self.outside.1.as_ptr());
                let seen = rows(x.as_ptr(), inputs, &self.places.seen[tile], outside.0);
                let at = |element: usize, c: usize| {
                    let block = element * padded + c / V::LANES * V::LANES;
                    self.spread.at(block * count + t * V::LANES + c % V::LANES)
                };
                let whole = transform::<T, V, F>(&seen, 0, inputs, at);
                transform::<T, Lanes<T, 1>, F>(&seen, whole, inputs, at);
                let held = rows(dy.as_ptr(), outputs, &self.places.held[tile], outside.1);
                for panel in 0..panels::count::<T>(outputs) {
                    let (vectors, first, columns) = panels::place::<T>(outputs, panel);
                    let across = vectors * V::LANES;
                    let at = |element: usize, o: usize| {
                        let row = first * count + t * across;
                        self.grads.at(element * self.grads_each + row + o - first)
                    };
                    let end = first + columns;
                    let whole = transform_gradient::<T, V, F>(&held, (first, end), at);
                    transform_gradient::<T, Lanes<T, 1>, F>(&held, (whole, end), at);
                }
            }
        }
    }
}

struct Products<T, F> {
    of: PhantomData<F>,
    element: usize,
    panel: usize,
    blocks: (usize, usize),
    count: usize,
    sizes: (usize, usize),
    padded: usize,
    spread: Shared<T>,
    grads: *mut T,
    sums: Shared<T>,
    fresh: bool,
}

impl<T: Real, F: Filtering> Kernel<T> for Products<T, F> {
    #[inline(always)]
    unsafe fn run<V: Vector<T>>(self) {
        let Self { count, sizes: (inputs, outputs), .. } = self;
        let (vectors, first, _) = panels::place::<T>(outputs, self.panel);
        let across = vectors * V::LANES;
        let mut rows: Vec<*const T> = Vec::with_capacity(96);
        for block in self.blocks.0..self.blocks.1 {
            let c = block * V::LANES;
            let from = self.spread.at((self.element * self.padded + c) * count);
            let channels = V::LANES.min(inputs - c);
            let to = self
                .sums
                .at(F::SIDE * F::SIDE * inputs * first + (self.element * inputs + c) * across);
            // Few enough tiles at a time for the first-level cache.
            let mut t = 0;
            while t < count {
                let here = 96.min(count - t);
                rows.clear();
                unsafe {
                    rows.extend((t..t + here).map(|t| from.add(t * V::LANES).cast_const()));
                    let grads = self.grads.add(first * count + t * across);
                    let fresh = self.fresh && t == 0;
                    outer::<T, V>(&rows, channels, grads, vectors, to, fresh);
                }
                t += here;
            }
        }
    }
}

// G' s G for each pair of channels, from panels (SIDE^2 x inputs, outputs) to (O, C, 3, 3).
fn join<T: Real, F: Filtering>(sums: &[T], inputs: usize, outputs: usize) -> Vec<T> {
    let mut dw = vec![T::zero(); outputs * inputs * 9];
    let to = Shared::new(dw.as_mut_ptr());
    let blocks = inputs.div_ceil(16);
    each(panels::count::<T>(outputs) * blocks, dw.len(), |task| {
        let (vectors, first, columns) = panels::place::<T>(outputs, task / blocks);
        let across = vectors * simd::lanes::<T>();
        for c in task % blocks * 16..(task % blocks * 16 + 16).min(inputs) {
            let mut filters = [[T::zero(); 64]; 9];
            let from = &sums[F::SIDE * F::SIDE * inputs * first + c * across..];
            let stride = inputs * across;
            simd::dispatch(Join {
                of: PhantomData::<F>,
                from,
                across,
                stride,
                filters: &mut filters,
            });
            for column in 0..columns {
                let at = to.at(((first + column) * inputs + c) * 9);
                for (place, values) in filters.iter().enumerate() {
                    // SAFETY: these nine belong to one pair of channels of this task.
                    unsafe { at.add(place).write(values[column]) };
                }
            }
        }
    });
    dw
}

struct Join<'a, T, F> {
    of: PhantomData<F>,
    from: &'a [T],
    across: usize,
    stride: usize,
    filters: &'a mut [[T; 64]; 9],
}

impl<T: Real, F: Filtering> Kernel<T> for Join<'_, T, F> {
    #[inline(always)]
    unsafe fn run<V: Vector<T>>(self) {
        let mut lane = 0;
        while lane < self.across {
            unsafe {
                let mut columns = [[V::splat(T::zero()); 3]; 6];
                for (v, column) in columns.iter_mut().take(F::SIDE).enumerate() {
                    let mut s = [V::splat(T::zero()); 6];
                    for (u, s) in s.iter_mut().take(F::SIDE).enumerate() {
                        let at = (F::SIDE * u + v) * self.stride + lane;
                        *s = V::load(self.from[at..].as_ptr());
                    }
                    *column = F::weight(s);
                }
                for u in 0..3 {
                    let mut row = [V::splat(T::zero()); 6];
                    for (row, column) in row.iter_mut().zip(&columns) {
                        *row = column[u];
                    }
                    let row = F::weight(row);
                    for (v, value) in row.into_iter().enumerate() {
                        value.store(self.filters[3 * u + v].as_mut_ptr().add(lane));
                    }
                }
                lane += V::LANES;
            }
        }
    }
}

// A dy A' from channel `first` on, as `transform`.
#[inline(always)]
unsafe fn transform_gradient<T: Real, V: Vector<T>, F: Filtering>(
    held: &[*const T; 16],
    (first, end): (usize, usize),
    to: impl Fn(usize, usize) -> *mut T,
) -> usize {
    let mut o = first;
    unsafe {
        while o + V::LANES <= end {
            let mut columns = [[V::splat(T::zero()); 6]; 4];
            for (v, column) in columns.iter_mut().take(F::OUT).enumerate() {
                let mut d = [V::splat(T::zero()); 4];
                for (u, d) in d.iter_mut().take(F::OUT).enumerate() {
                    *d = V::load(held[F::OUT * u + v].add(o));
                }
                *column = F::gradient(d);
            }
            for u in 0..F::SIDE {
                let row = [columns[0][u], columns[1][u], columns[2][u], columns[3][u]];
                for (v, value) in F::gradient(row).into_iter().take(F::SIDE).enumerate() {
                    value.store(to(F::SIDE * u + v, o));
                }
            }
            o += V::LANES;
        }
    }
    o
}
