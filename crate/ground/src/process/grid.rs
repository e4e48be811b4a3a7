//! Noise ranges and time grids (the paper, section 4; Karras et al. 2022, eq. 5).

use super::LinearSde;
use crate::bounds::{POINTS, level, within};
use crate::{Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// The noise levels of the process: from `eps`, where solving stops, to `t_max`,
/// where sampling starts; `rho` shapes the grids between them.
///
/// ```
/// use consistency::process::NoiseRange;
/// let noise = NoiseRange { t_max: 3.0, ..NoiseRange::default() };
/// let grid = noise.karras(3)?;
/// assert_eq!((grid.first(), grid.last()), (0.002, 3.0));
/// // More points near eps: the middle one is far below the middle of the range.
/// assert!(grid.times()[1] < 0.3);
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NoiseRange {
    /// The smallest noise level, eps.
    pub eps: f64,
    /// The largest noise level, T.
    pub t_max: f64,
    /// The exponent of the Karras grid; larger puts more points near `eps`.
    pub rho: f64,
}

/// How the noise levels of a sampler's grid lie between eps and T: each sampler was published with a
/// grid of its own.
///
/// ```
/// use consistency::prelude::*;
/// let noise = NoiseRange::default();
/// // The middle of the range lies far lower in log-SNR than on EDM's grid.
/// let middle = |spacing| noise.spaced(spacing, 3).map(|grid| grid.times()[1]);
/// assert!((middle(Spacing::LogSnr)? - 0.4).abs() < 1e-12); // sqrt(0.002 80)
/// assert!((middle(Spacing::Karras)? - 2.52).abs() < 0.01);
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Spacing {
    /// EDM's, with the rho of the range (Karras et al. 2022): the paper's.
    #[default]
    Karras,
    /// Equal steps of ln t, which are those of the logarithm of the signal-to-noise ratio:
    /// DPM-Solver's (Lu et al. 2022).
    LogSnr,
    /// Equal steps of the time of the variance-preserving SDE with beta from 0.1 to 20: DDIM's and
    /// DDPM's.
    VpTime,
}

impl Spacing {
    /// Whether it is the paper's.
    pub fn is_karras(&self) -> bool {
        *self == Self::Karras
    }

    /// What it is called.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Karras => "Karras",
            Self::LogSnr => "uniform in log-SNR",
            Self::VpTime => "uniform in VP's time",
        }
    }
}

impl Default for NoiseRange {
    /// The paper's values for images in \[-1, 1\]: eps = 0.002, T = 80, rho = 7.
    fn default() -> Self {
        Self { eps: 0.002, t_max: 80.0, rho: 7.0 }
    }
}

impl NoiseRange {
    /// tau(u) = (eps^(1/rho) + u (T^(1/rho) - eps^(1/rho)))^rho for u in \[0, 1\]: the
    /// map whose values at u = (i - 1) / (N - 1) are the Karras grid.
    pub fn tau(&self, u: f64) -> f64 {
        let (low, high) = (self.eps.powf(1.0 / self.rho), self.t_max.powf(1.0 / self.rho));
        (low + u * (high - low)).powf(self.rho)
    }

    /// tau'(u), the slope of [`NoiseRange::tau`]: how fast the noise level changes along the
    /// indices of the grid.
    pub fn tau_slope(&self, u: f64) -> f64 {
        let (low, high) = (self.eps.powf(1.0 / self.rho), self.t_max.powf(1.0 / self.rho));
        self.rho * (high - low) * (low + u * (high - low)).powf(self.rho - 1.0)
    }

    /// The Karras grid of `points` noise levels, eps = t_1 < .. < t_N = T.
    ///
    /// ```
    /// use consistency::process::NoiseRange;
    /// let grid = NoiseRange::default().karras(18)?;
    /// assert_eq!((grid.first(), grid.last()), (0.002, 80.0));
    /// assert!((grid.max_gap() - 22.41).abs() < 0.01);
    /// # Ok::<(), consistency::Error>(())
    /// ```
    ///
    /// # Errors
    /// Fewer than two points or more than a million; what [`NoiseRange::check`] refuses.
    pub fn karras(&self, points: usize) -> Result<TimeGrid> {
        self.grid(points, |u| self.tau(u))
    }

    /// The uniform grid of `points` noise levels from eps to T.
    ///
    /// # Errors
    /// As [`NoiseRange::karras`].
    pub fn uniform(&self, points: usize) -> Result<TimeGrid> {
        self.grid(points, |u| self.eps + u * (self.t_max - self.eps))
    }

