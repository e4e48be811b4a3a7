//! Improved precision and recall (Kynkaanniemi et al. 2019): a set's manifold is the union of
//! balls around its points, each as large as the distance to its k-th nearest other point.

use super::points::{Points, pair, products};
use crate::bar::Bar;
use crate::interrupt::check_interrupt;
use crate::{Result, ensure};
use candle_core::Tensor;
use rayon::prelude::*;

/// The paper's number of neighbours.
pub const NEIGHBOURS: usize = 3;
/// A squared distance from a product of matrices is accurate to this fraction of the squared norms;
/// one that is closer than that to a decision is computed again as a sum of squares.
const ROUNDING: f64 = 1e-12;
/// Candidates beyond k for the k-th neighbour, whose order rounding may have changed.
const SPARE: usize = 4;

/// How much of one set lies on the manifold of the other.
///
/// ```
/// use consistency::prelude::*;
/// let real = Tensor::new(&[[0.0f64], [1.0], [2.0], [3.0]], &Device::Cpu)?; // (4, 1)
/// let fake = Tensor::new(&[[0.5f64], [1.5], [9.0], [9.5]], &Device::Cpu)?;
/// // Balls that reach to the nearest other point: two samples lie in those of the real points,
/// // and all real points but 3 lie in those of the samples.
/// let PrecisionRecall { precision, recall } = precision_recall(&real, &fake, 1)?;
/// assert_eq!((precision, recall), (0.5, 0.75));
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PrecisionRecall {
    /// The share of samples that lie on the manifold of the real points.
    pub precision: f64,
    /// The share of real points that lie on the manifold of the samples.
    pub recall: f64,
}

/// Precision and recall of the samples `fake` against `real`, shapes (N, ..) and (M, ..), with
/// balls that reach to the `k`-th neighbour, the point itself excluded. Distances are taken a
/// block at a time.
///
/// # Errors
/// No more than `k` points in a set, dimensions that differ, or a number that is not finite.
pub fn precision_recall(real: &Tensor, fake: &Tensor, k: usize) -> Result<PrecisionRecall> {
    let (real, fake) = pair("features", real, fake)?;
    ensure!(k >= 1, "precision and recall with k = 0: a ball needs a neighbour");
    for (name, points) in [("real", &real), ("fake", &fake)] {
        ensure!(
            points.rows() > k,
            "precision and recall with k = {k} need more than {k} points, got {} {name} ones",
            points.rows()
        );
    }
    let mut bar = Bar::new("neighbours", 2 * (real.rows() + fake.rows()) as u64);
    let (of_real, of_fake) = (kth(&real, None, k, &mut bar)?, kth(&fake, None, k, &mut bar)?);
    Ok(PrecisionRecall {
        precision: share_inside(&real, &of_real, &fake, &mut bar)?,
        recall: share_inside(&fake, &of_fake, &real, &mut bar)?,
    })
}

fn squares(points: &Points) -> Vec<f64> {
    let of = |i: usize| points.row(i).iter().map(|x| x * x).sum();
    (0..points.rows()).into_par_iter().map(of).collect()
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum()
}

/// The squared distance of each of `of` to its k-th neighbour among `points`; where `of` is none,
/// of the points themselves, each among the others.
pub(super) fn kth(
    points: &Points,
    of: Option<&Points>,
    k: usize,
    bar: &mut Bar,
) -> Result<Vec<f64>> {
    let (themselves, of) = (of.is_none(), of.unwrap_or(points));
    let (squares, of_queries) = (squares(points), squares(of));
    let mut found = Vec::with_capacity(of.rows());
    for (from, columns) in of.blocks() {
        let queries = of.block(from, columns);
        let mut nearest: Vec<Vec<(f64, usize)>> = vec![Vec::new(); columns];
        for (first, rows) in points.blocks() {
            let products = products(&points.block(first, rows), &queries, points.dim());
            nearest.par_iter_mut().enumerate().for_each(|(j, nearest)| {
                for (i, product) in products.col(j).iter().enumerate() {
                    let (other, this) = (first + i, from + j);
                    if !themselves || other != this {
                        let gap = squares[other] + of_queries[this] - 2.0 * product;
                        insert(nearest, (gap, other), k + SPARE);
                    }
                }
            });
            check_interrupt()?;
        }
        let exact = |(j, nearest): (usize, &Vec<(f64, usize)>)| -> f64 {
            let query = of.row(from + j);
            let mut exact: Vec<f64> =
                nearest.iter().map(|(_, other)| distance(&query, &points.row(*other))).collect();
            exact.sort_by(f64::total_cmp);
            exact[k - 1]
        };
        found.par_extend(nearest.par_iter().enumerate().map(exact));
        bar.add(columns as u64)?;
    }
    Ok(found)
}

/// Keep the `most` smallest, in their order.
fn insert(kept: &mut Vec<(f64, usize)>, new: (f64, usize), most: usize) {
    if kept.len() == most && kept.last().is_some_and(|last| last.0 <= new.0) {
        return;
    }
    let at = kept.partition_point(|old| old.0 <= new.0);
    kept.insert(at, new);
    kept.truncate(most);
}

/// The share of `queries` within the ball of at least one of `points`.
fn share_inside(points: &Points, radii: &[f64], queries: &Points, bar: &mut Bar) -> Result<f64> {
    let (of_points, of_queries) = (squares(points), squares(queries));
    let mut inside = vec![false; queries.rows()];
    for (from, columns) in queries.blocks() {
        let block = queries.block(from, columns);
        for (first, rows) in points.blocks() {
            let products = products(&points.block(first, rows), &block, points.dim());
            let found = &mut inside[from..from + columns];
            found.par_iter_mut().enumerate().filter(|(_, found)| !**found).for_each(
                |(j, found)| {
                    *found = products.col(j).iter().enumerate().any(|(i, product)| {
                        let (point, query) = (first + i, from + j);
                        let norms = of_points[point] + of_queries[query];
                        let beyond = norms - 2.0 * product - radii[point];
                        if beyond.abs() > ROUNDING * norms {
                            return beyond < 0.0;
                        }
                        distance(&queries.row(query), &points.row(point)) <= radii[point]
                    });
                },
            );
            check_interrupt()?;
        }
        bar.add(columns as u64)?;
    }
    Ok(inside.iter().filter(|inside| **inside).count() as f64 / queries.rows() as f64)
}
