//! The forward pass: transformed weights, and what the tiles make of them.

// By index: registers are arrays of constant length, and every loop is unrolled.
#![allow(clippy::needless_range_loop)]

use super::super::epilogue::Epilogue;
use super::super::panels::{self, Panels};
use super::super::product::{DEPTH, Start, multiply};
use super::super::simd::{self, Kernel, Lanes, Vector};
use super::super::window::Window;
use super::super::{Real, Shared, each, filled, with_scratch};
use super::{Filtering, Places, rows, tiles, transform};
use std::marker::PhantomData;

/// Bytes of the transformed tiles of one task: they fit a core's second-level cache.
const CACHE: usize = 768 << 10;
/// G g G' for each pair of channels, as SIDE^2 matrices in one: (SIDE^2 x inputs,
/// outputs) in panels. `turned` gives the weights of the input's gradient: (SIDE^2 x outputs,
/// inputs), the windows read from their other end.
pub(crate) fn weights<T: Real, F: Filtering>(
    _: F,
    weight: &[T],
    inputs: usize,
    outputs: usize,
    turned: bool,
) -> Panels<T> {
    let (depth, columns) = if turned { (outputs, inputs) } else { (inputs, outputs) };
    let elements = F::SIDE * F::SIDE;
    let len = panels::len::<T>(elements * depth, columns);
    let count = panels::count::<T>(columns);
    let blocks = depth.div_ceil(16);
    let write = |to: Shared<T>| {
        each(count * blocks, len, |task| {
            let (vectors, first, here) = panels::place::<T>(columns, task / blocks);
            let across = vectors * simd::lanes::<T>();
            let from = task % blocks * 16;
            for k in from..(from + 16).min(depth) {
                // The filters of this row, one place after the other.
                let mut filters = [[T::zero(); 64]; 9];
                for column in 0..here {
                    let (o, c) = if turned { (k, first + column) } else { (first + column, k) };
                    let filter = &weight[(o * inputs + c) * 9..][..9];
                    for (place, w) in filter.iter().enumerate() {
                        filters[if turned { 8 - place } else { place }][column] = *w;
                    }
                }
                let at = to.at(elements * depth * first + k * across);
                let stride = depth * across;
                simd::dispatch(Filters {
                    of: PhantomData::<F>,
                    filters: &filters,
                    across,
                    to: at,
                    stride,
                });
            }
        });
    };
    // SAFETY: `Filters` writes whole rows of the panels, padding included.
    let values = unsafe { filled(len, write) };
    Panels::from_values(values, elements * depth, columns)
}

struct Filters<'a, T, F> {
    of: PhantomData<F>,
    filters: &'a [[T; 64]; 9],
    across: usize,
    to: *mut T,
    stride: usize,
}

impl<T: Real, F: Filtering> Kernel<T> for Filters<'_, T, F> {
    #[inline(always)]
    unsafe fn run<V: Vector<T>>(self) {
        unsafe {
            let mut lane = 0;
            while lane < self.across {
                let mut columns = [[V::splat(T::zero()); 6]; 3];
                for (v, column) in columns.iter_mut().enumerate() {
                    let mut g = [V::splat(T::zero()); 3];
                    for (u, g) in g.iter_mut().enumerate() {
                        *g = V::load(self.filters[3 * u + v].as_ptr().add(lane));
                    }
                    *column = F::filter(g);
                }
                for u in 0..F::SIDE {
                    let row = F::filter([columns[0][u], columns[1][u], columns[2][u]]);
                    for (v, value) in row.into_iter().take(F::SIDE).enumerate() {
                        value.store(self.to.add((F::SIDE * u + v) * self.stride + lane));
                    }
                }
                lane += V::LANES;
            }
        }
    }
}

/// The convolution of `xs` (B, H, W, inputs) with transformed `weights`: (B, H, W, outputs).
pub(crate) fn convolve<T: Real, F: Filtering>(
    _: F,
    batch: usize,
    window: &Window,
    inputs: usize,
    weights: &Panels<T>,
    xs: &[T],
    epilogue: Epilogue<T>,
) -> Vec<T> {
    let (outputs, elements) = (weights.columns(), F::SIDE * F::SIDE);
    let (down, across) = tiles::<F>(window);
    let all = batch * down * across;
    assert!(xs.len() == batch * window.positions() * inputs);
    assert!(epilogue.residual.is_none_or(|r| r.len() == batch * window.positions() * outputs));
    let bytes = elements * (inputs + outputs) * size_of::<T>();
    let block = (CACHE / bytes / 12 * 12).clamp(12, 72);
    let bias = epilogue.bias.map_or_else(|| vec![T::zero(); outputs], <[T]>::to_vec);
    let places = Places::new::<F>(window);
    let compute = |ys: Shared<T>| {
        each(all.div_ceil(block), usize::MAX, |i| {
            with_scratch(elements * block * (inputs + outputs), |scratch| {
                let (spread, products) = scratch.split_at_mut(elements * block * inputs);
                simd::dispatch(Block {
                    of: PhantomData::<F>,
                    window,
                    places: &places,
                    inputs,
                    tiles: (i * block, ((i + 1) * block).min(all)),
                    weights,
                    xs,
                    bias: &bias,
                    epilogue,
                    spread,
                    products,
                    ys,
                });
            });
        });
    };
    // SAFETY: the tiles cover every output position once.
    unsafe { filled(batch * window.positions() * outputs, compute) }
}

