//! How good samples are: distances between sets of images.

mod frechet;
mod judge;
mod neighbours;

pub use frechet::{Gaussian, frechet_distance};
pub use judge::{Judge, Score};
pub use neighbours::{Assignment, Neighbours};
