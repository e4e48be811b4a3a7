//! What the limits of Theorems 3, 5 and 6 need of a distance: its second derivatives where both
//! arguments are equal.

use super::dual::{Dual, Number};
use crate::loss::Metric;

/// A number with first and second derivatives along two directions.
pub type Jet = Dual<Dual<f64>>;

/// The metric tensors of the distance d at x: G, the Hessian of d(x, y) in y at y = x, and H, that
/// of d(y, x) in y at y = x. Exact to rounding; row by row, as D x D.
///
/// Where d is smooth, never negative and 0 on the diagonal, its gradient by either argument
/// vanishes there; differentiating that along the diagonal gives d_yx = -d_yy and
/// d_xy = -d_xx, so that G = H for every such d, symmetric or not.
pub fn metric_tensors(
    d: impl Fn(&[Jet], &[Jet]) -> Jet,
    x: &[f64],
) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
    let fixed: Vec<Jet> = x.iter().map(|x| Jet::constant(*x)).collect();
    let moved = |i: usize, j: usize| -> Vec<Jet> {
        let mut y = fixed.clone();
        y[i].value.tangent = 1.0;
        y[j].tangent.value = 1.0;
        y
    };
    let hessian = |at: &dyn Fn(&[Jet]) -> Jet| -> Vec<Vec<f64>> {
        let row = |i| (0..x.len()).map(|j| at(&moved(i, j)).tangent.tangent).collect();
        (0..x.len()).map(row).collect()
    };
    (hessian(&|y| d(&fixed, y)), hessian(&|y| d(y, &fixed)))
}

/// d(x, y) on a line, where every distance of the losses is a function of u = x - y.
pub(super) fn value(metric: Metric, u: f64) -> f64 {
    match metric {
        Metric::L2Squared => u * u,
        Metric::L1 | Metric::L2 => u.abs(),
        // sqrt(u^2 + c^2) - c without its cancellation.
        Metric::PseudoHuber { c } => u * u / (u.hypot(c) + c),
    }
}

/// The derivative of d(x, y) in x on a line; none where it jumps at u = 0.
pub(super) fn slope(metric: Metric, u: f64) -> Option<f64> {
    match metric {
        Metric::L2Squared => Some(2.0 * u),
        Metric::PseudoHuber { c } => Some(u / u.hypot(c)),
        Metric::L1 | Metric::L2 => None,
    }
}

/// The factor g of G = H = g I for a distance of the losses; none where it has no second
/// derivative at 0.
pub(super) fn curvature(metric: Metric) -> Option<f64> {
    match metric {
        Metric::L2Squared => Some(2.0),
        Metric::PseudoHuber { c } => Some(1.0 / c),
        Metric::L1 | Metric::L2 => None,
    }
}
