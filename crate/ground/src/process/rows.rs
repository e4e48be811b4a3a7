//! A softmax over the rows of a dataset, a chunk of rows at a time: the arithmetic behind
//! [`super::Empirical`], on slices of f64.
//!
//! Streaming log-sum-exp: each sample keeps the best score so far, the sum of exponentials
//! relative to it and the rows' mean under them; a better score shrinks both.
//!
//! Samples are processed in tiles, and within a tile they lie side by side: the matrices are
//! (rows, samples) and (dimensions, samples). Both products then read the rows where they lie, and
//! the pass over the weights is a loop over samples that any compiler vectorises. No number of one
//! sample mixes with another's: its sums have one order, whatever else is in the batch.

use gemm::{Parallelism, gemm};
use rayon::prelude::*;

/// Samples in a tile. The crate `gemm` reads a factor in place as long as the other is no wider
/// than two of its registers' blocks: 64 with AVX-512.
const TILE: usize = 64;
/// A tile's width is a multiple of this. `gemm` treats a single column differently, and sums it in
/// another order.
const LANES: usize = 8;
/// Rows at a time: their weights for a tile stay in the second-level cache. Below 512 `gemm` adds a
/// sum in one go, and 6 and 4 (the heights of its blocks) divide it.
const CHUNK: usize = 504;
/// The most rows that one task takes. It depends on the dataset and never on the threads, because
/// sums are split where the parts are.
const PART: usize = 16 * CHUNK;

/// The rows of a dataset.
pub(super) struct Rows<'a> {
    /// (N, dim).
    pub values: &'a [f64],
    /// |x_i|^2 of each row.
    pub squares: &'a [f64],
    /// Numbers in a row.
    pub dim: usize,
}

/// Up to [`TILE`] samples, side by side. Columns beyond them repeat the last.
struct Tile {
    width: usize,
    /// (dim, width).
    points: Vec<f64>,
    /// 1 / (2 t^2).
    scale: Vec<f64>,
}

impl Tile {
    fn new(points: &[f64], scale: &[f64], dim: usize) -> Self {
        let width = scale.len().next_multiple_of(LANES);
        let mut tile = Self { width, points: vec![0.0; dim * width], scale: vec![0.0; width] };
        for s in 0..width {
            let from = s.min(scale.len() - 1);
            tile.scale[s] = scale[from];
            for (d, value) in points[from * dim..(from + 1) * dim].iter().enumerate() {
                tile.points[d * width + s] = *value;
            }
        }
        tile
    }
}

/// The state of a tile's samples after some rows.
struct Running {
    /// The highest score 2 x.x_i - |x_i|^2 = |x|^2 - |x - x_i|^2.
    best: Vec<f64>,
    /// Which row has it: an index, in f64 so that the search is arithmetic of one width.
    nearest: Vec<f64>,
    /// Sum of exp(scale (score - best)).
    sum: Vec<f64>,
    /// The rows summed with these weights, (dim, width); empty if it is not asked for.
    mean: Vec<f64>,
}

impl Running {
    fn new(width: usize, mean: usize) -> Self {
        Self {
            best: vec![f64::NEG_INFINITY; width],
            nearest: vec![0.0; width],
            sum: vec![0.0; width],
            mean: vec![0.0; mean * width],
        }
    }

    /// Multiply the mean of each sample.
    fn shrink(&mut self, factors: &[f64]) {
        // Unlike a NaN, 1 changes nothing.
        if factors.iter().any(|f| *f != 1.0) {
            for row in self.mean.chunks_exact_mut(factors.len()) {
                row.iter_mut().zip(factors).for_each(|(value, f)| *value *= f);
            }
        }
    }

    /// Add what other, later rows gave.
    fn add(&mut self, mut other: Self, scale: &[f64]) {
        let width = scale.len();
        let (mut mine, mut theirs) = (vec![0.0; width], vec![0.0; width]);
        for s in 0..width {
            let best = if other.best[s] > self.best[s] { other.best[s] } else { self.best[s] };
            mine[s] = exponential::<false>((self.best[s] - best) * scale[s]);
            theirs[s] = exponential::<false>((other.best[s] - best) * scale[s]);
            if other.best[s] > self.best[s] {
                self.nearest[s] = other.nearest[s];
            }
            self.best[s] = best;
            self.sum[s] = self.sum[s] * mine[s] + other.sum[s] * theirs[s];
        }
        self.shrink(&mine);
        other.shrink(&theirs);
        self.mean.iter_mut().zip(&other.mean).for_each(|(a, b)| *a += b);
    }
}

