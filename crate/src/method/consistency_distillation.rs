//! Consistency distillation (the paper, algorithm 2; the talk, algorithm 1).

use super::student::{Gap, Measure, Objective, Student};
use super::{Batch, Gives, Method, Setting, Trainer};
use crate::bounds::{POINTS, within};
use crate::loss::{Distance, LpipsConfig, Weighting};
use crate::model::Conditioned;
use crate::model::pretrained::Teacher;
use crate::process::{Density, Parameterization, Solver, TimeGrid, perturb};
use crate::seam::ConsistencyFunction;
use crate::{Context, Result, ensure};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// A student of a teacher's PF ODE. It starts from the teacher's weights where the two have the
/// same network.
///
/// ```
/// use consistency::prelude::*;
/// let method = ConsistencyDistillation {
///     teacher: "exact".to_string(),
///     points: 18,
///     density: Density::Uniform,
///     solver: Solver::Heun,
///     distance: Distance::default(),
///     lpips: None,
///     weighting: Weighting::default(),
///     mu: 0.95,
///     parameterization: Parameterization::Skip,
/// };
/// assert_eq!((method.points(0, 1000), method.mu(0, 1000)), (Some(18), Some(0.95)));
/// assert!(ConsistencyDistillation { mu: 1.0, ..method }.check().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsistencyDistillation {
    /// The folder of the teacher's run, beside this one's; or a published teacher: a folder in
    /// diffusers' layout, a flax file, or a repository of the Hub, `OWNER/NAME@COMMIT`; or
    /// `exact`, the exact denoiser of the data (Lemma 1), which has no weights to start from.
    pub teacher: String,
    /// N, the points of the Karras grid.
    pub points: usize,
    /// How n is drawn.
    #[serde(default)]
    pub density: Density,
    /// The one-step solver.
    #[serde(default)]
    pub solver: Solver,
    /// d.
    #[serde(default)]
    pub distance: Distance,
    /// LPIPS as d, in place of `distance`: for colour images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lpips: Option<LpipsConfig>,
    /// lambda.
    #[serde(default)]
    pub weighting: Weighting,
    /// mu, the decay rate of the target, fixed; with 0 the target equals the student.
    pub mu: f64,
    /// Eq. 3 or eq. 4 of the talk.
    #[serde(default)]
    pub parameterization: Parameterization,
}

impl ConsistencyDistillation {
    fn measure(&self) -> Measure<'_> {
        let Self { distance, lpips, weighting, .. } = self;
        Measure { distance, lpips: lpips.as_ref(), weighting }
    }
}

impl Method for ConsistencyDistillation {
    fn name(&self) -> &'static str {
        "consistency distillation"
    }

    fn summary(&self, teacher: Option<&str>) -> String {
        format!(
            "A consistency model, by distillation of `{}`",
            teacher.unwrap_or("a published teacher")
        )
    }

    fn gives(&self) -> Gives {
        Gives::Consistency(self.parameterization)
    }

    fn check(&self) -> Result<()> {
        let Self { points, mu, .. } = self;
        self.measure().check()?;
        self.density.check().context("method")?;
        ensure!(*points >= 2, "method.points = {points}: a grid needs 2 or more");
        within("method.points", *points, 2..=POINTS)?;
        within("method.mu", *mu, 0.0..1.0)
    }

    fn build(&self, setting: &Setting) -> Result<Box<dyn Trainer>> {
        let (params, network) = setting.network()?;
        let (teacher, weights) = setting.teachers.find(&self.teacher)?;
        // "Initialize theta with the teacher."
        if let Some(weights) = weights {
            setting.start(&params, &weights)?;
        }
        let student = Student::new(setting, (params, network), self.parameterization)?;
        Ok(student.learn(Distillation {
            teacher,
            grid: setting.noise.karras(self.points)?,
            gap: self.measure().load(setting)?,
            density: self.density,
            solver: self.solver,
            mu: self.mu,
        }))
    }

    fn points(&self, _: u64, _: u64) -> Option<usize> {
        Some(self.points)
    }

    fn mu(&self, _: u64, _: u64) -> Option<f64> {
        Some(self.mu)
    }

    fn hyper_parameters(&self) -> [Option<String>; 2] {
        [Some(self.points.to_string()), Some(self.mu.to_string())]
    }

    fn teacher(&self) -> Option<&str> {
        Some(&self.teacher)
    }

    fn lpips(&self) -> Option<&LpipsConfig> {
        self.lpips.as_ref()
    }
}

struct Distillation {
    teacher: Teacher,
    grid: TimeGrid,
    gap: Gap,
    density: Density,
    solver: Solver,
    mu: f64,
}

impl Objective for Distillation {
    fn loss(&self, student: &Student, _: u64, batch: &Batch) -> Result<Tensor> {
        let (x0, z) = (&batch.x0, batch.noise()?); // (B, ..)
        let n = self.density.draw(&self.grid, batch.places(), &batch.key.stream("n"))?; // n ~ U[1, N - 1]
        let (t, t_next) = self.grid.neighbours(&n)?; // t_n, t_{n+1}

        // The teacher's estimate of x_{t_n}, one step of the solver from x_{t_{n+1}} (eq. 5).
        let x_next = perturb(x0, &t_next, &z)?.detach();
        let teacher = Conditioned::new(&self.teacher, batch.labels(), None);
        let x_hat = self.solver.step(&teacher, &x_next, &t_next, &t)?.detach();

        let f = student.model(batch).origin(&x_next, &t_next)?; // f_theta
        let target = student.target(batch).origin(&x_hat, &t)?.detach(); // f_theta-
        let d = self.gap.d(&f, &target)?; // (B)
        self.gap.mean(&d, &t_next, &t)
    }

    fn mu(&self, _: u64) -> f64 {
        self.mu
    }

    fn columns(&self, _: u64) -> Vec<(&'static str, f64)> {
        vec![("points", self.grid.points() as f64), ("mu", self.mu)]
    }
}
