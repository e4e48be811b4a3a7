//! Promise: the environment, in one program, so that what waits for a kernel and what computes
//! are tested at the same time.

mod cells;
mod clones;
mod container;
mod environment;
mod execute;
mod kernel;
mod live;
mod support;

/// `cargo lab run`. It takes longest, so its name is the first: the others are tested beside it.
#[test]
fn a_run_of_notebooks() -> support::Result {
    execute::notebooks()
}