    /// The grid of `points` noise levels from eps to T that `spacing` says.
    ///
    /// ```
    /// use consistency::process::{NoiseRange, Spacing};
    /// let grid = NoiseRange::default().spaced(Spacing::LogSnr, 5)?;
    /// // Each level is the same multiple of the one before.
    /// let ratios: Vec<f64> = grid.times().windows(2).map(|t| t[1] / t[0]).collect();
    /// assert!(ratios.iter().all(|r| (r / ratios[0] - 1.0).abs() < 1e-12));
    /// # Ok::<(), consistency::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`NoiseRange::karras`].
    pub fn spaced(&self, spacing: Spacing, points: usize) -> Result<TimeGrid> {
        self.check()?;
        match spacing {
            Spacing::Karras => self.karras(points),
            Spacing::LogSnr => {
                let ratio = (self.t_max / self.eps).ln();
                self.grid(points, |u| self.eps * (u * ratio).exp())
            }
            Spacing::VpTime => {
                let vp = LinearSde::VariancePreserving { beta_min: 0.1, beta_max: 20.0 };
                let (from, to) = (vp.time(self.eps)?, vp.time(self.t_max)?);
                self.grid(points, |u| vp.sigma(from + u * (to - from)))
            }
        }
    }

    fn grid(&self, points: usize, at: impl Fn(f64) -> f64) -> Result<TimeGrid> {
        self.check()?;
        ensure!(points >= 2, "a grid of {points} points: it needs 2 or more, eps and T");
        within("points", points, 2..=POINTS)?;
        let mut times: Vec<f64> = (0..points).map(|i| at(i as f64 / (points - 1) as f64)).collect();
        // The ends are exact: the boundary condition is tested at t == eps.
        times[0] = self.eps;
        times[points - 1] = self.t_max;
        TimeGrid::new(times)
    }

    /// Check that eps < T, both between 1e-6 and 1e6, and rho between 0.1 and 1000.
    ///
    /// # Errors
    /// The value that violates this.
    pub fn check(&self) -> Result<()> {
        let Self { eps, t_max, rho } = *self;
        level("eps", eps)?;
        level("t_max", t_max)?;
        ensure!(eps < t_max, "eps = {eps}, t_max = {t_max}: needs eps < t_max");
        // The powers in the grid's formula keep their digits.
        within("rho", rho, 0.1..=1e3)
    }
}

/// Noise levels in increasing order, eps = t_1 < t_2 < .. < t_N = T.
///
/// ```
/// use consistency::process::TimeGrid;
/// let grid = TimeGrid::new(vec![0.5, 1.0, 4.0])?;
/// assert_eq!((grid.points(), grid.max_gap()), (3, 3.0));
/// // The pairs (t_n, t_{n+1}) that a consistency loss compares.
/// assert_eq!(grid.neighbours(&[1, 2])?, (vec![0.5, 1.0], vec![1.0, 4.0]));
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct TimeGrid(Vec<f64>);

impl TimeGrid {
    /// A grid of these noise levels.
    ///
    /// # Errors
    /// Fewer than two or more than a million, or levels that are not between 1e-6 and 1e6 and
    /// strictly increasing.
    pub fn new(times: Vec<f64>) -> Result<Self> {
        ensure!(times.len() >= 2, "a grid of {} points: it needs 2 or more", times.len());
        within("points", times.len(), 2..=POINTS)?;
        times.iter().try_for_each(|t| level("noise level", *t))?;
        if let Some(n) = times.windows(2).position(|w| w[0] >= w[1]) {
            bail!(
                "noise levels must be strictly increasing: point {} of {} is {}, the next {}",
                n + 1,
                times.len(),
                times[n],
                times[n + 1]
            );
        }
        Ok(Self(times))
    }

    /// The noise levels, increasing.
    pub fn times(&self) -> &[f64] {
        &self.0
    }

    /// N, the number of points; there are N - 1 intervals.
    pub fn points(&self) -> usize {
        self.0.len()
    }

    /// eps, the first point.
    pub fn first(&self) -> f64 {
        self.0[0]
    }

    /// T, the last point.
    pub fn last(&self) -> f64 {
        self.0[self.0.len() - 1]
    }

    /// The largest t_{n+1} - t_n, the Delta t of Theorem 1.
    pub fn max_gap(&self) -> f64 {
        self.0.windows(2).map(|w| w[1] - w[0]).fold(0.0, f64::max)
    }

    /// The noise levels (t_n, t_{n+1}), for each n of `n` in 1..=N-1, counted from 1 as in the
    /// paper.
    ///
    /// # Errors
    /// An n that is not one of them.
    pub fn neighbours(&self, n: &[usize]) -> Result<(Vec<f64>, Vec<f64>)> {
        let times = &self.0;
        if let Some(bad) = n.iter().find(|n| **n == 0 || **n >= times.len()) {
            bail!("grid index n = {bad}: needs 1 <= n <= N - 1 = {}", times.len() - 1);
        }
        Ok((n.iter().map(|n| times[n - 1]).collect(), n.iter().map(|n| times[*n]).collect()))
    }

    /// The intervals from T down to eps, as (t_{n+1}, t_n).
    pub fn descending(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        self.0.windows(2).rev().map(|w| (w[1], w[0]))
    }
}
