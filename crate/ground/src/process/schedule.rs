//! The schedules N(k) and mu(k) of consistency training (the paper, appendix C).

use crate::bounds::{POINTS, within};
use crate::{Result, ensure};
use serde::{Deserialize, Serialize};

/// Which of the two is meant where the paper and the public code differ.
///
/// ```
/// use consistency::process::{Convention, Schedule};
/// let paper = Schedule::growing(2, 150, 0.9);
/// let code = Schedule { convention: Convention::Code, ..paper };
/// assert_eq!(paper.points(0, 100), 2);
/// assert!((paper.mu(0, 100) - 0.9).abs() < 1e-12); // 0.9^(2 / N)
/// assert!((code.mu(0, 100) - 0.81).abs() < 1e-12); // 0.9^(2 / (N - 1))
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Convention {
    /// As the paper writes it.
    #[default]
    Paper,
    /// As both public implementations compute it.
    Code,
}

/// How N(k) moves from s_0 to s_1.
///
/// ```
/// use consistency::process::{Growth, Schedule};
/// let at = |points, k| Schedule { points, ..Schedule::growing(10, 40, 0.9) }.points(k, 900);
/// assert_eq!([0, 900].map(|k| at(Growth::SquareRoot, k)), [10, 41]);
/// assert_eq!([0, 300, 600, 900].map(|k| at(Growth::Doubling, k)), [11, 21, 41, 41]);
/// assert_eq!([0, 900].map(|k| at(Growth::Fixed, k)), [10, 10]);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Growth {
    /// With the square root of k, from s_0 to s_1 + 1: the paper's.
    #[default]
    SquareRoot,
    /// Doubled after equal shares of the steps, from s_0 + 1 to s_1 + 1 (Song and Dhariwal 2023,
    /// "Improved techniques for training consistency models", section 3.4).
    Doubling,
    /// N = s_0 throughout.
    Fixed,
}

/// Where mu(k) comes from.
///
/// ```
/// use consistency::process::{Decay, Schedule};
/// let with_points = Schedule::growing(2, 150, 0.9);
/// let fixed = Schedule { mu: Decay::Fixed, ..with_points };
/// assert_eq!(fixed.mu(100, 100), 0.9);
/// assert_eq!(with_points.mu(100, 100), (2.0 * 0.9f64.ln() / 151.0).exp()); // N = 151
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decay {
    /// From N(k): the more points, the slower the target.
    #[default]
    WithPoints,
    /// mu = mu_0 throughout; 0 is a target that is the student itself.
    Fixed,
}

/// N(k), the number of grid points, and mu(k), the decay rate of the target, at
/// training step k of K.
///
/// ```
/// use consistency::process::Schedule;
/// let cifar = Schedule::growing(2, 150, 0.9); // the paper's for CIFAR-10
/// let points = [0, 200_000, 400_000, 800_000].map(|k| cifar.points(k, 800_000));
/// assert_eq!(points, [2, 76, 107, 151]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// s_0, where N begins.
    pub s0: u32,
    /// s_1, where N ends.
    pub s1: u32,
    /// mu_0, the target's decay rate at the start.
    pub mu0: f64,
    /// mu(k) from N(k) as in the paper, or from N(k) - 1 as in the code.
    #[serde(default)]
    pub convention: Convention,
    /// How N(k) grows.
    #[serde(default)]
    pub points: Growth,
    /// How mu(k) follows.
    #[serde(default)]
    pub mu: Decay,
}

impl Schedule {
    /// The paper's: N(k) grows from s_0 to s_1 + 1, and mu(k) from mu_0 towards 1 with it.
    ///
    /// ```
    /// use consistency::process::Schedule;
    /// let cifar = Schedule::growing(2, 150, 0.9);
    /// assert_eq!((cifar.points(0, 800_000), cifar.points(800_000, 800_000)), (2, 151));
    /// assert_eq!(cifar.mu(0, 800_000), 0.9);
    /// ```
    pub fn growing(s0: u32, s1: u32, mu0: f64) -> Self {
        let (convention, points, mu) = Default::default();
        Self { s0, s1, mu0, convention, points, mu }
    }

