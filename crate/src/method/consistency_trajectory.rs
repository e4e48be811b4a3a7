//! Consistency trajectory models (Kim et al. 2023), without their adversarial loss: a student
//! learns the map from any noise level to any lower one.

use super::score_matching::ScoreMatching;
use super::{Batch, Gives, Method, Player, Setting, Trainer};
use crate::bounds::{POINTS, positive, within};
use crate::loss::{Distance, score_matching_loss};
use crate::model::pretrained::Teacher;
use crate::model::{Conditioned, Times, TwoTimeModel};
use crate::nn::Ema;
use crate::process::{Solver, TimeGrid, perturb};
use crate::seam::TwoTimeMap;
use crate::{Context, Result};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The group of the target in a checkpoint.
const TARGET: &str = "target";

/// A map between two noise levels, the student of a teacher's PF ODE. It starts from the teacher's
/// weights where the two have the same network but for the second noise level.
///
/// ```
/// use consistency::prelude::*;
/// let method: MethodConfig = Experiment::parse(
///     r#"
///     name = "ctm"
///     data = { name = "digits" }
///     network = { kind = "mlp", width = 256, blocks = 4 }
///     method = { kind = "consistency-trajectory", teacher = "exact", points = 18 }
///     training = { iterations = 4000, batch = 128 }
///     "#,
/// )?
/// .method;
/// assert_eq!(method.gives().name(), "a map between two noise levels");
/// assert_eq!(method.mu(0, 4000), Some(0.999));
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsistencyTrajectory {
    /// The folder of the teacher's run, beside this one's; a published teacher; or `exact`.
    pub teacher: String,
    /// N, the points of the Karras grid.
    pub points: usize,
    /// The solver of the teacher's PF ODE, which takes 1 to N - 1 steps from t to u.
    #[serde(default)]
    pub solver: Solver,
    /// d.
    #[serde(default)]
    pub distance: Distance,
    /// mu, the decay rate of the target, fixed.
    #[serde(default = "slow")]
    pub mu: f64,
    /// The weight of denoising score matching, by which g(x, t, t) stays a denoiser. The original
    /// balances the two losses by their gradients at the last layer.
    #[serde(default = "one")]
    pub denoising: f64,
    /// The noise levels of denoising score matching.
    #[serde(default)]
    pub sigmas: ScoreMatching,
}

fn slow() -> f64 {
    0.999
}

fn one() -> f64 {
    1.0
}

