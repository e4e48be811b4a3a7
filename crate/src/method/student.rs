//! What the methods of consistency models share: the student f_theta and its target f_theta-, the
//! distance d between them, and the training of a student by an [`Objective`].

use super::{Batch, Player, Setting, Trainer};
use crate::loss::{Compare, Distance, LpipsConfig, Weighting};
use crate::model::{Conditioned, ConsistencyModel, Network};
use crate::nn::{Ema, Params};
use crate::process::Parameterization;
use crate::{Context, Result, ensure};
use candle_core::Tensor;
use std::collections::BTreeMap;

/// The group of the target in a checkpoint.
const TARGET: &str = "target";

/// How far the student is from its target: d and lambda.
#[derive(Clone, Copy)]
pub(super) struct Measure<'a> {
    pub distance: &'a Distance,
    pub lpips: Option<&'a LpipsConfig>,
    pub weighting: &'a Weighting,
}

impl Measure<'_> {
    pub fn check(&self) -> Result<()> {
        self.distance.check().context("method.distance")?;
        let Some(lpips) = self.lpips else { return Ok(()) };
        ensure!(
            *self.distance == Distance::default(),
            "method.lpips and method.distance: one of them is d, leave the other out"
        );
        lpips.check().context("method.lpips")
    }

    /// d and lambda, ready for use.
    pub fn load(&self, setting: &Setting) -> Result<Gap> {
        ensure!(
            self.lpips.is_none() || setting.shape.first() == Some(&3),
            "method.lpips: it is for images of 3 channels, these data have {:?}",
            setting.shape
        );
        let d: Box<dyn Compare> = match self.lpips {
            Some(lpips) => Box::new(lpips.load(setting.device)?),
            None => Box::new(*self.distance),
        };
        Ok(Gap { d, weighting: *self.weighting })
    }
}

/// The gap between the answers for a pair of noise levels, measured.
pub(super) struct Gap {
    d: Box<dyn Compare>,
    weighting: Weighting,
}

impl Gap {
    /// d, one number per sample.
    pub fn d(&self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        self.d.per_sample(a, b)
    }

    /// The mean of lambda(t) d over the batch.
    pub fn mean(&self, d: &Tensor, t_next: &[f64], t: &[f64]) -> Result<Tensor> {
        self.weighting.mean(d, t_next, t)
    }
}

/// In what the methods differ: the loss, and how the target follows.
pub(super) trait Objective {
    /// The loss of the student on a batch at step `k`: a scalar, the mean over the batch.
    fn loss(&self, student: &Student, k: u64, batch: &Batch) -> Result<Tensor>;

    /// mu(k), by which theta- follows theta after step `k`.
    fn mu(&self, k: u64) -> f64;

    /// What it records of step `k` besides the losses.
    fn columns(&self, _k: u64) -> Vec<(&'static str, f64)> {
        Vec::new()
    }
}

/// A student that is trained by an objective.
struct Learning<O> {
    student: Student,
    objective: O,
}

impl<O: Objective> Trainer for Learning<O> {
    fn loss(&self, _: usize, k: u64, batch: &Batch) -> Result<Tensor> {
        self.objective.loss(&self.student, k, batch)
    }

    fn follow(&mut self, k: u64) -> Result<()> {
        self.student.move_target(self.objective.mu(k))
    }

    fn columns(&self, k: u64) -> Vec<(&'static str, f64)> {
        self.objective.columns(k)
    }

    fn players(&self) -> Vec<&Player> {
        vec![&self.student.player]
    }

    fn players_mut(&mut self) -> Vec<&mut Player> {
        vec![&mut self.student.player]
    }

    fn state(&self) -> BTreeMap<&'static str, BTreeMap<String, Tensor>> {
        BTreeMap::from([(TARGET, self.student.target_params.params().tensors())])
    }

    fn restore(&mut self, _: &str, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        self.student.target_params.params().assign_tensors(tensors)
    }
}

/// Let `params` begin as the weights of `teacher`, where a method without a teacher names one.
///
/// # Errors
/// A teacher with another network.
pub(super) fn start_from(teacher: Option<&str>, setting: &Setting, params: &Params) -> Result<()> {
    let Some(teacher) = teacher else { return Ok(()) };
    let (_, weights) = setting.teachers.find(teacher)?;
    let same = weights.map(|weights| setting.start(params, &weights)).transpose()?;
    ensure!(
        same == Some(true),
        "method.teacher = '{teacher}': it is not the network of this experiment, which is to start \
         from its weights"
    );
    Ok(())
}

/// Whether a teacher, if there is one, has weights to start from.
pub(super) fn has_weights(teacher: Option<&str>) -> Result<()> {
    ensure!(
        teacher != Some("exact"),
        "method.teacher = 'exact': the exact denoiser has no weights to start from"
    );
    Ok(())
}

/// Whether f has a derivative by t everywhere, as the methods of continuous time need it.
pub(super) fn differentiable(parameterization: Parameterization) -> Result<()> {
    ensure!(
        parameterization == Parameterization::Skip,
        "method.parameterization = 'piecewise': it jumps at eps and has no derivative by t there; \
         leave it out"
    );
    Ok(())
}

/// f_theta and f_theta-.
pub(super) struct Student {
    player: Player,
    model: ConsistencyModel,
    target: ConsistencyModel,
    target_params: Ema,
}

impl Student {
    /// A student around `network` on `params`; theta- starts at theta.
    pub fn new(
        setting: &Setting,
        (params, network): (Params, Box<dyn Network>),
        parameterization: Parameterization,
    ) -> Result<Self> {
        let target_params = Ema::new(&params)?;
        let target = setting.frozen(target_params.params())?;
        let (sigma_data, eps) = (setting.sigma_data, setting.noise.eps);
        let model = |network| ConsistencyModel::new(network, parameterization, sigma_data, eps);
        Ok(Self {
            player: setting.player("student", params)?,
            model: model(network),
            target: model(target),
            target_params,
        })
    }

    /// The training of this student by `objective`.
    pub fn learn(self, objective: impl Objective + 'static) -> Box<dyn Trainer> {
        Box::new(Learning { student: self, objective })
    }

    /// f_theta, conditioned on the classes of `batch`. Student and target use the same dropout, as
    /// in the paper's code.
    pub fn model<'a>(&'a self, batch: &'a Batch) -> Conditioned<'a, ConsistencyModel> {
        Conditioned::new(&self.model, batch.labels(), Some(batch.masks()))
    }

    /// f_theta-, likewise.
    pub fn target<'a>(&'a self, batch: &'a Batch) -> Conditioned<'a, ConsistencyModel> {
        Conditioned::new(&self.target, batch.labels(), Some(batch.masks()))
    }

    /// theta- = mu theta- + (1 - mu) theta.
    fn move_target(&self, mu: f64) -> Result<()> {
        self.target_params.update(self.player.params(), mu)
    }
}
