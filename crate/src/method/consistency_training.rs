//! Consistency training (the paper, algorithm 3; the talk, algorithm 2).

use super::student::{Gap, Measure, Objective, Student, has_weights, start_from};
use super::{Batch, Gives, Method, Setting, Trainer};
use crate::loss::{Distance, LpipsConfig, Weighting};
use crate::process::{Decay, Density, Growth, NoiseRange, Parameterization, Schedule, perturb};
use crate::seam::ConsistencyFunction;
use crate::{Context, Result};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// A consistency model without a teacher: the same noise at both noise levels of a pair.
///
/// ```
/// use consistency::prelude::*;
/// let method = ConsistencyTraining {
///     schedule: Schedule::growing(2, 150, 0.9),
///     density: Density::Uniform,
///     distance: Distance::default(),
///     lpips: None,
///     weighting: Weighting::default(),
///     parameterization: Parameterization::Skip,
///     teacher: None,
/// };
/// assert_eq!((method.points(0, 1000), method.points(1000, 1000)), (Some(2), Some(151)));
/// assert!(method.check().is_ok());
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsistencyTraining {
    /// N(k) and mu(k).
    pub schedule: Schedule,
    /// How n is drawn.
    #[serde(default)]
    pub density: Density,
    /// d.
    #[serde(default)]
    pub distance: Distance,
    /// LPIPS as d, in place of `distance`: for colour images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lpips: Option<LpipsConfig>,
    /// lambda.
    #[serde(default)]
    pub weighting: Weighting,
    /// Eq. 3 or eq. 4 of the talk.
    #[serde(default)]
    pub parameterization: Parameterization,
    /// A run or a published network whose weights it starts from, and which it uses for nothing
    /// else: to compare it with methods that do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher: Option<String>,
}

impl ConsistencyTraining {
    fn measure(&self) -> Measure<'_> {
        let Self { distance, lpips, weighting, .. } = self;
        Measure { distance, lpips: lpips.as_ref(), weighting }
    }
}

impl Method for ConsistencyTraining {
    fn name(&self) -> &'static str {
        "consistency training"
    }

    fn summary(&self, teacher: Option<&str>) -> String {
        match teacher {
            Some(teacher) => {
                format!("A consistency model, by training from the weights of `{teacher}`")
            }
            None => "A consistency model, by training alone".to_string(),
        }
    }

    fn gives(&self) -> Gives {
        Gives::Consistency(self.parameterization)
    }

    fn check(&self) -> Result<()> {
        self.measure().check()?;
        has_weights(self.teacher.as_deref())?;
        self.density.check().context("method")?;
        self.schedule.check().context("method.schedule")
    }

    fn build(&self, setting: &Setting) -> Result<Box<dyn Trainer>> {
        let network = setting.network()?;
        start_from(self.teacher.as_deref(), setting, &network.0)?;
        let student = Student::new(setting, network, self.parameterization)?;
        Ok(student.learn(Training {
            gap: self.measure().load(setting)?,
            noise: setting.noise,
            density: self.density,
            schedule: self.schedule,
            iterations: setting.schedule.iterations(),
        }))
    }

    fn points(&self, k: u64, total: u64) -> Option<usize> {
        Some(self.schedule.points(k, total))
    }

    fn mu(&self, k: u64, total: u64) -> Option<f64> {
        Some(self.schedule.mu(k, total))
    }

    fn hyper_parameters(&self) -> [Option<String>; 2] {
        let Schedule { s0, s1, mu0, .. } = self.schedule;
        let points = match self.schedule.points {
            Growth::SquareRoot => format!("{s0} to {}", s1 + 1),
            Growth::Doubling => format!("{} to {}, doubling", s0 + 1, s1 + 1),
            Growth::Fixed => s0.to_string(),
        };
        let mu = match self.schedule.mu {
            Decay::WithPoints => format!("from {mu0}"),
            Decay::Fixed => mu0.to_string(),
        };
        [Some(points), Some(mu)]
    }

    fn teacher(&self) -> Option<&str> {
        self.teacher.as_deref()
    }

    fn lpips(&self) -> Option<&LpipsConfig> {
        self.lpips.as_ref()
    }
}

struct Training {
    gap: Gap,
    noise: NoiseRange,
    density: Density,
    schedule: Schedule,
    iterations: u64,
}

impl Training {
    /// N(k).
    fn points(&self, k: u64) -> usize {
        self.schedule.points(k, self.iterations)
    }
}

impl Objective for Training {
    fn loss(&self, student: &Student, k: u64, batch: &Batch) -> Result<Tensor> {
        let (x0, z) = (&batch.x0, batch.noise()?); // (B, ..)
        let grid = self.noise.karras(self.points(k))?;
        let n = self.density.draw(&grid, batch.places(), &batch.key.stream("n"))?; // n ~ U[1, N(k) - 1]
        let (t, t_next) = grid.neighbours(&n)?; // t_n, t_{n+1}

        // One z at both noise levels.
        let x_next = perturb(x0, &t_next, &z)?.detach();
        let x = perturb(x0, &t, &z)?.detach();

        let f = student.model(batch).origin(&x_next, &t_next)?; // f_theta
        let target = student.target(batch).origin(&x, &t)?.detach(); // f_theta-
        let d = self.gap.d(&f, &target)?; // (B)
        self.gap.mean(&d, &t_next, &t)
    }

    fn mu(&self, k: u64) -> f64 {
        self.schedule.mu(k, self.iterations)
    }

    fn columns(&self, k: u64) -> Vec<(&'static str, f64)> {
        vec![("points", self.points(k) as f64), ("mu", self.mu(k))]
    }
}
