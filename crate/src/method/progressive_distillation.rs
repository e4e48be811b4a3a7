//! Progressive distillation (Salimans and Ho 2022): a student learns to do in one Euler step what
//! its teacher does in two, takes the teacher's place, and the number of steps is halved.

use super::{Batch, Gives, Method, Player, Setting, Trainer};
use crate::bounds::within;
use crate::model::pretrained::Teacher;
use crate::model::{Conditioned, EdmDenoiser};
use crate::nn::Params;
use crate::process::{NoiseRange, TimeGrid, perturb};
use crate::seam::{Denoiser, one_a_sample, per_sample};
use crate::{Result, ensure};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The group of the teacher in a checkpoint.
const TEACHER: &str = "teacher";
/// More halvings than any published run has.
const MOST_STEPS: usize = 1 << 16;

/// A denoiser that is sampled in few Euler steps, on a Karras grid of as many steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProgressiveDistillation {
    /// The first teacher, a denoiser of the student's network: the folder of its run, beside this
    /// one's, or a published one.
    pub teacher: String,
    /// The steps of the first student, a power of two; its teacher takes twice as many.
    pub steps: usize,
    /// The steps of the last student, another power of two. The last two stages are twice as long
    /// as the others.
    #[serde(default = "one")]
    pub last: usize,
}

fn one() -> usize {
    1
}

impl ProgressiveDistillation {
    /// Where each of its stages ends when there are `total` steps of training.
    fn ends(&self, total: u64) -> Vec<u64> {
        let count = u64::from((self.steps / self.last).trailing_zeros()) + 1;
        // The last two are twice as long.
        let shares = |stages: u64| stages + stages.saturating_sub(count.saturating_sub(2));
        (1..=count).map(|stages| total * shares(stages) / shares(count)).collect()
    }
}

impl Method for ProgressiveDistillation {
    fn name(&self) -> &'static str {
        "progressive distillation"
    }

    fn source(&self) -> &'static str {
        "Salimans and Ho, 2022"
    }

    fn summary(&self, teacher: Option<&str>) -> String {
        let steps = if self.last == 1 { "one step" } else { &format!("{} steps", self.last) };
        let teacher = teacher.unwrap_or("a published teacher");
        format!("A denoiser of {steps}, by progressive distillation of `{teacher}`")
    }

    fn gives(&self) -> Gives {
        Gives::Denoiser
    }

    fn check(&self) -> Result<()> {
        let Self { steps, last, .. } = *self;
        within("method.steps", steps, 1..=MOST_STEPS)?;
        within("method.last", last, 1..=steps)?;
        ensure!(
            steps.is_power_of_two() && last.is_power_of_two(),
            "method.steps = {steps}, method.last = {last}: needs powers of two"
        );
        Ok(())
    }

    fn build(&self, setting: &Setting) -> Result<Box<dyn Trainer>> {
        let (params, network) = setting.network()?;
        let (first, weights) = setting.teachers.find(&self.teacher)?;
        let started = weights.map(|weights| setting.start(&params, &weights)).transpose()?;
        ensure!(
            started == Some(true),
            "method.teacher = '{}': a student of progressive distillation starts from its \
             teacher's weights, so the two networks are alike",
            self.teacher
        );
        let ends = self.ends(setting.schedule.iterations());
        ensure!(
            ends.windows(2).all(|ends| ends[0] < ends[1]) && ends[0] > 0,
            "training.iterations = {}: {} stages need at least one step each",
            setting.schedule.iterations(),
            ends.len()
        );
        let (teacher_params, sigma_data) = (params.duplicate()?, setting.sigma_data);
        Ok(Box::new(Stages {
            student: EdmDenoiser::new(network, sigma_data),
            player: setting.player_in_stages("student", params, ends.clone())?,
            first,
            teacher: EdmDenoiser::new(setting.frozen(&teacher_params)?, sigma_data),
            teacher_params,
            noise: setting.noise,
            steps: self.steps,
            ends,
        }))
    }

    fn teacher(&self) -> Option<&str> {
        Some(&self.teacher)
    }
}

