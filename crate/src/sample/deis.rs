//! DEIS (Zhang and Chen 2022), the variant tAB: the noise prediction extrapolated by a
//! polynomial in t, and the step integrated exactly.

use crate::Result;
use crate::process::{TimeGrid, pf_ode_slope};
use crate::seam::Denoiser;
use candle_core::Tensor;
use std::collections::VecDeque;

/// tAB-DEIS over the last `order` noise predictions, fewer in the first steps.
///
/// With drift 0 the weight of e in the integral is 1: x' = x + sum_j c_j e_j with
/// c_j = int_t^t' L_j(s) ds, L_j Lagrange's polynomials at the noise levels of the e_j.
pub(super) fn deis(
    denoiser: &dyn Denoiser,
    order: usize,
    start: Tensor,
    grid: &TimeGrid,
) -> Result<Tensor> {
    let mut x = start;
    let mut past: VecDeque<(f64, Tensor)> = VecDeque::with_capacity(order + 1);
    for (t, t_next) in grid.descending() {
        past.push_front((t, pf_ode_slope(denoiser, &x, &[t])?));
        past.truncate(order);
        let nodes: Vec<f64> = past.iter().map(|(t, _)| *t).collect();
        for (j, (_, e)) in past.iter().enumerate() {
            x = (x + (e * weight(&nodes, j, t, t_next))?)?;
        }
    }
    Ok(x)
}

/// The integral from `from` to `to` of Lagrange's polynomial `j` at `nodes`, by Gauss's rule of two
/// points: it is exact up to degree 3, that of four nodes.
fn weight(nodes: &[f64], j: usize, from: f64, to: f64) -> f64 {
    let others = || nodes.iter().enumerate().filter(|(k, _)| *k != j);
    let lagrange =
        |s: f64| -> f64 { others().map(|(_, node)| (s - node) / (nodes[j] - node)).product() };
    let (half, middle) = (0.5 * (to - from), 0.5 * (to + from));
    let off = half / 3f64.sqrt();
    half * (lagrange(middle - off) + lagrange(middle + off))
}
