//! Theorem 2: with an Euler step and the exact score, the loss of distillation is that of
//! training up to o(Delta t).
//!
//! On a line both losses are integrals, to 1e-8 or better; in any number of dimensions they
//! are sampled, with the same data and noise for both.

use super::line::{self, Part, batch, column, numbers};
use super::metric;
use super::quadrature::{Node, breaks, integrate, panels};
use super::slope::{NORMAL, frame, local_slopes};
use super::theorem1::levels_bar;
use crate::bar::Bar;
use crate::interrupt::Purpose;
use crate::loss::{Distance, Metric, distillation_pair, training_pair};
use crate::process::{GaussianMixture, Solver, TimeGrid};
use crate::rng::Key;
use crate::seam::{ConsistencyFunction, Denoiser};
use crate::{Result, ensure};
use candle_core::{DType, Tensor};
use polars::prelude::{Column, DataFrame, NamedFrom, Series};
use rayon::prelude::*;
use std::f64::consts::TAU;

/// Deviations of the noise given x_t, beyond which nothing is left.
const REACH: f64 = 9.0;

/// One step of the grid, from t_{n+1} = `t_next` to t_n = `t`, over data on a line.
pub(super) struct Step<'a> {
    pub mixture: &'a GaussianMixture,
    pub parts: &'a [Part],
    /// f_theta-.
    pub target: &'a dyn ConsistencyFunction,
    pub t: f64,
    pub t_next: f64,
    pub tolerance: f64,
}

impl Step<'_> {
    /// The integral over x at t_next of what `f` gives at a batch of nodes, (B, 1).
    pub fn integrate<const M: usize>(
        &self,
        mut f: impl FnMut(&Tensor) -> Result<Vec<[f64; M]>>,
    ) -> Result<[f64; M]> {
        let panels = line::cover(self.parts, self.t_next, 0);
        Ok(integrate(panels, 1, self.tolerance, |nodes| f(&batch(nodes)?))?[0])
    }

    /// p(x) h(f - f_theta-(x-hat, t)), x-hat by one Euler step with the exact score, for
    /// the points x and the student's answers `f` there.
    pub fn distilled(&self, x: &Tensor, f: &[f64], h: &dyn Fn(f64) -> f64) -> Result<Vec<f64>> {
        let hat = Solver::Euler.step(self.mixture, x, &[self.t_next], &[self.t])?;
        let goal = numbers(&self.target.origin(&hat, &[self.t])?)?;
        let value = |(x, (f, goal)): (f64, (&f64, f64))| {
            let density: f64 = self.parts.iter().map(|part| part.density(x, self.t_next)).sum();
            density * h(f - goal)
        };
        Ok(numbers(x)?.into_iter().zip(f.iter().zip(goal)).map(value).collect())
    }

    /// p(x) E[h(f - f_theta-(x + (t - t_next) z, t)) | x_{t_next} = x], as above.
    pub fn trained(&self, x: &Tensor, f: &[f64], h: &dyn Fn(f64) -> f64) -> Result<Vec<f64>> {
        let x = numbers(x)?;
        let mut sums = vec![0.0; x.len()];
        for part in self.parts {
            let density: Vec<f64> = x.iter().map(|x| part.density(*x, self.t_next)).collect();
            let alive: Vec<usize> = (0..x.len()).filter(|i| density[*i] > 0.0).collect();
            // h at the noise z = mean + v deviation of point number `tag` of those in `alive`.
            let at = |places: &[Node]| -> Result<Vec<f64>> {
                let moved = places.iter().map(|place| {
                    let x = x[alive[place.tag]];
                    let (mean, deviation) = part.noise(x, self.t_next);
                    x + (self.t - self.t_next) * (mean + place.at * deviation)
                });
                let goal = numbers(&self.target.origin(&column(moved.collect())?, &[self.t])?)?;
                Ok(places.iter().zip(goal).map(|(p, goal)| h(f[alive[p.tag]] - goal)).collect())
            };
            let expected = if alive.is_empty() {
                Vec::new()
            } else if part.std == 0.0 {
                let places: Vec<Node> = (0..alive.len()).map(|tag| Node { tag, at: 0.0 }).collect();
                at(&places)?
            } else {
                let parts = breaks(-REACH, REACH, 6);
                let all = (0..alive.len()).flat_map(|tag| panels(tag, &parts)).collect();
                let over = integrate(all, alive.len(), self.tolerance, |places| {
                    let normal = |v: f64| (-0.5 * v * v).exp() / TAU.sqrt();
                    Ok(at(places)?.iter().zip(places).map(|(h, p)| [h * normal(p.at)]).collect())
                })?;
                over.into_iter().map(|[value]| value).collect()
            };
            for (i, value) in alive.into_iter().zip(expected) {
                sums[i] += density[i] * value;
            }
        }
        Ok(sums)
    }
}

/// The relative accuracy that is asked of each integral: less where the integrand has kinks.
pub(super) fn tolerance(metric: Metric) -> f64 {
    match metric {
        Metric::L2Squared | Metric::PseudoHuber { .. } => 1e-12,
        Metric::L1 | Metric::L2 => 1e-9,
    }
}

