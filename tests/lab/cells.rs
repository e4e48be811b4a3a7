//! Promise: a cell ends. One that waits for input, leaves a line open or asks for what a kernel
//! does not have ends with what it is due. Through a real kernel and a real Jupyter client.

use crate::support::{Result, answer, client, ready, stdout};
use serde_json::json;

/// Reads a line of standard input and prints how many bytes there were.
const READ: &str = "let mut line = String::new(); \
                    println!(\"{}\", std::io::stdin().read_line(&mut line)?);";

#[test]
fn no_cell_waits_for_input_or_hides_its_end() -> Result {
    ready();
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
        "https_proxy": nowhere, "http_proxy": nowhere, "ALL_PROXY": nowhere,
    } }))?)?;
    let ran = kernels[0]["cells"].as_array().cloned().unwrap_or_default();
    assert_eq!(ran.len(), cells.len());
    for (cell, (code, printed)) in ran.iter().zip(cells) {
        assert_eq!(stdout(cell), printed, "{cell:#}");
        let fails = ["await", "abort", "panic"].iter().any(|word| code.contains(word));
        assert_eq!(cell["status"], if fails { "error" } else { "ok" }, "{cell:#}");
    }
    let refused = ran[9]["error"].as_str().unwrap_or_default();
    assert!(refused.contains("a cell has no async runtime"), "{refused}");
    assert!(refused.contains("call them without `.await`"), "{refused}");
    // What a panic says is the cell's error, in the new process too.
    for (cell, message) in [(7, "on purpose"), (12, "in the new process")] {
        let said = ran[cell]["error"].as_str().unwrap_or_default();
        assert!(said.ends_with(&format!(": {message}")), "{said}");
    }
    Ok(())
}