impl Rows<'_> {
    /// The posterior means of `points` (B, dim) at `scale` = 1 / (2 t^2), one per sample: (B, dim).
    pub fn means(&self, points: &[f64], scale: &[f64]) -> Vec<f64> {
        let dim = self.dim;
        let mut out = vec![0.0; points.len()];
        let tiles = out.par_chunks_mut(TILE * dim).zip(points.par_chunks(TILE * dim));
        tiles.zip(scale.par_chunks(TILE)).for_each(|((out, points), scale)| {
            let tile = Tile::new(points, scale, dim);
            let all = self.all(&tile, true);
            for (s, row) in out.chunks_exact_mut(dim).enumerate() {
                for (d, value) in row.iter_mut().enumerate() {
                    *value = all.mean[d * tile.width + s] / all.sum[s];
                }
            }
        });
        out
    }

    /// ln sum_i exp(-scale |x - x_i|^2) for `points` (B, dim) and one scale per sample: (B).
    pub fn log_sums(&self, points: &[f64], scale: &[f64]) -> Vec<f64> {
        let dim = self.dim;
        let mut out = vec![0.0; scale.len()];
        let tiles = out.par_chunks_mut(TILE).zip(points.par_chunks(TILE * dim));
        tiles.zip(scale.par_chunks(TILE)).for_each(|((out, points), scale)| {
            let all = self.all(&Tile::new(points, scale, dim), false);
            for (s, (value, x)) in out.iter_mut().zip(points.chunks_exact(dim)).enumerate() {
                // The scores' differences are all that the sum needs. The distance itself would
                // lose digits as a difference of squares, so here it is a sum.
                let row = &self.values[all.nearest[s] as usize * dim..][..dim];
                let distance: f64 = x.iter().zip(row).map(|(a, b)| (a - b).powi(2)).sum();
                *value = all.sum[s].ln() - scale[s] * distance;
            }
        });
        out
    }

    /// A tile's sums over all rows.
    fn all(&self, tile: &Tile, mean: bool) -> Running {
        let count = self.squares.len();
        let length = count.div_ceil(count.div_ceil(PART)).next_multiple_of(CHUNK);
        let firsts = (0..count).into_par_iter().step_by(length);
        let parts: Vec<Running> =
            firsts.map(|first| self.part(tile, mean, first, (first + length).min(count))).collect();
        let mut all = Running::new(tile.width, if mean { self.dim } else { 0 });
        parts.into_iter().for_each(|part| all.add(part, &tile.scale));
        all
    }

    /// A tile's sums over the rows `first..last`.
    fn part(&self, tile: &Tile, mean: bool, first: usize, last: usize) -> Running {
        let (dim, width) = (self.dim, tile.width);
        let mut running = Running::new(width, if mean { dim } else { 0 });
        let mut weights = vec![0.0; CHUNK.min(last - first) * width];
        let (mut factors, mut sums) = (vec![0.0; width], vec![0.0; width]);
        for from in (first..last).step_by(CHUNK) {
            let count = CHUNK.min(last - from);
            let rows = &self.values[from * dim..(from + count) * dim];
            let weights = &mut weights[..count * width];
            multiply(Product::Scores, rows, &tile.points, weights, width);
            Weigh {
                squares: &self.squares[from..from + count],
                first: from,
                scale: &tile.scale,
                weights,
                running: &mut running,
                factors: &mut factors,
                sums: &mut sums,
            }
            .run();
            running.shrink(&factors);
            if mean {
                multiply(Product::Mean, rows, weights, &mut running.mean, width);
            }
        }
        running
    }
}

/// How the rows enter a product.
#[derive(Clone, Copy, PartialEq)]
enum Product {
    /// out (n, width) = 2 rows (n, k) left (k, width).
    Scores,
    /// out (n, width) += rows' (n, k) left (k, width).
    Mean,
}

