//! A reproducible run: its configuration, its folder, its training loop.

mod check;
mod checkpoint;
mod config;
mod data;
mod export;
mod folder;
mod machine;
mod monitor;
mod rows;
mod shipped;
mod teacher;
mod train;
mod trained;

pub use config::{Experiment, Rates, Training};
pub use data::DataConfig;
pub use export::Card;
pub use folder::RunFolder;
pub use monitor::{Monitor, Progress};
pub use shipped::Cost;
pub(crate) use shipped::SHIPPED;
pub(crate) use teacher::EXACT;
pub use train::{on_threads, train};
pub use trained::Trained;
