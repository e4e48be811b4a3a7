//! Knowledge distillation (Luhman and Luhman 2021): a student turns noise in one evaluation into
//! the sample that the teacher's PF ODE reaches in many steps.

use super::{Batch, Gives, Method, Player, Setting, Trainer};
use crate::bounds::{POINTS, within};
use crate::loss::{Distance, Metric};
use crate::model::pretrained::Teacher;
use crate::model::{Conditioned, EdmDenoiser};
use crate::process::{Solver, TimeGrid};
use crate::sample::pf_ode;
use crate::seam::Denoiser;
use crate::{Context, Result};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// A generator of one evaluation. It starts from the teacher's weights where the two have the same
/// network. Its pairs of noise and sample are made while it trains, so it sees none twice; only the
/// classes come from the data.
///
/// ```
/// use consistency::prelude::*;
/// let method: MethodConfig = Experiment::parse(
///     r#"
///     name = "kd"
///     data = { name = "digits" }
///     network = { kind = "mlp", width = 256, blocks = 4 }
///     method = { kind = "knowledge-distillation", teacher = "exact", points = 18 }
///     training = { iterations = 4000, batch = 128 }
///     "#,
/// )?
/// .method;
/// assert_eq!(method.gives().name(), "a generator");
/// assert_eq!(method.teacher(), Some("exact"));
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnowledgeDistillation {
    /// The folder of the teacher's run, beside this one's; a published teacher; or `exact`.
    pub teacher: String,
    /// The points of the Karras grid on which the teacher's PF ODE is solved.
    pub points: usize,
    /// The solver of the PF ODE.
    #[serde(default)]
    pub solver: Solver,
    /// d, between the student's sample and the teacher's.
    #[serde(default = "l1")]
    pub distance: Distance,
}

/// The distance of the published code on CIFAR-10.
fn l1() -> Distance {
    Distance::new(Metric::L1)
}

impl Method for KnowledgeDistillation {
    fn name(&self) -> &'static str {
        "knowledge distillation"
    }

    fn source(&self) -> &'static str {
        "Luhman and Luhman, 2021"
    }

    fn summary(&self, teacher: Option<&str>) -> String {
        let teacher = teacher.unwrap_or("a published teacher");
        format!("A generator, by knowledge distillation of `{teacher}`")
    }

    fn gives(&self) -> Gives {
        Gives::Generator
    }

    fn check(&self) -> Result<()> {
        within("method.points", self.points, 2..=POINTS)?;
        self.distance.check().context("method.distance")
    }

    fn build(&self, setting: &Setting) -> Result<Box<dyn Trainer>> {
        let (params, network) = setting.network()?;
        let (teacher, weights) = setting.teachers.find(&self.teacher)?;
        if let Some(weights) = weights {
            setting.start(&params, &weights)?;
        }
        Ok(Box::new(Pairs {
            grid: setting.noise.karras(self.points)?,
            teacher,
            student: EdmDenoiser::new(network, setting.sigma_data),
            player: setting.player("student", params)?,
            solver: self.solver,
            distance: self.distance,
        }))
    }

    fn points(&self, _: u64, _: u64) -> Option<usize> {
        Some(self.points)
    }

    fn teacher(&self) -> Option<&str> {
        Some(&self.teacher)
    }
}

struct Pairs {
    player: Player,
    student: EdmDenoiser,
    teacher: Teacher,
    grid: TimeGrid,
    solver: Solver,
    distance: Distance,
}

impl Trainer for Pairs {
    fn loss(&self, _: usize, _: u64, batch: &Batch) -> Result<Tensor> {
        let z = batch.noise()?; // (B, ..)
        let t_max = self.grid.last();

        // The teacher's sample for the noise, from T z to eps.
        let teacher = Conditioned::new(&self.teacher, batch.labels(), None);
        let x_eps = pf_ode(&teacher, self.solver, &z, &self.grid)?.detach();

        let student = Conditioned::new(&self.student, batch.labels(), Some(batch.masks()));
        let x = student.denoise(&(z * t_max)?, &[t_max])?; // the generator, D(T z, T)
        Ok(self.distance.per_sample(&x, &x_eps)?.mean_all()?)
    }

    fn columns(&self, _: u64) -> Vec<(&'static str, f64)> {
        vec![("points", self.grid.points() as f64)]
    }

    fn players(&self) -> Vec<&Player> {
        vec![&self.player]
    }

    fn players_mut(&mut self) -> Vec<&mut Player> {
        vec![&mut self.player]
    }
}
