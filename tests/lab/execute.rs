//! Promise: `cargo lab run`. Failing cells fail, only what changed runs again, interruptions
//! and other runs do no harm, a cell that takes too long is ended, no line is lost, what is
//! written is free of this machine, and the report opens offline.

use crate::support::{Folder, Result, chromium, home, lab, own as state_of, project, ready, told};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A notebook file of these code cells; one that starts with `!!` is tagged to fail, one
/// that starts with `~~` to vary.
fn notebook(path: &Path, cells: &[&str]) -> Result {
    let cells: Vec<Value> = cells
        .iter()
        .enumerate()
        .map(|(i, source)| {
            let tags = match source.get(..2) {
                Some("!!") => vec!["raises-exception"],
                Some("~~") => vec!["varies"],
                _ => Vec::new(),
            };
            serde_json::json!({
                "cell_type": "code", "id": format!("cell-{i}"), "metadata": { "tags": tags },
                "execution_count": null, "outputs": [], "source": source.trim_start_matches(['!', '~']),
            })
        })
        .collect();
    let notebook = serde_json::json!({
        "cells": cells, "nbformat": 4, "nbformat_minor": 5,
        "metadata": { "kernelspec": {
            "name": "consistency", "display_name": "Rust (Consistency Lab)", "language": "rust"
        } },
    });
    std::fs::write(path, notebook.to_string())?;
    Ok(())
}

/// The state of this clone.
fn own() -> PathBuf {
    state_of(&project()).unwrap_or_else(home)
}

/// The record of a notebook's last run.
fn record(name: &str) -> Result<Value> {
    Ok(serde_json::from_str(&fs::read_to_string(own().join("out").join(format!("{name}.json")))?)?)
}

/// All that runs notebooks, in one test: runs of one clone take turns, and what would wait for
/// its turn leaves the other threads to the other tests.
pub fn notebooks() -> Result {
    ready();
    each_kind_of_failing_cell_fails()?;
    written_outputs_are_free_of_this_machine_and_the_report_opens_offline()?;
    a_killed_run_leaves_nothing_behind_and_the_next_one_ends_well()?;
    ctrl_c_stops_the_cell_and_keeps_what_ran()?;
    a_new_notebook_runs_as_it_is()?;
    a_run_names_the_remedy_and_ends_what_takes_too_long()
}

fn each_kind_of_failing_cell_fails() -> Result {
    let folder = Folder::new("failing")?;
    // In one notebook whose cells are all to fail, and which says how each did.
    let failing = [
        ("!!let x: i32 = \"text\";", "mismatched types"),
        ("!!let x: Vec<i32> = Vec::new(); x[3];", "Panic: index out of bounds"),
        ("!!assert!(1 > 2, \"order\");", "Panic: order"),
        ("!!check::close(\"pi\", 3.0, 3.14159, 0.01);", "check failed: pi is 3, the reference"),
        ("!!let n: i32 = \"x\".parse()?;", "Error: invalid digit found"),
        ("!!std::process::abort();", "Killed: the process behind the cells ended (signal: 6"),
    ];
    let path = folder.0.join("kinds.ipynb");
    let cells: Vec<&str> = std::iter::once("let before = 1;")
        .chain(failing.iter().map(|(cell, _)| *cell))
        .chain(["let after = 2;"])
        .collect();
    notebook(&path, &cells)?;
    let (good, text) = told(lab(&["run"]).arg(&path))?;
    assert!(good, "{text}");
    let expected = record("kinds")?["expected"].as_array().cloned().unwrap_or_default();
    assert_eq!(expected.len(), failing.len(), "{expected:#?}");
    for (i, ((_, want), got)) in failing.iter().zip(&expected).enumerate() {
        let got = got.as_str().unwrap_or_default();
        let cell = format!("cell {} (code cell {} of {}): ", i + 2, i + 2, cells.len());
        assert!(got.starts_with(&cell) && got.contains(want), "{want}: {got}");
    }

    // Where a cell that was to fail did not, the command fails.
    let path = folder.0.join("tag.ipynb");
    notebook(&path, &["let before = 1;", "!!let fine = 1;", "let after = 2;"])?;
    let (good, text) = told(lab(&["run"]).arg(&path))?;
    let want = "\nerror: tag: cell 2 (code cell 2 of 3) should have failed (tag raises-exception) and did not";
    assert!(!good && text.contains(want), "{text}");
    Ok(())
}

