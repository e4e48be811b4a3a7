//! The kinds of sampling of a reproduction: what each does with a batch of samples.

use super::sampling::Sampling;
use crate::data::{Images, part_rows};
use crate::experiment::{Experiment, Trained};
use crate::method::Gives;
use crate::model::pretrained::{Kind, Teacher};
use crate::model::{ConsistencyModel, EdmDenoiser, OneStepGenerator, Pretrained, TwoTimeModel};
use crate::process::{Solver, TimeGrid, perturb};
use crate::rng::Key;
use crate::sample::{Classes, Draws, GammaSampling, Multistep, SampleBatch, pf_ode};
use crate::seam::{ConsistencyFunction, Denoiser, EndingAt, Generator, TwoTimeMap};
use crate::{Result, bail};
use candle_core::{DType, Device, Tensor};
use std::collections::HashMap;
use std::ops::Range;

/// Samples that are drawn and evaluated at a time. Metrics are summed batch by batch: another
/// number here would change the last digits of what is recorded.
pub(super) const BATCH: usize = 500;

enum Model {
    Denoiser(EdmDenoiser),
    Consistency(ConsistencyModel),
    TwoTimeMap(TwoTimeModel),
    Generator(OneStepGenerator),
    /// A released one.
    Teacher(Teacher),
}

impl Model {
    fn of(trained: &Trained) -> Result<Self> {
        Ok(match trained.experiment().method.gives() {
            Gives::Denoiser => Self::Denoiser(trained.denoiser()?),
            Gives::Consistency(_) => Self::Consistency(trained.consistency_model()?),
            Gives::TwoTimeMap => Self::TwoTimeMap(trained.two_time_map()?),
            Gives::Generator => Self::Generator(trained.generator()?),
            Gives::Classifier => bail!("{} makes no samples", trained.experiment().name),
        })
    }

    // The shape of the noise of one sample of this shape.
    fn noise_shape<'a>(&'a self, shape: &'a [usize]) -> &'a [usize] {
        match self {
            Self::Generator(generator) => generator.noise_shape(),
            _ => shape,
        }
    }
}

/// What samples are drawn from: the network of a run, or a released one in its place.
pub(super) struct Source<'a> {
    model: Model,
    experiment: &'a Experiment,
    /// How many classes there are to draw from.
    classes: Option<usize>,
    device: Device,
}

impl<'a> Source<'a> {
    /// What a run gives.
    pub fn of(trained: &'a Trained) -> Result<Self> {
        let experiment = trained.experiment();
        Ok(Self {
            model: Model::of(trained)?,
            experiment,
            classes: experiment.classes(),
            device: trained.params().device().clone(),
        })
    }

    /// A released network, on `device`, sampled as `experiment` is.
    pub fn released(
        network: &Pretrained,
        experiment: &'a Experiment,
        device: &Device,
    ) -> Result<Self> {
        let model = match network.kind() {
            Kind::Consistency(_) => Model::Consistency(network.consistency_model()?),
            _ => Model::Teacher(network.teacher()?),
        };
        Ok(Self { model, experiment, classes: network.classes(), device: device.clone() })
    }
}

/// Draws samples of one kind of sampling.
pub(super) struct Draw<'a> {
    source: &'a Source<'a>,
    sampling: &'a Sampling,
    draws: Draws,
    /// The training images, and which of them are used, where samples are made from data.
    real: Option<(Images, Vec<u32>)>,
    key: Key,
}

impl<'a> Draw<'a> {
    /// For `count` samples in all.
    pub fn new(
        source: &'a Source<'a>,
        sampling: &'a Sampling,
        shape: &[usize],
        count: usize,
        key: Key,
    ) -> Result<Self> {
        let real = match sampling {
            Sampling::FromData { .. } => {
                let real = source.experiment.data.images()?;
                // The same images for every seed.
                let rows = part_rows(real.len(), count, &Key::new(0).stream("from data"));
                Some((real, rows))
            }
            _ => None,
        };
        let classes = match source.classes {
            Some(count) => Classes::Random { key: key.stream("class"), count },
            None => Classes::None,
        };
        let draws = Draws {
            shape: source.model.noise_shape(shape).to_vec(),
            device: source.device.clone(),
            start: key.stream("z"),
            renoise: key.stream("renoise"),
            classes,
            given: HashMap::new(),
            at_once: BATCH,
        };
        Ok(Self { source, sampling, draws, real, key })
    }