/// One of the two products, of `rows` as they lie.
fn multiply(what: Product, rows: &[f64], left: &[f64], out: &mut [f64], width: usize) {
    let (n, k) = (out.len() / width, left.len() / width);
    assert!(out.len() == n * width && left.len() == k * width && rows.len() == n * k);
    let add = what == Product::Mean;
    let (factor, across, down) = if add { (1.0, 1, n) } else { (2.0, k, 1) };
    let (to, left, right) = (out.as_mut_ptr(), left.as_ptr(), rows.as_ptr());
    let (across, down, step) = (across as isize, down as isize, width as isize);
    // SAFETY: the three matrices have the lengths that were checked. They are passed to `gemm`,
    // which prefers columns, transposed: (width, k) times (k, n).
    unsafe {
        gemm(
            width,
            n,
            k,
            to,
            step,
            1,
            add,
            left,
            step,
            1,
            right,
            across,
            down,
            1.0,
            factor,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// From products to weights, for one chunk of rows and a tile.
struct Weigh<'a> {
    squares: &'a [f64],
    /// The index of the first row.
    first: usize,
    scale: &'a [f64],
    /// (rows, width): 2 x.x_i, then exp(scale (score - best)).
    weights: &'a mut [f64],
    running: &'a mut Running,
    /// What the running mean must be multiplied by.
    factors: &'a mut [f64],
    /// The sum of these weights alone.
    sums: &'a mut [f64],
}

impl Weigh<'_> {
    fn run(&mut self) {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the processor has both.
            return unsafe { self.on_avx2() };
        }
        self.on::<{ cfg!(target_arch = "aarch64") }>();
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    fn on_avx2(&mut self) {
        self.on::<true>();
    }

    #[inline(always)]
    fn on<const FUSED: bool>(&mut self) {
        let (width, scale) = (self.scale.len(), self.scale);
        let Running { best, nearest, sum, .. } = &mut *self.running;
        let (factors, sums) = (&mut self.factors[..width], &mut self.sums[..width]);
        let (best, nearest) = (&mut best[..width], &mut nearest[..width]);
        factors.copy_from_slice(best);
        for (i, row) in self.weights.chunks_exact_mut(width).enumerate() {
            let (square, index) = (self.squares[i], (self.first + i) as f64);
            for s in 0..width {
                let score = row[s] - square;
                row[s] = score;
                // A NaN is never the best; its weight is NaN, and so is the sum.
                let better = score > best[s];
                best[s] = if better { score } else { best[s] };
                nearest[s] = if better { index } else { nearest[s] };
            }
        }
        sums.fill(0.0);
        for row in self.weights.chunks_exact_mut(width) {
            for s in 0..width {
                row[s] = exponential::<FUSED>((row[s] - best[s]) * scale[s]);
                sums[s] += row[s];
            }
        }
        for s in 0..width {
            factors[s] = exponential::<FUSED>((factors[s] - best[s]) * scale[s]);
            sum[s] = sum[s] * factors[s] + sums[s];
        }
    }
}

/// 1 / k! for k up to 13: the series of e^r is exact to 4e-18 for |r| <= ln(2) / 2.
const SERIES: [f64; 14] = {
    let mut series = [1.0; 14];
    let mut k = 1;
    while k < 14 {
        series[k] = series[k - 1] / k as f64;
        k += 1;
    }
    series
};

/// e^x for x <= 0 to about an ulp, 0 below e^-708 and NaN for NaN, without a branch or a call.
#[inline(always)]
fn exponential<const FUSED: bool>(x: f64) -> f64 {
    let mul_add = |a: f64, b: f64, c: f64| if FUSED { a.mul_add(b, c) } else { a * b + c };
    // Adding 1.5 2^52 rounds to a whole number, which then stands in the lowest bits.
    const WHOLE: f64 = 6_755_399_441_055_744.0;
    // ln 2 in two parts, the first with zeros at its end: its product with n is exact.
    const HIGH: f64 = f64::from_bits(0x3FE6_2E42_FEE0_0000);
    const LOW: f64 = 1.908_214_929_270_587_7e-10;
    let shifted = mul_add(x, std::f64::consts::LOG2_E, WHOLE);
    let n = shifted - WHOLE;
    let r = mul_add(n, -LOW, mul_add(n, -HIGH, x));
    let mut value = SERIES[13];
    for k in (0..13).rev() {
        value = mul_add(value, r, SERIES[k]);
    }
    let power = f64::from_bits(shifted.to_bits().wrapping_add(1023) << 52);
    // For a smaller x the power has no exponent; its weight would vanish beside 1.
    if x < -708.0 { 0.0 } else { value * power }
}
