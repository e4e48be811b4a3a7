//! 3x3 convolutions at stride 1 by Winograd's minimal filtering F(2x2, 3x3) (Lavin and
//! Gray 2016): 16 products in place of 36 for each 2x2 tile of the output, in the forward
//! pass and in both gradients.
//!
//! With d a 4x4 tile of the input and g a 3x3 filter the 2x2 output is
//! `A' [(G g G') (B' d B)] A`; the filter's gradient from the output's dy is
//! `G' [(A dy A') (B' d B)] G`, summed over the tiles. The products over channels are
//! matrix products, one for each of the 16 elements of a transformed tile. All entries of
//! the transforms are 0, 1, -1 or 1/2: no digits are lost beyond a direct sum's.

use super::convolution::Epilogue;
use super::panels::{self, Panels};
use super::product::{DEPTH, Start, multiply, outer};
use super::simd::{self, Kernel, Lanes, Vector};
use super::window::Window;
use super::{Real, Shared, each, filled, with_scratch};
use rayon::prelude::*;

/// Bytes of the transformed tiles of one task: within a core's second cache.
const CACHE: usize = 768 << 10;
/// Tiles from which the transform of the weights is earned back.
const TILES: usize = 96;
/// Tiles of one pass of the weight's gradient, all threads together.
const PASS: usize = 384;

/// Whether a convolution goes this way.
pub(crate) fn pays(batch: usize, window: &Window, inputs: usize, outputs: usize) -> bool {
    let (rows, columns) = tiles(window);
    window.is_same3() && inputs.min(outputs) >= 16 && batch * rows * columns >= TILES
}

/// Tiles down and across an image.
fn tiles(window: &Window) -> (usize, usize) {
    (window.size.0.div_ceil(2), window.size.1.div_ceil(2))
}

/// G g G' for each pair of channels, as 16 matrices in one: (16 x inputs, outputs) in
/// panels. `turned` gives the weights of the input's gradient: (16 x outputs, inputs), the
/// windows read from their other end.
pub(crate) fn weights<T: Real>(
    weight: &[T],
    inputs: usize,
    outputs: usize,
    turned: bool,
) -> Panels<T> {
    let (depth, columns) = if turned { (outputs, inputs) } else { (inputs, outputs) };
    let len = panels::len::<T>(16 * depth, columns);
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
                let at = to.at(16 * depth * first + k * across);
                simd::dispatch(Filters { filters: &filters, across, to: at, stride: depth * across });
            }
        });
    };
    // SAFETY: `Filters` writes whole rows of the panels, padding included.
    let values = unsafe { filled(len, write) };
    Panels::from_values(values, 16 * depth, columns)
}

struct Filters<'a, T> {
    filters: &'a [[T; 64]; 9],
    across: usize,
    to: *mut T,
    stride: usize,
}

impl<T: Real> Kernel<T> for Filters<'_, T> {
    #[inline(always)]
    unsafe fn run<V: Vector<T>>(self) {
        unsafe {
            let mut lane = 0;
            while lane < self.across {
                let mut columns = [[V::splat(T::zero()); 4]; 3];
                for (v, column) in columns.iter_mut().enumerate() {
                    let mut g = [V::splat(T::zero()); 3];
                    for (u, g) in g.iter_mut().enumerate() {
                        *g = V::load(self.filters[3 * u + v].as_ptr().add(lane));
                    }
                    *column = filter(g);
                }
                for u in 0..4 {
                    let row = filter([columns[0][u], columns[1][u], columns[2][u]]);
                    for (v, value) in row.into_iter().enumerate() {
                        value.store(self.to.add((4 * u + v) * self.stride + lane));
                    }
                }
                lane += V::LANES;
            }
        }
    }
}

// The transforms along one direction. They are functions that are always inlined, and not
// closures, because a closure does not take its caller's instruction set.

// G: (g0, (g0 + g1 + g2) / 2, (g0 - g1 + g2) / 2, g2)
#[inline(always)]
unsafe fn filter<T: Real, V: Vector<T>>(g: [V; 3]) -> [V; 4] {
    unsafe {
        let half = V::splat(T::from_f64(0.5));
        let ends = g[0].add(g[2]);
        [g[0], ends.add(g[1]).mul(half), ends.sub(g[1]).mul(half), g[2]]
    }
}

