//! Promise: a change to the crate reaches a restarted kernel and leaves a live one alone; a
//! crate that does not compile leaves the last good library; clones that share a state and
//! a target folder do not meet.

use crate::support::{
    Folder, Result, answer, client, home, lab, own, project, ready, stdout, told,
};
use serde_json::json;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What stands for the library in the other clone: what set-up and a kernel ask of it, so that
/// it is compiled in a second. The packages that it depends on are empty.
const LIBRARY: &str = "//! A stand-in.
#[used]
static CLONE: &str = concat!(\"compiled in the clone of \", env!(\"CARGO_MANIFEST_DIR\"));
/// What cells see.
pub mod prelude {
    pub use candle_core::{Device, Tensor};
}
/// What a kernel needs.
pub mod notebook {
    /// The macros of cells.
    pub mod macros {
        pub use std::{eprintln, print, println};
    }
    /// Called when a cell is loaded.
    pub extern \"C\" fn cell_loaded() {}
    /// Called when the kernel starts.
    pub fn start() -> Result<(), std::io::Error> {
        Ok(())
    }
}
";

const EMPTY: &str = "//! Empty.
#[used]
static CLONE: &str = concat!(\"compiled in the clone of \", env!(\"CARGO_MANIFEST_DIR\"));
";

/// The project's files as git knows them, in a clone whose path has a space, with a small
/// library.
fn copy_project(to: &Path) -> Result {
    let files = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(project())
        .output()?;
    for file in String::from_utf8(files.stdout)?.split('\0').filter(|f| !f.is_empty()) {
        let target = to.join(file);
        if let Some(folder) = target.parent() {
            std::fs::create_dir_all(folder)?;
        }
        if project().join(file).is_file() {
            std::fs::copy(project().join(file), target)?;
        }
    }
    std::fs::write(to.join("crate/src/lib.rs"), LIBRARY)?;
    for package in ["base", "engine", "ground", "linalg"] {
        std::fs::write(to.join("crate").join(package).join("src/lib.rs"), EMPTY)?;
    }
    Ok(())
}

/// Another clone, whose state in the shared folder goes away with it.
struct Clone {
    path: PathBuf,
    target: PathBuf,
}

impl Clone {
    /// Below `folder`, built in `target`.
    fn new(folder: &Path, target: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let path = std::fs::canonicalize(folder)?.join("consistency lab");
        copy_project(&path)?;
        Ok(Self { path, target: target.to_path_buf() })
    }

    /// `cargo lab setup` in it: whether it succeeds, and what it says.
    fn set_up(&self) -> Result<(bool, String)> {
        let mut command = lab(&["setup"]);
        command.current_dir(&self.path).env("LAB_HOME", home());
        told(command.env("CARGO_TARGET_DIR", &self.target))
    }

    /// The same, which must succeed: the file of the library that its kernels start with.
    fn library(&self) -> Result<PathBuf> {
        let (good, text) = self.set_up()?;
        assert!(good, "{text}");
        let ready = "ready: kernels start with the library ";
        let id = text.lines().find_map(|l| l.strip_prefix(ready)).ok_or("no library is named")?;
        let folder = own(&self.path).ok_or("the clone has no state")?.join("lib").join(id);
        let mut files = std::fs::read_dir(folder)?.flatten().map(|entry| entry.path());
        let library = files.find(|f| f.to_string_lossy().contains("consistency_kernel"));
        Ok(library.ok_or("the library's folder holds none")?)
    }
}

impl Drop for Clone {
    fn drop(&mut self) {
        if let Some(state) = own(&self.path) {
            let _ = std::fs::remove_dir_all(state);
        }
    }
}

/// The files of `from` linked at `to`, without what cargo keeps to compile a package again in
/// part.
fn link(from: &Path, to: &Path) -> Result {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let path = entry?.path();
        let to = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() && !path.ends_with("incremental") {
            link(&path, &to)?;
        } else if path.is_file() {
            std::fs::hard_link(&path, &to).or_else(|_| std::fs::copy(&path, &to).map(|_| ()))?;
        }
    }
    Ok(())
}

/// Whether the library is that of the project in this folder.
fn is_of(library: &Path, project: &Path) -> Result<bool> {
    let mark = format!("compiled in the clone of {}", project.join("crate/kernel").display());
    let bytes = std::fs::read(library)?;
    Ok(bytes.windows(mark.len()).any(|part| part == mark.as_bytes()))
}

#[test]
fn a_changed_crate_reaches_a_restarted_kernel_and_leaves_a_live_one_alone() -> Result {
    ready();
    let folder = Folder::new("another clone")?;
    // The dependencies are compiled, and so are this clone's own packages, which the other
    // must not take for its own.
    let build = Path::new(env!("CARGO_BIN_EXE_lab")).parent().ok_or("a program in no folder")?;
    let target = folder.0.join("target");
    for part in ["deps", "build", ".fingerprint"] {
        link(&build.join(part), &target.join("release").join(part))?;
    }
    let clone = Clone::new(&folder.0.join("first"), &target)?;
    let extend = |text: &str| -> Result {
        Ok(std::fs::write(clone.path.join("crate/src/lib.rs"), format!("{LIBRARY}\n{text}\n"))?)
    };
    extend("/// A number.\npub fn version() -> u32 { 1 }")?;
    assert!(is_of(&clone.library()?, &clone.path)?, "the library of another clone");

    // One kernel stays alive while the crate changes, breaks and is mended.
    let at = |name: &str| folder.0.join(name);
    let version = "println!(\"{}\", consistency::version());";
    let request = json!({
        "env": { "LAB_PROJECT": clone.path },
        "cells": [
            "let before = Tensor::new(&[1f32], &Device::Cpu)?;", version,
            { "wait_for": at("changed") },
            "let after = (&before + 1.0)?;", version,
            { "restart": true }, version,
            { "wait_for": at("broken") },
            version, { "restart": true }, version,
        ],
    });
    let mut kernel = client(&request)?;
    let mut at_work = BufReader::new(kernel.stderr.take().ok_or("no standard error")?);
    let mut reached = |name: &str| -> Result {
        let mut line = String::new();
        while !line.contains(name) {
            line.clear();
            if at_work.read_line(&mut line)? == 0 {
                return Err(format!("the kernel ended before it was {name}").into());
            }
        }
        Ok(())
    };
    reached("changed")?;
    extend("/// A number.\npub fn version() -> u32 { 2 }")?;
    let (good, text) = clone.set_up()?;
    assert!(good, "{text}");
    std::fs::write(at("changed"), "")?;
    reached("broken")?;
    extend("pub fn version() -> u32 { \"not a number\" }")?;
    let (good, text) = clone.set_up()?;
    assert!(!good, "a crate that does not compile is no success");
    assert!(text.contains("mismatched types"), "{text}");
    assert!(text.contains("The last good library") && text.contains("stays in place"), "{text}");
    std::fs::write(at("broken"), "")?;
    let kernels = answer(kernel)?;
    let said: Vec<&str> =
        kernels[0]["cells"].as_array().into_iter().flatten().map(stdout).collect();
    assert_eq!(said, ["", "1", "", "1", "2", "2", "2"]);
    let all_ok = kernels[0]["cells"].as_array().into_iter().flatten().all(|c| c["status"] == "ok");
    assert!(all_ok, "{kernels:#?}");
    // A third clone shares the target folder with the second, and so the names of its files.
    extend("/// A number.\npub fn version() -> u32 { 3 }")?;
    assert!(is_of(&clone.library()?, &clone.path)?);
    let other = Clone::new(&folder.0.join("second"), &target)?;
    assert!(is_of(&other.library()?, &other.path)?, "it has the library of its elder");
    assert!(is_of(&clone.library()?, &clone.path)?, "it has the library of the younger clone");
    Ok(())
}
