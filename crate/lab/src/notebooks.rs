//! Which notebooks there are and which are chosen.

use crate::Result;
use crate::place::{Place, given};
use std::fs;
use std::path::{Path, PathBuf};

/// The notebooks that run when none is named.
const FIRST: [&str; 2] = ["00", "01"];

/// A notebook to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notebook {
    /// Its file's name without the ending.
    pub name: String,
    pub path: PathBuf,
}

impl Notebook {
    fn at(path: PathBuf) -> Self {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Self { name, path }
    }
}

/// All notebooks of the project, in the order of their names.
pub fn all(place: &Place) -> Result<Vec<Notebook>> {
    let folder = place.project.join("notebooks");
    let entries =
        fs::read_dir(&folder).map_err(|e| format!("reading {}: {e}", folder.display()))?;
    let mut found: Vec<Notebook> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| is_notebook(path))
        .map(Notebook::at)
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn is_notebook(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "ipynb")
}

/// The notebooks of these names and paths; all; or those that run when none is named.
pub fn choose(place: &Place, names: &[String], everything: bool) -> Result<Vec<Notebook>> {
    let known = all(place)?;
    if everything {
        return Ok(known);
    }
    let first: Vec<String> = FIRST.iter().map(ToString::to_string).collect();
    let names = if names.is_empty() { &first } else { names };
    let mut chosen: Vec<Notebook> = Vec::new();
    for name in names {
        let notebook = find(&known, name)?;
        if let Some(other) = chosen.iter().find(|c| c.name == notebook.name) {
            if other.path == notebook.path {
                continue;
            }
            return Err(format!(
                "{} and {} would write the same output: run them one after the other",
                other.path.display(),
                notebook.path.display()
            ));
        }
        chosen.push(notebook);
    }
    Ok(chosen)
}

fn find(known: &[Notebook], name: &str) -> Result<Notebook> {
    let path = given(name);
    if is_notebook(&path) {
        return if path.is_file() {
            Ok(Notebook::at(path))
        } else {
            Err(format!("there is no notebook {}", path.display()))
        };
    }
    let exact = known.iter().find(|n| n.name == name);
    let begins: Vec<&Notebook> = known.iter().filter(|n| n.name.starts_with(name)).collect();
    match (exact, begins.as_slice()) {
        (Some(notebook), _) => Ok(notebook.clone()),
        (None, [notebook]) => Ok((*notebook).clone()),
        (None, []) => Err(format!(
            "there is no notebook '{name}'; there are {}, or give the path of an .ipynb file",
            known.iter().map(|n| n.name.as_str()).collect::<Vec<_>>().join(", ")
        )),
        (None, several) => Err(format!(
            "'{name}' may mean {}",
            several.iter().map(|n| n.name.as_str()).collect::<Vec<_>>().join(" or ")
        )),
    }
}
