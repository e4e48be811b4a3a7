//! What consistency distillation and consistency training share: the student f_theta, its target
//! f_theta-, and the distance d between them.

use super::{Batch, Player, Setting};
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
}

/// Let `params` begin as the weights of `teacher`, where a method without a teacher names one.
///
/// # Errors
/// A teacher with another network.
pub(super) fn start_from(teacher: Option<&str>, setting: &Setting, params: &Params) -> Result<()> {
    let Some(teacher) = teacher else { return Ok(()) };
    let (_, weights) = setting.teachers.find(teacher)?;
    let same = weights.map(|weights| weights.start(params)).transpose()?;
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

/// f_theta and f_theta-.
pub(super) struct Student {
    pub player: Player,
    model: ConsistencyModel,
    target: ConsistencyModel,
    target_params: Ema,
    d: Box<dyn Compare>,
    weighting: Weighting,
}

impl Student {
    /// A student around `network` on `params`; theta- starts at theta.
    pub fn new(
        setting: &Setting,
        (params, network): (Params, Box<dyn Network>),
        parameterization: Parameterization,
        measure: Measure,
    ) -> Result<Self> {
        let target_params = Ema::new(&params)?;
        let target = setting.frozen(target_params.params())?;
        let (sigma_data, eps) = (setting.sigma_data, setting.noise.eps);
        let model = |network| ConsistencyModel::new(network, parameterization, sigma_data, eps);
        ensure!(
            measure.lpips.is_none() || setting.shape.first() == Some(&3),
            "method.lpips: it is for images of 3 channels, these data have {:?}",
            setting.shape
        );
        let d: Box<dyn Compare> = match measure.lpips {
            Some(lpips) => Box::new(lpips.load(setting.device)?),
            None => Box::new(*measure.distance),
        };
        Ok(Self {
            player: setting.player("student", params)?,
            model: model(network),
            target: model(target),
            target_params,
            d,
            weighting: *measure.weighting,
        })
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

    /// d, one number per sample.
    pub fn d(&self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        self.d.per_sample(a, b)
    }

    /// The mean of lambda(t) d over the batch.
    pub fn mean(&self, d: &Tensor, t_next: &[f64], t: &[f64]) -> Result<Tensor> {
        self.weighting.mean(d, t_next, t)
    }

    /// theta- = mu theta- + (1 - mu) theta.
    pub fn move_target(&self, mu: f64) -> Result<()> {
        self.target_params.update(self.player.params(), mu)
    }

    pub fn state(&self) -> BTreeMap<&'static str, BTreeMap<String, Tensor>> {
        BTreeMap::from([(TARGET, self.target_params.params().tensors())])
    }

    pub fn restore(&self, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        self.target_params.params().assign_tensors(tensors)
    }
}
