//! Promise: each type that a notebook sees by its name has an example in its documentation, which
//! `cargo test` runs.

use consistency::{Context, Error, Result};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::{read_dir, read_to_string};
use std::path::{Path, PathBuf};

const SOURCES: [&str; 4] = ["crate/src", "crate/base/src", "crate/engine/src", "crate/ground/src"];

/// A type: the modules from the root of the library to it, and its name.
type Place = (Vec<String>, String);

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &Path) -> Result<String> {
    read_to_string(path).with_context(|| path.display().to_string())
}

/// The file of the module `name` in `folder`.
fn module(folder: &Path, name: &str) -> Option<PathBuf> {
    let places = [folder.join(format!("{name}.rs")), folder.join(name).join("mod.rs")];
    places.into_iter().find(|path| path.is_file())
}

/// The file of the module with this path; `roots` are where its first part is looked for.
fn file_of(roots: &[PathBuf], modules: &[String]) -> Option<PathBuf> {
    let (first, rest) = modules.split_first()?;
    let file = roots.iter().find_map(|root| module(root, first))?;
    if rest.is_empty() { Some(file) } else { file_of(&[below(&file)], rest) }
}

/// The folder of the modules that a file declares.
fn below(file: &Path) -> PathBuf {
    let name = if file.ends_with("mod.rs") { file.parent() } else { None };
    name.map_or_else(|| file.with_extension(""), Path::to_path_buf)
}

fn roots() -> Vec<PathBuf> {
    SOURCES.iter().map(|source| project().join(source)).collect()
}

fn is_type(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase())
}

/// What `pub use` brings, as whole paths: `a::{b, c::D}` is `a::b` and `a::c::D`.
fn exports(text: &str) -> Vec<Vec<String>> {
    let statements = format!("\n{text}");
    let statements = statements.split("\npub use ").skip(1).filter_map(|s| s.split_once(';'));
    statements.flat_map(|(tree, _)| paths(tree)).collect()
}

