//! How the samples of a reproduction are drawn and evaluated, as the table `evaluate` of its file.

use crate::bounds::{POINTS, within};
use crate::process::{NoiseRange, Spacing};
use crate::sample::{Multistep, Sampler};
use crate::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::ops::Bound;

/// How samples are drawn and evaluated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    /// How many samples of each kind.
    pub samples: usize,
    /// For a consistency model or a map between two noise levels: the noise levels after T, for
    /// each kind of sampling; none for one step, which is all that a generator can do.
    #[serde(default)]
    pub taus: Vec<Vec<f64>>,
    /// For a map between two noise levels: the gammas below 1 with which its steps at `taus` are
    /// taken, besides 1 (multistep sampling).
    #[serde(default)]
    pub gammas: Vec<f64>,
    /// For a denoiser: the points of Heun's grid, for each kind of sampling.
    #[serde(default)]
    pub points: Vec<usize>,
    /// For a denoiser: other samplers.
    #[serde(default)]
    pub solvers: Vec<SamplerOnGrid>,
    /// For a denoiser: the noise levels to which its samples are renoised, and from which the PF ODE
    /// is solved again. This is what a student without error does in its second step.
    #[serde(default)]
    pub again: Vec<f64>,
    /// The noise levels at which training images are denoised: how good the last step of
    /// multistep sampling is when everything before it was right.
    #[serde(default)]
    pub from_data: Vec<f64>,
    /// The metrics.
    #[serde(default = "pixels_and_classifier")]
    pub by: Vec<MetricFamily>,
}

/// A sampler for a denoiser, and its time grid.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplerOnGrid {
    /// The sampler.
    pub sampler: Sampler,
    /// The points of its grid.
    pub points: usize,
    /// How they lie between eps and T; the paper's grid where it is left out.
    #[serde(default, skip_serializing_if = "Spacing::is_karras")]
    pub spacing: Spacing,
}

/// Metrics that are computed from the same features. Samples are compared with the training
/// images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MetricFamily {
    /// The Frechet distance on pixels, of which there may be at most 1024, and their total variance
    /// over that of the data: below 1, samples are too near the mean.
    Pixels,
    /// The Frechet distance on the features of a classifier that is trained on the data, on at
    /// most 20 000 images ([`evaluation_classifier`](super::evaluation_classifier)).
    Classifier,
    /// FID, KID (100 subsets of 1000), the Inception score, precision and recall, for colour images,
    /// by the protocol of ADM (Dhariwal and Nichol, 2021): FID against all training images, precision
    /// and recall between 10 000 of them, chosen by a fixed key, and 10 000 samples. The weights are
    /// on the Hub.
    Inception,
    /// Against held-out images, on the features of the classifier that comes with the lab for these
    /// data: the kernel distance, which has no bias at any number of samples, the Frechet distance
    /// with as many images as samples, precision, recall; on pixels, the variance and the distance
    /// to the nearest training image. Training images, a Gaussian and noise stand beside the samples
    /// ([`FromImages`](super::FromImages)).
    HeldOut,
    /// The accuracy of a classifier, which makes no samples.
    Accuracy,
}

impl Evaluation {
    /// Whether its numbers are in range, and there is something to draw and to measure.
    pub(super) fn check(&self) -> Result<()> {
        let Self { samples, taus, gammas, points, solvers, again, by, .. } = self;
        within("evaluate.samples", *samples, 2..=10_000_000)?;
        if self.is_accuracy() {
            let other = taus.len() + points.len() + solvers.len() + self.from_data.len() + by.len();
            ensure!(
                other == 1,
                "evaluate.by: 'accuracy' is of a classifier, which makes no samples"
            );
            return Ok(());
        }
        for solver in solvers {
            solver.sampler.check().context("evaluate.solvers")?;
            within("evaluate.solvers.points", solver.points, 2..=POINTS)?;
        }
        points.iter().try_for_each(|n| within("evaluate.points", *n, 2..=POINTS))?;
        ensure!(
            taus.len() + points.len() + solvers.len() > 0,
            "evaluate: give taus (a consistency model, a map between two noise levels or a \
             generator), or points or solvers (a denoiser)"
        );
        gammas.iter().try_for_each(|gamma| within("evaluate.gammas", *gamma, 0.0..1.0))?;
        ensure!(
            gammas.is_empty() || taus.iter().any(|taus| !taus.is_empty()),
            "evaluate.gammas: give the steps in evaluate.taus"
        );
        ensure!(
            again.is_empty() || !points.is_empty(),
            "evaluate.again: give evaluate.points, the grid that the ODE is solved on"
        );
        ensure!(!by.is_empty(), "evaluate.by: pixels, classifier, held-out or inception");
        Ok(())
    }

    /// Whether it is that of a classifier.
    pub(super) fn is_accuracy(&self) -> bool {
        self.by.contains(&MetricFamily::Accuracy)
    }

    /// Whether the noise levels at which something is drawn lie on the way from T to eps.
    pub(super) fn check_levels(&self, noise: NoiseRange) -> Result<()> {
        let NoiseRange { eps, t_max, .. } = noise;
        for taus in &self.taus {
            let sigmas = [&[t_max], taus.as_slice()].concat();
            let chain = Multistep { sigmas: &sigmas, eps, clip: false, s_noise: 1.0 };
            chain.check().context("evaluate.taus")?;
        }
        let inside = (Bound::Excluded(eps), Bound::Included(t_max));
        self.again.iter().try_for_each(|tau| within("evaluate.again", *tau, inside))?;
        self.from_data.iter().try_for_each(|tau| within("evaluate.from_data", *tau, inside))
    }
}

fn pixels_and_classifier() -> Vec<MetricFamily> {
    vec![MetricFamily::Pixels, MetricFamily::Classifier]
}