fn written_outputs_are_free_of_this_machine_and_the_report_opens_offline() -> Result {
    let folder = Folder::new("write")?;
    let path = folder.0.join("write.ipynb");
    notebook(
        &path,
        &[
            "let xs: Vec<f64> = (0..50).map(f64::from).collect();",
            "Figure::new(\"f\").x(\"x\").y(\"y\").line(\"l\", &xs, &xs)",
            "println!(\"{}\", std::env::var(\"LAB_PROJECT\")?);",
            "~~println!(\"{:?}\", std::time::SystemTime::now());",
            "for i in 0..9 { println!(\"line {i}\"); }",
            "df!(\"a\" => [1.0])?",
            "reproduced(\"a number\", 1.5, \"exactly 1.5\");",
        ],
    )?;
    let (mut written, mut index) = (Vec::new(), String::new());
    for _ in 0..2 {
        let (good, text) = told(lab(&["run", "--force", "--write"]).arg(&path))?;
        assert!(good, "{text}");
        let row = text.lines().find(|l| l.starts_with("write ")).unwrap_or_default();
        let cells: Vec<&str> = row.split("  ").map(str::trim).filter(|c| !c.is_empty()).collect();
        assert_eq!(cells[..4], ["write", "a number", "1.500", "exactly 1.5"], "{text}");
        written.push(fs::read_to_string(&path)?);
        index = text.lines().find_map(|l| l.strip_prefix("report: ")).unwrap_or_default().into();
    }
    assert!(written[0] == written[1], "a second run writes another file");
    let ours = project().to_string_lossy().into_owned();
    assert!(!written[0].contains(&ours), "a path of this machine was written");
    let parsed: Value = serde_json::from_str(&written[0])?;
    assert_eq!(parsed["cells"][2]["outputs"][0]["text"][0], ".\n");
    assert!(parsed["cells"][1]["outputs"][0]["data"]["image/png"].is_string());
    assert_eq!(parsed["cells"][1]["execution_count"], 2);
    assert_eq!(parsed["cells"][3]["outputs"].as_array().map(Vec::len), Some(1));
    assert_eq!(parsed["cells"][4]["outputs"].as_array().map(Vec::len), Some(1));

    // Its page opens offline and shows the figure and the table.
    let index = Path::new(&index);
    let page = fs::read_to_string(index.with_file_name("write.html"))?;
    assert_eq!(page.matches("<img ").count(), 1);
    assert_eq!(page.matches("src=\"data:image/png;base64,iVBOR").count(), 1);
    assert!(page.contains("<table>"));
    for page in [page, fs::read_to_string(index)?] {
        for loads in ["src=\"http", "href=\"http", "<script", "@import", "url("] {
            assert!(!page.contains(loads), "the page loads something: {loads}");
        }
    }
    only_what_changed_runs_again(&path)
}

fn only_what_changed_runs_again(path: &Path) -> Result {
    // Nothing changed: it does not run again, and still waits for its turn.
    let turn = File::options().write(true).open(own().join("notebooks.lock"))?;
    turn.lock()?;
    let mut waiting =
        lab(&["run"]).arg(path).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut said = BufReader::new(waiting.stdout.take().ok_or("no standard output")?);
    let mut line = String::new();
    while !line.contains("is at work in ") {
        line.clear();
        assert!(said.read_line(&mut line)? > 0, "it waited for nobody");
    }
    turn.unlock()?;
    let rest = std::io::read_to_string(said)?;
    assert!(waiting.wait()?.success(), "{rest}");
    assert!(rest.contains("==> write: nothing changed since it ran"), "{rest}");
    // A changed cell: it does, and no line of many is lost.
    notebook(
        path,
        &[
            "for i in 0..20000 { println!(\"{i}\"); }",
            // Caught panics, errors that are handled and text that looks like failure are none.
            "let caught = std::panic::catch_unwind(|| panic!(\"caught\")).is_err();",
            "let handled = \"x\".parse::<i32>().is_err(); eprintln!(\"panicked at nothing\");",
            "!!panic!(\"{}\", std::env::var(\"LAB_PROJECT\").unwrap_or_default());",
        ],
    )?;
    let (_, text) = told(lab(&["run", "--write"]).arg(path))?;
    assert!(text.contains("write: passed in "), "{text}");
    let ours = project().to_string_lossy().into_owned();
    assert!(!fs::read_to_string(path)?.contains(&ours), "a path of this machine was written");
    let executed = fs::read_to_string(own().join("out").join("write.ipynb"))?;
    let executed: Value = serde_json::from_str(&executed)?;
    let outputs = executed["cells"][0]["outputs"].as_array().cloned().unwrap_or_default();
    assert_eq!(outputs.len(), 1);
    let printed: Vec<String> = (0..20000).map(|i| format!("{i}\n")).collect();
    assert!(outputs[0]["text"] == json!(printed), "not the lines that were printed");
    Ok(())
}

