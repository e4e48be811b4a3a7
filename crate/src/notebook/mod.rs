//! What only a notebook needs: how values are shown, checks, long runs, and a
//! failing cell that says so.

mod budget;
mod cell;
pub mod check;
mod child;
mod link;
mod live;
mod results;
mod run;
mod show;
mod values;

pub use budget::budget;
#[doc(hidden)]
pub use cell::{cell_failed, cell_loaded, error_printed, print};
pub use cell::{input, macros, start};
pub use live::{Live, live};
pub use results::reproduced;
pub use run::{Run, runs_folder};
pub use show::Show;
pub use values::{column, mean_square, paths, values};
