//! A lab that is set up, as one file for machines of the same kind: made by `cargo lab pack`,
//! put into another clone by `cargo lab unpack`.
//!
//! It holds the library that kernels start with, the program of the commands that need it,
//! evcxr_jupyter, the kernel's cargo home and the Python environment. Cargo's own build is not in
//! it: what cargo considers up to date depends on absolute paths (of the cargo home) and on time
//! stamps (of the clone), and both differ elsewhere.

mod archive;
mod machine;

use crate::place::{Place, Turn, given};
use crate::say::{self, Step};
use crate::setup::{self, Sources, Toolchain};
use crate::{Result, commands, files};
use machine::Machine;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The format of the file. A format that is read differently has another number.
const FORMAT: u64 = 1;

/// Set up what is missing and write it to `file`, or to a file in this folder with the machine's
/// kind in its name.
///
/// # Errors
/// The sources change in the meantime, or the file cannot be written.
pub fn pack(place: &Place, file: Option<&str>) -> Result<ExitCode> {
    let turn = Turn::to_set_up(place)?;
    let sources = Sources::of(&place.project)?;
    let library = setup::all(place, &turn)?;
    let toolchain = Toolchain::find()?;
    let program = commands::program(place, &turn, &toolchain, &library)?;
    if let Some(how) = Sources::of(&place.project)?.difference(&sources) {
        return Err(format!("{how} since packing began; pack again when nothing changes"));
    }
    let machine = Machine::here(place, &toolchain)?;
    let file = given(&match file {
        Some(file) => file.to_string(),
        None => format!("consistency-lab-{}.tar", machine.system.replace(' ', "-")),
    });
    let manifest = json!({
        "format": FORMAT,
        "machine": machine.json(),
        "library": library.id,
        "commit": commit(place),
        "sources": sources.json(),
    });
    let manifest_file = place.own.join("tools").join("pack.json");
    files::write(&manifest_file, manifest.to_string().as_bytes())?;
    let mut arguments: Vec<OsString> = vec!["create".into(), (&file).into(), manifest_file.into()];
    for (name, path) in contents(place, &library, &program)? {
        arguments.extend([name.into(), path.into()]);
    }
    let arguments: Vec<&std::ffi::OsStr> = arguments.iter().map(OsString::as_os_str).collect();
    let mut step = Step::start(format!("pack: {}", file.display()));
    if let Err(error) = archive::run(Some(&turn), &arguments, Some(&mut step)) {
        step.failed();
        return Err(error);
    }
    let size = fs::metadata(&file).map_or(0, |status| status.len());
    step.done(&format!("{} MB", size / 1_000_000));
    say::line(&format!(
        "In a clone of {} on a machine of this kind: cargo lab unpack {}",
        commit(place),
        file.display()
    ));
    Ok(ExitCode::SUCCESS)
}

// Names inside the pack, and what they are here. Links, and files that name this place's paths, are
// left out: they are made anew.
fn contents(
    place: &Place,
    library: &setup::Library,
    program: &Path,
) -> Result<Vec<(String, PathBuf)>> {
    let mut found = vec![
        ("evcxr/bin/evcxr_jupyter".to_string(), place.evcxr()),
        ("evcxr/version".to_string(), place.shared.join("evcxr/version")),
        (format!("library/{}", setup::PROGRAM), program.to_path_buf()),
    ];
    let cargo = setup::cargo_home(place);
    // It does not exist if the standard library's source is missing.
    if cargo.is_dir() {
        found.push(("kernel/cargo".to_string(), cargo));
    }
    for (name, path) in setup::unpacked::movable(library)? {
        found.push((format!("library/{name}"), path));
    }
    let venv = place.venv();
    let mut open: Vec<String> =
        ["etc", "include", "lib", "share"].map(String::from).into_iter().collect();
    while let Some(name) = open.pop() {
        let path = venv.join(&name);
        // The folders above the kernelspecs, which name paths, are listed entry by entry.
        if "share/jupyter/kernels".starts_with(&name) {
            open.extend(names(&path)?.into_iter().map(|inside| format!("{name}/{inside}")));
        } else if path.exists() && !name.starts_with("share/jupyter/kernels/consistency") {
            found.push((format!("venv/{name}"), path));
        }
    }
    for name in names(&venv.join("bin"))? {
        let path = venv.join("bin").join(&name);
        let program = !path.is_symlink() && fs::read(&path).is_ok_and(|t| t.starts_with(b"#!"));
        if program {
            found.push((format!("venv/bin/{name}"), path));
        }
    }
    Ok(found)
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let failed = |e: std::io::Error| format!("reading {}: {e}", folder.display());
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(folder).map_err(failed)?;
    let names: std::io::Result<Vec<String>> = entries
        .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
        .collect();
    names.map_err(failed)
}