struct Block<'a, T, F> {
    of: PhantomData<F>,
    window: &'a Window,
    places: &'a Places,
    inputs: usize,
    tiles: (usize, usize),
    weights: &'a Panels<T>,
    xs: &'a [T],
    bias: &'a [T],
    epilogue: Epilogue<'a, T>,
    spread: &'a mut [T],
    products: &'a mut [T],
    ys: Shared<T>,
}

impl<T: Real, F: Filtering> Kernel<T> for Block<'_, T, F> {
    #[inline(always)]
    unsafe fn run<V: Vector<T>>(self) {
        let Self { window, inputs, tiles: (from, to), weights, .. } = self;
        let (outputs, count) = (weights.columns(), to - from);
        let each = self.places.seen.len();
        let spread = Shared::new(self.spread.as_mut_ptr());
        let products = Shared::new(self.products.as_mut_ptr());
        let outside = vec![T::zero(); inputs];
        unsafe {
            for t in 0..count {
                let (image, tile) = ((from + t) / each, (from + t) % each);
                let image = self.xs[image * window.positions() * inputs..].as_ptr();
                let seen = rows(image, inputs, &self.places.seen[tile], outside.as_ptr());
                let at = |element: usize, c: usize| spread.at((element * count + t) * inputs + c);
                let whole = transform::<T, V, F>(&seen, 0, inputs, at);
                transform::<T, Lanes<T, 1>, F>(&seen, whole, inputs, at);
            }
            for element in 0..F::SIDE * F::SIDE {
                for panel in 0..weights.count() {
                    let mut c = 0;
                    let zeros = [T::zero(); 64];
                    let mut start = Start::From(zeros.as_ptr());
                    while c < inputs {
                        let depth = (2 * DEPTH).min(inputs - c);
                        let part = weights.panel(panel, element * inputs + c);
                        let row =
                            |t: usize| spread.at((element * count + t) * inputs + c).cast_const();
                        let out = |t: usize| products.at((element * count + t) * outputs);
                        multiply::<T, V>(count, depth, row, part, out, start);
                        start = Start::There;
                        c += depth;
                    }
                }
            }
            for t in 0..count {
                let whole = self.gather::<V>(t, 0);
                self.gather::<Lanes<T, 1>>(t, whole);
            }
        }
    }
}

impl<T: Real, F: Filtering> Block<'_, T, F> {
    // A' m A for tile `t` from channel `first` on, in whole registers; returns where it stopped.
    #[inline(always)]
    unsafe fn gather<V: Vector<T>>(&self, t: usize, first: usize) -> usize {
        let (outputs, count) = (self.weights.columns(), self.tiles.1 - self.tiles.0);
        let each = self.places.held.len();
        let (image, tile) = ((self.tiles.0 + t) / each, (self.tiles.0 + t) % each);
        let held = &self.places.held[tile];
        let base = image * self.window.positions() * outputs;
        let from = self.products.as_ptr();
        let per_sample = self.epilogue.per_sample.map(|values| {
            let image = if values.len() == outputs { 0 } else { image };
            values[image * outputs..].as_ptr()
        });
        let residual = self.epilogue.residual.map(<[T]>::as_ptr);
        let mut o = first;
        unsafe {
            let factor = V::splat(self.epilogue.factor);
            while o + V::LANES <= outputs {
                let mut columns = [[V::splat(T::zero()); 4]; 6];
                for (v, column) in columns.iter_mut().take(F::SIDE).enumerate() {
                    let mut m = [V::splat(T::zero()); 6];
                    for (u, m) in m.iter_mut().take(F::SIDE).enumerate() {
                        *m = V::load(from.add(((F::SIDE * u + v) * count + t) * outputs + o));
                    }
                    *column = F::output(m);
                }
                let mut start = V::load(self.bias.as_ptr().add(o));
                if let Some(values) = per_sample {
                    start = start.add(V::load(values.add(o)));
                }
                for u in 0..F::OUT {
                    let mut row = [V::splat(T::zero()); 6];
                    for (row, column) in row.iter_mut().zip(&columns) {
                        *row = column[u];
                    }
                    let row = F::output(row);
                    for (v, value) in row.into_iter().take(F::OUT).enumerate() {
                        if held[F::OUT * u + v] >= 0 {
                            let at = base + held[F::OUT * u + v] as usize * outputs + o;
                            let mut value = value.add(start);
                            if let Some(residual) = residual {
                                value = value.add(V::load(residual.add(at)));
                            }
                            value.mul(factor).store(self.ys.at(at));
                        }
                    }
                }
                o += V::LANES;
            }
        }
        o
    }
}
