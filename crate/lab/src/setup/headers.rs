//! Header crates: what rust-analyzer reads in place of the dependency graph.
//!
//! evcxr asks rust-analyzer for the types of a cell's variables. It would read the source
//! of 300 crates; the types that a notebook can see live in a few of them. Those are
//! copied with manifests that refer only to each other. The crate that a notebook names is
//! the real library when cells are compiled (`--cfg lab_real`) and the headers when rust-analyzer
//! reads it.

use super::toolchain::Toolchain;
use crate::Result;
use crate::files::{self, Hash};
use crate::place::Place;
use crate::shell;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// The crates whose types, methods and macros appear in notebooks.
const VISIBLE: [&str; 16] = [
    "consistency",
    "consistency-base",
    "consistency-engine",
    "consistency-ground",
    "candle-core",
    "candle-nn",
    "polars",
    "polars-arrow",
    "polars-buffer",
    "polars-core",
    "polars-dtype",
    "polars-error",
    "polars-io",
    "polars-ops",
    "polars-schema",
    "polars-utils",
];

/// The name of the crate that cells use.
pub const FACADE: &str = "consistency";

/// One header crate, before it is written.
pub struct Header {
    name: String,
    manifest: String,
    source: PathBuf,
}

/// The header crates of the project as it stands.
pub fn find(place: &Place, toolchain: &Toolchain) -> Result<Vec<Header>> {
    let output = shell::command(&toolchain.cargo)
        .current_dir(&place.project)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--filter-platform",
            toolchain.host(),
        ])
        .output()
        .map_err(|e| format!("cargo metadata: {e}"))?;
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)
        .map_err(|e| format!("cargo metadata's answer: {e}"))?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();

    let mut packages = BTreeMap::new();
    for package in list(&metadata["packages"]) {
        if VISIBLE.contains(&text(&package["name"]).as_str()) {
            packages.insert(text(&package["id"]), package);
        }
    }
    let mut headers = Vec::new();
    for node in list(&metadata["resolve"]["nodes"]) {
        let Some(package) = packages.get(&text(&node["id"])) else { continue };
        let name = text(&package["name"]);
        let targets = list(&package["targets"]);
        let is_lib = |t: &&Value| list(&t["kind"]).iter().any(|k| k == "lib" || k == "rlib");
        let Some(target) = targets.iter().find(is_lib) else {
            return Err(format!("the crate {name} has no library"));
        };
        let root = PathBuf::from(text(&target["src_path"]));
        let Some(source) = root.parent() else {
            return Err(format!("the source of {name} is {}", root.display()));
        };
        let mut manifest = String::new();
        let _ = writeln!(manifest, "[package]\nname = {:?}", header_name(&name));
        let _ = writeln!(manifest, "version = {:?}", text(&package["version"]));
        let _ = writeln!(manifest, "edition = {:?}\n\n[lib]", text(&package["edition"]));
        let lib = text(&target["name"]);
        let lib = if name == FACADE { header_name(&name).replace('-', "_") } else { lib };
        let _ = writeln!(manifest, "name = {lib:?}\npath = \"src/lib.rs\"\n\n[features]");
        let features: Vec<String> =
            list(&node["features"]).iter().map(&text).filter(|f| f != "default").collect();
        let _ = writeln!(manifest, "default = {features:?}");
        for feature in &features {
            let _ = writeln!(manifest, "{feature:?} = []");
        }
        manifest.push_str("\n[dependencies]\n");
        for dependency in list(&node["deps"]) {
            let Some(of) = packages.get(&text(&dependency["pkg"])) else { continue };
            // Our packages depend on the whole library for their examples: a cycle.
            if list(&dependency["dep_kinds"]).iter().all(|kind| kind["kind"] == "dev") {
                continue;
            }
            let package = header_name(&text(&of["name"]));
            let _ = writeln!(
                manifest,
                "{} = {{ package = {package:?}, path = \"../{package}\" }}",
                text(&dependency["name"])
            );
        }
        headers.push(Header { name, manifest, source: source.to_path_buf() });
    }
    let missing: Vec<&&str> =
        VISIBLE.iter().filter(|v| !headers.iter().any(|h| h.name == **v)).collect();
    if !missing.is_empty() {
        return Err(format!("no package of these names is in the build: {missing:?}"));
    }
    Ok(headers)
}

// Our own headers need another name than the crate that re-exports them.
fn header_name(name: &str) -> String {
    if name == FACADE { format!("{FACADE}-headers") } else { name.to_string() }
}

/// Add everything that the headers hold to `hash`.
pub fn hash(headers: &[Header], hash: &mut Hash) -> Result<()> {
    for header in headers {
        hash.add(&header.manifest);
        for file in sources(&header.source)? {
            let bytes = fs::read(&file).map_err(|e| format!("{}: {e}", file.display()))?;
            hash.add(
                file.strip_prefix(&header.source).unwrap_or(&file).to_string_lossy().as_bytes(),
            );
            hash.add(bytes);
        }
    }
    Ok(())
}

/// Write the header crates and the crate that cells name into `folder`.
///
/// The sources are copied: cargo deletes sources that it has not used for a month.
pub fn write(headers: &[Header], folder: &Path) -> Result<()> {
    for header in headers {
        let to = folder.join(header_name(&header.name));
        files::write(&to.join("Cargo.toml"), header.manifest.as_bytes())?;
        for file in sources(&header.source)? {
            let inside = file.strip_prefix(&header.source).unwrap_or(&file);
            let target = to.join("src").join(inside);
            let copy = || -> std::io::Result<()> {
                if let Some(parent) = target.parent() {
                    fs::create_dir_all(parent)?;
                }
                fs::copy(&file, &target).map(|_| ())
            };
            copy().map_err(|e| format!("copying {}: {e}", file.display()))?;
        }
    }
    let headers_package = header_name(FACADE);
    let manifest = format!(
        "[package]\nname = \"{FACADE}\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
         [target.'cfg(not(lab_real))'.dependencies]\n\
         {headers_package} = {{ path = \"../{headers_package}\" }}\n\n\
         [lints.rust]\n\
         unexpected_cfgs = {{ level = \"warn\", check-cfg = ['cfg(lab_real)'] }}\n"
    );
    let source = format!(
        "#[cfg(lab_real)]\npub use real::*;\n#[cfg(not(lab_real))]\npub use {}::*;\n",
        headers_package.replace('-', "_")
    );
    let facade = folder.join(FACADE);
    files::write(&facade.join("Cargo.toml"), manifest.as_bytes())?;
    files::write(&facade.join("src").join("lib.rs"), source.as_bytes())
}

// The Rust files below a folder, in a fixed order, without programs.
fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(folder) = open.pop() {
        let entries =
            fs::read_dir(&folder).map_err(|e| format!("reading {}: {e}", folder.display()))?;
        for entry in entries {
            let path = entry.map_err(|e| format!("reading {}: {e}", folder.display()))?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
