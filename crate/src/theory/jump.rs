//! What a jump of f at eps adds to the limits of Theorems 3 to 6.
//!
//! The theorems assume an f that is differentiable up to eps, which eq. 3 of the talk is not: it is
//! x at eps and a network elsewhere. On a grid, the first of the N - 1 pairs has the jump between
//! its two sides, however fine the grid is.

use super::line::{self, Part, batch, numbers};
use super::quadrature::integrate;
use super::theorem2::tolerance;
use super::{ByParameter, metric};
use crate::loss::Metric;
use crate::process::{GaussianMixture, NoiseRange};
use crate::seam::ConsistencyFunction;
use crate::{Error, Result};
use candle_core::Tensor;

/// The largest difference of f at two neighbouring numbers t, for an x of order 1, that is rounding;
/// more where f itself is less accurate.
const ROUNDING: f64 = 1e-12;

/// E\[d(f(x, eps+), f(x, eps))\], x ~ p_eps: what the jump of `f` at eps costs. Each grid of N points
/// has it once among its pairs, so that
///
/// - Theorem 3: (N - 1)^2 L_CD grows as N - 1 times it and has no limit,
/// - Theorem 4: (N - 1) L_CD has it on top of the integral of |A|,
/// - Theorems 5 and 6: the gradients have, on top, its gradient by theta with theta- held fixed.
///
/// It is 0 where f is continuous. Data on a line; `metric` is d, `noise` gives eps.
///
/// ```
/// use consistency::prelude::*;
/// let line = GaussianMixture::new(vec![1.0], vec![vec![0.3]], vec![0.0])?;
/// let noise = NoiseRange::default();
/// let f = TanhModel::new([0.0; 3], &noise); // eq. 3 has tanh 0 = 0 above eps
/// let cost = |f| theory::jump(&line, &f, Metric::L2Squared, &noise);
/// assert_eq!(cost(f)?, 0.0);
/// // E[x^2] at eps.
/// assert!((cost(f.piecewise(&noise))? - (0.3f64.powi(2) + 0.002f64.powi(2))).abs() < 1e-9);
/// # Ok::<(), consistency::Error>(())
/// ```
///
/// # Errors
/// A mixture in more than one dimension; those of `f`.
pub fn jump(
    mixture: &GaussianMixture,
    f: &dyn ConsistencyFunction,
    metric: Metric,
    noise: &NoiseRange,
) -> Result<f64> {
    noise.check()?;
    of_loss(&line::parts(mixture)?, f, metric, noise, tolerance(metric))
}

/// The same for a model whose numbers are accurate to `tolerance`.
pub(super) fn of_loss<F: ConsistencyFunction + ?Sized>(
    parts: &[Part],
    f: &F,
    metric: Metric,
    noise: &NoiseRange,
    tolerance: f64,
) -> Result<f64> {
    over_eps(parts, f, noise, tolerance, |_, gap| {
        Ok(gap.iter().map(|u| metric::value(metric, *u)).collect())
    })
}

/// The same for the gradient by parameter `i`: E\[df/dtheta_i d'(f(x, eps+), f(x, eps))\].
pub(super) fn of_gradient(
    parts: &[Part],
    f: &dyn ByParameter,
    (metric, i): (Metric, usize),
    noise: &NoiseRange,
    tolerance: f64,
) -> Result<f64> {
    over_eps(parts, f, noise, tolerance, |x, gap| {
        let by_theta = numbers(&f.by_parameter(x, &[above(noise)], i)?)?;
        let slope = |u: &f64| {
            metric::slope(metric, *u)
                .ok_or_else(|| Error::new(format!("{metric:?} has no slope at 0")))
        };
        gap.iter().zip(by_theta).map(|(u, by)| Ok(by * slope(u)?)).collect()
    })
}

// The next number after eps.
fn above(noise: &NoiseRange) -> f64 {
    noise.eps.next_up()
}

// The mean over p_eps of what `h` gives for points and the jumps of f there.
fn over_eps<F: ConsistencyFunction + ?Sized>(
    parts: &[Part],
    f: &F,
    noise: &NoiseRange,
    tolerance: f64,
    h: impl Fn(&Tensor, &[f64]) -> Result<Vec<f64>>,
) -> Result<f64> {
    let panels = line::cover(parts, noise.eps, 0);
    let found = integrate(panels, 1, tolerance, |nodes| {
        let x = batch(nodes)?;
        let gap = numbers(&(f.origin(&x, &[above(noise)])? - f.origin(&x, &[noise.eps])?)?)?;
        let rounding = tolerance.max(ROUNDING);
        let size = numbers(&x)?.into_iter().map(|x| rounding * (1.0 + x.abs()));
        let gap: Vec<f64> =
            gap.iter().zip(size).map(|(u, least)| if u.abs() < least { 0.0 } else { *u }).collect();
        let density = |x: f64| parts.iter().map(|part| part.density(x, noise.eps)).sum::<f64>();
        let places = numbers(&x)?.into_iter();
        Ok(places.zip(h(&x, &gap)?).map(|(x, value)| [density(x) * value]).collect())
    })?;
    Ok(found[0][0])
}
