//! Promise: the environment. Its commands explain themselves, say what is missing, and
//! compile everything once; the committed notebooks are in order.

use crate::support::{Result, cargo, lab, project, ready, told};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

#[test]
fn names_and_budgets_that_do_not_exist() -> Result {
    let (good, text) = told(&mut lab(&["run", "99-nothing"]))?;
    assert!(
        !good && text.contains("there is no notebook '99-nothing'; there are 00-how-the-lab-works"),
        "{text}"
    );
    let (good, text) = told(&mut lab(&["run", "no/such.ipynb"]))?;
    assert!(
        !good && text.contains("there is no notebook ") && text.contains("no/such.ipynb"),
        "{text}"
    );
    let (good, text) = told(lab(&["run", "00"]).env("LAB_BUDGET", "tiny"))?;
    assert!(
        !good && text.contains("LAB_BUDGET = 'tiny': choose quick, standard or full"),
        "{text}"
    );
    let (good, text) = told(lab(&["setup"]).current_dir(std::env::temp_dir()))?;
    assert!(!good && text.contains("is not in a clone of Consistency Lab"), "{text}");
    Ok(())
}

#[test]
fn help_has_an_example_for_each_command() -> Result {
    let (_, text) = told(&mut lab(&["--help"]))?;
    for command in ["setup", "run", "open", "doctor", "pack", "unpack", "bench", "clean"] {
        assert!(text.contains(&format!("\n  {command} ")), "{command}: {text}");
        let mut arguments = vec![command, "--help"];
        if command == "bench" {
            arguments = vec!["bench", "kernel", "--help"];
        }
        let (good, text) = told(&mut lab(&arguments))?;
        assert!(good && text.contains("Example:\n  cargo lab "), "{command}: {text}");
    }
    Ok(())
}

#[test]
fn the_doctor_finds_what_is_here_and_names_the_remedy_for_what_is_not() -> Result {
    ready();
    let (good, text) = told(&mut lab(&["doctor"]))?;
    assert!(good, "{text}");
    for what in
        ["Rust", "C compiler", "Python 3 with venv", "disk", "memory", "evcxr_jupyter", "library"]
    {
        assert!(text.contains(&format!("ok       {what}: ")), "{what}: {text}");
    }
    let (good, text) = told(lab(&["doctor"]).env("LAB_PYTHON", "no-such-python"))?;
    assert!(!good && text.contains("MISSING  Python 3 with venv: no-such-python"), "{text}");
    assert!(text.contains("apt install python3 python3-venv"), "{text}");
    Ok(())
}

/// What cargo says that it built, or found built.
fn messages(arguments: &[&str]) -> Result<Vec<Value>> {
    let output = cargo(arguments).arg("--message-format=json").output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let messages = lines.lines().map(serde_json::from_str);
    let messages = messages.collect::<serde_json::Result<Vec<Value>>>()?;
    Ok(messages.into_iter().filter(|m| m["reason"] == "compiler-artifact").collect())
}

/// The files that it built of the dependencies, by package.
fn dependencies(messages: &[Value]) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for message in messages {
        let package = message["package_id"].as_str().unwrap_or_default();
        if package.starts_with("registry+") {
            let files = message["filenames"].as_array().into_iter().flatten();
            let files = files.filter_map(|f| f.as_str().map(ToString::to_string));
            found.entry(package.to_string()).or_default().extend(files);
        }
    }
    found
}

const TESTS: [&str; 3] = ["test", "--release", "--no-run"];

#[test]
fn the_tests_compile_no_dependency_that_cargo_lab_has_not() -> Result {
    // What `cargo lab` builds: its program, and the library for the kernel.
    let mut built = messages(&["build", "--release", "--package", "lab"])?;
    built.extend(messages(&["build", "--release", "--package", "consistency-kernel"])?);
    let built = dependencies(&built);
    assert!(built.len() > 250, "{} dependencies: the list is not whole", built.len());
    for (package, files) in dependencies(&messages(&TESTS)?) {
        let known = built.get(&package).cloned().unwrap_or_default();
        let new: Vec<&String> = files.difference(&known).collect();
        assert!(new.is_empty(), "`cargo test --release` compiles {package} anew: {new:?}");
    }
    Ok(())
}

