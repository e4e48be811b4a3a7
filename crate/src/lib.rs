//! # Consistency Lab
//!
//! The method and the theory of *Consistency Models* (Song, Dhariwal, Chen, Sutskever
//! 2023) in Rust: called "the paper" throughout; "the talk" is the slide deck that the
//! notebooks follow.
//!
//! A room uses only those below it: [`notebook`] and [`reproduce`], then [`theory`],
//! [`experiment`] and [`edit`],
//! [`sample`] and [`evaluate`], [`loss`], [`model`], [`nn`] and [`data`], [`process`], [`record`],
//! [`hub`] and [`plot`], and at the bottom [`rng`], [`error`] and the two traits of [`seam`].

pub mod data;
pub mod device;
pub mod edit;
pub mod error;
pub mod evaluate;
pub mod experiment;
pub mod hub;
pub mod loss;
pub mod model;
pub mod nn;
pub mod notebook;
pub mod plot;
pub mod prelude;
pub mod process;
pub mod record;
pub mod reproduce;
pub mod rng;
pub mod sample;
pub mod seam;
pub mod theory;

pub use candle_core;
pub use candle_nn;
pub use device::device;
pub use error::{Context, Error, Result};
pub use polars;