    /// N and mu the same at every step.
    ///
    /// ```
    /// use consistency::process::Schedule;
    /// let fixed = Schedule::fixed(18, 0.0);
    /// assert_eq!((fixed.points(500, 1000), fixed.mu(500, 1000)), (18, 0.0));
    /// ```
    pub fn fixed(points: u32, mu: f64) -> Self {
        let (growth, decay) = (Growth::Fixed, Decay::Fixed);
        Self { points: growth, mu: decay, ..Self::growing(points, points, mu) }
    }

    /// N(k) doubles after equal shares of the steps, from s_0 + 1 to s_1 + 1; mu is fixed.
    ///
    /// ```
    /// use consistency::process::Schedule;
    /// let doubling = Schedule::doubling(10, 1280, 0.0);
    /// let points: Vec<usize> = (0..8).map(|share| doubling.points(share * 100, 800)).collect();
    /// assert_eq!(points, [11, 21, 41, 81, 161, 321, 641, 1281]);
    /// ```
    pub fn doubling(s0: u32, s1: u32, mu: f64) -> Self {
        Self { points: Growth::Doubling, mu: Decay::Fixed, ..Self::growing(s0, s1, mu) }
    }

    /// N(k). It grows as ceil(sqrt(k/K ((s1 + 1)^2 - s0^2) + s0^2) - 1) + 1; doubling, it is
    /// min(s0 2^floor(k/K'), s1) + 1 with K' = floor(K / (floor(log2(s1 / s0)) + 1)).
    pub fn points(&self, k: u64, total: u64) -> usize {
        match self.points {
            Growth::SquareRoot => {
                let (s0, s1) = (f64::from(self.s0), f64::from(self.s1));
                let progress = k.min(total) as f64 / total.max(1) as f64;
                let root = (progress * ((s1 + 1.0).powi(2) - s0 * s0) + s0 * s0).sqrt();
                (root - 1.0).ceil() as usize + 1
            }
            Growth::Doubling => {
                let stages = u64::from((self.s1 / self.s0).ilog2()) + 1;
                let stage = (k / (total / stages).max(1)).min(stages);
                ((u64::from(self.s0) << stage).min(u64::from(self.s1)) + 1) as usize
            }
            Growth::Fixed => self.s0 as usize,
        }
    }

    /// mu(k) = exp(s0 ln mu0 / N(k)), where the code divides by N(k) - 1; or mu0 throughout.
    pub fn mu(&self, k: u64, total: u64) -> f64 {
        if self.mu == Decay::Fixed {
            return self.mu0;
        }
        let points = self.points(k, total);
        let divisor = match self.convention {
            Convention::Paper => points,
            Convention::Code => points - 1,
        };
        (f64::from(self.s0) * self.mu0.ln() / divisor as f64).exp()
    }

    /// Check that 2 <= s0 <= s1 < 1 000 000 and 0 < mu0 < 1; a fixed N needs s1 = s0, and a fixed
    /// mu may be 0.
    ///
    /// # Errors
    /// The value that violates this.
    pub fn check(&self) -> Result<()> {
        let Self { s0, s1, mu0, .. } = *self;
        ensure!(s0 >= 2 && s1 >= s0, "schedule s0 = {s0}, s1 = {s1}: needs 2 <= s0 <= s1");
        within("s1", s1 as usize, ..POINTS)?;
        ensure!(
            self.points != Growth::Fixed || s1 == s0,
            "schedule s0 = {s0}, s1 = {s1}: with points = 'fixed' they are the same"
        );
        let fixed = self.mu == Decay::Fixed;
        let least = if fixed { "0 <=" } else { "0 <" };
        let fits = mu0 < 1.0 && if fixed { mu0 >= 0.0 } else { mu0 > 0.0 };
        ensure!(fits, "schedule mu0 = {mu0}: needs {least} mu0 < 1");
        Ok(())
    }
}