    /// The samples of these indices, and the network evaluations of each.
    ///
    /// # Errors
    /// Noise levels outside the experiment's; a network that fails.
    pub fn draw(&self, samples: Range<u64>) -> Result<(Tensor, usize)> {
        let (draws, device) = (&self.draws, &self.draws.device);
        match &self.source.model {
            Model::Denoiser(of) => {
                draws.of(of, samples, device, |denoiser, batch| self.solve(denoiser, batch))
            }
            Model::Teacher(of) => {
                draws.of(of, samples, device, |denoiser, batch| self.solve(denoiser, batch))
            }
            Model::Consistency(of) => {
                draws.of(of, samples, device, |f, batch| self.multistep(f, batch))
            }
            Model::TwoTimeMap(of) => {
                draws.of(of, samples, device, |map, batch| self.map(map, batch))
            }
            Model::Generator(of) => draws.of_generator(of, samples, device),
        }
    }

    fn solve(&self, denoiser: &dyn Denoiser, batch: &SampleBatch) -> Result<Tensor> {
        let noise = self.source.experiment.noise;
        let z = batch.start()?;
        match self.sampling {
            Sampling::Solver(solver) => {
                let (key, first) = (self.key.stream("solver"), batch.indices().start);
                let grid = noise.spaced(solver.spacing, solver.points)?;
                solver.sampler.sample_from(denoiser, &z, &grid, &key, first)
            }
            Sampling::Renoised { tau, points } => {
                let x = pf_ode(denoiser, Solver::Heun, &z, &noise.karras(*points)?)?;
                let z = batch.renoise(0)?;
                // The noise of level eps that x already has is part of the level.
                let level = (tau * tau - noise.eps * noise.eps).sqrt();
                self.solved(denoiser, &perturb(&x, &[level], &z)?, *tau, *points)
            }
            Sampling::FromData { tau, points: Some(points) } => {
                let x = perturb(&self.real(batch.indices())?, &[*tau], &z)?;
                self.solved(denoiser, &x, *tau, *points)
            }
            other => bail!("{}: not for a denoiser", other.name()),
        }
    }

    // Solves the PF ODE by Heun from `x` at noise level `tau`, on the points of the whole grid below
    // `tau`. A student of that grid without error would give the same.
    fn solved(
        &self,
        denoiser: &dyn Denoiser,
        x: &Tensor,
        tau: f64,
        points: usize,
    ) -> Result<Tensor> {
        let whole = self.source.experiment.noise.karras(points)?;
        let below = whole.times().iter().copied().filter(|t| *t < tau);
        let grid = TimeGrid::new(below.chain([tau]).collect())?;
        // The solver scales what it starts from by the grid's first level.
        pf_ode(denoiser, Solver::Heun, &(x / tau)?, &grid)
    }

    fn multistep(&self, f: &dyn ConsistencyFunction, batch: &SampleBatch) -> Result<Tensor> {
        let noise = self.source.experiment.noise;
        let z = batch.start()?;
        match self.sampling {
            Sampling::Multistep { taus } => {
                let sigmas: Vec<f64> =
                    std::iter::once(noise.t_max).chain(taus.iter().copied()).collect();
                let chain =
                    Multistep { sigmas: &sigmas, eps: noise.eps, clip: false, s_noise: 1.0 };
                chain.sample(f, &z, |n, _| batch.renoise(n))
            }
            Sampling::FromData { tau, points: None } => {
                f.origin(&perturb(&self.real(batch.indices())?, &[*tau], &z)?, &[*tau])
            }
            other => bail!("{}: not for a consistency model", other.name()),
        }
    }

    fn map(&self, map: &dyn TwoTimeMap, batch: &SampleBatch) -> Result<Tensor> {
        let noise = self.source.experiment.noise;
        match self.sampling {
            Sampling::Gamma { taus, gamma } => {
                let sigmas = [&[noise.t_max], taus.as_slice()].concat();
                let steps = GammaSampling { sigmas: &sigmas, eps: noise.eps, gamma: *gamma };
                steps.sample(map, &batch.start()?, |n, _| batch.renoise(n))
            }
            _ => self.multistep(&EndingAt::new(map, noise.eps), batch),
        }
    }

    // Training images, one for each sample. Where there are fewer images than samples, they repeat.
    fn real(&self, samples: Range<u64>) -> Result<Tensor> {
        let Some((real, rows)) = &self.real else {
            bail!("{} takes no images", self.sampling.name())
        };
        let rows: Vec<u32> = samples.map(|i| rows[(i % rows.len() as u64) as usize]).collect();
        Ok(real.batch(&rows, DType::F32)?.to_device(&self.draws.device)?)
    }
}
