//! Samples of a network, drawn in batches: the noise and the class of a sample depend on its index
//! alone.

use crate::Result;
use crate::bar::Bar;
use crate::model::Conditioned;
use crate::rng::Key;
use crate::seam::{Counted, Generator};
use candle_core::{DType, Device, Tensor};
use std::collections::HashMap;
use std::ops::Range;

/// The pixels of the images by which [`Draws::at_once`] counts.
const PIXELS: usize = 32 * 32;

/// The class of each sample.
#[derive(Clone, Copy, Debug)]
pub enum Classes {
    /// The network is not conditioned on classes.
    None,
    /// All samples are of this class.
    All(u32),
    /// A random one of `count` classes, by the key and the sample's index.
    Random {
        /// The key of the classes.
        key: Key,
        /// How many classes there are.
        count: usize,
    },
}

impl Classes {
    fn of(&self, samples: Range<u64>) -> Result<Option<Vec<u32>>> {
        Ok(match self {
            Self::None => None,
            Self::All(class) => Some(samples.map(|_| *class).collect()),
            Self::Random { key, count } => {
                let drawn = key.integers(samples, 0..*count)?;
                Some(drawn.into_iter().map(|class| class as u32).collect())
            }
        })
    }
}

/// What samples are drawn from. All of it depends on a sample's index, and nothing on the batch
/// that the sample is in.
#[derive(Clone, Debug)]
pub struct Draws {
    /// The shape of the noise of one sample: that of the sample, except for a generator.
    pub shape: Vec<usize>,
    /// The device of the network.
    pub device: Device,
    /// The key of the noise that samples start from.
    pub start: Key,
    /// The key of renoising; renoising n, counted from 0, is under `renoise.step(n)`.
    pub renoise: Key,
    /// The class of each sample.
    pub classes: Classes,
    /// Noise in place of the keys', one row per sample: `latents` for the start, `noise.1` for
    /// renoising 0, `noise.2` for renoising 1, and so on.
    pub given: HashMap<String, Tensor>,
    /// The most samples of up to 32x32 pixels that the network computes at once; fewer of larger
    /// ones, because the memory that a network needs grows with the pixels.
    pub at_once: usize,
}

/// A batch of samples that are drawn together.
pub struct SampleBatch<'a> {
    draws: &'a Draws,
    indices: Range<u64>,
}

impl SampleBatch<'_> {
    /// The indices of its samples.
    pub fn indices(&self) -> Range<u64> {
        self.indices.clone()
    }

    /// The noise that its samples start from, of standard deviation 1, f32.
    ///
    /// # Errors
    /// Noise that was given for fewer samples.
    pub fn start(&self) -> Result<Tensor> {
        self.noise("latents", &self.draws.start)
    }

    /// The noise of renoising `n`, counted from 0.
    ///
    /// # Errors
    /// As [`SampleBatch::start`].
    pub fn renoise(&self, n: usize) -> Result<Tensor> {
        self.noise(&format!("noise.{}", n + 1), &self.draws.renoise.step(n as u64))
    }

    fn noise(&self, name: &str, key: &Key) -> Result<Tensor> {
        let Range { start, end } = self.indices;
        let Draws { given, shape, device, .. } = self.draws;
        match given.get(name) {
            Some(given) => {
                let rows = given.narrow(0, start as usize, (end - start) as usize)?;
                Ok(rows.to_device(device)?)
            }
            None => key.normal(start..end, shape, DType::F32, device),
        }
    }
}

impl Draws {
    /// The samples of these indices on the device `to`, drawn by `draw` from a denoiser, a
    /// consistency model or a two-time map, and the evaluations of the network that each took.
    ///
    /// # Errors
    /// What `draw` gives.
    pub fn of<M>(
        &self,
        model: &M,
        samples: Range<u64>,
        to: &Device,
        draw: impl Fn(&Counted<Conditioned<M>>, &SampleBatch) -> Result<Tensor>,
    ) -> Result<(Tensor, usize)> {
        self.in_batches(samples, to, |batch, labels| {
            let counted = Counted::new(Conditioned::new(model, labels, None));
            Ok((draw(&counted, batch)?, counted.nfe()))
        })
    }

    /// The same from a generator, of whose noise `shape` is the shape.
    ///
    /// # Errors
    /// Errors of the generator.
    pub fn of_generator(
        &self,
        generator: &dyn Generator,
        samples: Range<u64>,
        to: &Device,
    ) -> Result<(Tensor, usize)> {
        self.in_batches(samples, to, |batch, labels| {
            let counted = Counted::new(generator);
            Ok((counted.generate(&batch.start()?, labels)?, counted.nfe()))
        })
    }

    fn in_batches(
        &self,
        samples: Range<u64>,
        to: &Device,
        draw: impl Fn(&SampleBatch, Option<&[u32]>) -> Result<(Tensor, usize)>,
    ) -> Result<(Tensor, usize)> {
        let pixels: usize = self.shape.iter().skip(1).product();
        let most = (self.at_once * PIXELS / pixels.max(1)).clamp(1, self.at_once.max(1));
        let (mut parts, mut nfe) = (Vec::new(), 0);
        let mut bar = Bar::new("sampling", samples.end - samples.start);
        for first in samples.clone().step_by(most) {
            let end = (first + most as u64).min(samples.end);
            let indices = first..end;
            let labels = self.classes.of(indices.clone())?;
            let batch = SampleBatch { draws: self, indices };
            let (part, evaluations) = draw(&batch, labels.as_deref())?;
            parts.push(part.to_device(to)?);
            nfe = evaluations;
            bar.at(end - samples.start)?;
        }
        Ok((Tensor::cat(&parts, 0)?, nfe))
    }
}
