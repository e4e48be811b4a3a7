//! How good samples are: distances between sets of images.
//!
//! A metric bears the name of its features. [`frechet_distance`] and [`kernel_distance`] take any
//! features; FID and KID take only those of the published [`Inception`].

mod classifier;
mod comparison;
mod features;
mod frechet;
mod inception;
mod kernel;
mod manifold;
mod memorization;
mod neighbours;
mod points;
mod score;
mod statistics;

pub use classifier::Classifier;
pub(crate) use classifier::fingerprint;
pub use comparison::{DigitsComparison, Score};
pub use features::Features;
pub use frechet::frechet_distance;
pub use inception::{Inception, InceptionFeatures};
pub use kernel::{Spread, kernel_distance, kernel_distance_of_subsets};
pub use manifold::{NEIGHBOURS, PrecisionRecall, precision_recall};
pub use memorization::Memorization;
pub use neighbours::{Assignment, Neighbours};
pub use score::inception_score;
pub use statistics::Statistics;
