//! Continuous-time consistency training (the paper, appendix B.1): the limit of the method for ever
//! finer grids, with the squared l2 distance and lambda = the inverse of the gap (Theorem 6).

use super::student::{Objective, Student, differentiable, has_weights, start_from};
use super::{Batch, Gives, Method, Setting, Trainer};
use crate::Result;
use crate::loss::stopped_tangent_loss;
use crate::process::{NoiseRange, Parameterization, perturb};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// A consistency model without a teacher and without a grid. The gradient does not go through the
/// target: the limit of training exists for it alone.
///
/// ```
/// use consistency::prelude::*;
/// let experiment = Experiment::parse(r#"
///     name = "limit"
///     data = { name = "moons", count = 1000 }
///     network = { kind = "mlp" }
///     method = { kind = "continuous-training" }
///     training = { iterations = 1000, batch = 100 }
/// "#)?;
/// assert_eq!(experiment.method.name(), "continuous-time consistency training");
/// assert_eq!(experiment.method.teacher(), None);
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ContinuousTraining {
    /// The run or the published network whose weights it starts from, as in the paper, and which it
    /// uses for nothing else; without one it starts from new ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teacher: Option<String>,
    /// Eq. 3 or eq. 4 of the talk.
    pub parameterization: Parameterization,
}

impl Method for ContinuousTraining {
    fn name(&self) -> &'static str {
        "continuous-time consistency training"
    }

    fn summary(&self, teacher: Option<&str>) -> String {
        match teacher {
            Some(teacher) => format!(
                "A consistency model, by continuous-time training from the weights of `{teacher}`"
            ),
            None => "A consistency model, by continuous-time training alone".to_string(),
        }
    }

    fn gives(&self) -> Gives {
        Gives::Consistency(self.parameterization)
    }

    fn check(&self) -> Result<()> {
        differentiable(self.parameterization)?;
        has_weights(self.teacher.as_deref())
    }

    fn build(&self, setting: &Setting) -> Result<Box<dyn Trainer>> {
        let (params, network) = setting.network()?;
        start_from(self.teacher.as_deref(), setting, &params)?;
        let student = Student::new(setting, (params, network), self.parameterization)?;
        Ok(student.learn(Training { noise: setting.noise }))
    }

    fn teacher(&self) -> Option<&str> {
        self.teacher.as_deref()
    }
}

struct Training {
    noise: NoiseRange,
}

impl Objective for Training {
    fn loss(&self, student: &Student, _: u64, batch: &Batch) -> Result<Tensor> {
        let (x0, z) = (&batch.x0, batch.noise()?); // (B, ..)
        let u = batch.key.stream("u").uniforms(batch.places());
        let t: Vec<f64> = u.iter().map(|u| self.noise.tau(*u)).collect();
        let x = perturb(x0, &t, &z)?.detach();

        // In place of the slope of the PF ODE: (x_t - x_0) / t = z.
        let (f, target) = (student.model(batch), student.target(batch));
        Ok(stopped_tangent_loss(&f, &target, &x, &t, &z)?.mean_all()?)
    }

    fn mu(&self, _: u64) -> f64 {
        0.0 // theta- is theta
    }
}
