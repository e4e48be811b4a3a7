//! The modules of Consistency Lab without neural networks, which `consistency` re-exports: the
//! known mathematics ([`process`]), [`data`] and the [`hub`] that they come from, [`record`]s of
//! what was measured, and their figures ([`plot`]).

pub mod data;
pub mod hub;
pub mod plot;
pub mod process;
pub mod record;

use consistency_base::{
    Context, Error, Result, bail, bar, bounds, ensure, guard, interrupt, rng, seam,
};

// This lets `cargo lab` tell this clone's build from another's in the same target folder.
#[used]
static CLONE: &str = concat!("compiled in the clone of ", env!("CARGO_MANIFEST_DIR"));
