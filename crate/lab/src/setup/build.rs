//! The project's release build, with the library linked once more as a dylib.

use super::kind::Kind;
use super::toolchain::Toolchain;
use crate::Result;
use crate::place::{Place, Turn};
use crate::process::Logged;
use crate::say::Step;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// The package that is the dylib.
const PACKAGE: &str = "consistency-kernel";

/// What stands before the path by which a package names its clone.
const MARK: &str = "compiled in the clone of ";

/// What cargo built.
pub struct Build {
    /// The shared library.
    pub library: PathBuf,
    /// Its content.
    pub bytes: Vec<u8>,
    /// What rustc reads of every crate inside it: metadata, and procedural macros.
    pub metadata: Vec<PathBuf>,
}

/// The packages of the library, which each name the clone that they were compiled from.
const OURS: [&str; 6] = [
    "consistency",
    "consistency-base",
    "consistency-engine",
    "consistency-ground",
    "consistency-linalg",
    PACKAGE,
];

/// Build the library. The dependencies are those of `cargo build --release` and
/// `cargo test --release`: nothing is compiled twice.
pub fn run(place: &Place, turn: &Turn, toolchain: &Toolchain, kind: Kind) -> Result<Build> {
    let target = toolchain.target_folder(place)?;
    let target = if kind == Kind::Cuda { target.join("cuda") } else { target };
    if has_another_clones(&target, place) {
        let mut clean = Logged::new(place, "clean", &toolchain.cargo);
        clean.command().args(["clean", "--release"]).env("CARGO_TARGET_DIR", &target);
        clean.command().args(OURS.iter().flat_map(|package| ["--package", package]));
        clean.run(turn, |_| {})?;
    }
    once(place, turn, toolchain, kind, &target)
}

// Whether a build folder that clones share holds packages of another clone. Cargo gives them
// the same names and calls them fresh where this clone's sources are older.
fn has_another_clones(target: &Path, place: &Place) -> bool {
    let names = OURS.map(|package| format!("lib{}", package.replace('-', "_")));
    let files = fs::read_dir(target.join("release").join("deps")).into_iter().flatten().flatten();
    files.map(|file| file.path()).any(|file| {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let library = file.extension().is_some_and(|e| e == "rlib" || e == "so" || e == "dylib");
        let name = stem.split_once('-').map_or(stem.as_str(), |(name, _)| name);
        library
            && names.iter().any(|ours| ours == name)
            && fs::read(&file)
                .is_ok_and(|bytes| memchr::memmem::find(&bytes, mark(place).as_bytes()).is_none())
    })
}

// How a package of this clone's names it, up to the package's own folder.
fn mark(place: &Place) -> String {
    format!("{MARK}{}", place.project.join("crate").display())
}

fn once(
    place: &Place,
    turn: &Turn,
    toolchain: &Toolchain,
    kind: Kind,
    target: &Path,
) -> Result<Build> {
    let (what, log) = match kind {
        Kind::Cpu => ("library: the release build, linked for the kernel", "library"),
        Kind::Cuda => ("library for GPUs: another build, linked for its kernel", "library-cuda"),
    };
    let mut step = Step::start(what);
    let mut build = Logged::new(place, log, &toolchain.cargo);
    if kind == Kind::Cuda {
        // In a folder of its own: both are there at once, and neither undoes the other.
        build.command().env("CARGO_TARGET_DIR", target);
    }
    build
        .command()
        .args(["rustc", "--release", "--package", PACKAGE, "--lib", "--crate-type", "dylib"])
        .args(if kind == Kind::Cuda { &["--features", "cuda"][..] } else { &[] })
        .arg("--message-format=json-render-diagnostics")
        .args(["--", "-Cprefer-dynamic"]);
    let mut count = 0;
    let output = build.run(turn, |line| {
        if let Some(name) = line.trim_start().strip_prefix("Compiling ") {
            count += 1;
            step.progress(&format!("crate {count} of about 320: {name}"));
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
        return Err(format!("cargo built {PACKAGE} but did not report the file"));
    };
    if fresh {
        step.end("up to date");
    } else {
        step.done("built");
    }
    // Cargo reports them in the order in which it reached them.
    metadata.sort();
    let bytes = read(&library)?;
    Ok(Build { library, bytes, metadata })
}

fn read(library: &Path) -> Result<Vec<u8>> {
    fs::read(library).map_err(|e| format!("reading {}: {e}", library.display()))
}
