//! The project's release build, with the library linked once more as a dylib.

use super::Kind;
use super::toolchain::Toolchain;
use crate::Result;
use crate::files;
use crate::place::{Place, Turn};
use crate::process::Logged;
use crate::say::Step;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_64;

/// The package that is the dylib.
const PACKAGE: &str = "consistency-kernel";

/// What cargo built.
pub struct Build {
    /// The shared library.
    pub library: PathBuf,
    /// Its content.
    pub bytes: Vec<u8>,
    /// What rustc reads of every crate inside it: metadata, and procedural macros.
    pub metadata: Vec<PathBuf>,
}

/// Build the library. The dependencies are those of `cargo build --release` and
/// `cargo test --release`: nothing is compiled twice.
pub fn run(place: &Place, turn: &Turn, toolchain: &Toolchain, kind: Kind) -> Result<Build> {
    let build = once(place, turn, toolchain, kind)?;
    if is_of(&build, place) {
        return Ok(build);
    }
    // Another clone with the same target folder put its own in this place, and cargo, which
    // looks at our sources alone, calls that fresh.
    files::remove(&build.library)?;
    let build = once(place, turn, toolchain, kind)?;
    if is_of(&build, place) {
        return Ok(build);
    }
    Err(format!(
        "{} is the library of another clone, which is being built at the same time; try again \
         when that has ended, or give each clone a CARGO_TARGET_DIR of its own",
        build.library.display()
    ))
}

// The library names the clone that it was built from (crate/kernel/src/lib.rs).
fn is_of(build: &Build, place: &Place) -> bool {
    let folder = place.project.join("crate").join("kernel");
    let mark = format!("consistency-kernel of {};", folder.display());
    memchr::memmem::find(&build.bytes, mark.as_bytes()).is_some()
}

fn once(place: &Place, turn: &Turn, toolchain: &Toolchain, kind: Kind) -> Result<Build> {
    let (what, log) = match kind {
        Kind::Cpu => ("library: the release build, linked for the kernel", "library"),
        Kind::Cuda => ("library for GPUs: another build, linked for its kernel", "library-cuda"),
    };
    let mut step = Step::start(what);
    let mut build = Logged::new(place, log, &toolchain.cargo);
    if kind == Kind::Cuda {
        // In a folder of its own: both are there at once, and neither undoes the other.
        let target = std::env::var_os("CARGO_TARGET_DIR").filter(|folder| !folder.is_empty());
        let target = target.map_or_else(|| place.project.join("target"), PathBuf::from);
        build.command().env("CARGO_TARGET_DIR", target.join("cuda"));
    }
    build
        .command()
        .args(["rustc", "--release", "--package", PACKAGE, "--lib", "--crate-type", "dylib"])
        .args(if kind == Kind::Cuda { &["--features", "cuda"][..] } else { &[] })
        .arg("--message-format=json-render-diagnostics")
        .args(["--", "-Cprefer-dynamic", "--cfg"])
        // Arguments are part of what cargo compares: another clone's library is not fresh.
        .arg(format!("clone_{:016x}", xxh3_64(place.project.to_string_lossy().as_bytes())));
    let mut count = 0;
    let output = build.run(turn, |line| {
        if let Some(name) = line.trim_start().strip_prefix("Compiling ") {
            count += 1;
            step.progress(&format!("crate {count} of about 270: {name}"));
        }
    });
    let output = match output {
        Ok(output) => output,
        Err(error) => {
            step.failed();
            return Err(error);
        }
    };
    let mut library = None;
    let mut metadata = Vec::new();
    let mut fresh = true;
    for message in output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        if message["reason"] != "compiler-artifact" {
            continue;
        }
        fresh &= message["fresh"].as_bool().unwrap_or(true);
        let files = message["filenames"].as_array().into_iter().flatten();
        for file in files.filter_map(Value::as_str) {
            let ours = message["target"]["name"] == PACKAGE.replace('-', "_");
            let macros = message["target"]["kind"][0] == "proc-macro";
            if ours && !file.ends_with(".rmeta") {
                library = Some(PathBuf::from(file));
            } else if !ours && (file.ends_with(".rmeta") || macros) {
                metadata.push(PathBuf::from(file));
            }
        }
    }
    let Some(library) = library else {
        return Err(format!("cargo built {PACKAGE} and did not say where"));
    };
    if fresh {
        step.end("up to date");
    } else {
        step.done("built");
    }
    // Cargo tells them in the order in which it came to them.
    metadata.sort();
    let bytes = read(&library)?;
    Ok(Build { library, bytes, metadata })
}

fn read(library: &Path) -> Result<Vec<u8>> {
    fs::read(library).map_err(|e| format!("reading {}: {e}", library.display()))
}
