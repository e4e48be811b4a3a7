//! Promise: a change to the crate reaches a restarted kernel and leaves a live one alone; a
//! crate that does not compile leaves the last good library; clones that share a state and
//! a target folder do not meet.

mod support;

use serde_json::json;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{Folder, Result, answer, client, home, lab, own, project, ready, stdout, told};

/// The project's files as git knows them, in a clone whose path has a space.
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
    Ok(())
}

/// Another clone, whose state in the shared folder goes away with it.
struct Clone {
    folder: Folder,
    path: PathBuf,
}

impl Clone {
    fn new(name: &str) -> Result<Self> {
        let folder = Folder::new(name)?;
        let path = std::fs::canonicalize(&folder.0)?.join("consistency lab");
        copy_project(&path)?;
        Ok(Self { folder, path })
    }
}

impl Drop for Clone {
    fn drop(&mut self) {
        if let Some(state) = own(&self.path) {
            let _ = std::fs::remove_dir_all(state);
        }
    }
}

/// The file of the library that kernels of this clone start with, after `cargo lab setup`.
fn library() -> Result<PathBuf> {
    let (good, text) = told(&mut lab(&["setup"]))?;
    assert!(good, "{text}");
    let id = text.lines().find_map(|l| l.strip_prefix("ready: kernels start with the library "));
    let own = own(&project()).ok_or("the project has no state")?;
    let folder = own.join("lib").join(id.ok_or("no library is told")?);
    let files = std::fs::read_dir(folder)?.flatten().map(|entry| entry.path());
    let library = files.into_iter().find(|f| f.to_string_lossy().contains("consistency_kernel"));
    Ok(library.ok_or("its folder holds none")?)
}

/// Whether the library is that of the project in this folder.
fn is_of(library: &Path, project: &Path) -> Result<bool> {
    // One that came in a pack was built elsewhere, and is for the clone that its launcher names.
    let beside = |name: &str| -> Result<serde_json::Value> {
        let text = std::fs::read_to_string(library.with_file_name(name))?;
        Ok(serde_json::from_str(&text)?)
    };
    let built_in = match library.with_file_name("origin.json").is_file() {
        true if beside("launch.json")?["set"]["LAB_PROJECT"] != json!(project) => return Ok(false),
        true => beside("origin.json")?["made_in"].as_str().map(PathBuf::from),
        false => Some(project.to_path_buf()),
    };
    let built_in = built_in.ok_or("origin.json names no clone")?;
    let mark = format!("consistency-kernel of {};", built_in.join("crate/kernel").display());
    let bytes = std::fs::read(library)?;
    Ok(bytes.windows(mark.len()).any(|part| part == mark.as_bytes()))
}

#[test]
fn a_changed_crate_reaches_a_restarted_kernel_and_leaves_a_live_one_alone() -> Result {
    ready();
    assert!(is_of(&library()?, &project())?);
    let clone = Clone::new("another clone")?;
    // The dependencies are compiled: only the project's own crates are not, at this path.
    let target = Path::new(env!("CARGO_BIN_EXE_lab")).parent().and_then(Path::parent);
    let set_up = || {
        let mut command = lab(&["setup"]);
        command.current_dir(&clone.path).env("LAB_HOME", home());
        if let Some(target) = target {
            command.env("CARGO_TARGET_DIR", target);
        }
        told(&mut command)
    };
    let extend = |text: &str| -> Result {
        let path = clone.path.join("crate/src/lib.rs");
        let before = std::fs::read_to_string(project().join("crate/src/lib.rs"))?;
        std::fs::write(path, format!("{before}\n{text}\n"))?;
        Ok(())
    };
    extend("/// A number.\npub fn version() -> u32 { 1 }")?;
    let (good, text) = set_up()?;
    assert!(good, "{text}");

    // One kernel stays alive while the crate changes, breaks and is mended.
    let at = |name: &str| clone.folder.0.join(name);
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
    let (good, text) = set_up()?;
    assert!(good, "{text}");
    std::fs::write(at("changed"), "")?;
    reached("broken")?;
    extend("pub fn version() -> u32 { \"not a number\" }")?;
    let (good, text) = set_up()?;
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
    // The two clones share a target folder, and so the name of the library's file. (The new
    // one need not be the old to the bit: compilers do not promise that.)
    let again = library()?;
    assert!(is_of(&again, &project())?, "the library of another clone took this one's place");
    assert!(!is_of(&again, &clone.path)?);
    Ok(())
}
