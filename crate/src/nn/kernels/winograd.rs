//! 3x3 convolutions at stride 1 by Winograd's minimal filtering (Lavin and Gray 2016):
//! F(2x2, 3x3) takes 16 products in place of 36 for a 2x2 tile of the output, F(4x4, 3x3) 36
//! in place of 144 for a 4x4 tile.
//!
//! With d the tile of the input and g a filter the output's tile is
//! `A' [(G g G') (B' d B)] A`; the filter's gradient from the output's dy is
//! `G' [(A dy A') (B' d B)] G`, summed over the tiles. The products over channels are
//! matrix products, one for each element of a transformed tile.
//!
//! The entries of F(2x2)'s transforms are 0, 1, -1 and 1/2: no digits are lost beyond a direct
//! sum's, and the forward pass goes by it, so that a network answers alike in training, in
//! sampling and beside other programs. F(4x4)'s reach 8 and 1/24 and lose about one digit of
//! f32: good enough for gradients, which go by it.

// By index: registers are arrays of constant length, and every loop is unrolled.
#![allow(clippy::needless_range_loop)]

use super::convolution::Epilogue;
use super::panels::{self, Panels};
use super::product::{DEPTH, Start, multiply, outer};
use super::simd::{self, Kernel, Lanes, Vector};
use super::window::Window;
use super::{Real, Shared, each, filled, with_scratch};
use rayon::prelude::*;

/// Bytes of the transformed tiles of one task: within a core's second cache.
const CACHE: usize = 768 << 10;
/// Bytes of those of one pass of the weight's gradient, all threads together.
const PASS: usize = 6 << 20;
/// Tiles from which the transform of the weights is earned back.
const TILES: usize = 96;

/// A minimal filtering: its transforms along one direction. They are functions that are always
/// inlined, and not closures, because a closure does not take its caller's instruction set.
/// Arrays have room for the largest; what lies beyond `SIDE` or `OUT` is not used.
pub(crate) trait Filtering: Copy + Send + Sync + 'static {
    /// The output's tile is OUT x OUT.
    const OUT: usize;
    /// The input's tile is SIDE x SIDE.
    const SIDE: usize;

    /// B'
    unsafe fn input<T: Real, V: Vector<T>>(d: [V; 6]) -> [V; 6];
    /// G
    unsafe fn filter<T: Real, V: Vector<T>>(g: [V; 3]) -> [V; 6];
    /// A'
    unsafe fn output<T: Real, V: Vector<T>>(m: [V; 6]) -> [V; 4];
    /// A
    unsafe fn gradient<T: Real, V: Vector<T>>(d: [V; 4]) -> [V; 6];
    /// G'
    unsafe fn weight<T: Real, V: Vector<T>>(s: [V; 6]) -> [V; 3];
}

/// F(2x2, 3x3), at the points 0, 1, -1.
#[derive(Clone, Copy)]
pub(crate) struct Two;

impl Filtering for Two {
    const OUT: usize = 2;
    const SIDE: usize = 4;

    #[inline(always)]
    unsafe fn input<T: Real, V: Vector<T>>(d: [V; 6]) -> [V; 6] {
        unsafe { [d[0].sub(d[2]), d[1].add(d[2]), d[2].sub(d[1]), d[1].sub(d[3]), d[0], d[0]] }
    }

    #[inline(always)]
    unsafe fn filter<T: Real, V: Vector<T>>(g: [V; 3]) -> [V; 6] {
        unsafe {
            let half = V::splat(T::from_f64(0.5));
            let ends = g[0].add(g[2]);
            [g[0], ends.add(g[1]).mul(half), ends.sub(g[1]).mul(half), g[2], g[0], g[0]]
        }
    }

    #[inline(always)]
    unsafe fn output<T: Real, V: Vector<T>>(m: [V; 6]) -> [V; 4] {
        unsafe { [m[0].add(m[1]).add(m[2]), m[1].sub(m[2]).sub(m[3]), m[0], m[0]] }
    }

    #[inline(always)]
    unsafe fn gradient<T: Real, V: Vector<T>>(d: [V; 4]) -> [V; 6] {
        unsafe {
            let minus = V::splat(T::zero()).sub(d[1]);
            [d[0], d[0].add(d[1]), d[0].sub(d[1]), minus, d[0], d[0]]
        }
    }

    #[inline(always)]
    unsafe fn weight<T: Real, V: Vector<T>>(s: [V; 6]) -> [V; 3] {
        unsafe {
            let half = V::splat(T::from_f64(0.5));
            let sum = s[1].add(s[2]).mul(half);
            [s[0].add(sum), s[1].sub(s[2]).mul(half), sum.add(s[3])]
        }
    }
}

/// F(4x4, 3x3), at the points 0, 1, -1, 2, -2.
#[derive(Clone, Copy)]
pub(crate) struct Four;

impl Filtering for Four {
    const OUT: usize = 4;
    const SIDE: usize = 6;

    #[inline(always)]
    unsafe fn input<T: Real, V: Vector<T>>(d: [V; 6]) -> [V; 6] {
        unsafe {
            let (two, four) = (V::splat(T::from_f64(2.0)), V::splat(T::from_f64(-4.0)));
            let five = V::splat(T::from_f64(-5.0));
            let (even, odd) = (d[2].mul_add(four, d[4]), d[1].mul_add(four, d[3]));
            let (near, far) = (d[4].sub(d[2]), d[3].sub(d[1]).mul(two));
            [
                V::splat(T::from_f64(4.0)).mul_add(d[0], d[2].mul_add(five, d[4])),
                even.add(odd),
                even.sub(odd),
                near.add(far),
                near.sub(far),
                V::splat(T::from_f64(4.0)).mul_add(d[1], d[3].mul_add(five, d[5])),
            ]
        }
    }

