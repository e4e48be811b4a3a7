//! Training objectives: denoising score matching, consistency distillation and
//! consistency training. They know networks only through the two seams, and no loop.

mod consistency;
mod distance;
mod matching;
mod weighting;

pub use consistency::{Pair, consistency_loss, distillation_pair, training_pair};
pub use distance::{Distance, Metric, Reduction};
pub use matching::{ScoreMatching, score_matching_loss};
pub use weighting::{Weight, Weighting};
