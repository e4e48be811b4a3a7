//! # Consistency Lab
//!
//! The method and the theory of *Consistency Models* (Song, Dhariwal, Chen, Sutskever
//! 2023) in Rust: called "the paper" throughout; "the talk" is the slide deck that the
//! notebooks follow.

pub mod data;
pub mod error;
pub mod evaluate;
pub mod experiment;
pub mod loss;
pub mod model;
pub mod nn;
pub mod plot;
pub mod process;
pub mod record;
pub mod rng;
pub mod sample;
pub mod seam;

pub use error::{Context, Error, Result};
