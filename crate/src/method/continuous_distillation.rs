//! Continuous-time consistency distillation (the paper, appendix B.1): the limit of the method for
//! ever finer grids, with the squared l2 distance and lambda = the inverse of the gap.

use super::student::{Objective, Student, differentiable};
use super::{Batch, Gives, Method, Setting, Trainer};
use crate::Result;
use crate::bounds::within;
use crate::loss::{stopped_tangent_loss, tangent_loss};
use crate::model::Conditioned;
use crate::model::pretrained::Teacher;
use crate::process::{NoiseRange, Parameterization, perturb, pf_ode_slope};
use crate::seam::per_sample;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// A student of a teacher's PF ODE without a grid, by the exact derivative of f along it. It starts
/// from the teacher's weights where the two have the same network.
///
/// ```
/// use consistency::prelude::*;
/// let experiment = Experiment::parse(r#"
///     name = "limit"
///     data = { name = "moons", count = 1000 }
///     network = { kind = "mlp" }
///     method = { kind = "continuous-distillation", teacher = "exact" }
///     training = { iterations = 1000, batch = 100 }
/// "#)?;
/// assert_eq!(experiment.method.name(), "continuous-time consistency distillation");
/// assert_eq!(experiment.method.points(0, 1000), None); // no time grid
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContinuousDistillation {
    /// The folder of the teacher's run, beside this one's; a published teacher; or `exact`.
    pub teacher: String,
    /// Whether the target takes no gradient (Theorem 5), or the gradient goes through both sides
    /// (Theorem 3).
    #[serde(default = "yes")]
    pub stop_gradient: bool,
    /// The step of the differences in the gradient of Theorem 3, as a part of t.
    #[serde(default = "hundredth")]
    pub step: f64,
    /// Eq. 3 or eq. 4 of the talk.
    #[serde(default)]
    pub parameterization: Parameterization,
}

fn yes() -> bool {
    true
}

fn hundredth() -> f64 {
    0.01
}

impl Method for ContinuousDistillation {
    fn name(&self) -> &'static str {
        "continuous-time consistency distillation"
    }

    fn summary(&self, teacher: Option<&str>) -> String {
        format!(
            "A consistency model, by continuous-time distillation of `{}`",
            teacher.unwrap_or("a published teacher")
        )
    }

    fn gives(&self) -> Gives {
        Gives::Consistency(self.parameterization)
    }

    fn check(&self) -> Result<()> {
        differentiable(self.parameterization)?;
        within("method.step", self.step, 1e-6..0.5)
    }

    fn build(&self, setting: &Setting) -> Result<Box<dyn Trainer>> {
        let (params, network) = setting.network()?;
        let (teacher, weights) = setting.teachers.find(&self.teacher)?;
        if let Some(weights) = weights {
            setting.start(&params, &weights)?;
        }
        let student = Student::new(setting, (params, network), self.parameterization)?;
        Ok(student.learn(Distillation { teacher, noise: setting.noise, of: self.clone() }))
    }

    fn teacher(&self) -> Option<&str> {
        Some(&self.teacher)
    }
}

struct Distillation {
    teacher: Teacher,
    noise: NoiseRange,
    of: ContinuousDistillation,
}

impl Objective for Distillation {
    fn loss(&self, student: &Student, _: u64, batch: &Batch) -> Result<Tensor> {
        let (x0, z) = (&batch.x0, batch.noise()?); // (B, ..)
        let u = batch.key.stream("u").uniforms(batch.places());
        let t: Vec<f64> = u.iter().map(|u| self.noise.tau(*u)).collect();
        let x = perturb(x0, &t, &z)?.detach();
        let teacher = Conditioned::new(&self.teacher, batch.labels(), None);
        let slope = pf_ode_slope(&teacher, &x, &t)?.detach(); // dx/dt of the PF ODE

        if self.of.stop_gradient {
            let (f, target) = (student.model(batch), student.target(batch));
            return Ok(stopped_tangent_loss(&f, &target, &x, &t, &slope)?.mean_all()?);
        }
        // Theorem 3 weighs by 1 / (tau^-1)' = tau'(u).
        let weight: Vec<f64> = u.iter().map(|u| self.noise.tau_slope(*u)).collect();
        let f = student.model(batch);
        let each = tangent_loss(&f, &x, &t, &slope, (self.of.step, self.noise.eps))?;
        Ok((per_sample(&weight, &each)? * each)?.mean_all()?)
    }

    fn mu(&self, _: u64) -> f64 {
        0.0 // theta- is theta
    }
}
