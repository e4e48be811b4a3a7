//! What judges a reproduction's samples: distances from the images of its training.

use super::config::By;
use crate::data::Images;
use crate::evaluate::{Classifier, ClassifierConfig, Inception, InceptionFeatures, Statistics};
use crate::experiment::Trained;
use crate::hub::Hub;
use crate::rng::Key;
use crate::{Result, bail, ensure};
use candle_core::{DType, Device, Tensor};

/// The covariance of more pixels takes too long to take apart.
const PIXELS: usize = 1024;
/// Images at a time.
const BATCH: usize = 500;
/// The images that a classifier is trained on, at most, and its steps.
const TAUGHT: usize = 20_000;
const STEPS: u64 = 1000;
/// The parts of the Inception score.
const SPLITS: usize = 10;
/// The real images that Inception looks at, the first: as many as the samples of the paper.
const LOOKED_AT: usize = 50_000;

/// The judges with what they know of the real images.
pub(super) struct Judges {
    shape: Vec<usize>,
    pixels: Option<Statistics>,
    classifier: Option<(Classifier, Statistics)>,
    inception: Option<(Inception, InceptionFeatures)>,
}

/// What the judges have seen of one set of samples.
pub(super) struct Judged<'a> {
    judges: &'a Judges,
    pixels: Option<Statistics>,
    classifier: Option<Statistics>,
    inception: Vec<InceptionFeatures>,
}

impl Judges {
    /// The judges `by`, for samples of what `trained` was trained on.
    pub fn new(by: &[By], trained: &Trained) -> Result<Self> {
        let real = trained.experiment().data.images()?;
        let mut judges =
            Self { shape: real.shape().to_vec(), pixels: None, classifier: None, inception: None };
        for kind in by {
            match kind {
                By::Pixels => judges.pixels = Some(of_pixels(&real)?),
                By::Classifier => judges.classifier = Some(of_classifier(&real)?),
                By::Inception => {
                    judges.inception = Some(of_inception(&real, trained.params().device())?)
                }
            }
        }
        Ok(judges)
    }

    /// Of one sample.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Nothing seen yet.
    pub fn start(&self) -> Result<Judged<'_>> {
        let same =
            |known: &Statistics| Statistics::new(known.features().clone(), known.mean().len());
        Ok(Judged {
            judges: self,
            pixels: self.pixels.as_ref().map(same).transpose()?,
            classifier: self.classifier.as_ref().map(|(_, known)| same(known)).transpose()?,
            inception: Vec::new(),
        })
    }
}

impl Judged<'_> {
    /// More samples, (B, C, H, W); clipped to \[-1, 1\] as images are.
    pub fn add(&mut self, samples: &Tensor) -> Result<()> {
        let samples = samples.clamp(-1f32, 1f32)?;
        if let Some((inception, _)) = &self.judges.inception {
            self.inception.push(inception.evaluate(&samples.affine(0.5, 0.5)?)?);
        }
        let samples = samples.to_device(&Device::Cpu)?;
        if let Some(seen) = &mut self.pixels {
            seen.add(&samples)?;
        }
        if let (Some(seen), Some((classifier, _))) = (&mut self.classifier, &self.judges.classifier)
        {
            seen.add(&classifier.evaluate(&samples)?)?;
        }
        Ok(())
    }

    /// Each metric's name and number.
    pub fn finish(self) -> Result<Vec<(&'static str, f64)>> {
        let mut all = Vec::new();
        if let (Some(seen), Some(real)) = (&self.pixels, &self.judges.pixels) {
            all.push(("Frechet distance on pixels", seen.frechet_distance(real)?));
            all.push(("variance over the data's", seen.variance()? / real.variance()?));
        }
        if let (Some(seen), Some((_, real))) = (&self.classifier, &self.judges.classifier) {
            all.push(("Frechet distance on classifier features", seen.frechet_distance(real)?));
        }
        if let Some((_, real)) = &self.judges.inception {
            let seen = &InceptionFeatures::join(&self.inception)?;
            let manifold = real.precision_recall(seen)?;
            all.push(("FID", seen.fid(real)?));
            all.push(("Inception score", seen.inception_score(SPLITS)?.mean));
            all.push(("precision", manifold.precision));
            all.push(("recall", manifold.recall));
        }
        Ok(all)
    }
}

fn parts(real: &Images) -> impl Iterator<Item = Result<Tensor>> + '_ {
    (0..real.len()).step_by(BATCH).map(|first| {
        let rows: Vec<u32> = (first as u32..(first + BATCH).min(real.len()) as u32).collect();
        real.batch(&rows, DType::F32)
    })
}

fn gathered(real: &Images, of: impl Fn(&Tensor) -> Result<Statistics>) -> Result<Statistics> {
    let mut parts = parts(real);
    let Some(first) = parts.next() else { bail!("{} has no images", real.name()) };
    let mut all = of(&first?)?;
    for part in parts {
        all.merge(&of(&part?)?)?;
    }
    Ok(all)
}

fn of_pixels(real: &Images) -> Result<Statistics> {
    let pixels: usize = real.shape().iter().product();
    ensure!(
        pixels <= PIXELS,
        "evaluate.by: the Frechet distance on pixels is for {PIXELS} of them, these images have \
         {pixels}; choose classifier or inception"
    );
    gathered(real, Statistics::of)
}

// The classifier depends on the data alone: it is the same for all that is trained on them.
fn of_classifier(real: &Images) -> Result<(Classifier, Statistics)> {
    let Some(labels) = real.labels() else {
        bail!("evaluate.by: {} has no classes, and so no classifier", real.name());
    };
    let taught = real.first(TAUGHT)?;
    let config = ClassifierConfig { steps: STEPS, ..ClassifierConfig::default() };
    let classifier = Classifier::train(
        &taught.all(DType::F32)?,
        &labels[..taught.len()],
        real.classes().count(),
        config,
        &Key::new(0).stream("judge"),
    )?;
    let statistics = gathered(real, |part| classifier.statistics(part))?;
    Ok((classifier, statistics))
}

// On the device of the samples, for it costs more than they do.
fn of_inception(real: &Images, device: &Device) -> Result<(Inception, InceptionFeatures)> {
    ensure!(
        real.shape().first() == Some(&3),
        "evaluate.by: Inception takes images of 3 channels, {} has {:?}",
        real.name(),
        real.shape()
    );
    let real = &real.first(LOOKED_AT)?;
    let inception = Inception::from_hub(&Hub::from_env()?, device)?;
    let parts: Vec<InceptionFeatures> = parts(real)
        .map(|part| inception.evaluate(&part?.affine(0.5, 0.5)?.to_device(device)?))
        .collect::<Result<_>>()?;
    let all = InceptionFeatures::join(&parts)?;
    Ok((inception, all))
}
