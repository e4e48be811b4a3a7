//! How a reproduction's samples are evaluated: metrics that compare them with the training images.

use super::evaluation::MetricFamily;
use super::held_out::{HeldOut, Seen};
use crate::data::{Images, part_rows};
use crate::evaluate::{Classifier, Inception, InceptionFeatures, Statistics};
use crate::experiment::Experiment;
use crate::hub::Hub;
use crate::method::ClassifierConfig;
use crate::rng::Key;
use crate::{Result, bail, ensure};
use candle_core::{DType, Device, Tensor};

/// The covariance of more pixels takes too long to decompose.
const PIXELS: usize = 1024;
/// Images at a time.
const BATCH: usize = 500;
/// The most images that the classifier is trained on, chosen by key, and its training steps.
const TRAINED_ON: usize = 20_000;
const STEPS: u64 = 1000;
/// The parts of the Inception score.
const SPLITS: usize = 10;
/// The real images, and the samples, of precision and recall and of KID, chosen by key: as in ADM's
/// protocol, whose FID has all real images on one side.
const MANIFOLD_IMAGES: usize = 10_000;
/// The reference of a number that depends on the samples alone.
const NO_REFERENCE: &str = "none: of the samples alone";

/// Computes the metrics, with the statistics of the real images that they need.
pub(super) struct Evaluator {
    shape: Vec<usize>,
    pixels: Option<(Origin, Statistics)>,
    classifier: Option<(Origin, Classifier, Statistics)>,
    inception: Option<ByInception>,
    held_out: Option<HeldOut>,
}

/// Inception, and what it says of the real images.
struct ByInception {
    network: Inception,
    /// Of all of them.
    all: Statistics,
    of_all: Origin,
    /// Of a part.
    some: InceptionFeatures,
    of_some: Origin,
}

/// What is compared, and with which real images: the columns `judge` and `reference`.
#[derive(Clone)]
struct Origin {
    judge: String,
    reference: String,
}

/// The value of one metric, with what is recorded beside it.
pub(super) struct Measurement {
    pub metric: &'static str,
    pub value: f64,
    /// What was compared: pixels, or the features of which network.
    pub judge: String,
    /// The real images: split, number and hash.
    pub reference: String,
}

/// The statistics of the samples so far.
pub(super) struct Accumulated<'a> {
    evaluator: &'a Evaluator,
    pixels: Option<Statistics>,
    classifier: Option<Statistics>,
    inception: Vec<InceptionFeatures>,
    held_out: Seen,
}

impl Evaluator {
    /// For these metrics, and samples of a network of `experiment` on `device`.
    pub fn new(
        families: &[MetricFamily],
        experiment: &Experiment,
        device: &Device,
    ) -> Result<Self> {
        let data = &experiment.data;
        let (real, split) = (data.images()?, data.split());
        let mut evaluator = Self {
            shape: real.shape().to_vec(),
            pixels: None,
            classifier: None,
            inception: None,
            held_out: None,
        };
        for family in families {
            match family {
                MetricFamily::Pixels => evaluator.pixels = Some(of_pixels(&real, split)?),
                MetricFamily::Classifier => {
                    evaluator.classifier = Some(of_classifier(&real, split)?)
                }
                MetricFamily::HeldOut => evaluator.held_out = Some(HeldOut::new(experiment)?),
                MetricFamily::Accuracy => {}
                MetricFamily::Inception => {
                    evaluator.inception = Some(of_inception(&real, split, device)?)
                }
            }
        }
        Ok(evaluator)
    }

    /// The shape of one sample.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Statistics of no samples yet.
    pub fn start(&self) -> Result<Accumulated<'_>> {
        let same =
            |known: &Statistics| Statistics::new(known.features().clone(), known.mean().len());
        Ok(Accumulated {
            evaluator: self,
            pixels: self.pixels.as_ref().map(|(_, known)| same(known)).transpose()?,
            classifier: self.classifier.as_ref().map(|(.., known)| same(known)).transpose()?,
            inception: Vec::new(),
            held_out: Seen::default(),
        })
    }
}

