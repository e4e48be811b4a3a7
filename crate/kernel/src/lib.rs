//! Everything a cell sees, from one shared library: candle's tensor counter, rayon's
//! pool and every other static exist once for all cells of a notebook.

pub use consistency::*;

// Clones that share one target folder share the file name of this library, which cargo
// gives no hash. By this `cargo lab` knows whose it is.
#[used]
static CLONE: &str = concat!("consistency-kernel of ", env!("CARGO_MANIFEST_DIR"), ";");
