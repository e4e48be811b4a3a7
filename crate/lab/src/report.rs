//! The table of what was reproduced, and a page with every figure that opens offline.

use crate::Result;
use crate::files;
use crate::notebooks;
use crate::place::{Place, Turn};
use crate::process::Logged;
use crate::python;
use crate::say;
use serde_json::Value;
use std::path::{Path, PathBuf};

static PAGES: &str = include_str!("python/report.py");

/// The last run of one notebook.
pub struct Entry {
    pub name: String,
    pub budget: String,
    pub seconds: f64,
    pub failed: Option<String>,
    /// The project's commit when it ran, as the library reported it with the results.
    pub commit: String,
    /// (what, value, reference)
    pub results: Vec<(String, String, String)>,
}

/// The last runs of the project's notebooks and of others that were run by path.
pub fn entries(place: &Place) -> Result<Vec<Entry>> {
    let known = notebooks::all(place)?;
    let mut names: Vec<String> = known.into_iter().map(|n| n.name).collect();
    let others = std::fs::read_dir(place.out()).into_iter().flatten().flatten();
    let mut others: Vec<String> = others
        .filter_map(|entry| {
            entry.file_name().to_string_lossy().strip_suffix(".json").map(ToString::to_string)
        })
        .filter(|name| !names.contains(name))
        .collect();
    others.sort();
    names.extend(others);
    let mut found = Vec::new();
    for name in names {
        let Ok(text) = files::read(&place.out().join(format!("{name}.json"))) else { continue };
        let Ok(record) = serde_json::from_str::<Value>(&text) else { continue };
        // One that is still running, or whose notebook is gone.
        let there = record["path"].as_str().is_some_and(|path| Path::new(path).is_file());
        if record["running"] == true || !there {
            continue;
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
        let rows = record["results"].as_array().cloned().unwrap_or_default();
        found.push(Entry {
            name,
            budget: text(&record["budget"]),
            seconds: record["seconds"].as_f64().unwrap_or_default(),
            failed: record["failed"].as_str().map(ToString::to_string),
            commit: rows.first().map(|r| text(&r["commit"])).unwrap_or_default(),
            results: rows
                .iter()
                .map(|r| (text(&r["what"]), text(&r["value"]), text(&r["reference"])))
                .collect(),
        });
    }
    Ok(found)
}

/// The table: notebook, what was reproduced, value, reference, seconds.
pub fn print(entries: &[&Entry]) {
    let mut rows = Vec::new();
    for entry in entries {
        let mut name = entry.name.clone();
        let mut seconds = format!("{:.0}", entry.seconds);
        if let Some(failed) = &entry.failed {
            // The whole message was printed when it failed.
            let first: String =
                failed.lines().next().unwrap_or_default().chars().take(60).collect();
            let cells = [name, format!("FAILED: {first}"), String::new(), String::new(), seconds];
            rows.push(cells.to_vec());
            (name, seconds) = (String::new(), String::new());
        }
        if entry.results.is_empty() && entry.failed.is_none() {
            rows.push(vec![
                name.clone(),
                "ran".to_string(),
                String::new(),
                String::new(),
                seconds.clone(),
            ]);
        }
        for (what, value, reference) in &entry.results {
            rows.push(vec![
                std::mem::take(&mut name),
                what.clone(),
                value.clone(),
                reference.clone(),
                std::mem::take(&mut seconds),
            ]);
        }
    }
    say::line("");
    say::table(&["notebook", "reproduced", "value", "reference", "seconds"], &rows);
}

/// Write the report's pages; returns the path of the first.
pub fn write(place: &Place, turn: &Turn, entries: &[Entry]) -> Result<PathBuf> {
    let folder = place.own.join("report");
    let list: Vec<Value> = entries
        .iter()
        .map(|e| {
            serde_json::json!({
                "name": e.name,
                "budget": e.budget,
                "seconds": e.seconds,
                "failed": e.failed,
                "commit": e.commit,
                "results": e.results,
                "executed": place.out().join(format!("{}.ipynb", e.name)),
            })
        })
        .collect();
    let input = place.own.join("tools").join("report.json");
    files::write(&input, Value::from(list).to_string().as_bytes())?;
    let script = python::script(place, "report.py", PAGES)?;
    let mut pages = Logged::new(place, "report", place.python());
    pages.command().arg("-I").arg(script).arg(&input).arg(&folder);
    pages.run(turn, |_| {})?;
    Ok(folder.join("index.html"))
}