impl Accumulated<'_> {
    /// Add samples, (B, C, H, W); they are clipped to \[-1, 1\] as images are.
    pub fn add(&mut self, samples: &Tensor) -> Result<()> {
        let samples = samples.clamp(-1f32, 1f32)?;
        if let Some(by) = &self.evaluator.inception {
            self.inception.push(by.network.evaluate(&samples.affine(0.5, 0.5)?)?);
        }
        let samples = samples.to_device(&Device::Cpu)?;
        if let Some(seen) = &mut self.pixels {
            seen.add(&samples)?;
        }
        if let Some(judge) = &self.evaluator.held_out {
            judge.add(&mut self.held_out, &samples)?;
        }
        let classifier = &self.evaluator.classifier;
        if let (Some(seen), Some((_, classifier, _))) = (&mut self.classifier, classifier) {
            seen.add(&classifier.evaluate(&samples)?)?;
        }
        Ok(())
    }

    /// The value of each metric.
    pub fn finish(self) -> Result<Vec<Measurement>> {
        let mut all = Vec::new();
        let mut add = |origin: &Origin, metric, value| {
            let Origin { judge, reference } = origin.clone();
            all.push(Measurement { metric, value, judge, reference });
        };
        if let (Some(seen), Some((origin, real))) = (&self.pixels, &self.evaluator.pixels) {
            add(origin, "Frechet distance on pixels", seen.frechet_distance(real)?);
            add(origin, "variance over the data's", seen.variance()? / real.variance()?);
        }
        if let (Some(seen), Some((origin, _, real))) =
            (&self.classifier, &self.evaluator.classifier)
        {
            add(origin, "Frechet distance on classifier features", seen.frechet_distance(real)?);
        }
        if let Some(by) = &self.evaluator.inception {
            let seen = &InceptionFeatures::join(&self.inception)?;
            let some = &seen.first(MANIFOLD_IMAGES)?;
            let manifold = by.some.precision_recall(some)?;
            let kid = by.some.kid(some, &Key::new(0).stream("judge").stream("kid"))?;
            let alone = Origin { reference: NO_REFERENCE.to_string(), ..by.of_all.clone() };
            add(&by.of_all, "FID", seen.statistics()?.fid(&by.all)?);
            add(&by.of_some, "KID", kid.mean);
            add(&by.of_some, "KID's deviation over subsets", kid.deviation);
            add(&alone, "Inception score", seen.inception_score(SPLITS)?.mean);
            add(&by.of_some, "precision", manifold.precision);
            add(&by.of_some, "recall", manifold.recall);
        }
        if let Some(judge) = &self.evaluator.held_out {
            all.extend(judge.measure(&self.held_out)?);
        }
        Ok(all)
    }
}

/// The recorded name of the images `rows` of a split; different images have different hashes.
pub(super) fn named(real: &Images, split: &str, rows: &[u32]) -> Result<String> {
    Ok(format!("{split}, {} of {}, {}", rows.len(), real.len(), real.hash_of(rows)?))
}

/// All rows.
pub(super) fn all(real: &Images) -> Vec<u32> {
    (0..real.len() as u32).collect()
}

fn parts<'a>(real: &'a Images, rows: &'a [u32]) -> impl Iterator<Item = Result<Tensor>> + 'a {
    rows.chunks(BATCH).map(|rows| real.batch(rows, DType::F32))
}

fn statistics_of_all(
    real: &Images,
    of: impl Fn(&Tensor) -> Result<Statistics>,
) -> Result<Statistics> {
    let rows = all(real);
    let mut parts = parts(real, &rows);
    let Some(first) = parts.next() else { bail!("{} has no images", real.name()) };
    let mut all = of(&first?)?;
    for part in parts {
        all.merge(&of(&part?)?)?;
    }
    Ok(all)
}

