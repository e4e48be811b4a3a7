//! The tests that lie inside the library's files, of what is not public. Each file is compiled
//! here by itself: as tests of their packages they would cost the whole library once more. And the
//! tests of the library's text.

#![allow(dead_code)] // of each file its tests use a part

use consistency::notebook::macros;
use consistency::{Error, Result, bail, ensure, interrupt, process, record, rng, seam};

mod examples;

#[path = "../crate/ground/src/plot/axis.rs"]
mod axis;
#[path = "../crate/ground/src/plot/clip.rs"]
mod clip;
#[path = "../crate/ground/src/hub/pattern.rs"]
mod pattern;
#[path = "../crate/ground/src/hub/proxy.rs"]
mod proxy;
#[path = "../crate/src/theory/quadrature.rs"]
mod quadrature;
#[path = "../crate/src/notebook/results.rs"]
mod results;
#[path = "../crate/src/theory/slope.rs"]
mod slope;
#[path = "../crate/engine/src/nn/kernels/team.rs"]
mod team;
#[path = "../crate/ground/src/hub/token.rs"]
mod token;
#[path = "../crate/src/theory/weighted.rs"]
mod weighted;

// A test inside a file that is not in the list above would run nowhere.
#[test]
fn every_file_with_tests_is_here() -> std::io::Result<()> {
    let project = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let list = std::fs::read_to_string(project.join("tests/units.rs"))?;
    let mut open: Vec<_> = ["crate/src", "crate/base/src", "crate/engine/src", "crate/ground/src"]
        .map(|folder| project.join(folder))
        .to_vec();
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else if std::fs::read_to_string(&path).is_ok_and(|text| text.contains("#[test]")) {
                let below = path.strip_prefix(&project).unwrap_or(&path).display().to_string();
                assert!(
                    list.contains(&format!("\"../{below}\"")),
                    "{below} is not in tests/units.rs"
                );
            }
        }
    }
    Ok(())
}