fn paths(tree: &str) -> Vec<Vec<String>> {
    let tree = tree.trim();
    let Some((head, inner)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or_default();
        return vec![path.split("::").map(String::from).collect()];
    };
    let head: Vec<String> =
        head.split("::").filter(|part| !part.is_empty()).map(String::from).collect();
    let inner = inner.trim_end().strip_suffix('}').unwrap_or(inner);
    let mut depth = 0;
    let parts = inner.split(|c: char| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    let parts = parts.filter(|part| !part.trim().is_empty());
    parts.flat_map(paths).map(|path| [head.clone(), path].concat()).collect()
}

fn of_the_prelude() -> Result<BTreeSet<Place>> {
    let all = exports(&read(&project().join("crate/src/prelude.rs"))?);
    // What candle and Polars define is theirs to document.
    let own = all.into_iter().filter(|path| path[0] == "crate");
    let place = |path: Vec<String>| Some((path[1..path.len() - 1].to_vec(), path.last()?.clone()));
    Ok(own.filter_map(place).filter(|(_, name)| is_type(name)).collect())
}

/// The types that cells name by a path, such as `theory::WrongSign`.
fn of_the_notebooks() -> Result<BTreeSet<Place>> {
    let mut found = BTreeSet::new();
    for entry in read_dir(project().join("notebooks"))? {
        let path = entry?.path();
        if path.extension().is_none_or(|end| end != "ipynb") {
            continue;
        }
        let notebook: Value = serde_json::from_str(&read(&path)?)
            .map_err(|error| Error::new(format!("{}: {error}", path.display())))?;
        let cells = notebook["cells"].as_array().into_iter().flatten();
        for cell in cells.filter(|cell| cell["cell_type"] == "code") {
            let lines = cell["source"].as_array().into_iter().flatten();
            let code: String = lines.filter_map(Value::as_str).collect();
            let other = |c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':';
            for path in code.split(other) {
                let path = path.strip_prefix("consistency::").unwrap_or(path);
                let parts: Vec<String> = path.split("::").map(String::from).collect();
                let Some(at) = parts.iter().position(|part| is_type(part)) else { continue };
                if file_of(&roots(), &parts[..at]).is_some() {
                    found.insert((parts[..at].to_vec(), parts[at].clone()));
                }
            }
        }
    }
    Ok(found)
}

/// Where the type `name` of the module in `file` is defined: each file, and the line's index.
fn definitions(file: &Path, name: &str) -> Result<Vec<(PathBuf, usize)>> {
    let text = read(file)?;
    let lines = text.lines().enumerate().filter(|(_, line)| defines(line, name));
    let mut found: Vec<_> = lines.map(|(at, _)| (file.to_path_buf(), at)).collect();
    for path in exports(&text) {
        if let Some((last, modules)) = path.split_last()
            && last == name
            && let Some(file) = file_of(&[below(file)], modules)
        {
            found.extend(definitions(&file, name)?);
        }
    }
    Ok(found)
}

fn defines(line: &str, name: &str) -> bool {
    let kinds = ["pub struct ", "pub enum ", "pub trait "];
    let rest = kinds.iter().find_map(|kind| line.strip_prefix(kind)?.strip_prefix(name));
    rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
}

/// Whether the documentation of what stands in line `at` has an example that is compiled, and one
/// that is run asserts something.
fn has_example(text: &str, at: usize) -> bool {
    let above: Vec<&str> = text.lines().take(at).collect();
    let own =
        above.iter().rev().take_while(|line| line.starts_with("//") || line.starts_with("#["));
    let docs: Vec<&str> = own.filter_map(|line| line.strip_prefix("///")).map(str::trim).collect();
    // From the first line to the last, the text before, within and after each fence.
    let docs = docs.into_iter().rev().collect::<Vec<_>>().join("\n");
    docs.split("```").skip(1).step_by(2).any(|block| {
        let (kind, code) = block.split_once('\n').unwrap_or((block, ""));
        kind == "no_run" || (kind.is_empty() && code.contains("assert"))
    })
}

#[test]
fn each_type_of_a_notebook_has_one() -> Result<()> {
    let (of_prelude, of_notebooks) = (of_the_prelude()?, of_the_notebooks()?);
    for known in ["Key", "Ema", "Table", "Method", "Run"] {
        assert!(of_prelude.iter().any(|(_, name)| name == known), "{known} is not in the prelude");
    }
    assert!(of_notebooks.iter().any(|(_, name)| name == "WrongSign"), "{of_notebooks:?}");
    let mut without = Vec::new();
    for (modules, name) in of_prelude.union(&of_notebooks) {
        let file = file_of(&roots(), modules)
            .ok_or_else(|| Error::new(format!("{modules:?} is no module of the library")))?;
        let found = definitions(&file, name)?;
        let [(file, at)] = found.as_slice() else {
            return Err(Error::new(format!("{name} of {modules:?} is defined in {found:?}")));
        };
        if !has_example(&read(file)?, *at) {
            let file = file.strip_prefix(project()).unwrap_or(file);
            without.push(format!("{name} ({}:{})", file.display(), at + 1));
        }
    }
    assert!(without.is_empty(), "no example in the documentation of {}", without.join(", "));
    Ok(())
}

#[test]
fn what_an_example_is() {
    let block = |fence: &str, code: &str| {
        let text = format!("/// A.\n///\n/// ```{fence}\n/// {code}\n/// ```\n#[derive(Debug)]\n");
        has_example(&format!("{text}pub struct A;\n"), 6)
    };
    assert!(block("", "assert!(true);") && block("no_run", "A::new();"));
    assert!(!block("", "A::new();") && !block("text", "assert") && !block("ignore", "assert"));
    // Another's example.
    assert!(!has_example(
        "/// ```\n/// assert!(true);\n/// ```\npub struct B;\n\npub struct A;",
        5
    ));
    assert!(defines("pub struct Table {", "Table") && !defines("pub struct TableOf {", "Table"));
    let all = exports("pub use a::{b, c::{D, E as F}};\npub use crate::g::H;\n");
    let all: Vec<String> = all.iter().map(|path| path.join("::")).collect();
    assert_eq!(all, ["a::b", "a::c::D", "a::c::E", "crate::g::H"]);
}