fn ctrl_c_stops_the_cell_and_keeps_what_ran() -> Result {
    let folder = Folder::new("stopped")?;
    let (path, mark) = (folder.0.join("stopped.ipynb"), folder.0.join("reached"));
    let endless = format!(
        "std::fs::write({mark:?}, \"\")?; \
         for _ in stoppable(0..) {{ std::thread::sleep(std::time::Duration::from_millis(5)); }}"
    );
    notebook(&path, &["println!(\"before\");", &endless, "println!(\"after\");"])?;
    let other = folder.0.join("next.ipynb");
    notebook(&other, &["println!(\"not run\");"])?;
    let mut run = lab(&["run"]);
    run.arg(&path).arg(&other).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
    let mut run = run.spawn()?;
    let start = Instant::now();
    while !mark.exists() {
        assert!(start.elapsed() < Duration::from_secs(120), "the cell was never reached");
        std::thread::sleep(Duration::from_millis(100));
    }
    // To all programs of the terminal's foreground, as a terminal does it.
    let group = format!("-{}", run.id());
    assert!(Command::new("kill").args(["-INT", "--", &group]).status()?.success());
    let said = run.stderr.take().map(std::io::read_to_string).transpose()?.unwrap_or_default();
    assert!(!run.wait()?.success(), "{said}");
    assert!(said.contains("cell 2 (code cell 2 of 3) was stopped."), "{said}");
    let executed = fs::read_to_string(own().join("out").join("stopped.ipynb"))?;
    let executed: Value = serde_json::from_str(&executed)?;
    assert_eq!(executed["cells"][0]["outputs"][0]["text"][0], "before\n");
    assert_eq!(executed["cells"][1]["outputs"][0]["ename"], "Interrupted");
    assert_eq!(executed["cells"][2]["outputs"], json!([]));
    assert!(!own().join("out").join("next.ipynb").exists(), "it went on with the next notebook");
    Ok(())
}

fn a_new_notebook_runs_as_it_is() -> Result {
    let folder = Folder::new("new")?;
    let path = folder.0.join("14-my-claim.ipynb");
    let (good, text) = told(lab(&["new"]).arg(&path))?;
    assert!(good, "{text}");
    let (good, text) = told(lab(&["new"]).arg(&path))?;
    assert!(!good && text.contains("is there already; give another name"), "{text}");
    let (good, text) = told(&mut lab(&["new", "a name"]))?;
    assert!(!good && text.contains("'a name': give a name of letters"), "{text}");
    let (good, text) = told(lab(&["run"]).arg(&path))?;
    assert!(good && text.contains("14-my-claim: passed"), "{text}");
    assert!(text.contains("Frechet distance on pixels, 1 NFE"), "{text}");
    Ok(())
}

fn alive(mark: &str) -> Result<bool> {
    let table = Command::new("ps").args(["-A", "-o", "args="]).output()?;
    Ok(String::from_utf8_lossy(&table.stdout)
        .lines()
        .any(|l| l.contains(mark) && !l.contains("ps -A")))
}

