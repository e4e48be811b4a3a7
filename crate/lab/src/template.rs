//! `cargo lab new`: a notebook to begin with.

use crate::Result;
use crate::files::{self, Hash};
use crate::place::{Place, given};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const CLAIM: &str = "What should be true, and how this notebook shows it. (`cargo lab run NAME` runs \
                     it, `--write` puts the outputs into the file.)";

const CELLS: [(&str, &str); 9] = [
    (
        "code",
        "// Needs: nothing but `cargo lab setup`. Works without a network and without a GPU.\n\
         let budget = budget()?;\n\
         let key = Key::new(0);\n\
         let noise = NoiseRange::default();",
    ),
    (
        "markdown",
        "## A model\n\nIt trains in the background; `watch` shows it, and stop ends the watching.",
    ),
    (
        "code",
        "let experiment = Experiment::parse(&format!(r#\"\n    \
         name = \"NAME\"\n    \
         data = {{ name = \"digits\" }}\n    \
         network = {{ kind = \"mlp\", width = 128, blocks = 3 }}\n    \
         optimizer = {{ learning_rate = 1e-3 }}\n    \
         training = {{ iterations = {}, batch = 128, decay = 0.3 }}\n    \
         [method]\n    \
         kind = \"consistency-training\"\n    \
         schedule = {{ s0 = 10, s1 = 40, mu0 = 0.9 }}\n    \
         distance = {{ metric = {{ kind = \"pseudo-huber\", c = 0.03 }} }}\n    \
         weighting = {{ weight = \"inverse-gap\" }}\n\
         \"#, budget.pick(1500, 8000, 40_000)))?;\n\
         let run = Run::start(&experiment, 0)?;",
    ),
    ("code", "run.watch()?;\nlet trained = run.join()?;\ntrained"),
    ("markdown", "## What it shows"),
    (
        "code",
        "let f = trained.consistency_model()?;\n\
         let z = key.stream(\"z\").normal(0..48, &[1, 8, 8], DType::F32, &Device::Cpu)?;\n\
         let samples = sample::one_step(&f, &z, noise.t_max)?;\n\
         Figure::images(\"One step from noise\", &samples, 12)?",
    ),
    (
        "markdown",
        "## Checks\n\nA check that fails makes the cell fail, and with it `cargo lab run`.",
    ),
    (
        "code",
        "let digits = digits(DType::F32, &Device::Cpu)?;\n\
         let comparison = DigitsComparison::new(&digits)?;\n\
         let z = key.stream(\"many\").normal(0..450, &[1, 8, 8], DType::F32, &Device::Cpu)?;\n\
         let score = comparison.score(&sample::one_step(&f, &z, noise.t_max)?)?;\n\
         let nothing = comparison.score(&z)?;\n\
         check::holds(\"samples are nearer to the digits than noise is\", score.frechet < nothing.frechet);\n\
         reproduced(\"Frechet distance on pixels, 1 NFE\", score.frechet, \"the digits' own: see below\");\n\
         comparison.real()",
    ),
    ("markdown", "What this means, where it falls short, and what comes next."),
];

/// Write the notebook `name` into notebooks/, or where `name` is a path; returns its path.
///
/// # Errors
/// A name that is no file's name, or that is taken.
pub fn new(place: &Place, name: &str) -> Result<PathBuf> {
    let asked = Path::new(name);
    let file = asked.file_name().unwrap_or_default().to_string_lossy();
    let name = file.strip_suffix(".ipynb").unwrap_or(&file);
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || !name.chars().all(fits) {
        return Err(format!(
            "'{name}': give a name of letters, digits, '-' and '_', such as 14-mine"
        ));
    }
    let folder = match asked.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => given(&parent.to_string_lossy()),
        None => place.project.join("notebooks"),
    };
    let path = folder.join(format!("{name}.ipynb"));
    if path.exists() {
        return Err(format!("{} is there already; give another name", path.display()));
    }
    let title = format!("# {}\n\n{CLAIM}", name.replace(['-', '_'], " "));
    let cells = std::iter::once(("markdown", title.as_str())).chain(CELLS);
    let cells: Vec<Value> = cells
        .enumerate()
        .map(|(i, (kind, text))| cell(i, kind, &text.replace("NAME", name)))
        .collect();
    let notebook = json!({
        "cells": cells,
        "metadata": {
            "kernelspec": {
                "name": "consistency",
                "display_name": "Rust (Consistency Lab)",
                "language": "rust",
            },
            "language_info": { "name": "rust", "file_extension": ".rs", "mimetype": "text/rust" },
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    });
    files::write(&path, format!("{notebook:#}\n").as_bytes())?;
    Ok(path)
}

fn cell(number: usize, kind: &str, text: &str) -> Value {
    let mut hash = Hash::default();
    hash.add(text).add(number.to_string());
    let id: String = hash.end().chars().take(8).collect();
    let mut cell = json!({
        "cell_type": kind,
        "id": id,
        "metadata": {},
        "source": text.split_inclusive('\n').collect::<Vec<_>>(),
    });
    if kind == "code" {
        cell["execution_count"] = Value::Null;
        cell["outputs"] = json!([]);
    }
    cell
}
