//! A reproducible run: its configuration, its folder, its training loop.

mod check;
mod checkpoint;
mod config;
mod data;
mod export;
mod machine;
mod monitor;
mod rows;
mod run;
mod teacher;
mod train;

pub use config::{Experiment, Rates, Training};
pub use data::DataConfig;
pub use export::Card;
pub use monitor::{Monitor, Progress};
pub use run::{RunFolder, Trained};
pub(crate) use teacher::EXACT;
pub use train::{on_threads, train};
