//! Our own reproductions: one table per dataset.

use super::super::sampling::Sampling;
use super::numbers::{Entry, ORIGIN, metrics};
use crate::record::Budget;
use crate::record::page::{Block, Cell, Picture, Table, columns};
use crate::{Context, Result};
use std::path::Path;

/// The tables of everything that was run, and of what is still to be run and names no published
/// number: what does name one is in the tables of the paper.
pub(super) fn blocks(folder: &Path, entries: &[Entry]) -> Result<Vec<Block>> {
    let shown = |entry: &&Entry| entry.reproduction.published.is_none() || entry.was_run();
    let mut datasets: Vec<&str> = entries.iter().filter(shown).map(Entry::data).collect();
    datasets.sort_unstable();
    datasets.dedup();
    let mut blocks = Vec::new();
    for dataset in datasets {
        let of = |entry: &&Entry| shown(entry) && entry.data() == dataset;
        let mut these: Vec<&Entry> = entries.iter().filter(of).collect();
        these.sort_by_key(|entry| (entry.place(), entry.name()));
        blocks.push(Block::Heading(3, format!("Trained on {dataset}")));
        blocks.push(Block::Table(table(&these)));
        blocks.extend(costs(&these, entries));
        let pictures = pictures(folder, &these)?;
        if !pictures.is_empty() {
            blocks.push(Block::Pictures(pictures));
        }
    }
    Ok(blocks)
}

/// The rows of these reproductions, kind by kind of sampling.
fn table(entries: &[&Entry]) -> Table {
    let metrics = metrics(entries.iter().copied());
    let mut names = vec!["reproduction".to_string(), "sampling".to_string(), "NFE".to_string()];
    names.extend(heads(&metrics));
    names.extend(ORIGIN.map(String::from));
    let rows = entries.iter().flat_map(|entry| {
        let samplings = entry.reproduction.samplings();
        let pick = |sampling: &Sampling| entry.best(sampling);
        rows(entry, &samplings, &metrics, &entry.name(), &pick)
    });
    Table { rows: rows.collect(), columns: columns("", &names) }
}

/// The headings of the metrics; with none of them, a column for what is missing.
pub(super) fn heads(metrics: &[String]) -> Vec<String> {
    if metrics.is_empty() { vec!["measured".to_string()] } else { metrics.to_vec() }
}

/// One row per kind of sampling: what it is, its numbers, where they come from, how they are made.
/// Only one row where nothing at all was measured.
pub(super) fn rows(
    entry: &Entry,
    samplings: &[Sampling],
    metrics: &[String],
    label: &str,
    pick: &dyn Fn(&Sampling) -> Option<super::numbers::Measured>,
) -> Vec<Vec<Cell>> {
    let title = format!("{label}: {}", entry.reproduction.title);
    let wide = metrics.len().max(1);
    let missing = |sampling: String| {
        let mut row = vec![Cell::Text(sampling), Cell::empty(), not_run()];
        row.extend(std::iter::repeat_n(Cell::empty(), wide - 1 + ORIGIN.len() - 1));
        row.push(Cell::Commands(vec![entry.command()]));
        row
    };
    let measured: Vec<_> = samplings.iter().map(|one| (one.name(), pick(one))).collect();
    let mut rows = Vec::new();
    for (name, measured) in &measured {
        let row = match measured {
            Some(measured) => {
                let mut row = vec![Cell::Text(name.clone()), Cell::Text(measured.nfe.to_string())];
                row.extend(metrics.iter().map(|metric| measured.cell(metric)));
                row.push(measured.origin());
                row.push(measured.commands());
                row
            }
            None => missing(name.clone()),
        };
        rows.push(row);
    }
    if measured.iter().all(|(_, measured)| measured.is_none()) {
        rows = vec![missing(String::new())];
    }
    // The title stands only once.
    for (i, row) in rows.iter_mut().enumerate() {
        row.insert(0, if i == 0 { Cell::Text(title.clone()) } else { Cell::empty() });
    }
    rows
}

/// What stands for a number that nobody has measured yet.
pub(super) fn not_run() -> Cell {
    Cell::Missing("not run".to_string())
}

/// What a distillation's steps leave out.
fn costs(these: &[&Entry], all: &[Entry]) -> Option<Block> {
    let of = |entry: &&Entry| {
        let teacher = entry.reproduction.teacher.as_ref().filter(|_| entry.weights.is_none())?;
        let teacher = all.iter().find(|other| other.reproduction.name == *teacher)?;
        let steps = teacher.experiment.training.iterations;
        Some(format!(
            "`{}` has a teacher, `{}`, whose {steps} steps (at the full budget) are not among its own.",
            entry.reproduction.name, teacher.reproduction.name
        ))
    };
    let all: Vec<String> = these.iter().filter_map(of).collect();
    (!all.is_empty()).then(|| Block::Text(all.join(" ")))
}

/// The samples of each kind of sampling, of the first seed and the largest budget that has them.
fn pictures(folder: &Path, entries: &[&Entry]) -> Result<Vec<Picture>> {
    let mut all = Vec::new();
    for Entry { reproduction, .. } in entries.iter().filter(|entry| entry.weights.is_none()) {
        for sampling in reproduction.samplings() {
            let files = Budget::ALL
                .into_iter()
                .rev()
                .flat_map(|budget| reproduction.seeds.iter().map(move |seed| (*seed, budget)));
            let found = files
                .filter_map(|(seed, budget)| {
                    Some((seed, budget, reproduction.picture(&sampling, seed, budget)?))
                })
                .find(|(.., file)| reproduction.folder(folder).join(file).is_file());
            let Some((seed, budget, file)) = found else { continue };
            let path = reproduction.folder(folder).join(&file);
            let png =
                std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            let name = &reproduction.name;
            let caption =
                format!("{name}, {}: seed {seed}, budget {}", sampling.name(), budget.name());
            let file = reproduction.folder(Path::new("")).join(file).display().to_string();
            all.push(Picture { caption, file, png, pixels: true });
        }
    }
    Ok(all)
}
