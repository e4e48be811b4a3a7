//! Which pairs of neighbouring noise levels a consistency loss is taken at.

use super::grid::TimeGrid;
use crate::bounds::{positive, within};
use crate::rng::Key;
use crate::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// How n is drawn, which chooses the pair (t_n, t_{n+1}) of a sample.
///
/// ```
/// use consistency::process::{Density, NoiseRange};
/// use consistency::rng::Key;
/// let grid = NoiseRange::default().karras(5)?;
/// assert_eq!(Density::Uniform.probabilities(&grid)?, [0.25; 4]);
/// let n = Density::Uniform.draw(&grid, 0..100, &Key::new(0))?;
/// assert!(n.len() == 100 && n.iter().all(|n| (1..=4).contains(n)));
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub enum Density {
    /// Uniform on 1, .., N - 1: the paper's.
    #[default]
    Uniform,
    /// In proportion to the mass that ln t ~ N(p_mean, p_std^2) has between ln t_n and ln t_{n+1}
    /// (Song and Dhariwal 2023, "Improved techniques for training consistency models", eq. 10).
    LogNormal {
        /// The mean of ln t; -1.1 in that paper.
        p_mean: f64,
        /// The standard deviation of ln t; 2.0 in that paper.
        p_std: f64,
    },
}

impl Density {
    /// The probability of each n in 1..=N-1 of `grid`.
    ///
    /// ```
    /// use consistency::process::{Density, NoiseRange};
    /// let grid = NoiseRange::default().karras(11)?;
    /// let p = Density::LogNormal { p_mean: -1.1, p_std: 2.0 }.probabilities(&grid)?;
    /// assert_eq!(p.len(), 10);
    /// assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    /// assert!(p[9] < p[4]); // few pairs at the largest noise levels
    /// # Ok::<(), consistency::Error>(())
    /// ```
    ///
    /// # Errors
    /// A density that has no mass between the ends of the grid.
    pub fn probabilities(&self, grid: &TimeGrid) -> Result<Vec<f64>> {
        let Self::LogNormal { p_mean, p_std } = *self else {
            let intervals = grid.points() - 1;
            return Ok(vec![1.0 / intervals as f64; intervals]);
        };
        let z = |t: f64| (t.ln() - p_mean) / (p_std * std::f64::consts::SQRT_2);
        let masses: Vec<f64> = grid.times().windows(2).map(|t| mass(z(t[0]), z(t[1]))).collect();
        let sum: f64 = masses.iter().sum();
        ensure!(
            sum > 0.0,
            "ln t ~ N({p_mean}, {p_std}^2) never lies between ln {} and ln {}",
            grid.first(),
            grid.last()
        );
        Ok(masses.into_iter().map(|mass| mass / sum).collect())
    }

    /// One n in 1..=N-1 for each of the samples `samples` under `key`, counted from 1 as in the
    /// paper.
    ///
    /// # Errors
    /// As [`Density::probabilities`].
    pub fn draw(&self, grid: &TimeGrid, samples: Range<u64>, key: &Key) -> Result<Vec<usize>> {
        if *self == Self::Uniform {
            return key.integers(samples, 1..grid.points());
        }
        let mut sum = 0.0;
        let until: Vec<f64> = self
            .probabilities(grid)?
            .iter()
            .map(|p| {
                sum += p;
                sum
            })
            .collect();
        let last = until.len();
        let place = |u: f64| (until.partition_point(|sum| *sum <= u) + 1).min(last);
        Ok(key.uniforms(samples).into_iter().map(place).collect())
    }

    /// Check that the mean lies within the noise levels that are allowed, ln 1e-6 to ln 1e6, and
    /// that the deviation is above 0 and at most 5.
    ///
    /// # Errors
    /// The value that violates this.
    pub fn check(&self) -> Result<()> {
        let Self::LogNormal { p_mean, p_std } = *self else { return Ok(()) };
        within("p_mean", p_mean, -14.0..=14.0).context("density")?;
        within("p_std", p_std, positive(5.0)).context("density")
    }
}

// erf(b) - erf(a) for a < b; by complements where both are far out on one side, so that small
// masses keep their digits.
fn mass(a: f64, b: f64) -> f64 {
    if a > 0.0 {
        libm::erfc(a) - libm::erfc(b)
    } else if b < 0.0 {
        libm::erfc(-b) - libm::erfc(-a)
    } else {
        libm::erf(b) - libm::erf(a)
    }
}
