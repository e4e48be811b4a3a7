//! # Consistency Lab
//!
//! The method and the theory of *Consistency Models* (Song, Dhariwal, Chen, Sutskever
//! 2023) in Rust: called "the paper" throughout; "the talk" is the slide deck that the
//! notebooks follow.
//!
//! Each module uses only those below it: [`notebook`] and [`reproduce`], then [`theory`],
//! [`experiment`], [`method`] and [`edit`], [`sample`] and [`evaluate`], [`loss`], [`model`],
//! [`nn`] and [`data`], [`process`], [`record`], [`hub`] and [`plot`], and at the bottom [`rng`],
//! [`error`] and the traits of [`seam`].

pub mod edit;
pub mod evaluate;
pub mod experiment;
pub mod loss;
pub mod method;
pub mod model;
pub mod notebook;
pub mod prelude;
pub mod reproduce;
pub mod sample;
pub mod theory;

pub use candle_core;
pub use candle_nn;
pub use consistency_base::{
    Context, Error, Result, bail, bar, bounds, device, ensure, error, guard, interrupt, rng, seam,
};
pub use consistency_engine::nn;
pub use consistency_ground::{data, hub, plot, process, record};
pub use polars;

// With this, `cargo lab` tells this clone's build from another's in the same target folder.
#[used]
static CLONE: &str = concat!("compiled in the clone of ", env!("CARGO_MANIFEST_DIR"));
