//! The files that the library is made from, by their content.
//!
//! Cargo decides by time stamps and absolute paths whether a build is up to date, which says
//! nothing about a library that another machine built. The content does.

use crate::Result;
use crate::files::Hash;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Files and folders of the project that the build reads.
const ROOTS: [&str; 5] = [".cargo/config.toml", "Cargo.lock", "Cargo.toml", "crate", "datasets"];

/// Folders in them that no part of the library, of its commands or of `cargo lab` is made from.
const LEFT_OUT: [&str; 2] = ["crate/benches", "crate/examples"];

/// Each file's path from the project's root, with `/`, and the hash of its content.
#[derive(Debug, PartialEq, Eq)]
pub struct Sources(BTreeMap<String, String>);

impl Sources {
    /// Those of the project as it stands.
    ///
    /// Documents (`.md`), hidden files and editors' copies (`~`) are left out.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn of(project: &Path) -> Result<Self> {
        let mut found = BTreeMap::new();
        let mut open: Vec<String> = ROOTS.iter().map(ToString::to_string).collect();
        while let Some(name) = open.pop() {
            let path = project.join(&name);
            let failed = |e: std::io::Error| format!("reading {}: {e}", path.display());
            if !path.is_dir() {
                let bytes = fs::read(&path).map_err(failed)?;
                found.insert(name, Hash::default().add(bytes).end());
                continue;
            }
            for entry in fs::read_dir(&path).map_err(failed)? {
                let entry = entry.map_err(failed)?.file_name();
                let Some(entry) = entry.to_str() else {
                    return Err(format!("{}: a file name that is not UTF-8", path.display()));
                };
                let ignored = entry.starts_with('.') || entry.ends_with('~');
                let inside = format!("{name}/{entry}");
                if !ignored && !entry.ends_with(".md") && !LEFT_OUT.contains(&inside.as_str()) {
                    open.push(inside);
                }
            }
        }
        Ok(Self(found))
    }

    /// Those that [`Self::json`] wrote; `None` where `value` is something else.
    pub fn from_json(value: &Value) -> Option<Self> {
        let pairs = value.as_object()?.iter();
        let pairs = pairs.map(|(name, hash)| Some((name.clone(), hash.as_str()?.to_string())));
        pairs.collect::<Option<BTreeMap<_, _>>>().filter(|files| !files.is_empty()).map(Self)
    }

    /// An object of paths and hashes.
    pub fn json(&self) -> Value {
        let pairs = self.0.iter().map(|(name, hash)| (name.clone(), Value::from(hash.as_str())));
        Value::Object(pairs.collect::<Map<_, _>>())
    }

    /// How these differ from `earlier` ones: the first file by name, and how many more.
    pub fn difference(&self, earlier: &Self) -> Option<String> {
        let names: std::collections::BTreeSet<&String> =
            self.0.keys().chain(earlier.0.keys()).collect();
        let mut differ = names.into_iter().filter(|name| self.0.get(*name) != earlier.0.get(*name));
        let first = differ.next()?;
        let how = match (self.0.contains_key(first), earlier.0.contains_key(first)) {
            (true, false) => "is new",
            (false, _) => "is missing",
            (true, true) => "has other content",
        };
        Some(match differ.count() {
            0 => format!("{first} {how}"),
            1 => format!("{first} {how}, and another file differs"),
            more => format!("{first} {how}, and {more} more files differ"),
        })
    }
}
