//! Reproductions: an experiment over several seeds, trained, sampled, evaluated and recorded.
//!
//! `reproductions/NAME/experiment.toml` says what; [`reproduce`] does it, and keeps what came
//! out beside it; [`report`] sets it out in tables.

mod config;
mod draw;
mod evaluation;
mod evaluator;
mod held_out;
pub mod paper;
mod released;
mod report;
mod results;
mod sampling;
mod seeds;
mod variants;

pub use config::{Published, Reproduction, Sweep, folder};
pub use evaluation::{Evaluation, MetricFamily, SamplerOnGrid};
pub use evaluator::evaluation_classifier;
pub use held_out::FromImages;
pub use report::{Report, published, report};
pub use results::{Row, interval, read as read_results};
pub use sampling::Sampling;
pub use seeds::{Options, reproduce};
