//! Theorems 3 to 6: the losses and gradients of consistency models as the grid becomes
//! continuous, t_n = tau((n - 1) / (N - 1)), for data on a line.
//!
//! A = df/dt + df/dx dx/dt is the rate of change of f along the PF ODE, 0 where f is a consistency
//! function. Where the paper writes lambda / (tau^-1)'(t), this writes lambda tau'(u), which is the
//! same.

use super::line::{self, Part, batch, numbers};
use super::quadrature::{Node, breaks, integrate, panels};
use super::slope::{frame, local_slopes};
use super::tanh::ByParameter;
use super::theorem2::{Step, tolerance};
use super::{jump, metric};
use crate::bar::Bar;
use crate::interrupt::Purpose;
use crate::loss::Metric;
use crate::process::{GaussianMixture, NoiseRange, pf_ode_slope};
use crate::{Result, ensure};
use candle_core::Tensor;
use polars::prelude::{Column, DataFrame, NamedFrom, Series};
use rayon::prelude::*;

/// Which limit. The gradients are by parameter `i`, with stop-gradient in the target.
///
/// ```
/// use consistency::prelude::*;
/// let normal = GaussianMixture::new(vec![1.0], vec![vec![0.3]], vec![0.5])?;
/// let noise = NoiseRange { t_max: 3.0, ..NoiseRange::default() };
/// let f = TanhModel::new([1.0, 0.2, 0.1], &noise);
/// let table =
///     theory::limit_table(Limit::Theorem3, &normal, &f, Metric::L2Squared, &noise, &[9, 33])?;
/// let error = column(&table, "relative_error")?;
/// assert!(error[1].abs() < error[0].abs());
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// (N - 1)^2 L_CD -> 1/2 E\[(tau')^2 A G A\], theta- = theta.
    Theorem3,
    /// (N - 1) L_CD -> E\[tau' |A|\], theta- = theta, l1.
    Theorem4,
    /// (N - 1) dL_CD/dtheta_i -> E\[tau' df/dtheta_i H A\].
    Theorem5 {
        /// The parameter.
        i: usize,
    },
    /// (N - 1) dL_CT/dtheta_i -> E\[tau' df/dtheta_i H (df/dt + df/dx (x_t - x) / t)\].
    Theorem6 {
        /// The parameter.
        i: usize,
    },
}

impl Limit {
    // What the theorem assumes of the distance.
    fn check(self, metric: Metric) -> Result<()> {
        let smooth = metric::curvature(metric).is_some();
        ensure!(
            smooth != (self == Self::Theorem4),
            "{self:?} with {metric:?}: Theorem 4 is on l1 (on a line, l2 is the same), the others \
             need a distance with a second derivative"
        );
        Ok(())
    }
}

struct Problem<'a> {
    limit: Limit,
    mixture: &'a GaussianMixture,
    parts: Vec<Part>,
    model: &'a dyn ByParameter,
    metric: Metric,
    noise: &'a NoiseRange,
}

