//! What only a notebook needs: how values are shown, checks, long runs, and a
//! failing cell that says so.

mod budget;
mod cell;
pub mod check;
#[cfg(unix)]
mod child;
mod lines;
mod results;
mod run;
mod show;
mod values;

pub use budget::budget;
#[doc(hidden)]
pub use cell::{cell_failed, cell_loaded, error_printed};
pub use cell::{macros, start};
#[doc(hidden)]
pub use lines::{line_ended, print};
pub use results::reproduced;
pub use run::{Run, runs_folder};
pub use show::Show;
pub use values::{column, mean_square, paths, values};
