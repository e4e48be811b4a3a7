//! The kernel distance (Binkowski et al. 2018): the squared maximum mean discrepancy of two
//! sets under a polynomial kernel, without bias at any number of samples. On Inception's
//! features it is KID.

use super::points::{Points, pair, products};
use crate::bar::Bar;
use crate::interrupt::check_interrupt;
use crate::rng::Key;
use crate::{Result, ensure};
use candle_core::Tensor;
use rayon::prelude::*;

/// A mean over subsets, and the standard deviation of the subsets' values.
///
/// ```
/// use consistency::prelude::*;
/// // The Inception score of a classifier that is certain: one sample of each of two classes.
/// let logits = Tensor::new(&[[50.0f64, 0.0], [0.0, 50.0]], &Device::Cpu)?; // (2, 2)
/// let Spread { mean, deviation } = inception_score(&logits, 1)?;
/// assert!((mean - 2.0).abs() < 1e-9);
/// assert_eq!(deviation, 0.0);
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// The standard deviation over the subsets.
    pub deviation: f64,
}

/// The unbiased squared MMD of the rows of `a` and of `b`, shape `(N, ..)`, under the kernel
/// (x.y / D + 1)^3, all samples in one block.
///
/// # Errors
/// Fewer than two rows, dimensions that differ, or a number that is not finite.
pub fn kernel_distance(a: &Tensor, b: &Tensor) -> Result<f64> {
    let (a, b) = pair("features", a, b)?;
    let (m, n) = (a.rows(), b.rows());
    ensure!(m >= 2 && n >= 2, "a kernel distance needs 2 samples or more, got {m} and {n}");
    let mut bar = Bar::new("kernel distance", (m + 2 * n) as u64);
    let mut within = |points: &Points| -> Result<f64> {
        let count = points.rows() as f64;
        Ok((kernel_sum(points, points, &mut bar)? - own_sum(points)) / (count * (count - 1.0)))
    };
    let (of_a, of_b) = (within(&a)?, within(&b)?);
    let across = kernel_sum(&a, &b, &mut bar)? / (m as f64 * n as f64);
    Ok(of_a + of_b - 2.0 * across)
}

/// The mean and the spread of [`kernel_distance`] over `subsets` pairs of random subsets of
/// `size` rows, each drawn without replacement under `key`.
///
/// # Errors
/// As [`kernel_distance`]; a size beyond the number of rows, or no subsets.
pub fn kernel_distance_of_subsets(
    a: &Tensor,
    b: &Tensor,
    subsets: usize,
    size: usize,
    key: &Key,
) -> Result<Spread> {
    ensure!(subsets >= 1, "a kernel distance over no subsets");
    for rows in [a.dim(0)?, b.dim(0)?] {
        ensure!(size <= rows, "subsets of {size} among {rows} samples");
    }
    let draw = |points: &Tensor, side: &str, subset: usize| -> Result<Tensor> {
        let order = key.stream(side).step(subset as u64).permutation(points.dims()[0]);
        let rows: Vec<u32> = order[..size].iter().map(|i| *i as u32).collect();
        crate::data::select(points, &rows)
    };
    let mut values = Vec::with_capacity(subsets);
    let mut bar = Bar::new("kernel distances", subsets as u64);
    for subset in 0..subsets {
        values.push(kernel_distance(&draw(a, "a", subset)?, &draw(b, "b", subset)?)?);
        bar.add(1)?;
    }
    Ok(Spread::of(&values))
}

impl Spread {
    pub(super) fn of(values: &[f64]) -> Self {
        let count = values.len().max(1) as f64;
        let mean = values.iter().sum::<f64>() / count;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count;
        Self { mean, deviation: variance.sqrt() }
    }
}

fn kernel(product: f64, dim: usize) -> f64 {
    (product / dim as f64 + 1.0).powi(3)
}

/// The kernel's sum over all pairs; `bar` counts the points of `b`.
fn kernel_sum(a: &Points, b: &Points, bar: &mut Bar) -> Result<f64> {
    let dim = a.dim();
    let mut sum = 0.0;
    for (from, columns) in b.blocks() {
        let right = b.block(from, columns);
        for (first, rows) in a.blocks() {
            let products = products(&a.block(first, rows), &right, dim);
            let of = |j: usize| -> f64 { products.col(j).iter().map(|p| kernel(*p, dim)).sum() };
            // Collected before summing, so that the order of the sum is always the same.
            let sums: Vec<f64> = (0..columns).into_par_iter().map(of).collect();
            sum += sums.iter().sum::<f64>();
            check_interrupt()?;
        }
        bar.add(columns as u64)?;
    }
    Ok(sum)
}

/// The kernel's sum over the pairs of a point with itself.
fn own_sum(points: &Points) -> f64 {
    let of = |i: usize| kernel(points.row(i).iter().map(|x| x * x).sum(), points.dim());
    (0..points.rows()).map(of).sum()
}
