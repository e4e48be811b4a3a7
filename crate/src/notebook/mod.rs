//! What only a notebook needs: how values show themselves, checks, long runs, and a
//! failing cell that says so.

mod budget;
mod cell;
pub mod check;
mod results;
mod run;
mod show;
mod values;

pub use budget::{Budget, budget};
#[doc(hidden)]
pub use cell::{cell_failed, error_printed};
pub use cell::{macros, start};
pub use results::reproduced;
pub use run::{Run, runs_folder};
pub use show::Show;
pub use values::{column, mean_square, paths, values};