/// The target at `x` of a student that takes one Euler step from t to `t_next`, so that it ends
/// where the teacher does in two, by way of `t_half`: x - t (x'' - x) / (t_next - t). Noise levels
/// are one per sample or one for all, t > t_half > t_next.
///
/// # Errors
/// Those of the teacher.
pub fn two_steps_in_one(
    teacher: &dyn Denoiser,
    x: &Tensor,
    t: &[f64],
    t_half: &[f64],
    t_next: &[f64],
) -> Result<Tensor> {
    let batch = x.dims().first().copied().unwrap_or(1);
    let [t, t_half, t_next] = [t, t_half, t_next].map(|level| one_a_sample(level, batch));
    let (t, t_half, t_next) = (&t?, &t_half?, &t_next?);
    // x' = x + (t' - t) (x - D(x, t)) / t
    let euler = |x: &Tensor, t: &[f64], to: &[f64]| -> Result<Tensor> {
        let rate: Vec<f64> = t.iter().zip(to).map(|(t, to)| (to - t) / t).collect();
        let slope = (x - teacher.denoise(x, t)?)?;
        Ok((x + slope.broadcast_mul(&per_sample(&rate, x)?)?)?)
    };
    let end = euler(&euler(x, t, t_half)?, t_half, t_next)?;
    let rate: Vec<f64> = t.iter().zip(t_next).map(|(t, next)| t / (next - t)).collect();
    Ok((x - (end - x)?.broadcast_mul(&per_sample(&rate, x)?)?)?)
}

struct Stages {
    player: Player,
    student: EdmDenoiser,
    /// The teacher of the first stage, and of all others: the student as it was at the end of the
    /// stage before.
    first: Teacher,
    teacher: EdmDenoiser,
    teacher_params: Params,
    noise: NoiseRange,
    steps: usize,
    ends: Vec<u64>,
}

impl Stages {
    /// The stage of step `k`, from 0.
    fn stage(&self, k: u64) -> usize {
        self.ends.iter().filter(|end| **end <= k).count()
    }

    /// N, the steps of its student.
    fn steps(&self, k: u64) -> usize {
        self.steps >> self.stage(k)
    }

    /// The points of a grid of N steps, with one in the middle of each: the teacher's.
    fn grid(&self, k: u64) -> Result<TimeGrid> {
        self.noise.karras(2 * self.steps(k) + 1)
    }
}

impl Trainer for Stages {
    fn loss(&self, _: usize, k: u64, batch: &Batch) -> Result<Tensor> {
        let (x0, z) = (&batch.x0, batch.noise()?); // (B, ..)
        let grid = self.grid(k)?;
        let n = batch.grid_indices(self.steps(k) + 1)?; // n ~ U[1, N], a step of the student's
        let at = |i: usize| n.iter().map(|n| grid.times()[2 * n - i]).collect::<Vec<_>>();
        let (t, t_half, t_next) = (at(0), at(1), at(2));

        let x = perturb(x0, &t, &z)?.detach();
        let (labels, masks) = (batch.labels(), batch.masks());
        let target = match self.stage(k) {
            0 => {
                let teacher = Conditioned::new(&self.first, labels, None);
                two_steps_in_one(&teacher, &x, &t, &t_half, &t_next)?
            }
            _ => {
                let teacher = Conditioned::new(&self.teacher, labels, None);
                two_steps_in_one(&teacher, &x, &t, &t_half, &t_next)?
            }
        };
        let student = Conditioned::new(&self.student, labels, Some(masks));
        let error = (student.denoise(&x, &t)? - target.detach())?;
        let each = error.flatten_from(1)?.sqr()?.sum(1)?; // (B)
        // max(1/t^2, 1), the truncated signal-to-noise ratio: 1/t^2 alone would give no weight to
        // the noise levels at which a student of one step is evaluated.
        let lambda: Vec<f64> = t.iter().map(|t| (1.0 / (t * t)).max(1.0)).collect();
        Ok((&each * per_sample(&lambda, &each)?)?.mean_all()?)
    }

    fn follow(&mut self, k: u64) -> Result<()> {
        // The student takes its teacher's place.
        if self.ends.contains(&(k + 1)) {
            self.teacher_params.assign(self.player.params())?;
        }
        Ok(())
    }

    fn columns(&self, k: u64) -> Vec<(&'static str, f64)> {
        vec![("stage", self.stage(k) as f64), ("steps", self.steps(k) as f64)]
    }

    fn players(&self) -> Vec<&Player> {
        vec![&self.player]
    }

    fn players_mut(&mut self) -> Vec<&mut Player> {
        vec![&mut self.player]
    }

    fn state(&self) -> BTreeMap<&'static str, BTreeMap<String, Tensor>> {
        BTreeMap::from([(TEACHER, self.teacher_params.tensors())])
    }

    fn restore(&mut self, _: &str, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        self.teacher_params.assign_tensors(tensors)
    }
}
