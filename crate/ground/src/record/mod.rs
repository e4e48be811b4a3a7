//! What was measured, and where it came from: rows of numbers as Polars frames, CSV and
//! Parquet, each with its provenance.

mod budget;
mod files;
mod markdown;
pub mod page;
mod provenance;
mod table;
mod text;

pub use budget::Budget;
pub use files::{write_atomically, write_tensors};
pub use provenance::{Provenance, commit};
pub use table::Table;
pub use text::{from_toml, read_text};
