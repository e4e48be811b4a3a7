//! Everything a cell sees, from one shared library: candle's tensor counter, rayon's
//! pool and every other static exist once for all cells of a notebook.

pub use consistency::*;

// This lets `cargo lab` tell this clone's build from another's in the same target folder.
#[used]
static CLONE: &str = concat!("compiled in the clone of ", env!("CARGO_MANIFEST_DIR"));
