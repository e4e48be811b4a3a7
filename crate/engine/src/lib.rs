//! The engine of Consistency Lab: [`nn`], which `consistency` re-exports.
//!
//! It is a package of its own because it takes the longest to compile (its kernels are compiled
//! once for each instruction set) and changes the least.

pub mod nn;

use consistency_base::{Error, Result, bail, ensure, interrupt, rng, seam};

// This lets `cargo lab` tell this clone's build from another's in the same target folder.
#[used]
static CLONE: &str = concat!("compiled in the clone of ", env!("CARGO_MANIFEST_DIR"));
