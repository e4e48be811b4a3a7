//! The discrete variance-preserving process of DDPM (Ho et al. 2020) in our terms: its step i adds
//! as much noise, relative to the signal, as sigma_i = sqrt((1 - abar_i) / abar_i).

use super::NoiseRange;
use crate::{Result, ensure};
use serde::{Deserialize, Serialize};

/// How beta goes from its first value to its last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Betas {
    /// In equal steps.
    #[default]
    Linear,
    /// Its square root in equal steps.
    ScaledLinear,
}

/// The noise schedule of a discrete variance-preserving process.
///
/// ```
/// use consistency::process::VpSchedule;
/// // beta = 1/2 twice: the signal keeps 1/2 and then 1/4 of its variance, noise has the rest.
/// let two = VpSchedule { beta_start: 0.5, beta_end: 0.5, steps: 2, ..VpSchedule::default() };
/// let sigmas = two.sigmas();
/// assert!((sigmas[0] - 1.0).abs() < 1e-12 && (sigmas[1] - 3f64.sqrt()).abs() < 1e-12);
/// let ddpm = VpSchedule::default().range();
/// assert!((ddpm.eps - 0.0100).abs() < 1e-4 && (ddpm.t_max - 157.4).abs() < 0.1);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VpSchedule {
    /// beta of step 0.
    pub beta_start: f64,
    /// beta of the last step.
    pub beta_end: f64,
    /// How it goes from one to the other.
    pub betas: Betas,
    /// How many steps there are.
    pub steps: usize,
}

impl Default for VpSchedule {
    /// DDPM's: 1000 steps, beta from 1e-4 to 0.02.
    fn default() -> Self {
        Self { beta_start: 1e-4, beta_end: 0.02, betas: Betas::Linear, steps: 1000 }
    }
}

impl VpSchedule {
    /// Check that 0 < beta < 1 throughout and that there are two steps or more.
    ///
    /// # Errors
    /// The values that violate this.
    pub fn check(&self) -> Result<()> {
        let Self { beta_start, beta_end, steps, .. } = *self;
        ensure!(
            0.0 < beta_start && beta_start <= beta_end && beta_end < 1.0,
            "beta_start = {beta_start}, beta_end = {beta_end}: needs 0 < beta_start <= beta_end < 1"
        );
        ensure!((2..=1_000_000).contains(&steps), "{steps} steps: needs 2 or more, to a million");
        let last = self.sigmas().last().copied().unwrap_or(f64::NAN);
        ensure!(last.is_finite(), "after {steps} steps nothing is left of the signal");
        Ok(())
    }

    /// sigma_i of each step i, increasing.
    pub fn sigmas(&self) -> Vec<f64> {
        let (first, last) = match self.betas {
            Betas::Linear => (self.beta_start, self.beta_end),
            Betas::ScaledLinear => (self.beta_start.sqrt(), self.beta_end.sqrt()),
        };
        let mut log_kept = 0.0; // ln abar_i
        let mut sigmas = Vec::with_capacity(self.steps);
        for i in 0..self.steps {
            let value = first + (last - first) * i as f64 / (self.steps.max(2) - 1) as f64;
            let beta = match self.betas {
                Betas::Linear => value,
                Betas::ScaledLinear => value * value,
            };
            log_kept += (-beta).ln_1p();
            // (1 - abar) / abar = 1 / abar - 1
            sigmas.push((-log_kept).exp_m1().sqrt());
        }
        sigmas
    }

    /// The noise levels that the process has: from sigma_0 to the last, with the rho of EDM's
    /// grids. A network trained on it has seen nothing below sigma_0.
    pub fn range(&self) -> NoiseRange {
        let sigmas = self.sigmas();
        let (eps, t_max) = (sigmas.first().copied(), sigmas.last().copied());
        NoiseRange {
            eps: eps.unwrap_or_default(),
            t_max: t_max.unwrap_or_default(),
            ..NoiseRange::default()
        }
    }
}

/// The step, as a fraction, of the noise level `sigma` among `sigmas`: by interpolation in
/// ln sigma; outside them, the first or the last.
pub fn step_of(sigmas: &[f64], sigma: f64) -> f64 {
    let above = sigmas.partition_point(|s| *s <= sigma);
    if above == 0 {
        return 0.0;
    }
    if above == sigmas.len() {
        return (above - 1) as f64;
    }
    let (low, high) = (sigmas[above - 1], sigmas[above]);
    (above - 1) as f64 + (sigma / low).ln() / (high / low).ln()
}
