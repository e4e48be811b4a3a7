//! What every module of Consistency Lab builds on: [`error`] and [`guard`](mod@guard), [`rng`], the
//! traits of [`seam`], [`bounds`], [`device`](mod@device), and for notebooks [`interrupt`] and
//! [`bar`]. `consistency` re-exports all of it.

pub mod bar;
pub mod bounds;
pub mod device;
pub mod error;
pub mod guard;
pub mod interrupt;
pub mod rng;
pub mod seam;

pub use device::device;
pub use error::{Context, Error, Result};
pub use guard::guard;

// This lets `cargo lab` tell this clone's build from another's in the same target folder.
#[used]
static CLONE: &str = concat!("compiled in the clone of ", env!("CARGO_MANIFEST_DIR"));
