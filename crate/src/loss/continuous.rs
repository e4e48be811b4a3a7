//! The continuous-time losses (the paper, appendix B.1), for d = the squared l2 distance and
//! lambda = (tau^-1)', the inverse of the gap: E over u ~ U\[0, 1\], t = tau(u).
//!
//! All are made of A = df/dt along a trajectory: df/dx v + df/dt, where v = dx/dt. A consistency
//! function has A = 0. In distillation v is the slope of the teacher's PF ODE, (x - D(x, t)) / t; in
//! training (x_t - x_0) / t, which is z (Theorem 6).

use super::along;
use crate::Result;
use crate::seam::{ConsistencyFunction, Tangent, per_sample};
use candle_core::Tensor;

/// The loss whose gradient is that of Theorems 5 and 6, one number per sample: the limit of the
/// discrete losses with a target that takes no gradient, `target`, which is f at the same parameters.
///
/// |f(x, t) - (f-(x, t) - A-)|^2, so that its gradient is 2 A- df, and its value |A|^2. (The paper's
/// pseudo-objective f A- has half this gradient, and a value that means nothing.)
///
/// ```
/// use consistency::loss::stopped_tangent_loss;
/// use consistency::prelude::*;
/// let f = TanhModel::new([1.0, 0.2, 0.1], &NoiseRange::default());
/// let data = GaussianMixture::new(vec![1.0], vec![vec![0.0]], vec![0.5])?; // N(0, 0.25)
/// let x = Tensor::new(&[[3.0f64]], &Device::Cpu)?; // (1, 1)
/// let v = pf_ode_slope(&data, &x, &[2.0])?;
/// let a = values(&f.jvp(&x, &[2.0], &v, &[1.0])?)?[0];
/// let loss = values(&stopped_tangent_loss(&f, &f, &x, &[2.0], &v)?)?[0];
/// assert!((loss - a * a).abs() < 1e-12);
/// # Ok::<(), consistency::Error>(())
/// ```
///
/// # Errors
/// Errors of f; a slope of another shape.
pub fn stopped_tangent_loss(
    student: &dyn ConsistencyFunction,
    target: &dyn Tangent,
    x: &Tensor,
    t: &[f64],
    slope: &Tensor,
) -> Result<Tensor> {
    let (f, a) = target.push_forward(x, t, slope, &[1.0])?;
    let goal = (f - a)?.detach();
    Ok((student.origin(x, t)? - goal)?.sqr()?.flatten_from(1)?.sum(1)?)
}

/// The loss of Theorem 3, one number per sample: |A|^2, whose gradient goes through A.
///
/// The gradient needs a second derivative. It is that of <A, f(x + h v, t + h) - f(x - h v, t - h)> /
/// 2h with the first A held ([`along`]), whose error is of the order of h^2. h is `step` times t, so that a step moves x by that part of its noise; where t - h would lie below
/// `eps`, t is moved up. The value is |A|^2, exact.
///
/// # Errors
/// Errors of f; a slope of another shape.
pub fn tangent_loss(
    student: &dyn Tangent,
    x: &Tensor,
    t: &[f64],
    slope: &Tensor,
    (step, eps): (f64, f64),
) -> Result<Tensor> {
    let lowest = eps / (1.0 - step);
    let t: Vec<f64> = t.iter().map(|t| t.max(lowest)).collect();
    let (_, a) = student.push_forward(x, &t, slope, &[1.0])?;
    let a = a.detach();
    let rates: Vec<f64> = t.iter().map(|t| step * t).collect();
    let moved = slope.broadcast_mul(&per_sample(&rates, x)?)?;
    let at = |sign: f64| -> Result<Tensor> {
        let levels: Vec<f64> = t.iter().map(|t| (t + sign * step * t).max(eps)).collect();
        student.origin(&(x + (&moved * sign)?)?, &levels)
    };
    let through = (along(at, &a, &rates)? * 2.0)?;
    let value = a.sqr()?.flatten_from(1)?.sum(1)?;
    Ok(((&through - through.detach())? + value)?)
}