// `1a2b3c4d5e6f`, with `+` if files that git tracks were changed since.
fn commit(place: &Place) -> String {
    let git = |arguments: &[&str]| {
        let folder = place.project.to_string_lossy().into_owned();
        crate::process::answer("git", &[&["-C", &folder], arguments].concat())
    };
    match (git(&["rev-parse", "--short=12", "HEAD"]), git(&["status", "--porcelain", "-uno"])) {
        (Ok(commit), Ok(changes)) if changes.is_empty() => commit,
        (Ok(commit), _) => format!("{commit}+"),
        (Err(_), _) => "an unknown commit".to_string(),
    }
}

/// Put what `file` holds in its places, if it is whole and meant for this machine and clone.
/// Nothing is written before that is known; each part then comes by one rename.
///
/// # Errors
/// The file is damaged, or it is not for this machine or clone: every reason with its remedy.
pub fn unpack(place: &Place, file: &str) -> Result<ExitCode> {
    let file = given(file);
    let path = file.as_os_str();
    let toolchain = Toolchain::find()?;
    let mut step = Step::start(format!("unpack: {}", file.display()));
    let made = (|| {
        // First of all: an old Python cannot read the file.
        let machine = Machine::here(place, &toolchain)?;
        let manifest = archive::run(None, &["check".as_ref(), path], None)?;
        let manifest: Value = serde_json::from_str(&manifest)
            .map_err(|e| format!("{}: its manifest is not JSON: {e}", file.display()))?;
        suits(place, &machine, &file, &manifest)?;
        let turn = Turn::to_set_up(place)?;
        let staged = place.unpacking();
        files::remove(&staged)?;
        let done = put(place, &turn, &toolchain, path, &manifest, &staged, &mut step);
        files::remove(&staged)?;
        done
    })();
    match made {
        Ok(()) => {
            step.done("unpacked");
            say::line("ready: `cargo lab` runs the first notebooks, `cargo lab open` opens them");
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            step.failed();
            Err(error)
        }
    }
}

fn suits(place: &Place, machine: &Machine, file: &Path, manifest: &Value) -> Result<()> {
    let shown = file.display();
    if manifest["format"] != FORMAT {
        return Err(format!(
            "{shown} has format {}, and this `cargo lab` reads format {FORMAT}: check out the \
             commit it was made from ({})",
            manifest["format"], manifest["commit"]
        ));
    }
    let (Some(sources), Some(_), Some(_)) = (
        Sources::from_json(&manifest["sources"]),
        manifest["contents"]["files"].as_u64(),
        manifest["contents"]["bytes"].as_u64(),
    ) else {
        return Err(format!("{shown}: its manifest lists no sources or no contents"));
    };
    let mut reasons = machine.refusals(&manifest["machine"]);
    if let Some(how) = Sources::of(&place.project)?.difference(&sources) {
        let theirs = manifest["commit"].as_str().unwrap_or("an unknown commit");
        reasons.push(format!(
            "it was made from {theirs} and this clone is at {}: {how}. Check out that commit \
             here, make it anew from this one, or compile here: cargo lab",
            commit(place)
        ));
    }
    match reasons.as_slice() {
        [] => Ok(()),
        [reason] => Err(format!("{shown} cannot be unpacked here: {reason}")),
        several => Err(format!("{shown} cannot be unpacked here:\n- {}", several.join("\n- "))),
    }
}

fn put(
    place: &Place,
    turn: &Turn,
    toolchain: &Toolchain,
    file: &std::ffi::OsStr,
    manifest: &Value,
    staged: &Path,
    step: &mut Step,
) -> Result<()> {
    fs::create_dir_all(staged).map_err(|e| format!("making {}: {e}", staged.display()))?;
    archive::run(Some(turn), &["extract".as_ref(), file, staged.as_os_str()], Some(step))?;
    setup::unpacked::check(staged)?;
    let venv = staged.join("venv");
    let end = place.venv();
    archive::run(Some(turn), &["settle".as_ref(), venv.as_os_str(), end.as_os_str()], None)?;
    setup::unpacked::put(place, toolchain, staged, manifest)
}
