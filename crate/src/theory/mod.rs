//! The theory, measured: Lemma 1, Theorems 1 and 2 and the continuous-time limits of
//! Theorems 3 to 6 (the paper, appendices A and B), each as functions that take a
//! [`Denoiser`](crate::seam::Denoiser) or a
//! [`ConsistencyFunction`](crate::seam::ConsistencyFunction) and give a Polars frame.
//!
//! Everything is in f64. Where data lie on a line, expectations are integrals to a stated
//! accuracy, because at the losses' size (3e-6 at N = 513) noise would hide what is claimed.

mod along;
mod controls;
mod dual;
mod jump;
mod lemma1;
mod limits;
mod line;
mod metric;
mod quadrature;
mod slope;
mod tanh;
mod theorem1;
mod theorem2;
mod weighted;

pub use along::AlongParameters;
pub use controls::{AfterFlow, WrongSign};
pub use dual::{Dual, Number};
pub use jump::jump;
pub use lemma1::{Source, binned_score, score_errors, score_errors_at};
pub use limits::{Limit, limit_table};
pub use metric::{Jet, metric_tensors};
pub use slope::{Slope, local_slopes, slope};
pub use tanh::{ByParameter, TanhModel};
pub use theorem1::{
    Worst, keyed_draws, spread_points, sup_error, sup_errors, work_precision, zero_loss_errors,
};
pub use theorem2::{loss_table, sampled_losses};
