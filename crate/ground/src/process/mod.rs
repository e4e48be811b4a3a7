//! The known mathematics, without networks: the noise process, time grids,
//! schedules, scalings, exact denoisers and one solver step.
//!
//! Everything here has drift 0 and diffusion g(t) = sqrt(2t), so that the noise
//! level is sigma(t) = t and p_t = p_data * N(0, t^2 I) (Karras et al. 2022; the
//! paper, section 2).

mod density;
mod empirical;
mod flow;
mod grid;
mod linear;
mod mixture;
mod rows;
mod scaling;
mod schedule;
mod sde;
mod solver;
mod variance;

pub use density::Density;
pub use empirical::Empirical;
pub use flow::{ExactFlow, FlowMap};
pub use grid::{NoiseRange, Spacing, TimeGrid};
pub use linear::LinearSde;
pub use mixture::GaussianMixture;
pub use scaling::{Coefficients, Parameterization, Scaling, moving_condition, time_condition};
pub use schedule::{Convention, Decay, Growth, Schedule};
pub use sde::{forward_sde, perturb, reverse_sde};
pub use solver::{Solver, pf_ode_slope, trajectory};
pub use variance::step_of;
pub use variance::{Betas, VpSchedule};
