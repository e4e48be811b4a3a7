//! Removing what `cargo lab` made.

use crate::Result;
use crate::files;
use crate::place::{Place, Turn};
use crate::say;
use crate::setup;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

/// Remove this clone's outputs, runs, logs and libraries; with `all`, also the venv and
/// evcxr_jupyter, which other clones may share. Libraries with a live kernel stay. In a shared
/// `LAB_HOME`, the state of clones that no longer exist is removed too.
pub fn clean(place: &Place, all: bool) -> Result<ExitCode> {
    let _turns = (Turn::to_set_up(place)?, Turn::to_run(place)?);
    for name in ["out", "runs", "report", "log", "tools", "jupyter"] {
        files::remove(&place.own.join(name))?;
    }
    setup::sweep(place, &[]);
    if setup::current(place).is_some() {
        say::note("the library of a running kernel is kept; shut the kernel down and clean again");
    }
    // Clones that shared this LAB_HOME and no longer exist.
    for entry in fs::read_dir(place.shared.join("clones")).into_iter().flatten().flatten() {
        let gone = fs::read_to_string(entry.path().join("project"))
            .is_ok_and(|project| !Path::new(&project).is_dir());
        if gone {
            files::remove(&entry.path())?;
            say::line(&format!("cleaned {}, whose clone is gone", entry.path().display()));
        }
    }
    if all {
        for name in ["venv", "evcxr", "kernel"] {
            files::remove(&place.shared.join(name))?;
        }
        files::remove(&place.unpacking())?;
    }
    say::line(&format!("cleaned {}", place.own.display()));
    Ok(ExitCode::SUCCESS)
}
