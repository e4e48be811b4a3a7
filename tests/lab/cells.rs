//! Promise: a cell ends. One that waits for input, leaves a line open, asks for what a kernel
//! does not have or prints very much ends with what it is due; one that takes too long is
//! ended. Through a real kernel and a real Jupyter client.

mod support;

use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;
use support::{Folder, Result, answer, client, lab, own, project, ready, stdout, told};

/// Reads a line of standard input and prints how many bytes there were.
const READ: &str = "let mut line = String::new(); \
                    println!(\"{}\", std::io::stdin().read_line(&mut line)?);";

#[test]
fn no_cell_waits_for_input_or_hides_its_end() -> Result {
    ready();
    let folder = Folder::new("cells")?;
    let failures = folder.0.join("failures.jsonl");
    let asks =
        format!("print!(\"Your guess: \"); std::io::Write::flush(&mut std::io::stdout())?; {READ}");
    let cells = [
        ("let kept = 7;", ""),
        // It is at its end for the cell, for every program that it starts, and stays so.
        (READ, "0"),
        (READ, "0"),
        (
            "let cat = std::process::Command::new(\"cat\").status()?; println!(\"{cat}\");",
            "exit status: 0",
        ),
        // An open line is ended: by the cell's end, and before what evcxr reads.
        (&asks, "Your guess: 0"),
        ("print!(\"open\"); std::io::Write::flush(&mut std::io::stdout())?;", "open"),
        ("print!(\"a\"); check::holds(\"b\", true); print!(\"c\\n\");", "aok: b\nc"),
        ("let lost = 1; print!(\"open\"); panic!(\"on purpose\");", "open"),
        ("println!(\"{kept}\");", "7"),
        // No network is waited for, and none is needed.
        ("async fn later() -> i32 { 3 }\nlet three = later().await;", ""),
        ("println!(\"{kept}\");", "7"),
        // A process that evcxr starts after a crash is as the first one was.
        ("std::process::abort();", ""),
        ("let lost = 1; panic!(\"in the new process\");", ""),
        (READ, "0"),
    ];
    let code: Vec<&str> = cells.iter().map(|(code, _)| *code).collect();
    let nowhere = "http://127.0.0.1:9";
    let kernels = answer(client(&json!({ "cells": code, "env": {
        "LAB_FAILURES": failures,
        "https_proxy": nowhere, "http_proxy": nowhere, "ALL_PROXY": nowhere,
    } }))?)?;
    let ran = kernels[0]["cells"].as_array().cloned().unwrap_or_default();
    assert_eq!(ran.len(), cells.len());
    for (cell, (code, printed)) in ran.iter().zip(cells) {
        assert_eq!(stdout(cell), printed, "{cell:#}");
        let fails = code.contains("await") || code.contains("abort");
        assert_eq!(cell["status"], if fails { "error" } else { "ok" }, "{cell:#}");
    }
    let refused = ran[9]["error"].as_str().unwrap_or_default();
    assert!(refused.contains("a cell has no async runtime"), "{refused}");
    assert!(refused.contains("call them without `.await`"), "{refused}");
    let failed: Vec<Value> = fs::read_to_string(&failures)?
        .lines()
        .map(serde_json::from_str)
        .collect::<std::result::Result<_, _>>()?;
    let messages: Vec<&Value> = failed.iter().map(|failure| &failure["message"]).collect();
    assert_eq!(messages, ["on purpose", "in the new process"]);
    Ok(())
}

/// A notebook file of these code cells.
fn notebook(path: &Path, cells: &[&str]) -> Result {
    let cells: Vec<Value> = (0..)
        .zip(cells)
        .map(|(i, source)| {
            json!({
                "cell_type": "code", "id": format!("cell-{i}"), "metadata": {},
                "execution_count": null, "outputs": [], "source": source,
            })
        })
        .collect();
    let notebook = json!({ "cells": cells, "nbformat": 4, "nbformat_minor": 5, "metadata": {} });
    Ok(fs::write(path, notebook.to_string())?)
}

#[test]
fn a_run_keeps_every_line_names_the_remedy_and_ends_what_takes_too_long() -> Result {
    ready();
    let folder = Folder::new("limits")?;
    let [lines, moved, hangs, pids] =
        ["lines.ipynb", "moved.ipynb", "hangs.ipynb", "pids"].map(|name| folder.0.join(name));
    notebook(&lines, &["for i in 0..20000 { println!(\"{i}\"); }"])?;
    let given = "let mut given = vec![1]; let (a, mut b) = (1, vec![2]);";
    notebook(&moved, &[given, "drop(given); drop(b);", "b = vec![3];"])?;
    let waits = format!(
        "let mut sleep = std::process::Command::new(\"sh\") \
         .args([\"-c\", \"trap '' TERM; exec sleep 3600\"]).spawn()?; \
         std::fs::write({pids:?}, format!(\"{{}},{{}},{{}}\", std::process::id(), \
         std::os::unix::process::parent_id(), sleep.id()))?; sleep.wait()?;"
    );
    notebook(&hangs, &["let before = 1;", &waits, "let after = 2;"])?;

    let mut run = lab(&["run", "--timeout", "25"]);
    let (good, text) = told(run.args([&lines, &moved, &hangs]))?;
    assert!(!good, "{text}");
    assert!(text.contains("lines: passed in "), "{text}");
    let executed = own(&project()).ok_or("no state")?.join("out").join("lines.ipynb");
    let executed: Value = serde_json::from_str(&fs::read_to_string(executed)?)?;
    let outputs = executed["cells"][0]["outputs"].as_array().cloned().unwrap_or_default();
    assert_eq!(outputs.len(), 1);
    let printed: Vec<String> = (0..20000).map(|i| format!("{i}\n")).collect();
    assert!(outputs[0]["text"] == json!(printed), "not the lines that were printed");

    assert!(text.contains("error: moved: cell 3 (code cell 3 of 3) failed: "), "{text}");
    assert!(text.contains("An earlier cell declared `b`, and it is gone"), "{text}");
    assert!(text.contains("`let mut b = ..`"), "{text}");

    let limit = "error: hangs: cell 2 (code cell 2 of 3) took longer than --timeout 25 allows";
    assert!(text.contains(limit), "{text}");
    let pids = fs::read_to_string(pids)?;
    let left = Command::new("ps").args(["-o", "pid=,args=", "-p", &pids]).output()?;
    let left = String::from_utf8_lossy(&left.stdout).into_owned();
    assert!(left.lines().all(|process| process.contains("<defunct>")), "{pids} left {left}");

    let (good, text) = told(&mut lab(&["run", "--timeout", "0"]))?;
    assert!(!good && text.contains("--timeout"), "{text}");
    Ok(())
}
