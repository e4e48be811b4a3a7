//! Kinds of sampling, and what they are called in results and pictures.

use super::config::Reproduction;
use super::evaluation::{MetricFamily, SamplerOnGrid};
use super::held_out::FromImages;
use crate::method::Gives;
use crate::process::Spacing;
use crate::record::Budget;
use crate::sample::Sampler;

/// How the samples of a reproduction are drawn.
#[derive(Clone, Debug, PartialEq)]
pub enum Sampling {
    /// A consistency model's samples: one step from T, and one from each of these noise levels.
    /// Without any, a generator's samples.
    Multistep {
        /// The noise levels after T; none for one step.
        taus: Vec<f64>,
    },
    /// The samples of a map between two noise levels by gamma-sampling.
    Gamma {
        /// The noise levels between T and eps.
        taus: Vec<f64>,
        /// gamma, below 1.
        gamma: f64,
    },
    /// A denoiser's samples by a sampler on a grid.
    Solver(SamplerOnGrid),
    /// A denoiser's samples by Heun, renoised to level tau, from which Heun solves the PF ODE again
    /// on the points of the grid below tau. A student without error would give the same in two
    /// steps.
    Renoised {
        /// The noise level.
        tau: f64,
        /// The points of the whole grid.
        points: usize,
    },
    /// Training images with noise of level tau, denoised. This is what the last step of multistep
    /// sampling gives when everything before it was right.
    FromData {
        /// The noise level.
        tau: f64,
        /// For a denoiser, the points of the whole grid, of which those below tau are used; none for
        /// a consistency model, which takes one step.
        points: Option<usize>,
    },
    /// No samples of the network, but what theirs are measured beside.
    FromImages(FromImages),
    /// No samples: held-out images, which a classifier names.
    HeldOut,
}

impl Sampling {
    /// Its name, as in [`Row::sampler`](super::Row::sampler).
    pub fn name(&self) -> String {
        match self {
            Self::Multistep { taus } if taus.is_empty() => "one step".to_string(),
            Self::Multistep { taus } => {
                let levels: Vec<String> = taus.iter().map(short).collect();
                format!("{} steps, tau {}", taus.len() + 1, levels.join(" and "))
            }
            Self::Gamma { taus, gamma } => {
                let steps = Self::Multistep { taus: taus.clone() }.name();
                format!("{steps}, gamma {}", short(gamma))
            }
            Self::Solver(SamplerOnGrid { sampler, points, spacing }) => {
                let grid = match spacing {
                    Spacing::Karras => String::new(),
                    other => format!(" {}", other.name()),
                };
                format!("{}, {points} points{grid}", sampler.name())
            }
            Self::Renoised { tau, points } => {
                format!("Heun, {points} points, again from tau {}", short(tau))
            }
            Self::FromData { tau, points: None } => format!("from data, tau {}", short(tau)),
            Self::FromImages(of) => of.name().to_string(),
            Self::HeldOut => "held-out images".to_string(),
            Self::FromData { tau, points: Some(points) } => {
                format!("from data, tau {}, Heun, {points} points", short(tau))
            }
        }
    }

    /// Whether what a run gives can be sampled so.
    pub(super) fn fits(&self, gives: Gives) -> bool {
        match self {
            Self::Solver(_) | Self::Renoised { .. } | Self::FromData { points: Some(_), .. } => {
                gives == Gives::Denoiser
            }
            Self::Multistep { taus } if taus.is_empty() => {
                !matches!(gives, Gives::Denoiser | Gives::Classifier)
            }
            Self::Multistep { .. } | Self::FromData { points: None, .. } => {
                matches!(gives, Gives::Consistency(_) | Gives::TwoTimeMap)
            }
            Self::Gamma { .. } => gives == Gives::TwoTimeMap,
            Self::FromImages(_) => gives != Gives::Classifier,
            Self::HeldOut => gives == Gives::Classifier,
        }
    }
}

// A noise level of a grid has all digits of an f64; a name needs few.
fn short(tau: &f64) -> String {
    ((tau * 1e4).round() / 1e4).to_string()
}

impl Reproduction {
    /// The kinds of sampling that are evaluated, in the order of its file.
    pub fn samplings(&self) -> Vec<Sampling> {
        let taus = self.evaluate.taus.iter().map(|taus| Sampling::Multistep { taus: taus.clone() });
        let heun = |points: &usize| SamplerOnGrid {
            sampler: Sampler::heun(),
            points: *points,
            spacing: Spacing::Karras,
        };
        let points = self.evaluate.points.iter().map(heun);
        let solvers = points.chain(self.evaluate.solvers.iter().copied()).map(Sampling::Solver);
        let again = self.evaluate.points.first().map(|points| {
            self.evaluate.again.iter().map(|tau| Sampling::Renoised { tau: *tau, points: *points })
        });
        let from_data = self.evaluate.from_data.iter().map(|tau| Sampling::FromData {
            tau: *tau,
            points: self.evaluate.points.first().copied(),
        });
        let steps = self.evaluate.taus.iter().filter(|taus| !taus.is_empty());
        let gammas = steps.flat_map(|taus| {
            let of = |gamma: &f64| Sampling::Gamma { taus: taus.clone(), gamma: *gamma };
            self.evaluate.gammas.iter().map(of)
        });
        if self.evaluate.is_accuracy() {
            return vec![Sampling::HeldOut];
        }
        let by_held_out = self.evaluate.by.contains(&MetricFamily::HeldOut);
        let beside = FromImages::ALL.into_iter().filter(|_| by_held_out).map(Sampling::FromImages);
        taus.chain(gammas)
            .chain(solvers)
            .chain(again.into_iter().flatten())
            .chain(from_data)
            .chain(beside)
            .collect()
    }

    /// The file of the first samples, in the reproduction's folder; none for an ablation, nor for
    /// what comes from the data or from the other samplers.
    pub fn picture(&self, sampling: &Sampling, seed: u64, budget: Budget) -> Option<String> {
        let prefix = match self.variant() {
            None => String::new(),
            Some(variant) if self.reduced => format!("{variant}-"),
            Some(_) => return None,
        };
        match sampling {
            Sampling::Multistep { .. } | Sampling::Gamma { .. } => {}
            Sampling::Solver(solver) if solver.sampler == Sampler::heun() => {}
            _ => return None,
        }
        let name = sampling.name().replace(", ", "-").replace(' ', "-");
        Some(match budget {
            Budget::Full => format!("{prefix}{name}-{seed}.png"),
            other => format!("{prefix}{name}-{seed}-{}.png", other.name()),
        })
    }
}
