//! The loss of each method at each step: what differs between a teacher, CD and CT.

use super::config::{Experiment, Method};
use super::run::RunFolder;
use crate::bounds::within;
use crate::loss::{
    Compare, Lpips, ScoreMatching, consistency_loss, distillation_pair, score_matching_loss,
    training_pair,
};
use crate::model::pretrained::{Kind, Teacher};
use crate::model::{Conditioned, ConsistencyModel, EdmDenoiser, Pretrained};
use crate::nn::{Ema, Masks, Params};
use crate::process::{Parameterization, TimeGrid};
use crate::rng::Key;
use crate::{Context, Result, bail, ensure};
use candle_core::Tensor;
use std::path::Path;

/// The largest networks of images have a few thousand million; more does not fit a machine.
const MOST_PARAMETERS: usize = 10_000_000_000;

pub(super) enum Objective {
    ScoreMatching { denoiser: EdmDenoiser, config: ScoreMatching },
    Consistency(Box<Consistency>),
}

pub(super) struct Consistency {
    student: ConsistencyModel,
    target: ConsistencyModel,
    target_params: Ema,
    teacher: Option<Teacher>,
    lpips: Option<Lpips>,
}

impl Objective {
    /// Build the networks of `experiment`; `params` receives the parameters to train.
    /// `runs` is the folder that holds the teacher's run.
    pub fn new(
        experiment: &Experiment,
        params: &mut Params,
        shape: &[usize],
        key: &Key,
        runs: &Path,
    ) -> Result<Self> {
        // Before there is memory for it.
        let parameters = experiment.network.parameters(shape).context("network")?;
        within("network.parameters", parameters, 1..=MOST_PARAMETERS)?;
        let network =
            params.init(&key.stream("network"), |scope| experiment.network.build(scope, shape))?;
        let (sigma_data, eps) = (experiment.sigma_data, experiment.noise.eps);
        let (parameterization, lpips) = match &experiment.method {
            Method::ScoreMatching(config) => {
                let denoiser = EdmDenoiser::new(network, sigma_data);
                return Ok(Self::ScoreMatching { denoiser, config: *config });
            }
            Method::Distillation { parameterization, lpips, .. }
            | Method::ConsistencyTraining { parameterization, lpips, .. } => {
                (*parameterization, lpips)
            }
        };
        ensure!(
            lpips.is_none() || shape.first() == Some(&3),
            "method.lpips: it is for images of 3 channels, these data have {shape:?}"
        );
        let lpips = lpips.as_ref().map(|lpips| lpips.load(params.device())).transpose()?;
        let mut teacher = None;
        if let Method::Distillation { teacher: name, .. } = &experiment.method {
            teacher = Some(teach(name, experiment, params, shape, runs)?);
        }
        let target_params = Ema::new(params)?;
        let target =
            target_params.params().frozen(|scope| experiment.network.build(scope, shape))?;
        let wrap = |network, parameterization: Parameterization| {
            ConsistencyModel::new(network, parameterization, sigma_data, eps)
        };
        Ok(Self::Consistency(Box::new(Consistency {
            student: wrap(network, parameterization),
            target: wrap(target, parameterization),
            target_params,
            teacher,
            lpips,
        })))
    }

    /// The parameters of the target theta-, for the methods that have one.
    pub fn target(&self) -> Option<&Ema> {
        match self {
            Self::ScoreMatching { .. } => None,
            Self::Consistency(consistency) => Some(&consistency.target_params),
        }
    }