// B': (d0 - d2, d1 + d2, d2 - d1, d1 - d3)
#[inline(always)]
unsafe fn input<T: Real, V: Vector<T>>(d: [V; 4]) -> [V; 4] {
    unsafe { [d[0].sub(d[2]), d[1].add(d[2]), d[2].sub(d[1]), d[1].sub(d[3])] }
}

// A': (m0 + m1 + m2, m1 - m2 - m3)
#[inline(always)]
unsafe fn output<T: Real, V: Vector<T>>(m: [V; 4]) -> [V; 2] {
    unsafe { [m[0].add(m[1]).add(m[2]), m[1].sub(m[2]).sub(m[3])] }
}

// A: (d0, d0 + d1, d0 - d1, -d1)
#[inline(always)]
unsafe fn gradient<T: Real, V: Vector<T>>(d: [V; 2]) -> [V; 4] {
    unsafe { [d[0], d[0].add(d[1]), d[0].sub(d[1]), V::splat(T::zero()).sub(d[1])] }
}

// G': (s0 + (s1 + s2) / 2, (s1 - s2) / 2, (s1 + s2) / 2 + s3)
#[inline(always)]
unsafe fn weight<T: Real, V: Vector<T>>(s: [V; 4]) -> [V; 3] {
    unsafe {
        let half = V::splat(T::from_f64(0.5));
        let sum = s[1].add(s[2]).mul(half);
        [s[0].add(sum), s[1].sub(s[2]).mul(half), sum.add(s[3])]
    }
}

