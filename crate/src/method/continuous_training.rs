//! Continuous-time consistency training (the paper, appendix B.1): the limit of the method for ever
//! finer grids, with the squared l2 distance and lambda = the inverse of the gap (Theorem 6).

use super::continuous_distillation::measure;
use super::student::{Student, has_weights, start_from};
use super::{Batch, Gives, Method, Player, Setting, Trainer};
use crate::loss::{Distance, Weighting, stopped_tangent_loss};
use crate::process::{NoiseRange, Parameterization, perturb};
use crate::{Result, ensure};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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
        ensure!(
            self.parameterization == Parameterization::Skip,
            "method.parameterization = 'piecewise': it jumps at eps and has no derivative by t there; \
             leave it out"
        );
        has_weights(self.teacher.as_deref())
    }

    fn build(&self, setting: &Setting) -> Result<Box<dyn Trainer>> {
        let (params, network) = setting.network()?;
        start_from(self.teacher.as_deref(), setting, &params)?;
        let (d, lambda) = (Distance::default(), Weighting::default());
        let measure = measure(&d, &lambda);
        Ok(Box::new(Training {
            student: Student::new(setting, (params, network), self.parameterization, measure)?,
            noise: setting.noise,
        }))
    }

    fn teacher(&self) -> Option<&str> {
        self.teacher.as_deref()
    }
}

struct Training {
    student: Student,
    noise: NoiseRange,
}

impl Trainer for Training {
    fn loss(&self, _: usize, _: u64, batch: &Batch) -> Result<Tensor> {
        let (x0, z) = (&batch.x0, batch.noise()?); // (B, ..)
        let u = batch.key.stream("u").uniforms(batch.places());
        let t: Vec<f64> = u.iter().map(|u| self.noise.tau(*u)).collect();
        let x = perturb(x0, &t, &z)?.detach();

        // In place of the slope of the PF ODE: (x_t - x_0) / t = z.
        let (f, target) = (self.student.model(batch), self.student.target(batch));
        Ok(stopped_tangent_loss(&f, &target, &x, &t, &z)?.mean_all()?)
    }

    fn follow(&mut self, _: u64) -> Result<()> {
        self.student.move_target(0.0) // theta- is theta
    }

    fn players(&self) -> Vec<&Player> {
        vec![&self.student.player]
    }

    fn players_mut(&mut self) -> Vec<&mut Player> {
        vec![&mut self.student.player]
    }

    fn state(&self) -> BTreeMap<&'static str, BTreeMap<String, Tensor>> {
        self.student.state()
    }

    fn restore(&mut self, _: &str, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        self.student.restore(tensors)
    }
}
