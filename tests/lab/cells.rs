//! Promise: a cell ends. One that waits for input, leaves a line open or asks for what a kernel
//! does not have ends with what it is due. Through a real kernel and a real Jupyter client.

use crate::support::{Folder, Result, answer, client, ready, stdout};
use serde_json::{Value, json};
use std::fs;

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