fn a_killed_run_leaves_nothing_behind_and_the_next_one_ends_well() -> Result {
    let folder = Folder::new("killed")?;
    let (path, mark) = (folder.0.join("killed.ipynb"), folder.0.join("reached"));
    notebook(
        &path,
        &[&format!(
            "let reached = std::path::Path::new({mark:?}); if !reached.exists() {{ \
             std::fs::write(reached, \"\")?; \
             std::thread::sleep(std::time::Duration::from_secs(600)); }}"
        )],
    )?;
    let mut first = lab(&["run"]).arg(&path).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let start = Instant::now();
    while !mark.exists() {
        assert!(start.elapsed() < Duration::from_secs(120), "the cell was never reached");
        std::thread::sleep(Duration::from_millis(100));
    }
    first.kill()?; // SIGKILL
    first.wait()?;
    // The next one waits for nothing, and ends well.
    let (good, text) = told(lab(&["run"]).arg(&path))?;
    assert!(good && text.contains("killed: passed in "), "{text}");
    assert!(!alive(&format!("{}", path.display()))?, "the killed run's client is still alive");
    Ok(())
}

fn a_run_names_the_remedy_and_ends_what_takes_too_long() -> Result {
    let folder = Folder::new("limits")?;
    let [moved, hangs, pids] =
        ["moved.ipynb", "hangs.ipynb", "pids"].map(|name| folder.0.join(name));
    let given = "let mut given = vec![1]; let (a, mut b) = (1, vec![2]);";
    notebook(&moved, &[given, "drop(given); drop(b);", "b = vec![3];"])?;
    let waits = format!(
        "let mut sleep = std::process::Command::new(\"sh\") \
         .args([\"-c\", \"trap '' TERM; exec sleep 3600\"]).spawn()?; \
         std::fs::write({pids:?}, format!(\"{{}},{{}},{{}}\", std::process::id(), \
         std::os::unix::process::parent_id(), sleep.id()))?; sleep.wait()?;"
    );
    // The limit is one that a slow and busy machine keeps with its first cell.
    notebook(&hangs, &[&waits, "let after = 2;"])?;

    let (good, text) = told(lab(&["run"]).arg(&moved))?;
    assert!(!good, "{text}");
    assert!(text.contains("error: moved: cell 3 (code cell 3 of 3) failed: "), "{text}");
    assert!(text.contains("moved.ipynb at LAB_BUDGET="), "{text}");
    assert!(text.contains("An earlier cell declared `b`, and it is gone"), "{text}");
    assert!(text.contains("`let mut b = ..`"), "{text}");

    let (good, text) = told(lab(&["run", "--timeout", "40"]).arg(&hangs))?;
    let limit = "error: hangs: cell 1 (code cell 1 of 2) took longer than --timeout 40 allows";
    assert!(!good && text.contains(limit), "{text}");
    let pids = fs::read_to_string(pids)?;
    let left = Command::new("ps").args(["-o", "pid=,args=", "-p", &pids]).output()?;
    let left = String::from_utf8_lossy(&left.stdout).into_owned();
    assert!(left.lines().all(|process| process.contains("<defunct>")), "{pids} left {left}");

    let (good, text) = told(&mut lab(&["run", "--timeout", "0"]))?;
    assert!(!good && text.contains("--timeout"), "{text}");
    Ok(())
}

#[test]
#[ignore = "needs a headless Chromium: cargo test --release -- --ignored pages"]
fn pages_show_their_figures_in_a_browser() -> Result {
    ready();
    let page = own().join("report").join("00-how-the-lab-works.html");
    assert!(page.exists(), "run cargo lab first");
    let folder = Folder::new("browser")?;
    let shot = folder.0.join("shot.png");
    let browser = chromium().ok_or("no Chromium is installed")?;
    let dom = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--host-resolver-rules=MAP * 127.0.0.1:9", "--window-size=1000,3000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", folder.0.join("profile").display()))
        .arg(format!("--screenshot={}", shot.display()))
        .arg(format!("file://{}", page.display()))
        .output()?;
    let dom = String::from_utf8_lossy(&dom.stdout).into_owned();
    let text = fs::read_to_string(&page)?;
    assert_eq!(dom.matches("<img ").count(), text.matches("<img ").count());
    assert!(fs::metadata(&shot).is_ok_and(|m| m.len() > 20_000), "the page is blank");
    Ok(())
}
