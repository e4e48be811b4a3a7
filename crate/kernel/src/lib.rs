//! Everything a cell sees, from one shared library: candle's tensor counter, rayon's
//! pool and every other static exist once for all cells of a notebook.

pub use consistency::*;