#[test]
fn cargo_lab_and_cargo_test_compile_nothing_again_for_each_other() -> Result {
    // As from a shell, where cargo gives `cargo lab` what it gives a program that it runs, and
    // `cargo lab` gives that to nobody.
    ready();
    let cargo_lab = |arguments: &[&str]| {
        let all = [&["run", "--release", "--package", "lab", "--"], arguments].concat();
        told(&mut cargo(&all))
    };
    // Once each: what has changed since the last time is compiled.
    cargo_lab(&["--help"])?;
    messages(&TESTS)?;
    let commands: [&[&str]; 3] = [&["setup"], &["data", "list"], &["doctor"]];
    for lab in commands {
        let (good, text) = cargo_lab(lab)?;
        assert!(good, "{lab:?}: {text}");
        assert!(!text.contains("Compiling"), "{lab:?} compiles what is compiled: {text}");
        let (good, text) = told(&mut cargo(&TESTS))?;
        assert!(good && !text.contains("Compiling"), "after {lab:?}, the tests: {text}");
    }
    // `cargo lab setup` hides what its own cargo says: a second one finds nothing to do.
    let (_, text) = cargo_lab(&["setup"])?;
    assert!(text.contains("up to date"), "{text}");
    Ok(())
}

#[test]
fn committed_notebooks_are_in_order() -> Result {
    let mut count = 0;
    for entry in fs::read_dir(project().join("notebooks"))? {
        let path = entry?.path();
        if path.extension().is_none_or(|e| e != "ipynb") {
            continue;
        }
        count += 1;
        let name = path.display();
        let text = fs::read_to_string(&path)?;
        let parsed: Value = serde_json::from_str(&text)?;
        let cells = parsed["cells"].as_array().cloned().unwrap_or_default();
        assert!(cells.len() < 60, "{name} has {} cells", cells.len());
        assert_eq!(parsed["metadata"]["kernelspec"]["name"], "consistency", "{name}");
        let source = |cell: &Value| -> String {
            cell["source"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
        };
        let code: Vec<&Value> = cells.iter().filter(|c| c["cell_type"] == "code").collect();
        for (i, cell) in cells.iter().enumerate().filter(|(_, c)| c["cell_type"] == "code") {
            for (k, line) in source(cell).lines().enumerate() {
                let width = line.chars().count();
                assert!(
                    width <= 110,
                    "{name}: cell {i} (the first is 0), line {}: {width} characters, at most 110:\n\
                     {line}",
                    k + 1
                );
            }
        }
        assert!(
            source(code[0]).starts_with("// Needs: "),
            "{name}: the first cell says what it needs"
        );
        let mut figures = 0;
        for cell in &code {
            let source = source(cell);
            assert!(source.is_ascii(), "{name}: code that is not ASCII:\n{source}");
            assert!(!source.lines().any(|l| l.trim_start().starts_with(":dep")), "{name}: a :dep");
            for output in cell["outputs"].as_array().into_iter().flatten() {
                let data = &output["data"];
                if data["application/vnd.plotly.v1+json"].is_object() {
                    figures += 1;
                    assert!(
                        data["image/png"].is_string() && data["text/plain"].is_array(),
                        "{name}: a figure in one form"
                    );
                }
                let png = data["image/png"].as_str().map_or(0, str::len);
                assert!(png < 140_000, "{name}: a PNG of {} KB", png * 3 / 4000);
            }
            // What is to fail has failed, and nothing else.
            let outputs = cell["outputs"].as_array().into_iter().flatten();
            let failed = outputs.filter(|output| output["output_type"] == "error").count();
            let tags = cell["metadata"]["tags"].as_array().into_iter().flatten();
            let wanted = tags.filter(|tag| *tag == "raises-exception").count();
            assert_eq!(failed, wanted, "{name}: errors in the cell\n{source}");
        }
        assert!(figures > 0, "{name}: its outputs are not committed (cargo lab run --write)");
        for mark in ["/home/", "/root/", "/tmp/", "/Users/"] {
            assert!(!text.contains(mark), "{name}: a path of one machine ({mark})");
        }
        assert!(text.len() < 2_000_000, "{name} has {} bytes", text.len());
    }
    assert!(count >= 2);
    Ok(())
}
