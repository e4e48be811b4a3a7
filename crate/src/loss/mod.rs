//! Training objectives: denoising score matching, consistency distillation, consistency training
//! and cross-entropy. They use networks only through the seams, and do not depend on the training
//! loop. The exception is LPIPS, a distance that is itself a network.

mod classification;
mod consistency;
mod continuous;
mod distance;
mod lpips;
mod matching;
mod second;
mod weighting;

pub use classification::cross_entropy;
pub use consistency::{Pair, consistency_loss, distillation_pair, training_pair};
pub use continuous::{stopped_tangent_loss, tangent_loss};
pub use distance::{Compare, Distance, Metric, Reduction};
pub use lpips::{Lpips, LpipsConfig, Pooling};
pub use matching::score_matching_loss;
pub use second::along;
pub use weighting::{Weight, Weighting};