/// L_CD, L_CT and L_CT - L_CD on one grid, with lambda = 1.
fn losses(
    mixture: &GaussianMixture,
    student: &dyn ConsistencyFunction,
    target: &dyn ConsistencyFunction,
    metric: Metric,
    grid: &TimeGrid,
) -> Result<[f64; 3]> {
    let (parts, h) = (line::parts(mixture)?, |u| metric::value(metric, u));
    let of = |t: f64, t_next: f64| {
        let tolerance = tolerance(metric);
        let step = Step { mixture, parts: &parts, target, t, t_next, tolerance };
        step.integrate(|x| {
            let f = numbers(&student.origin(x, &[t_next])?)?;
            let (cd, ct) = (step.distilled(x, &f, &h)?, step.trained(x, &f, &h)?);
            Ok(cd.into_iter().zip(ct).map(|(cd, ct)| [cd, ct]).collect())
        })
    };
    let purpose = Purpose::here();
    let steps = grid.times().par_windows(2).map(|pair| purpose.run(|| of(pair[0], pair[1])));
    let steps: Vec<[f64; 2]> = steps.collect::<Result<_>>()?;
    let mean = |i: usize| steps.iter().map(|s| s[i]).sum::<f64>() / steps.len() as f64;
    // On the same panels, so that what both miss cancels.
    Ok([mean(0), mean(1), mean(1) - mean(0)])
}

/// Both losses and their difference by quadrature, for data on a line: f_theta is `student`,
/// f_theta- is `target`; lambda = 1, n uniform on 1..N-1, CD by one Euler step with the
/// exact score. Columns `points`, `delta_t`, `l_cd`, `l_ct`, `difference` (l_ct - l_cd) and
/// `local_slope` (of log |difference| on log delta_t).
///
/// Accurate to 1e-8 for squared l2 and pseudo-Huber, 1e-4 for l1 and l2, or better.
///
/// # Errors
/// A mixture in more than one dimension, or functions that are not finite.
pub fn loss_table(
    mixture: &GaussianMixture,
    student: &dyn ConsistencyFunction,
    target: &dyn ConsistencyFunction,
    metric: Metric,
    grids: &[TimeGrid],
) -> Result<DataFrame> {
    let mut rows = Vec::with_capacity(grids.len());
    let mut bar = levels_bar("losses", grids);
    for grid in grids {
        rows.push(losses(mixture, student, target, metric, grid)?);
        bar.add(grid.points() as u64)?;
    }
    let column = |i: usize| rows.iter().map(|row| row[i]).collect::<Vec<f64>>();
    let gaps: Vec<f64> = grids.iter().map(TimeGrid::max_gap).collect();
    let points: Vec<u32> = grids.iter().map(|grid| grid.points() as u32).collect();
    frame(vec![
        Series::new("points".into(), points).into(),
        Column::new("delta_t".into(), gaps.clone()),
        Column::new("l_cd".into(), column(0)),
        Column::new("l_ct".into(), column(1)),
        Column::new("difference".into(), column(2)),
        Column::new("local_slope".into(), local_slopes(&gaps, &column(2))),
    ])
}

/// Both losses by Monte Carlo, with the same data, noise and n in both: for data `x0` of
/// any shape (B, ..), one draw of z and n for each row. Columns `points`, and `l_cd`, `l_ct`
/// and `difference` (l_ct - l_cd), each with the half width of its 95 % interval (`l_cd_ci`,
/// ..).
///
/// # Errors
/// No data, or losses that are not finite.
#[allow(clippy::too_many_arguments)] // Each is a symbol of the theorem.
pub fn sampled_losses(
    x0: &Tensor,
    teacher: &dyn Denoiser,
    solver: Solver,
    student: &dyn ConsistencyFunction,
    target: &dyn ConsistencyFunction,
    distance: &Distance,
    grid: &TimeGrid,
    key: &Key,
) -> Result<DataFrame> {
    const TOGETHER: usize = 8192;
    let count = x0.dims().first().copied().unwrap_or(0);
    ensure!(count >= 2, "{count} data to sample the losses at: give two or more");
    let (mut cd, mut ct) = (Vec::with_capacity(count), Vec::with_capacity(count));
    let mut bar = Bar::new("losses", count as u64);
    for start in (0..count).step_by(TOGETHER) {
        let rows = TOGETHER.min(count - start);
        let x0 = x0.narrow(0, start, rows)?;
        let z = key.stream("noise").normal_like(&x0, start as u64)?;
        let samples = start as u64..(start + rows) as u64;
        let n = key.stream("index").integers(samples, 1..grid.points())?;
        let distilled = distillation_pair(&x0, &z, &n, grid, teacher, solver)?;
        let trained = training_pair(&x0, &z, &n, grid)?;
        let f = student.origin(&distilled.x_next, &distilled.t_next)?;
        for (pair, all) in [(&distilled, &mut cd), (&trained, &mut ct)] {
            let each = distance.per_sample(&f, &target.origin(&pair.x, &pair.t)?)?;
            all.extend(each.to_dtype(DType::F64)?.to_vec1::<f64>()?);
        }
        bar.add(rows as u64)?;
    }
    let difference: Vec<f64> = ct.iter().zip(&cd).map(|(ct, cd)| ct - cd).collect();
    let mut columns = vec![Series::new("points".into(), vec![grid.points() as u32]).into()];
    for (name, values) in [("l_cd", &cd), ("l_ct", &ct), ("difference", &difference)] {
        let (mean, half) = mean_interval(values);
        ensure!(mean.is_finite(), "{name} sampled at {count} data is {mean}");
        columns.push(Column::new(name.into(), vec![mean]));
        columns.push(Column::new(format!("{name}_ci").into(), vec![half]));
    }
    frame(columns)
}

/// The mean and the half width of its 95 % interval.
pub(super) fn mean_interval(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (count - 1.0);
    (mean, NORMAL * (variance / count).sqrt())
}
