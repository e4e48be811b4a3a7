//! Samples of a trained network, each kind by its noise levels and each sample from its own noise.

use super::sampling::Sampling;
use crate::data::{Images, part_rows};
use crate::experiment::{Experiment, Trained};
use crate::model::{Conditioned, ConsistencyModel, EdmDenoiser};
use crate::process::{Solver, TimeGrid, perturb};
use crate::rng::Key;
use crate::sample::{Multistep, pf_ode};
use crate::seam::{ConsistencyFunction, Counted, Denoiser};
use crate::{Result, bail};
use candle_core::{DType, Device, Tensor};
use std::ops::Range;

enum Model {
    Teacher(EdmDenoiser),
    Student(ConsistencyModel),
}

/// Draws samples of one kind of sampling. The noise and the class of a sample are its own, in
/// every batch.
pub(super) struct Draw<'a> {
    model: Model,
    experiment: &'a Experiment,
    sampling: &'a Sampling,
    device: Device,
    shape: Vec<usize>,
    /// How many classes the network is conditioned on; none for a network without classes.
    classes: Option<usize>,
    /// The training images and the rows that are taken of them, where samples are made from data.
    real: Option<(Images, Vec<u32>)>,
    key: Key,
}

impl<'a> Draw<'a> {
    /// For `count` samples in all.
    pub fn new(
        trained: &'a Trained,
        sampling: &'a Sampling,
        shape: &[usize],
        count: usize,
        key: Key,
    ) -> Result<Self> {
        let experiment = trained.experiment();
        let model = match sampling.is_of_teacher() {
            true => Model::Teacher(trained.denoiser()?),
            false => Model::Student(trained.consistency_model()?),
        };
        let real = match sampling {
            Sampling::FromData { .. } => {
                let real = experiment.data.images()?;
                // The same images for every seed.
                let rows = part_rows(real.len(), count, &Key::new(0).stream("from data"));
                Some((real, rows))
            }
            _ => None,
        };
        Ok(Self {
            model,
            experiment,
            sampling,
            device: trained.params().device().clone(),
            shape: shape.to_vec(),
            classes: experiment.network.classes(),
            real,
            key,
        })
    }

    /// The samples of these indices, and the network evaluations of each.
    ///
    /// # Errors
    /// Noise levels outside the experiment's; a network that fails.
    pub fn draw(&self, samples: Range<u64>) -> Result<(Tensor, usize)> {
        let labels = match self.classes {
            Some(count) => {
                let drawn = self.key.stream("class").integers(samples.clone(), 0..count)?;
                Some(drawn.into_iter().map(|class| class as u32).collect::<Vec<u32>>())
            }
            None => None,
        };
        let labels = labels.as_deref();
        match &self.model {
            Model::Teacher(denoiser) => {
                let counted = Counted::new(Conditioned::new(denoiser, labels, None));
                Ok((self.by_teacher(&counted, samples)?, counted.nfe()))
            }
            Model::Student(f) => {
                let counted = Counted::new(Conditioned::new(f, labels, None));
                Ok((self.by_student(&counted, samples)?, counted.nfe()))
            }
        }
    }

    fn by_teacher(&self, denoiser: &dyn Denoiser, samples: Range<u64>) -> Result<Tensor> {
        let noise = self.experiment.noise;
        let z = self.noise(&self.key.stream("z"), samples.clone())?;
        match self.sampling {
            Sampling::Solver(by) => {
                let (key, first) = (self.key.stream("solver"), samples.start);
                by.sampler.sample_from(denoiser, &z, &noise.karras(by.points)?, &key, first)
            }
            Sampling::Again { tau, points } => {
                let x = pf_ode(denoiser, Solver::Heun, &z, &noise.karras(*points)?)?;
                let z = self.noise(&self.key.stream("renoise").step(0), samples)?;
                // The noise of level eps that x already has is part of the level.
                let level = (tau * tau - noise.eps * noise.eps).sqrt();
                self.solved(denoiser, &perturb(&x, &[level], &z)?, *tau, *points)
            }
            Sampling::FromData { tau, points: Some(points) } => {
                let x = perturb(&self.real(samples)?, &[*tau], &z)?;
                self.solved(denoiser, &x, *tau, *points)
            }
            other => bail!("{}: not for a teacher", other.name()),
        }
    }

    // Solves `x` of noise level `tau` by Heun, along the points below `tau` of the whole grid: what
    // a student of that grid without error would give.
    fn solved(
        &self,
        denoiser: &dyn Denoiser,
        x: &Tensor,
        tau: f64,
        points: usize,
    ) -> Result<Tensor> {
        let whole = self.experiment.noise.karras(points)?;
        let below = whole.times().iter().copied().filter(|t| *t < tau);
        let grid = TimeGrid::new(below.chain([tau]).collect())?;
        // The solver scales what it starts from by the grid's first level.
        pf_ode(denoiser, Solver::Heun, &(x / tau)?, &grid)
    }

    fn by_student(&self, f: &dyn ConsistencyFunction, samples: Range<u64>) -> Result<Tensor> {
        let noise = self.experiment.noise;
        let z = self.noise(&self.key.stream("z"), samples.clone())?;
        match self.sampling {
            Sampling::Multistep { taus } => {
                let sigmas: Vec<f64> =
                    std::iter::once(noise.t_max).chain(taus.iter().copied()).collect();
                let renoise = self.key.stream("renoise");
                let chain =
                    Multistep { sigmas: &sigmas, eps: noise.eps, clip: false, s_noise: 1.0 };
                chain.sample(f, &z, |n, _| self.noise(&renoise.step(n as u64), samples.clone()))
            }
            Sampling::FromData { tau, points: None } => {
                f.origin(&perturb(&self.real(samples)?, &[*tau], &z)?, &[*tau])
            }
            other => bail!("{}: not for a consistency model", other.name()),
        }
    }

    fn noise(&self, key: &Key, samples: Range<u64>) -> Result<Tensor> {
        key.normal(samples, &self.shape, DType::F32, &self.device)
    }

    // A part of the training images. Where there are no more of them than samples: all of them in
    // their order, and after the last the first again.
    fn real(&self, samples: Range<u64>) -> Result<Tensor> {
        let Some((real, rows)) = &self.real else {
            bail!("{} takes no images", self.sampling.name())
        };
        let rows: Vec<u32> = samples.map(|i| rows[(i % rows.len() as u64) as usize]).collect();
        Ok(real.batch(&rows, DType::F32)?.to_device(&self.device)?)
    }
}