fn of_pixels(real: &Images, split: &str) -> Result<(Origin, Statistics)> {
    let pixels: usize = real.shape().iter().product();
    ensure!(
        pixels <= PIXELS,
        "evaluate.by: the Frechet distance on pixels takes images of at most {PIXELS} numbers, these \
         have {pixels}; choose classifier or inception"
    );
    let reference = named(real, split, &all(real))?;
    let origin = Origin { judge: "pixels".to_string(), reference };
    Ok((origin, statistics_of_all(real, Statistics::of)?))
}

// Which images a classifier is trained on. The key is not a seed's: all seeds have the same part.
fn trained_on(real: &Images) -> Vec<u32> {
    part_rows(real.len(), TRAINED_ON, &Key::new(0).stream("judge").stream("taught"))
}

/// The classifier on whose features samples of these images are compared (`evaluate.by =
/// ["classifier"]`). It is trained for 1000 steps on at most 20 000 of the images, chosen by a fixed
/// key, so that it knows all classes even where the dataset is sorted by class. It depends on the
/// images alone, and is the same for every model that is trained on them.
///
/// # Errors
/// Images without classes; as [`Classifier::train`].
pub fn evaluation_classifier(real: &Images) -> Result<Classifier> {
    let Some(labels) = real.labels() else {
        bail!("evaluate.by: {} has no classes, and so no classifier", real.name());
    };
    let rows = trained_on(real);
    let labels: Vec<u32> = rows.iter().map(|row| labels[*row as usize]).collect();
    let config = ClassifierConfig { steps: STEPS, ..ClassifierConfig::default() };
    let (images, key) = (real.batch(&rows, DType::F32)?, Key::new(0).stream("judge"));
    Classifier::train(&images, &labels, real.classes().count(), config, &key)
}

fn of_classifier(real: &Images, split: &str) -> Result<(Origin, Classifier, Statistics)> {
    let classifier = evaluation_classifier(real)?;
    let statistics = statistics_of_all(real, |part| classifier.statistics(part))?;
    let (name, rows) = (classifier.features().name(), named(real, split, &trained_on(real))?);
    let judge = format!("{name}, taught on {rows}");
    let origin = Origin { judge, reference: named(real, split, &all(real))? };
    Ok((origin, classifier, statistics))
}

// On the device of the samples: Inception costs more than sampling.
fn of_inception(real: &Images, split: &str, device: &Device) -> Result<ByInception> {
    ensure!(
        real.shape().first() == Some(&3),
        "evaluate.by: Inception takes images of 3 channels, {} has {:?}",
        real.name(),
        real.shape()
    );
    let network = Inception::from_hub(&Hub::from_env()?, device)?;
    let evaluate = |part: Tensor| network.evaluate(&part.affine(0.5, 0.5)?.to_device(device)?);
    let part =
        part_rows(real.len(), MANIFOLD_IMAGES, &Key::new(0).stream("judge").stream("looked at"));
    let some: Vec<InceptionFeatures> =
        parts(real, &part).map(|part| evaluate(part?)).collect::<Result<_>>()?;
    let some = InceptionFeatures::join(&some)?;
    let mut statistics = some.statistics()?;
    // The features of a million images are not kept: what is left adds to mean and covariance.
    let taken: std::collections::HashSet<u32> = part.iter().copied().collect();
    let rest: Vec<u32> = all(real).into_iter().filter(|row| !taken.contains(row)).collect();
    for part in parts(real, &rest) {
        statistics.merge(&evaluate(part?)?.statistics()?)?;
    }
    let judge = network.features().name().to_string();
    let of = |rows: &[u32]| -> Result<Origin> {
        Ok(Origin { judge: judge.clone(), reference: named(real, split, rows)? })
    };
    let (of_all, of_some) = (of(&all(real))?, of(&part)?);
    Ok(ByInception { network, all: statistics, of_all, some, of_some })
}