    #[inline(always)]
    unsafe fn filter<T: Real, V: Vector<T>>(g: [V; 3]) -> [V; 6] {
        unsafe {
            let sixth = V::splat(T::from_f64(-1.0 / 6.0));
            let quarter = V::splat(T::from_f64(0.25));
            let ends = g[0].add(g[2]).mul(sixth);
            let middle = g[1].mul(sixth);
            // g0 / 24 + g2 / 6 and g1 / 12
            let far = g[0].mul(quarter).add(g[2]).mul(V::splat(T::from_f64(1.0 / 6.0)));
            let half = g[1].mul(V::splat(T::from_f64(1.0 / 12.0)));
            [
                g[0].mul(quarter),
                ends.add(middle),
                ends.sub(middle),
                far.add(half),
                far.sub(half),
                g[2],
            ]
        }
    }

    #[inline(always)]
    unsafe fn output<T: Real, V: Vector<T>>(m: [V; 6]) -> [V; 4] {
        unsafe {
            let (near, far) = (m[1].add(m[2]), m[3].add(m[4]));
            let (turn, twist) = (m[1].sub(m[2]), m[3].sub(m[4]));
            let (two, four) = (V::splat(T::from_f64(2.0)), V::splat(T::from_f64(4.0)));
            let eight = V::splat(T::from_f64(8.0));
            [
                m[0].add(near).add(far),
                two.mul_add(twist, turn),
                four.mul_add(far, near),
                eight.mul_add(twist, turn).add(m[5]),
            ]
        }
    }

    #[inline(always)]
    unsafe fn gradient<T: Real, V: Vector<T>>(d: [V; 4]) -> [V; 6] {
        unsafe {
            let (even, odd) = (d[0].add(d[2]), d[1].add(d[3]));
            let (two, four) = (V::splat(T::from_f64(2.0)), V::splat(T::from_f64(4.0)));
            let (far, twist) = (d[2].mul_add(four, d[0]), d[3].mul_add(four, d[1]).mul(two));
            [d[0], even.add(odd), even.sub(odd), far.add(twist), far.sub(twist), d[3]]
        }
    }

    #[inline(always)]
    unsafe fn weight<T: Real, V: Vector<T>>(s: [V; 6]) -> [V; 3] {
        unsafe {
            let quarter = V::splat(T::from_f64(0.25));
            let sixth = V::splat(T::from_f64(1.0 / 6.0));
            let twelfth = V::splat(T::from_f64(1.0 / 12.0));
            let near = s[1].add(s[2]).mul(sixth);
            let far = s[3].add(s[4]).mul(sixth);
            let turn = s[2].sub(s[1]).mul(sixth);
            [
                s[0].mul(quarter).sub(near).add(far.mul(quarter)),
                s[3].sub(s[4]).mul_add(twelfth, turn),
                far.sub(near).add(s[5]),
            ]
        }
    }
}

/// Whether a convolution goes this way.
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

/// G g G' for each pair of channels, as SIDE^2 matrices in one: (SIDE^2 x inputs,
/// outputs) in panels. `turned` gives the weights of the input's gradient: (SIDE^2 x outputs,
/// inputs), the windows read from their other end.
pub(crate) fn weights<T: Real, F: Filtering>(
    of: F,
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
                simd::dispatch(Filters { of, filters: &filters, across, to: at, stride });
            }
        });
    };
    // SAFETY: `Filters` writes whole rows of the panels, padding included.
    let values = unsafe { filled(len, write) };
    Panels::from_values(values, elements * depth, columns)
}

struct Filters<'a, T, F> {
    #[allow(dead_code)]
    of: F,
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
    of: F,
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
        (0..all.div_ceil(block)).into_par_iter().for_each(|i| {
            with_scratch(elements * block * (inputs + outputs), |scratch| {
                let (spread, products) = scratch.split_at_mut(elements * block * inputs);
                simd::dispatch(Block {
                    of,
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
    #[allow(dead_code)]
    of: F,
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
    // A' m A for tile `t` from channel `first` on, in whole registers; where it stopped.
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

// The rows of `image` at these positions; `outside` where they are none.
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

// B' d B from channel `first` on in whole registers, each element where `to` says; where it
// stopped.
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

/// The gradient by the weight (O, C, 3, 3).
pub(crate) fn weight_gradient<T: Real, F: Filtering>(
    of: F,
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
        accumulate(of, batch, window, (inputs, outputs), (xs, dys), (spread, grads, sums));
        dw = join(of, sums, inputs, outputs);
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
    of: F,
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
        (0..chunks).into_par_iter().for_each(|chunk| {
            simd::dispatch(Spread {
                of,
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
        (0..elements * panel_count * groups).into_par_iter().for_each(|task| {
            let (element, rest) = (task / (panel_count * groups), task % (panel_count * groups));
            let (panel, part) = (rest / groups, rest % groups);
            simd::dispatch(Products {
                of,
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
    #[allow(dead_code)]
    of: F,
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
    #[allow(dead_code)]
    of: F,
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
            // Few enough tiles at a time for the first cache.
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
fn join<T: Real, F: Filtering>(of: F, sums: &[T], inputs: usize, outputs: usize) -> Vec<T> {
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
            simd::dispatch(Join { of, from, across, stride, filters: &mut filters });
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
    #[allow(dead_code)]
    of: F,
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