impl Method for ConsistencyTrajectory {
    fn name(&self) -> &'static str {
        "consistency trajectory distillation"
    }

    fn source(&self) -> &'static str {
        "Kim, Lai, Liao, Murata, Takida, Uesaka, He, Mitsufuji and Ermon, 2023, without its \
         adversarial loss"
    }

    fn summary(&self, teacher: Option<&str>) -> String {
        let teacher = teacher.unwrap_or("a published teacher");
        format!("A map between two noise levels, by distillation of `{teacher}`")
    }

    fn gives(&self) -> Gives {
        Gives::TwoTimeMap
    }

    fn check(&self) -> Result<()> {
        within("method.points", self.points, 2..=POINTS)?;
        self.distance.check().context("method.distance")?;
        within("method.mu", self.mu, 0.0..1.0)?;
        within("method.denoising", self.denoising, positive(1e6))?;
        self.sigmas.check().context("method.sigmas")
    }

    fn build(&self, setting: &Setting) -> Result<Box<dyn Trainer>> {
        let (params, network) = setting.network_for(Times::Two)?;
        let (teacher, weights) = setting.teachers.find(&self.teacher)?;
        if let Some(weights) = weights {
            setting.start(&params, &weights)?;
        }
        let target_params = Ema::new(&params)?;
        let target = setting.frozen_for(target_params.params(), Times::Two)?;
        let map = |network| TwoTimeModel::new(network, setting.sigma_data);
        Ok(Box::new(Trajectories {
            config: self.clone(),
            grid: setting.noise.karras(self.points)?,
            teacher,
            target: map(target),
            map: map(network),
            target_params,
            player: setting.player("student", params)?,
            sigma_data: setting.sigma_data,
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
}

/// The maps whose answers are compared.
pub struct TrajectoryMaps<'a> {
    /// G_theta.
    pub student: &'a dyn TwoTimeMap,
    /// G_theta-, with the moving average of theta, which takes no gradient.
    pub target: &'a dyn TwoTimeMap,
}

impl TrajectoryMaps<'_> {
    /// The student's map from x at t to `s` and the target's from the teacher's x_u at u, both then
    /// mapped to `eps` by the target: the estimate, whose gradient reaches the student through the
    /// map to eps, and what it is compared with, which takes none. On the exact flow they are equal.
    ///
    /// # Errors
    /// Those of the maps.
    pub fn pair(
        &self,
        (x, t): (&Tensor, &[f64]),
        (x_u, u): (&Tensor, &[f64]),
        s: &[f64],
        eps: &[f64],
    ) -> Result<(Tensor, Tensor)> {
        let estimate = self.target.map(&self.student.map(x, t, s)?, s, eps)?;
        let wanted = self.target.map(&self.target.map(x_u, u, s)?, s, eps)?;
        Ok((estimate, wanted.detach()))
    }
}

struct Trajectories {
    config: ConsistencyTrajectory,
    player: Player,
    /// G_theta and G_theta-.
    map: TwoTimeModel,
    target: TwoTimeModel,
    target_params: Ema,
    teacher: Teacher,
    grid: TimeGrid,
    sigma_data: f64,
}

impl Trainer for Trajectories {
    fn loss(&self, _: usize, _: u64, batch: &Batch) -> Result<Tensor> {
        let (x0, z) = (&batch.x0, batch.noise()?); // (B, ..)
        let (labels, masks) = (batch.labels(), Some(batch.masks()));
        let (levels, points) = (self.grid.times(), self.grid.points());
        let eps = [levels[0]];

        // h steps of the teacher, the same for the whole batch; u is h points below t, and s is u or
        // below. Drawn so, with h first, t leans to high noise, as in the public code.
        let h = batch.key.stream("steps").integers(0..1, 1..points)?[0];
        let n = batch.key.stream("n").integers(batch.places(), h..points)?;
        let below = batch.key.stream("s").uniforms(batch.places());
        let at = |h: usize| n.iter().map(|n| levels[n - h]).collect::<Vec<f64>>();
        let (t, u) = (at(0), at(h));
        let lower = n.iter().zip(below).map(|(n, share)| (share * (n - h + 1) as f64) as usize);
        let s: Vec<f64> = lower.map(|m| levels[m]).collect();

        // The teacher's x_u.
        let x = perturb(x0, &t, &z)?.detach();
        let teacher = Conditioned::new(&self.teacher, labels, None);
        let mut x_u = x.clone();
        for step in 0..h {
            x_u = self.config.solver.step(&teacher, &x_u, &at(step), &at(step + 1))?.detach();
        }

        // Both maps to s, compared at eps.
        let map = Conditioned::new(&self.map, labels, masks);
        let target = Conditioned::new(&self.target, labels, masks);
        let maps = TrajectoryMaps { student: &map, target: &target };
        let (estimate, wanted) = maps.pair((&x, &t), (&x_u, &u), &s, &eps)?;
        let consistency = self.config.distance.per_sample(&estimate, &wanted)?.mean_all()?;

        // g(x, t, t) is a denoiser.
        let sigma = self.config.sigmas.noise_levels(batch.places(), &batch.key.stream("sigma"));
        let z = batch.key.stream("denoising").normal_like(x0, batch.first)?;
        let denoising = score_matching_loss(&map, x0, &z, &sigma, self.sigma_data)?;
        Ok((consistency + (denoising * self.config.denoising)?)?)
    }

    fn follow(&mut self, _: u64) -> Result<()> {
        self.target_params.update(self.player.params(), self.config.mu)
    }

    fn columns(&self, _: u64) -> Vec<(&'static str, f64)> {
        vec![("points", self.grid.points() as f64), ("mu", self.config.mu)]
    }

    fn players(&self) -> Vec<&Player> {
        vec![&self.player]
    }

    fn players_mut(&mut self) -> Vec<&mut Player> {
        vec![&mut self.player]
    }

    fn state(&self) -> BTreeMap<&'static str, BTreeMap<String, Tensor>> {
        BTreeMap::from([(TARGET, self.target_params.params().tensors())])
    }

    fn restore(&mut self, _: &str, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        self.target_params.params().assign_tensors(tensors)
    }
}
