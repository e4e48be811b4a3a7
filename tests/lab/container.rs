//! Promise: the image and the dev container end in the two commands of README.md, by the very
//! script of CI. No container engine is asked for: what their files name is looked at.

use crate::support::{Folder, Result, lab, project, told};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

const CLONE: &str = "/workspaces/consistency-lab";

/// The instructions of the Dockerfile, each with its arguments as one line.
fn instructions() -> Result<Vec<(String, String)>> {
    let text = fs::read_to_string(project().join(".devcontainer/Dockerfile"))?;
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let text = lines.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(|line| {
            let (name, rest) = line.split_once(' ').ok_or_else(|| line.to_string())?;
            Ok((name.to_string(), rest.split_whitespace().collect::<Vec<_>>().join(" ")))
        })
        .collect()
}

fn all(instructions: &[(String, String)], name: &str) -> Vec<String> {
    instructions.iter().filter(|(n, _)| n == name).map(|(_, rest)| rest.clone()).collect()
}

#[test]
fn the_image_has_the_rust_of_cargo_toml_and_runs_the_script_of_ci() -> Result {
    let instructions = instructions()?;
    let known = ["FROM", "RUN", "ENV", "WORKDIR", "COPY", "CMD"];
    for (name, rest) in &instructions {
        assert!(known.contains(&name.as_str()), "{name} {rest}: is it tested?");
    }
    assert_eq!(instructions[0].0, "FROM");
    let manifest = fs::read_to_string(project().join("Cargo.toml"))?;
    let version = manifest.split("rust-version = \"").nth(1).and_then(|r| r.split('"').next());
    let version = version.ok_or("Cargo.toml names no Rust")?;
    let tag = instructions[0].1.strip_prefix("rust:").ok_or("the image is not that of Rust")?;
    let (release, system) = tag.split_once('-').ok_or("the tag names no system")?;
    assert!(release.starts_with(&format!("{version}.")), "rust:{tag}, Cargo.toml: {version}");
    assert_eq!(release.split('.').count(), 3, "rust:{tag} is not one release");
    assert_eq!(system, "bookworm");

    let packages = all(&instructions, "RUN").join("\n");
    assert!(packages.contains(" python3-venv "), "{packages}");
    for component in ["clippy", "rust-src", "rustfmt"] {
        assert!(packages.contains(component), "{component}: {packages}");
    }
    assert_eq!(all(&instructions, "WORKDIR"), [CLONE]);
    assert_eq!(all(&instructions, "COPY"), [". ."]);
    // The script comes last but for the command, once the clone is there.
    let end: Vec<&str> = instructions.iter().rev().take(3).map(|(name, _)| name.as_str()).collect();
    assert_eq!(end, ["CMD", "RUN", "COPY"]);
    assert_eq!(all(&instructions, "RUN").last().map(String::as_str), Some(".ci/setup"));
    let mode = fs::metadata(project().join(".ci/setup"))?.permissions().mode();
    assert_eq!(mode & 0o111, 0o111, ".ci/setup is not executable");

    // State and build lie outside of the folder that a dev container mounts over.
    let variables = all(&instructions, "ENV").join(" ");
    for name in ["CARGO_TARGET_DIR", "LAB_HOME"] {
        let value = variables.split(&format!("{name}=")).nth(1).ok_or(name)?;
        assert!(value.starts_with("/opt/"), "{name}: {variables}");
    }
    let command: Vec<String> = serde_json::from_str(&all(&instructions, "CMD")[0])?;
    assert_eq!(&command[..3], ["cargo", "lab", "open"]);
    let (good, help) = told(&mut lab(&["open", "--help"]))?;
    assert!(good && command[3..].iter().all(|option| help.contains(option)), "{command:?}: {help}");
    Ok(())
}

#[test]
fn the_dev_container_is_that_image_with_the_clone_in_its_place() -> Result {
    let folder = project().join(".devcontainer");
    let text = fs::read_to_string(folder.join("devcontainer.json"))?;
    let file: Value = serde_json::from_str(&text)?;
    let text = |value: &Value| value.as_str().map(String::from).unwrap_or_default();
    assert!(folder.join(text(&file["build"]["dockerfile"])).is_file());
    let context = fs::canonicalize(folder.join(text(&file["build"]["context"])))?;
    assert_eq!(context, project());
    assert_eq!(file["workspaceFolder"], CLONE);
    let mount = text(&file["workspaceMount"]);
    assert!(mount.split(',').any(|part| part == format!("target={CLONE}")), "{mount}");
    assert_eq!(file["postCreateCommand"], ".ci/setup");
    // What `cargo lab open` listens on when nothing else is said.
    let (_, help) = told(&mut lab(&["open", "--help"]))?;
    assert!(help.contains(&format!("[default: {}]", file["forwardPorts"][0])), "{help}");
    Ok(())
}

#[test]
fn what_git_does_not_know_is_not_sent_to_the_image() -> Result {
    let ignored = fs::read_to_string(project().join(".dockerignore"))?;
    let ignored: Vec<&str> = ignored.lines().collect();
    for line in fs::read_to_string(project().join(".gitignore"))?.lines() {
        let name = line.trim_end_matches('/');
        let anywhere = format!("**/{name}");
        assert!(ignored.contains(&name) || ignored.contains(&anywhere.as_str()), "{line}");
    }
    Ok(())
}

// The commands of cargo that a script runs, by a cargo that writes them down; it fails at the
// one that `fails` names.
fn commands(script: &str, fails: &str) -> Result<(bool, Vec<String>)> {
    let folder =
        Folder::new(&format!("ci-{}-{}", script.replace('/', "-"), fails.replace(' ', "-")))?;
    let log = folder.0.join("log");
    let cargo = folder.0.join("cargo");
    let text = format!("#!/bin/sh\necho \"$*\" >> '{}'\n[ \"$*\" != '{fails}' ]\n", log.display());
    fs::write(&cargo, text)?;
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755))?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::iter::once(folder.0.clone()).chain(std::env::split_paths(&path));
    let status = Command::new(project().join(script))
        .current_dir(Path::new("/"))
        .env("PATH", std::env::join_paths(path)?)
        .env("HOME", &folder.0)
        .env_remove("XDG_CACHE_HOME")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()?;
    let log = fs::read_to_string(log)?;
    Ok((status.success(), log.lines().map(String::from).collect()))
}

#[test]
fn the_script_is_the_two_commands_and_ci_starts_with_it() -> Result {
    let (good, ours) = commands(".ci/setup", "nothing")?;
    assert!(good);
    assert_eq!(ours, ["lab", "test --release --no-run"]);
    for (i, command) in ours.iter().enumerate() {
        let (good, until) = commands(".ci/setup", command)?;
        assert!(!good && until == ours[..=i], "{command}: {until:?}");
    }
    let (good, all) = commands(".ci/run", "nothing")?;
    assert!(good);
    assert_eq!(all[0], "fmt --all --check");
    assert_eq!(all[1..=ours.len()], ours);
    let more = all[1..].iter().filter(|command| **command == ours[1]).count();
    assert_eq!(more, 1, "CI compiles the tests by more than one script: {all:?}");
    let readme = fs::read_to_string(project().join("README.md"))?;
    assert!(readme.contains("```sh\ncargo lab\ncargo test --release\n```"));
    Ok(())
}
