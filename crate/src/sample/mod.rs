//! Sampling: one step and multistep from a consistency function (the paper, algorithm 1),
//! gamma-sampling from a two-time map, the field's samplers from a denoiser, and the search for
//! multistep's time points.
//!
//! Every [`Sampler`] starts from T z, z of standard deviation 1, and goes along a grid down to
//! eps. Noise is under a key by step and sample index: a sample is the same in any batch.

mod churn;
mod corrector;
mod ddim;
mod deis;
mod dpm;
mod draw;
mod gamma;
mod multistep;
mod noise;
mod sampler;
mod search;
mod whole;

pub use churn::Churn;
pub use draw::{Classes, Draws, SampleBatch};
pub use gamma::GammaSampling;
pub use multistep::{Multistep, grid_steps, multistep, one_step};
pub use sampler::Sampler;
pub use search::{Search, ternary_search};
pub use whole::{pf_ode, reverse};
