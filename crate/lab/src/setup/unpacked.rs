//! What came in a pack: put in its places, and used for as long as the library's sources are
//! those that it was built from.

use super::kind::Kind;
use super::library::{self, Library, PROGRAM};
use super::sources::Sources;
use super::toolchain::Toolchain;
use super::{evcxr, rust_src, venv};
use crate::Result;
use crate::files::{self, Hash};
use crate::place::Place;
use crate::process::answer;
use crate::say;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// What a library's folder has if it came in a pack: its sources and their commit.
const ORIGIN: &str = "origin.json";

/// The current library, if it came in a pack and was built from the sources that are here, by the
/// compiler that is here. If it came in a pack and no longer fits, this is said.
///
/// # Errors
/// A source cannot be read.
pub fn current(place: &Place, toolchain: &Toolchain) -> Result<Option<Library>> {
    let Some(library) = library::current(place) else { return Ok(None) };
    let path = library.folder.join(ORIGIN);
    if !path.is_file() {
        return Ok(None);
    }
    let origin = json_of(&path)?;
    let Some(sources) = Sources::from_json(&origin["sources"]) else {
        return Err(format!(
            "{} lists no sources; remove it, and the library is compiled here",
            path.display()
        ));
    };
    let launch = json_of(&library.folder.join("launch.json"))?;
    let reason = if let Some(how) = Sources::of(&place.project)?.difference(&sources) {
        how
    } else if !library::built_by(&library, toolchain) {
        "it was built by a different Rust compiler than the one here".to_string()
    } else if launch["set"]["LAB_PROJECT"] != json!(place.project) {
        "the clone was moved".to_string()
    } else {
        return Ok(Some(library));
    };
    say::note(&format!(
        "the unpacked library ({}) is no longer used ({reason}): compiling",
        origin["commit"].as_str().unwrap_or("an unknown commit")
    ));
    Ok(None)
}

fn json_of(path: &Path) -> Result<Value> {
    serde_json::from_str(&files::read(path)?).map_err(|e| format!("{}: {e}", path.display()))
}

/// What is in a library's folder that does not depend on where it lies.
///
/// # Errors
/// The folder cannot be read.
pub fn movable(library: &Library) -> Result<Vec<(String, PathBuf)>> {
    let failed = |e: std::io::Error| format!("reading {}: {e}", library.folder.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(&library.folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !["evcxr", "launch.json", "lock", ORIGIN, PROGRAM].contains(&name.as_str()) {
            found.push((name, entry.path()));
        }
    }
    Ok(found)
}

/// Whether the parts of a pack are all in the folder `staged`, and evcxr_jupyter starts.
///
/// # Errors
/// What is missing.
pub fn check(staged: &Path) -> Result<()> {
    let evcxr = staged.join("evcxr/bin/evcxr_jupyter");
    let parts = [evcxr.clone(), staged.join("library").join(library::file()), staged.join("venv")];
    if let Some(part) = parts.iter().find(|part| !part.exists()) {
        let part = part.strip_prefix(staged).unwrap_or(part).display();
        return Err(format!("the pack has no {part}; make it anew with `cargo lab pack`"));
    }
    answer(&evcxr, &["--help"]).map(|_| ()).map_err(|e| {
        format!(
            "the pack's evcxr_jupyter does not run on this machine; compile here: cargo lab\n{e}"
        )
    })
}

/// Move the parts from `staged` to their places, the library last. Whatever is already there and up
/// to date stays.
///
/// # Errors
/// A file that cannot be moved or written.
pub fn put(place: &Place, toolchain: &Toolchain, staged: &Path, manifest: &Value) -> Result<()> {
    let stamp = venv::stamp(place)?;
    files::write(&staged.join("venv").join(venv::STAMP), stamp.as_bytes())?;
    swap(&staged.join("venv"), &place.venv(), venv::is_made(place, &stamp))?;
    let to = place.shared.join("evcxr");
    swap(&staged.join("evcxr"), &to, evcxr::is_installed(place))?;
    let cargo = staged.join("kernel").join("cargo");
    if cargo.is_dir() {
        swap(&cargo, &rust_src::cargo_home(place), rust_src::is_fetched(place, toolchain))?;
    }
    adopt(place, toolchain, &staged.join("library"), manifest)
}

fn swap(from: &Path, to: &Path, keep: bool) -> Result<()> {
    if keep {
        return Ok(());
    }
    files::remove(to)?;
    let go = || -> std::io::Result<()> {
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::rename(from, to)
    };
    go().map_err(|e| format!("making {}: {e}", to.display()))
}

// Give the library in the folder `made` what names paths, and make it current.
fn adopt(place: &Place, toolchain: &Toolchain, made: &Path, manifest: &Value) -> Result<()> {
    let target = std::env::var_os("CARGO_TARGET_DIR").filter(|folder| !folder.is_empty());
    let target = target.map_or_else(|| place.project.join("target"), PathBuf::from);
    let how = |folder: &Path| library::Start::of(place, toolchain, &target, folder);
    let mut hash = Hash::default();
    // How a kernel is started is part of the build, and so is where it lies.
    hash.add("unpacked").add(manifest["library"].to_string());
    hash.add(manifest["sources"].to_string());
    how(&place.libraries().join("ID"))?.hash(&mut hash);
    let id = hash.end();
    let folder = place.libraries().join(&id);
    if !folder.join("launch.json").is_file() {
        let origin = json!({
            "commit": manifest["commit"],
            "sources": manifest["sources"],
        });
        files::write(&made.join(ORIGIN), format!("{origin:#}\n").as_bytes())?;
        how(&folder)?.write(made)?;
        swap(made, &folder, false)?;
    }
    library::make_current(place, Kind::Cpu, &id)
}
