//! Kinds of sampling, and what they are called in results and pictures.

use super::config::{Effort, Reproduction};

/// How the samples of a reproduction are drawn.
#[derive(Clone, Debug, PartialEq)]
pub enum Sampling {
    /// A consistency model's: from T, and again from each of these noise levels.
    Multistep {
        /// The noise levels after T; none for one step.
        taus: Vec<f64>,
    },
    /// A teacher's: Heun's solver on a Karras grid.
    Heun {
        /// The points of the grid.
        points: usize,
    },
}

impl Sampling {
    /// Its name, as in [`Row::sampler`](super::Row::sampler).
    pub fn name(&self) -> String {
        match self {
            Self::Multistep { taus } if taus.is_empty() => "one step".to_string(),
            Self::Multistep { taus } => {
                let levels: Vec<String> = taus.iter().map(f64::to_string).collect();
                format!("{} steps, tau {}", taus.len() + 1, levels.join(" and "))
            }
            Self::Heun { points } => format!("Heun, {points} points"),
        }
    }

    /// The file of its first samples, in the reproduction's folder.
    pub fn picture(&self, seed: u64, effort: Effort) -> String {
        let name = self.name().replace(", ", "-").replace(' ', "-");
        match effort {
            Effort::Full => format!("{name}-{seed}.png"),
            other => format!("{name}-{seed}-{}.png", other.name()),
        }
    }
}

impl Reproduction {
    /// The kinds of sampling that it is judged by, in the order of its file.
    pub fn samplings(&self) -> Vec<Sampling> {
        let taus = self.evaluate.taus.iter().map(|taus| Sampling::Multistep { taus: taus.clone() });
        let points = self.evaluate.points.iter().map(|points| Sampling::Heun { points: *points });
        taus.chain(points).collect()
    }
}
