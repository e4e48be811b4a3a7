//! Theorem 1: where the consistency loss is zero on a grid, the function is within
//! O((Delta t)^p) of the PF ODE's own, p the order of the solver.

use super::slope::{frame, local_slopes};
use crate::bar::Bar;
use crate::interrupt::Purpose;
use crate::process::{ExactFlow, FlowMap, GaussianMixture, Solver, TimeGrid, perturb, trajectory};
use crate::rng::Key;
use crate::seam::{ConsistencyFunction, Denoiser};
use crate::{Result, ensure};
use candle_core::{D, DType, Device, Tensor};
use polars::prelude::{Column, DataFrame, NamedFrom, Series};
use rayon::prelude::*;

/// Numbers evaluated together: a batch that stays in the cache, and below the size from which on
/// the C library takes fresh pages for every tensor.
const TOGETHER: usize = 1 << 13;

/// The points m_i + k sqrt(s_i^2 + t^2) e_d for every component i, axis d and k in `steps`,
/// (P, dim): the compact set over which the supremum is taken. Over all x it is infinite.
pub fn spread_points(mixture: &GaussianMixture, t: f64, steps: &[f64]) -> Result<Tensor> {
    let mut points: Vec<f64> = Vec::new();
    for (_, mean, std) in mixture.components() {
        for axis in 0..mixture.dim() {
            // The mean itself once, not once per axis.
            for k in steps.iter().filter(|k| **k != 0.0 || axis == 0) {
                let mut point = mean.to_vec();
                point[axis] += k * std.hypot(t);
                points.extend(point);
            }
        }
    }
    let count = points.len() / mixture.dim();
    Ok(Tensor::from_vec(points, (count, mixture.dim()), &Device::Cpu)?)
}

/// The points x_i + t z_i: `count` rows x_i of `data`, drawn under `key`, with noise; f64.
/// The draws are those of sample i, the same at every t.
pub fn keyed_draws(data: &Tensor, count: usize, key: &Key, t: f64) -> Result<Tensor> {
    let samples = 0..count as u64;
    let rows = key.stream("row").integers(samples.clone(), 0..data.dims()[0])?;
    let rows: Vec<u32> = rows.into_iter().map(|row| row as u32).collect();
    let x0 = data.index_select(&Tensor::new(rows, data.device())?, 0)?.to_dtype(DType::F64)?;
    perturb(&x0, &[t], &key.stream("noise").normal_like(&x0, 0)?)
}

/// The largest error over a set of points, and where it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Worst {
    /// The 2-norm of the difference.
    pub error: f64,
    /// The noise level t_n of that point.
    pub t: f64,
}

/// sup over n = 2..N and over `points(t_n)` of |f(x, t_n) - reference(x, t_n)|, the 2-norm
/// over the sample.
///
/// # Errors
/// What the functions return, or a difference that is not finite.
pub fn sup_error(
    f: &dyn ConsistencyFunction,
    reference: &dyn ConsistencyFunction,
    grid: &TimeGrid,
    points: &(dyn Fn(f64) -> Result<Tensor> + Sync),
) -> Result<Worst> {
    Ok(sup_errors(&[f], reference, grid, points)?[0])
}

/// [`sup_error`] of several functions, against one evaluation of the reference: an exact
/// flow costs more than all of them.
///
/// # Errors
/// As [`sup_error`].
pub fn sup_errors(
    functions: &[&dyn ConsistencyFunction],
    reference: &dyn ConsistencyFunction,
    grid: &TimeGrid,
    points: &(dyn Fn(f64) -> Result<Tensor> + Sync),
) -> Result<Vec<Worst>> {
    let (mut sets, mut levels) = (Vec::new(), Vec::new());
    for &t in &grid.times()[1..] {
        let set = points(t)?;
        levels.extend(vec![t; set.dims()[0]]);
        sets.push(set);
    }
    let all = Tensor::cat(&sets, 0)?;
    // Neighbouring levels together: they start and step together.
    let rows = (TOGETHER * levels.len() / all.elem_count().max(1)).max(1);
    let starts: Vec<usize> = (0..levels.len()).step_by(rows).collect();
    let part = |start: usize| -> Result<Vec<Worst>> {
        let count = rows.min(levels.len() - start);
        let (x, t) = (all.narrow(0, start, count)?, &levels[start..start + count]);
        let truth = reference.origin(&x, t)?;
        functions.iter().map(|f| worst(&f.origin(&x, t)?, &truth, t)).collect()
    };
    let purpose = Purpose::here();
    let parts = starts.par_iter().map(|&start| purpose.run(|| part(start)));
    let parts: Vec<Vec<Worst>> = parts.collect::<Result<_>>()?;
    let largest = |a: Worst, b: &Worst| if b.error > a.error { *b } else { a };
    let none = Worst { error: 0.0, t: grid.last() };
    Ok((0..functions.len()).map(|i| parts.iter().map(|p| &p[i]).fold(none, largest)).collect())
}

