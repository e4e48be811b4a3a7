//! Expectations over a mixture on a line, as integrals over x_t.

use super::quadrature::{Node, Panel, breaks, panels};
use crate::process::GaussianMixture;
use crate::{Result, ensure};
use candle_core::{Device, Tensor};
use std::f64::consts::TAU;

/// Deviations of a component beyond which nothing is left of it: e^(-45).
const REACH: f64 = 9.5;
/// Panels per deviation.
const FINE: usize = 2;

/// A component of the mixture on the line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub weight: f64,
    pub mean: f64,
    pub std: f64,
}

impl Part {
    /// The deviation of x_t.
    pub fn sigma(&self, t: f64) -> f64 {
        self.std.hypot(t)
    }

    /// w N(x; m, s^2 + t^2).
    pub fn density(&self, x: f64, t: f64) -> f64 {
        let sigma = self.sigma(t);
        let z = (x - self.mean) / sigma;
        self.weight * (-0.5 * z * z).exp() / (TAU.sqrt() * sigma)
    }

    /// Mean and deviation of z = (x_t - x_0) / t given x_t = x and the component.
    pub fn noise(&self, x: f64, t: f64) -> (f64, f64) {
        let variance = self.std * self.std + t * t;
        (t * (x - self.mean) / variance, self.std / variance.sqrt())
    }
}

/// The components of a mixture in one dimension.
///
/// # Errors
/// A mixture in more dimensions.
pub(super) fn parts(mixture: &GaussianMixture) -> Result<Vec<Part>> {
    ensure!(
        mixture.dim() == 1,
        "the mixture has {} dimensions: the integrals of Theorems 2 to 6 are over one",
        mixture.dim()
    );
    let part = |(weight, mean, std): (f64, &[f64], f64)| Part { weight, mean: mean[0], std };
    Ok(mixture.components().map(part).collect())
}

/// The panels of an integral over x_t: half a deviation of each component that is near, so that a
/// narrow one is seen inside a wide one.
pub(super) fn cover(parts: &[Part], t: f64, tag: usize) -> Vec<Panel> {
    let mut points: Vec<f64> = Vec::new();
    for part in parts {
        let reach = REACH * part.sigma(t);
        points.extend(breaks(part.mean - reach, part.mean + reach, 2 * FINE * REACH as usize));
    }
    points.sort_by(f64::total_cmp);
    // Where components coincide, panels would have no width.
    let finest = parts.iter().map(|p| p.sigma(t)).fold(f64::INFINITY, f64::min);
    points.dedup_by(|a, b| *a - *b < 1e-3 * finest);
    panels(tag, &points).collect()
}

/// The nodes' places as a batch of points, (B, 1).
pub(super) fn batch(nodes: &[Node]) -> Result<Tensor> {
    column(nodes.iter().map(|n| n.at).collect())
}

/// Numbers as a batch of points, (B, 1).
pub(super) fn column(values: Vec<f64>) -> Result<Tensor> {
    let count = values.len();
    Ok(Tensor::from_vec(values, (count, 1), &Device::Cpu)?)
}

/// The numbers of a batch of points.
pub(super) fn numbers(x: &Tensor) -> Result<Vec<f64>> {
    Ok(x.flatten_all()?.to_vec1::<f64>()?)
}