    /// The loss at step `k` on `x0`, samples `first..` of the batch, all random numbers under
    /// `key`: those of a sample are the same however the batch is split. `labels` are their
    /// classes, for networks that are told them.
    pub fn loss(
        &self,
        experiment: &Experiment,
        k: u64,
        (x0, labels): (&Tensor, Option<&[u32]>),
        first: u64,
        key: &Key,
    ) -> Result<Tensor> {
        let samples = first..first + x0.dims()[0] as u64;
        let z = key.stream("noise").normal_like(x0, first)?;
        // Student and target drop out alike, as in the paper's code.
        let masks = Some(Masks { key: key.stream("dropout"), first });
        match self {
            Self::ScoreMatching { denoiser, config } => {
                let sigma = config.noise_levels(samples, &key.stream("sigma"));
                let denoiser = Conditioned::new(denoiser, labels, masks);
                score_matching_loss(&denoiser, x0, &z, &sigma, experiment.sigma_data)
            }
            Self::Consistency(networks) => {
                let grid = grid(experiment, k)?;
                let n = key.stream("n").integers(samples, 1..grid.points())?;
                let (pair, distance, weighting) = match (&experiment.method, &networks.teacher) {
                    (Method::Distillation { solver, distance, weighting, .. }, Some(teacher)) => {
                        let teacher = Conditioned::new(teacher, labels, None);
                        let pair = distillation_pair(x0, &z, &n, &grid, &teacher, *solver)?;
                        (pair, distance, weighting)
                    }
                    (Method::ConsistencyTraining { distance, weighting, .. }, _) => {
                        (training_pair(x0, &z, &n, &grid)?, distance, weighting)
                    }
                    (method, _) => bail!("{method:?} has no consistency loss"),
                };
                let student = Conditioned::new(&networks.student, labels, masks);
                let target = Conditioned::new(&networks.target, labels, masks);
                let d: &dyn Compare = match &networks.lpips {
                    Some(lpips) => lpips,
                    None => distance,
                };
                consistency_loss(&student, &target, &pair, d, weighting)
            }
        }
    }
}

// The teacher `name`; the student takes its weights where the networks are alike.
fn teach(
    name: &str,
    experiment: &Experiment,
    params: &Params,
    shape: &[usize],
    runs: &Path,
) -> Result<Teacher> {
    // A run's folder has a plain name.
    if name.contains('/') || Path::new(name).is_file() {
        return published_teacher(name, experiment, params, shape)
            .with_context(|| format!("the teacher {name}"));
    }
    let trained = RunFolder::open(&runs.join(name))?.trained()?;
    trained.check_teacher_of(experiment)?;
    // "Initialize theta with the teacher": the networks are alike.
    params.assign(trained.params())?;
    let trained = trained.on(params.device(), experiment.training.settings())?;
    Ok(Teacher::Edm(trained.denoiser()?))
}

fn published_teacher(
    name: &str,
    experiment: &Experiment,
    params: &Params,
    shape: &[usize],
) -> Result<Teacher> {
    let teacher = Pretrained::open(name)?;
    ensure!(
        teacher.shape() == shape,
        "its images are {:?}, the data {shape:?} (channels, height, width)",
        teacher.shape()
    );
    let own = experiment.network.classes();
    ensure!(
        teacher.classes() == own,
        "it knows {:?} classes, the student {own:?}",
        teacher.classes()
    );
    if let Kind::Edm { sigma_data } = *teacher.kind() {
        let own = experiment.sigma_data;
        ensure!(sigma_data == own, "it has sigma_data = {sigma_data}, the student {own}");
        // A network that predicts noise is told other numbers: its weights are no start.
        let names = |params: &Params| params.iter().map(|(n, _)| n.to_string()).collect::<Vec<_>>();
        if names(teacher.params()) == names(params) {
            params.assign(teacher.params())?;
        }
    }
    teacher.to_device(params.device())?.teacher()
}

/// The time grid at step `k`: fixed in distillation, growing in training.
pub(super) fn grid(experiment: &Experiment, k: u64) -> Result<TimeGrid> {
    let points = match &experiment.method {
        Method::ScoreMatching(_) => 2,
        Method::Distillation { points, .. } => *points,
        Method::ConsistencyTraining { schedule, .. } => {
            schedule.points(k, experiment.training.iterations)
        }
    };
    experiment.noise.karras(points)
}

/// The decay rate of the target at step `k`: fixed in distillation, mu(k) in training.
pub(super) fn mu(experiment: &Experiment, k: u64) -> f64 {
    match &experiment.method {
        Method::ScoreMatching(_) => 0.0,
        Method::Distillation { mu, .. } => *mu,
        Method::ConsistencyTraining { schedule, .. } => {
            schedule.mu(k, experiment.training.iterations)
        }
    }
}