// The largest of the distances between two batches, at the levels t.
fn worst(x: &Tensor, y: &Tensor, t: &[f64]) -> Result<Worst> {
    let gap = (x - y)?.flatten_from(1)?;
    let norms = gap.sqr()?.sum(D::Minus1)?.sqrt()?.to_vec1::<f64>()?;
    let mut worst = Worst { error: 0.0, t: t[0] };
    for (&error, &t) in norms.iter().zip(t) {
        ensure!(error.is_finite(), "the error of the consistency function at t = {t} is {error}");
        if error > worst.error {
            worst = Worst { error, t };
        }
    }
    Ok(worst)
}

/// The sup error of the function with zero consistency loss, `solver` iterated along each
/// of `grids` to eps, against the PF ODE of the same denoiser: columns `points`, `delta_t`
/// (the largest gap), `sup_error` and `local_slope` (of the log error on log delta_t against
/// the row before; none in the first).
///
/// # Errors
/// As [`sup_error`].
pub fn zero_loss_errors(
    denoiser: &dyn Denoiser,
    solver: Solver,
    grids: &[TimeGrid],
    points: &(dyn Fn(f64) -> Result<Tensor> + Sync),
) -> Result<DataFrame> {
    let mut errors = Vec::with_capacity(grids.len());
    let mut bar = levels_bar("sup errors", grids);
    for grid in grids {
        let exact = ExactFlow::new(denoiser, grid.first())?;
        let f = FlowMap::new(denoiser, solver, grid.clone());
        errors.push(sup_error(&f, &exact, grid, points)?.error);
        bar.add(grid.points() as u64)?;
    }
    error_table(grids, &errors)
}

/// A bar over the noise levels of all `grids`.
pub(super) fn levels_bar(what: &str, grids: &[TimeGrid]) -> Bar {
    Bar::new(what, grids.iter().map(|grid| grid.points() as u64).sum())
}

fn error_table(grids: &[TimeGrid], errors: &[f64]) -> Result<DataFrame> {
    let gaps: Vec<f64> = grids.iter().map(TimeGrid::max_gap).collect();
    let points: Vec<u32> = grids.iter().map(|grid| grid.points() as u32).collect();
    frame(vec![
        Series::new("points".into(), points).into(),
        Column::new("delta_t".into(), gaps.clone()),
        Column::new("sup_error".into(), errors.to_vec()),
        Column::new("local_slope".into(), local_slopes(&gaps, errors)),
    ])
}

/// Work and precision of sampling: each of `solvers` from the points `x` at the last level of each
/// of `grids`; columns `solver`, `points`, `nfe` (evaluations of the denoiser per sample) and
/// `error` (the root mean square over all numbers of the final x_eps).
///
/// # Errors
/// Grids that do not begin and end at the same levels.
pub fn work_precision(
    denoiser: &dyn Denoiser,
    solvers: &[Solver],
    grids: &[TimeGrid],
    x: &Tensor,
) -> Result<DataFrame> {
    let Some(first) = grids.first() else { crate::bail!("no grids to compare solvers on") };
    ensure!(
        grids.iter().all(|g| (g.first(), g.last()) == (first.first(), first.last())),
        "the grids begin or end at different noise levels"
    );
    let exact = ExactFlow::new(denoiser, first.first())?.origin(x, &[first.last()])?;
    let (mut names, mut points, mut nfe, mut errors) = (vec![], vec![], vec![], vec![]);
    let cost = |solver: Solver, grid: &TimeGrid| solver.evaluations() * (grid.points() - 1);
    let all = solvers.iter().flat_map(|s| grids.iter().map(|g| cost(*s, g) as u64)).sum();
    let mut bar = Bar::new("evaluations", all);
    for &solver in solvers {
        for grid in grids {
            let end = trajectory(denoiser, solver, x, grid)?.pop().unwrap_or_else(|| x.clone());
            let square = (end - &exact)?.sqr()?.mean_all()?.to_scalar::<f64>()?;
            names.push(format!("{solver:?}"));
            points.push(grid.points() as u32);
            nfe.push(cost(solver, grid) as u32);
            errors.push(square.sqrt());
            bar.add(cost(solver, grid) as u64)?;
        }
    }
    frame(vec![
        Series::new("solver".into(), names).into(),
        Series::new("points".into(), points).into(),
        Series::new("nfe".into(), nfe).into(),
        Column::new("error".into(), errors),
    ])
}
