//! Running notebooks: only those whose inputs changed, each with its results.

use crate::Result;
use crate::files::{self, Hash};
use crate::notebooks::Notebook;
use crate::place::{Place, Turn};
use crate::process::{self, Logged};
use crate::python::{jupyter, script};
use crate::report::{self, Entry};
use crate::say::{self, Step};
use crate::setup::Library;
use serde_json::{Value, json};
use std::fs;
use std::process::ExitCode;
use std::time::Duration;

static EXECUTE: &str = include_str!("python/execute.py");

/// What to run and how.
pub struct Request {
    pub notebooks: Vec<Notebook>,
    pub force: bool,
    pub write: bool,
    pub budget: String,
    /// Seconds that each cell may take.
    pub timeout: Option<u32>,
}

/// Run the notebooks; print the table of their results and the report's path.
pub fn run(place: &Place, turn: &Turn, library: &Library, request: &Request) -> Result<ExitCode> {
    // Another `cargo lab setup` may make a newer library current meanwhile, and must not remove
    // this one.
    let _held = library.hold()?;
    if request.notebooks.len() > 1 {
        say::note("notebooks can be opened while these run: `cargo lab open` in another terminal");
    }
    let mut failures = 0;
    for notebook in &request.notebooks {
        match one(place, turn, library, request, notebook) {
            Ok(Ended::Passed) => {}
            Ok(Ended::Stopped(how)) => {
                say::error(&how);
                failures += 1;
                break;
            }
            Err(error) => {
                say::error(&error);
                failures += 1;
            }
        }
    }
    let entries = report::entries(place)?;
    let shown: Vec<&Entry> = request
        .notebooks
        .iter()
        .filter_map(|n| entries.iter().find(|e| e.name == n.name))
        .collect();
    report::print(&shown);
    let page = report::write(place, turn, &entries)?;
    say::line(&format!("\nreport: {}", page.display()));
    Ok(if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

enum Ended {
    Passed,
    /// By Ctrl-C, and with it all that was to follow.
    Stopped(String),
}

fn one(
    place: &Place,
    turn: &Turn,
    library: &Library,
    request: &Request,
    notebook: &Notebook,
) -> Result<Ended> {
    let out = place.out();
    let record = out.join(format!("{}.json", notebook.name));
    let executed = out.join(format!("{}.ipynb", notebook.name));
    let inputs = inputs(library, request, notebook)?;
    let before: Value = fs::read_to_string(&record)
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default();
    let done = before["inputs"] == inputs.as_str()
        && before["running"] == false
        && before["path"] == notebook.path.to_string_lossy().as_ref()
        && executed.is_file();
    if done && before["failed"] == Value::Null && !request.force {
        let seconds = before["seconds"].as_f64().unwrap_or_default();
        say::line(&format!(
            "==> {}: nothing changed since it ran ({})",
            notebook.name,
            say::seconds(Duration::from_secs_f64(seconds))
        ));
        if request.write {
            write_back(place, turn, notebook)?;
        }
        return Ok(Ended::Passed);
    }

    let runs = place.own.join("runs").join(&notebook.name);
    let interrupted = before["inputs"] == inputs.as_str() && before["running"] == true;
    if request.force || !interrupted {
        // Training starts anew; after an interruption it resumes from its checkpoints.
        files::remove(&runs)?;
    }
    let entry = |fields: Value| -> Result<()> {
        let mut all = json!({
            "inputs": inputs, "path": notebook.path, "budget": request.budget, "running": false,
        });
        if let (Some(all), Some(fields)) = (all.as_object_mut(), fields.as_object()) {
            all.extend(fields.clone());
        }
        files::write(&record, format!("{all:#}\n").as_bytes())
    };
    entry(json!({ "running": true }))?;

    let mut step = Step::start(format!(
        "notebook {} at LAB_BUDGET={}",
        place.shown(&notebook.path),
        request.budget
    ));
    let scratch = out.join(format!(".{}", notebook.name));
    files::remove(&scratch)?;
    fs::create_dir_all(&scratch).map_err(|e| format!("making {}: {e}", scratch.display()))?;
    let results = scratch.join("results.jsonl");
    let script = script(place, "execute.py", EXECUTE)?;
    let mut execute = Logged::new(place, &format!("run-{}", notebook.name), place.python());
    execute
        .command()
        .arg("-I")
        .arg(script)
        .arg(&notebook.path)
        .arg(&executed)
        .arg(&scratch)
        .arg(&place.project)
        .args(request.timeout.map(|seconds| seconds.to_string()))
        .env("LAB_PROJECT", &place.project)
        .env("LAB_LIBRARY", &library.id)
        .env("LAB_BUDGET", &request.budget)
        .env("LAB_RUNS", &runs)
        .env("LAB_RESULTS", &results)
        .envs(jupyter(place));
    // Ctrl-C is for the program that runs the cells, which stops the one at work.
    let uninterrupted = process::without_interrupts();
    let result = execute.run(turn, |line| {
        if let Some(at) = line.strip_prefix("LAB-PROGRESS ") {
            step.progress(at);
        }
    });
    drop(uninterrupted);
    let outcome: Value = fs::read_to_string(scratch.join("outcome.json"))
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default();
    let rows: Vec<Value> = fs::read_to_string(&results)
        .unwrap_or_default()
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let failed = match (&result, outcome["failed"].as_str()) {
        (_, Some(failed)) => Some(failed.to_string()),
        (Err(error), None) => Some(error.clone()),
        (Ok(_), None) => None,
    };
    let took = match &failed {
        None => step.done(&format!("{}: passed", notebook.name)),
        Some(_) => {
            step.failed();
            Duration::ZERO
        }
    };
    let seconds = outcome["seconds"].as_f64().unwrap_or(took.as_secs_f64());
    let expected = &outcome["expected"];
    entry(json!({ "seconds": seconds, "results": rows, "failed": failed, "expected": expected }))?;
    files::remove(&scratch)?;
    if let Some(failed) = failed {
        let how = format!("{}: {failed}", notebook.name);
        return if outcome["stopped"] == true { Ok(Ended::Stopped(how)) } else { Err(how) };
    }
    if request.write {
        write_back(place, turn, notebook)?;
    }
    Ok(Ended::Passed)
}

// What a run of the notebook depends on: its cells, the library, the budget, how it is run.
fn inputs(library: &Library, request: &Request, notebook: &Notebook) -> Result<String> {
    let text = files::read(&notebook.path)?;
    let parsed: Value = serde_json::from_str(&text)
        .map_err(|e| format!("{} is not a notebook: {e}", notebook.path.display()))?;
    let Some(cells) = parsed["cells"].as_array() else {
        return Err(format!("{} is not a notebook: it has no cells", notebook.path.display()));
    };
    let mut hash = Hash::default();
    hash.add(&library.id).add(&request.budget).add(EXECUTE);
    for cell in cells {
        // Outputs are not inputs.
        hash.add(cell["cell_type"].to_string())
            .add(cell["source"].to_string())
            .add(cell["metadata"]["tags"].to_string());
    }
    Ok(hash.end())
}

// Put the outputs of the executed copy into the notebook, without anything that belongs to this
// machine or this moment.
fn write_back(place: &Place, turn: &Turn, notebook: &Notebook) -> Result<()> {
    let script = script(place, "execute.py", EXECUTE)?;
    let mut write = Logged::new(place, &format!("write-{}", notebook.name), place.python());
    write
        .command()
        .arg("-I")
        .arg(script)
        .arg("--write")
        .arg(place.out().join(format!("{}.ipynb", notebook.name)))
        .arg(&notebook.path)
        .arg(&place.project)
        .arg(&place.shared);
    write.run(turn, |_| {})?;
    say::line(&format!("    wrote the outputs into {}", place.shown(&notebook.path)));
    Ok(())
}
