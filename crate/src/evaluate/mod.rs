//! How good samples are: distances between sets of images.

mod frechet;
mod neighbours;

pub use frechet::{Gaussian, frechet_distance};
pub use neighbours::{Assignment, Neighbours};