impl Problem<'_> {
    fn tolerance(&self) -> f64 {
        tolerance(self.metric).max(self.model.accuracy())
    }

    // The scaled loss or gradient on the grid of `points`.
    fn value(&self, points: usize) -> Result<f64> {
        let grid = self.noise.karras(points)?;
        let smooth = |u: f64| metric::slope(self.metric, u).unwrap_or(f64::NAN);
        let of = |t: f64, t_next: f64| -> Result<f64> {
            let step = Step {
                mixture: self.mixture,
                parts: &self.parts,
                target: self.model,
                t,
                t_next,
                tolerance: self.tolerance(),
            };
            let [value] = step.integrate(|x| {
                let f = numbers(&self.model.origin(x, &[t_next])?)?;
                let values = match self.limit {
                    Limit::Theorem3 | Limit::Theorem4 => {
                        step.distilled(x, &f, &|u| metric::value(self.metric, u))?
                    }
                    Limit::Theorem5 { .. } => step.distilled(x, &f, &smooth)?,
                    Limit::Theorem6 { .. } => step.trained(x, &f, &smooth)?,
                };
                let by_theta = self.by_theta(x, t_next)?;
                Ok(values.into_iter().zip(by_theta).map(|(v, by)| [v * by]).collect())
            })?;
            Ok(value)
        };
        let purpose = Purpose::here();
        let steps = grid.times().par_windows(2).map(|pair| purpose.run(|| of(pair[0], pair[1])));
        // The mean over n, times N - 1, is the sum.
        let sum: f64 = steps.collect::<Result<Vec<_>>>()?.into_iter().sum();
        let intervals = (points - 1) as f64;
        Ok(if self.limit == Limit::Theorem3 { intervals * sum } else { sum })
    }

    // df/dtheta_i where the limit is of a gradient, else 1.
    fn by_theta(&self, x: &Tensor, t: f64) -> Result<Vec<f64>> {
        match self.limit {
            Limit::Theorem3 | Limit::Theorem4 => Ok(vec![1.0; x.elem_count()]),
            Limit::Theorem5 { i } | Limit::Theorem6 { i } => {
                numbers(&self.model.by_parameter(x, &[t], i)?)
            }
        }
    }

    // The integrand of the limit at the points x of noise level tau(u), with their density.
    fn integrand(&self, x: &Tensor, t: f64, slope: f64) -> Result<Vec<[f64; 1]>> {
        let places = numbers(x)?;
        let density =
            |x: f64| -> Vec<f64> { self.parts.iter().map(|part| part.density(x, t)).collect() };
        let along = match self.limit {
            // E[(x_t - x) / t | x_t], summed over the components; Lemma 1 makes it dx/dt.
            Limit::Theorem6 { .. } => {
                let noise = places.iter().map(|&x| {
                    let each = density(x);
                    let total: f64 = each.iter().sum();
                    let mean = |(d, part): (&f64, &Part)| d * part.noise(x, t).0;
                    if total > 0.0 {
                        each.iter().zip(&self.parts).map(mean).sum::<f64>() / total
                    } else {
                        0.0
                    }
                });
                line::column(noise.collect())?
            }
            _ => pf_ode_slope(self.mixture, x, &[t])?,
        };
        let change = numbers(&self.model.jvp(x, &[t], &along, &[1.0])?)?; // A
        let curvature = metric::curvature(self.metric).unwrap_or(f64::NAN);
        let by_theta = self.by_theta(x, t)?;
        let value = |((x, a), by): ((f64, f64), f64)| {
            let p: f64 = density(x).iter().sum();
            [p * match self.limit {
                Limit::Theorem3 => 0.5 * slope * slope * curvature * a * a,
                Limit::Theorem4 => slope * a.abs(),
                Limit::Theorem5 { .. } | Limit::Theorem6 { .. } => slope * by * curvature * a,
            }]
        };
        Ok(places.into_iter().zip(change).zip(by_theta).map(value).collect())
    }

    // The limit: an integral over u of one over x.
    fn limit(&self) -> Result<f64> {
        let at = |node: &Node| -> Result<[f64; 1]> {
            let (t, slope) = (self.noise.tau(node.at), self.noise.tau_slope(node.at));
            let cover = line::cover(&self.parts, t, 0);
            let inner = integrate(cover, 1, self.tolerance(), |nodes| {
                self.integrand(&batch(nodes)?, t, slope)
            })?;
            Ok(inner[0])
        };
        let parts = panels(0, &breaks(0.0, 1.0, 16)).collect();
        let purpose = Purpose::here();
        let found = integrate(parts, 1, self.tolerance().max(1e-10), |nodes| {
            nodes.par_iter().map(|node| purpose.run(|| at(node))).collect()
        })?;
        Ok(found[0][0] + self.jump()?)
    }

    // What a jump of f at eps adds.
    fn jump(&self) -> Result<f64> {
        let (parts, model, metric, noise) = (&self.parts, self.model, self.metric, self.noise);
        match self.limit {
            Limit::Theorem3 => {
                let cost = jump::of_loss(parts, model, metric, noise, self.tolerance())?;
                ensure!(
                    cost == 0.0,
                    "f jumps at eps = {} by E[d] = {cost:.3e}: (N - 1)^2 L_CD grows as N - 1 times \
                     that and has no limit (`theory::jump`)",
                    noise.eps
                );
                Ok(0.0)
            }
            Limit::Theorem4 => jump::of_loss(parts, model, metric, noise, self.tolerance()),
            Limit::Theorem5 { i } | Limit::Theorem6 { i } => {
                jump::of_gradient(parts, model, (metric, i), noise, self.tolerance())
            }
        }
    }
}

/// The loss or gradient on grids of `points` levels, scaled as the theorem says, beside its
/// limit: columns `points`, `value`, `limit`, `relative_error` and `local_slope` (of the
/// log relative error on log (N - 1)). tau is that of `noise`; lambda = 1; f_theta- is
/// the model itself. Values and limits are accurate to 1e-6 or better. Where f jumps at eps, the
/// limits of Theorems 4 to 6 are the paper's plus what the jump adds ([`jump`](super::jump)).
///
/// # Errors
/// A mixture in more than one dimension, a distance that the theorem does not cover, a
/// parameter that the model does not have, or a limit of 0; Theorem 3 where f jumps at eps.
pub fn limit_table(
    limit: Limit,
    mixture: &GaussianMixture,
    model: &dyn ByParameter,
    metric: Metric,
    noise: &NoiseRange,
    points: &[usize],
) -> Result<DataFrame> {
    limit.check(metric)?;
    noise.check()?;
    let parts = line::parts(mixture)?;
    let problem = Problem { limit, mixture, parts, model, metric, noise };
    let goal = problem.limit()?;
    ensure!(goal != 0.0, "the limit is 0: f is the consistency function of these data");
    let mut bar = Bar::new("noise levels", points.iter().map(|n| *n as u64).sum());
    let mut values = Vec::with_capacity(points.len());
    for n in points {
        values.push(problem.value(*n)?);
        bar.add(*n as u64)?;
    }
    let errors: Vec<f64> = values.iter().map(|v| ((v - goal) / goal).abs()).collect();
    let intervals: Vec<f64> = points.iter().map(|n| (n - 1) as f64).collect();
    let points: Vec<u32> = points.iter().map(|n| *n as u32).collect();
    frame(vec![
        Series::new("points".into(), points).into(),
        Column::new("value".into(), values.clone()),
        Column::new("limit".into(), vec![goal; values.len()]),
        Column::new("relative_error".into(), errors.clone()),
        Column::new("local_slope".into(), local_slopes(&intervals, &errors)),
    ])
}
