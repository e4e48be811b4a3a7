//! The schedules N(k) and mu(k) of consistency training (the paper, appendix C).

use crate::bounds::{POINTS, within};
use crate::{Result, ensure};
use serde::{Deserialize, Serialize};

/// Which of the two is meant where the paper and the public code differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Convention {
    /// As the paper writes it.
    #[default]
    Paper,
    /// As both public implementations compute it.
    Code,
}

/// N(k), the number of grid points, and mu(k), the decay rate of the target, at
/// training step k of K.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// s_0: N(0) = s_0.
    pub s0: u32,
    /// s_1: N(K) = s_1 + 1.
    pub s1: u32,
    /// mu_0, the target's decay rate at the start.
    pub mu0: f64,
    /// mu(k) from N(k) as in the paper, or from N(k) - 1 as in the code.
    #[serde(default)]
    pub convention: Convention,
}

impl Schedule {
    /// N(k) = ceil(sqrt(k/K ((s1 + 1)^2 - s0^2) + s0^2) - 1) + 1.
    ///
    /// ```
    /// use consistency::process::{Convention, Schedule};
    /// let cifar = Schedule { s0: 2, s1: 150, mu0: 0.9, convention: Convention::Paper };
    /// assert_eq!((cifar.points(0, 800_000), cifar.points(800_000, 800_000)), (2, 151));
    /// ```
    pub fn points(&self, k: u64, total: u64) -> usize {
        let (s0, s1) = (f64::from(self.s0), f64::from(self.s1));
        let progress = k.min(total) as f64 / total.max(1) as f64;
        let root = (progress * ((s1 + 1.0).powi(2) - s0 * s0) + s0 * s0).sqrt();
        (root - 1.0).ceil() as usize + 1
    }

    /// mu(k) = exp(s0 ln mu0 / N(k)); the code divides by N(k) - 1.
    pub fn mu(&self, k: u64, total: u64) -> f64 {
        let points = self.points(k, total);
        let divisor = match self.convention {
            Convention::Paper => points,
            Convention::Code => points - 1,
        };
        (f64::from(self.s0) * self.mu0.ln() / divisor as f64).exp()
    }

    /// Check that 2 <= s0 <= s1 < 1 000 000 and 0 < mu0 < 1.
    ///
    /// # Errors
    /// The value that violates this.
    pub fn check(&self) -> Result<()> {
        let Self { s0, s1, mu0, .. } = *self;
        ensure!(s0 >= 2 && s1 >= s0, "schedule s0 = {s0}, s1 = {s1}: needs 2 <= s0 <= s1");
        within("s1", s1 as usize, ..POINTS)?;
        ensure!(mu0 > 0.0 && mu0 < 1.0, "schedule mu0 = {mu0}: needs 0 < mu0 < 1");
        Ok(())
    }
}