/// The convolution of `xs` (B, H, W, inputs) with transformed `weights`: (B, H, W, outputs).
pub(crate) fn convolve<T: Real>(
    batch: usize,
    window: &Window,
    inputs: usize,
    weights: &Panels<T>,
    xs: &[T],
    epilogue: Epilogue<T>,
) -> Vec<T> {
    let outputs = weights.columns();
    let (down, across) = tiles(window);
    let all = batch * down * across;
    assert!(xs.len() == batch * window.positions() * inputs);
    assert!(epilogue.residual.is_none_or(|r| r.len() == batch * window.positions() * outputs));
    let bytes = 16 * (inputs + outputs) * size_of::<T>();
    let block = (CACHE / bytes / 24 * 24).clamp(24, 72);
    let bias = epilogue.bias.map_or_else(|| vec![T::zero(); outputs], <[T]>::to_vec);
    let places = Places::new(window);
    let compute = |ys: Shared<T>| {
        (0..all.div_ceil(block)).into_par_iter().for_each(|i| {
            with_scratch(16 * block * (inputs + outputs), |scratch| {
                let (spread, products) = scratch.split_at_mut(16 * block * inputs);
                simd::dispatch(Block {
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

struct Block<'a, T> {
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

impl<T: Real> Kernel<T> for Block<'_, T> {
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
                let whole = transform::<T, V>(&seen, 0, inputs, at);
                transform::<T, Lanes<T, 1>>(&seen, whole, inputs, at);
            }
            for element in 0..16 {
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

impl<T: Real> Block<'_, T> {
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
                let mut columns = [[V::splat(T::zero()); 2]; 4];
                for (v, column) in columns.iter_mut().enumerate() {
                    let mut m = [V::splat(T::zero()); 4];
                    for (u, m) in m.iter_mut().enumerate() {
                        *m = V::load(from.add(((4 * u + v) * count + t) * outputs + o));
                    }
                    *column = output(m);
                }
                let mut start = V::load(self.bias.as_ptr().add(o));
                if let Some(values) = per_sample {
                    start = start.add(V::load(values.add(o)));
                }
                for u in 0..2 {
                    let row = output([columns[0][u], columns[1][u], columns[2][u], columns[3][u]]);
                    for (v, value) in row.into_iter().enumerate() {
                        if held[2 * u + v] >= 0 {
                            let at = base + held[2 * u + v] as usize * outputs + o;
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

/// The positions of an image that each of its tiles sees (16) or holds (4), -1 outside.
struct Places {
    seen: Vec<[i32; 16]>,
    held: Vec<[i32; 4]>,
}

impl Places {
    fn new(window: &Window) -> Self {
        let (height, width) = window.size;
        let (down, across) = tiles(window);
        let (mut seen, mut held) = (Vec::new(), Vec::new());
        let at = |y: usize, x: usize| {
            if y < height && x < width { (y * width + x) as i32 } else { -1 }
        };
        for tile in 0..down * across {
            let (y, x) = (tile / across * 2, tile % across * 2);
            // The tile begins one position above and left of its output.
            seen.push(std::array::from_fn(|place| {
                let (y, x) = (y + place / 4, x + place % 4);
                if y == 0 || x == 0 { -1 } else { at(y - 1, x - 1) }
            }));
            held.push(std::array::from_fn(|place| at(y + place / 2, x + place % 2)));
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
unsafe fn transform<T: Real, V: Vector<T>>(
    seen: &[*const T; 16],
    first: usize,
    channels: usize,
    to: impl Fn(usize, usize) -> *mut T,
) -> usize {
    let mut c = first;
    unsafe {
        while c + V::LANES <= channels {
            let mut columns = [[V::splat(T::zero()); 4]; 4];
            for (v, column) in columns.iter_mut().enumerate() {
                let mut d = [V::splat(T::zero()); 4];
                for (u, d) in d.iter_mut().enumerate() {
                    *d = V::load(seen[4 * u + v].add(c));
                }
                *column = input(d);
            }
            for u in 0..4 {
                let row = input([columns[0][u], columns[1][u], columns[2][u], columns[3][u]]);
                for (v, value) in row.into_iter().enumerate() {
                    value.store(to(4 * u + v, c));
                }
            }
            c += V::LANES;
        }
    }
    c
}

// A dy A' from channel `first` on, as `transform`.
#[inline(always)]
unsafe fn transform_gradient<T: Real, V: Vector<T>>(
    held: &[*const T; 4],
    (first, end): (usize, usize),
    to: impl Fn(usize, usize) -> *mut T,
) -> usize {
    let mut o = first;
    unsafe {
        while o + V::LANES <= end {
            let columns = [
                gradient([V::load(held[0].add(o)), V::load(held[2].add(o))]),
                gradient([V::load(held[1].add(o)), V::load(held[3].add(o))]),
            ];
            for u in 0..4 {
                let row = gradient([columns[0][u], columns[1][u]]);
                for (v, value) in row.into_iter().enumerate() {
                    value.store(to(4 * u + v, o));
                }
            }
            o += V::LANES;
        }
    }
    o
}

/// The gradient by the weight (O, C, 3, 3).
pub(crate) fn weight_gradient<T: Real>(
    batch: usize,
    window: &Window,
    (inputs, outputs): (usize, usize),
    xs: &[T],
    dys: &[T],
) -> Vec<T> {
    let (down, across) = tiles(window);
    let all = batch * down * across;
    let lanes = simd::lanes::<T>();
    let padded = inputs.div_ceil(lanes) * lanes;
    // Transformed tiles: of the input by blocks of channels, (16, block, tiles, lanes); of
    // the gradient by panels, (16, panel, tiles, columns). Each task of the products then
    // reads rows that follow each other.
    let pass = PASS.min(all);
    let lens = [
        16 * pass * padded,
        16 * panels::len::<T>(pass, outputs),
        panels::len::<T>(16 * inputs, outputs),
    ];
    let mut dw = Vec::new();
    with_scratch(lens.iter().sum(), |scratch: &mut [T]| {
        let (spread, rest) = scratch.split_at_mut(lens[0]);
        let (grads, sums) = rest.split_at_mut(lens[1]);
        accumulate(batch, window, (inputs, outputs), (xs, dys), (spread, grads, sums));
        dw = join(sums, inputs, outputs);
    });
    dw
}

// The sums over the tiles, as 16 matrices in one: (16 x inputs, outputs) in panels.
fn accumulate<T: Real>(
    batch: usize,
    window: &Window,
    (inputs, outputs): (usize, usize),
    (xs, dys): (&[T], &[T]),
    (spread, grads, sums): (&mut [T], &mut [T], &mut [T]),
) {
    let (down, across) = tiles(window);
    let all = batch * down * across;
    let lanes = simd::lanes::<T>();
    let padded = inputs.div_ceil(lanes) * lanes;
    let panel_count = panels::count::<T>(outputs);
    let pass = PASS.min(all);
    let grads_each = panels::len::<T>(pass, outputs);
    let places = Places::new(window);
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
        (0..16 * panel_count * groups).into_par_iter().for_each(|task| {
            let (element, rest) = (task / (panel_count * groups), task % (panel_count * groups));
            let (panel, part) = (rest / groups, rest % groups);
            simd::dispatch(Products {
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

struct Spread<'a, T> {
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

impl<T: Real> Kernel<T> for Spread<'_, T> {
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
                let whole = transform::<T, V>(&seen, 0, inputs, at);
                transform::<T, Lanes<T, 1>>(&seen, whole, inputs, at);
                let held = rows(dy.as_ptr(), outputs, &self.places.held[tile], outside.1);
                for panel in 0..panels::count::<T>(outputs) {
                    let (vectors, first, columns) = panels::place::<T>(outputs, panel);
                    let across = vectors * V::LANES;
                    let at = |element: usize, o: usize| {
                        let row = first * count + t * across;
                        self.grads.at(element * self.grads_each + row + o - first)
                    };
                    let end = first + columns;
                    let whole = transform_gradient::<T, V>(&held, (first, end), at);
                    transform_gradient::<T, Lanes<T, 1>>(&held, (whole, end), at);
                }
            }
        }
    }
}

struct Products<T> {
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

impl<T: Real> Kernel<T> for Products<T> {
    #[inline(always)]
    unsafe fn run<V: Vector<T>>(self) {
        let Self { count, sizes: (inputs, outputs), .. } = self;
        let (vectors, first, _) = panels::place::<T>(outputs, self.panel);
        let across = vectors * V::LANES;
        let mut rows: Vec<*const T> = Vec::with_capacity(count.min(PASS));
        for block in self.blocks.0..self.blocks.1 {
            let c = block * V::LANES;
            let from = self.spread.at((self.element * self.padded + c) * count);
            let channels = V::LANES.min(inputs - c);
            let to = self.sums.at(16 * inputs * first + (self.element * inputs + c) * across);
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

// G' s G for each pair of channels, from panels (16 x inputs, outputs) to (O, C, 3, 3).
fn join<T: Real>(sums: &[T], inputs: usize, outputs: usize) -> Vec<T> {
    let mut dw = vec![T::zero(); outputs * inputs * 9];
    let to = Shared::new(dw.as_mut_ptr());
    let blocks = inputs.div_ceil(16);
    each(panels::count::<T>(outputs) * blocks, dw.len(), |task| {
        let (vectors, first, columns) = panels::place::<T>(outputs, task / blocks);
        let across = vectors * simd::lanes::<T>();
        for c in task % blocks * 16..(task % blocks * 16 + 16).min(inputs) {
            let mut filters = [[T::zero(); 64]; 9];
            let from = &sums[16 * inputs * first + c * across..];
            simd::dispatch(Join { from, across, stride: inputs * across, filters: &mut filters });
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

struct Join<'a, T> {
    from: &'a [T],
    across: usize,
    stride: usize,
    filters: &'a mut [[T; 64]; 9],
}

impl<T: Real> Kernel<T> for Join<'_, T> {
    #[inline(always)]
    unsafe fn run<V: Vector<T>>(self) {
        let mut lane = 0;
        while lane < self.across {
            unsafe {
                let mut columns = [[V::splat(T::zero()); 3]; 4];
                for (v, column) in columns.iter_mut().enumerate() {
                    let mut s = [V::splat(T::zero()); 4];
                    for (u, s) in s.iter_mut().enumerate() {
                        *s = V::load(self.from[(4 * u + v) * self.stride + lane..].as_ptr());
                    }
                    *column = weight(s);
                }
                for u in 0..3 {
                    let row = weight([columns[0][u], columns[1][u], columns[2][u], columns[3][u]]);
                    for (v, value) in row.into_iter().enumerate() {
                        value.store(self.filters[3 * u + v].as_mut_ptr().add(lane));
                    }
                }
                lane += V::LANES;
            }
        }
    }
}
