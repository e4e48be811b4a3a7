//! The paper's tables, with what was measured here in columns of its own.

use super::super::config::Reproduction;
use super::super::sampling::Sampling;
use super::numbers::{Entry, Measured, ORIGIN};
use super::ours::not_run;
use crate::record::page::{Block, Cell, Column, Table, columns};
use crate::record::read_text;
use crate::sample::Sampler;
use crate::{Context, Error, Result, ensure};
use polars::df;
use polars::prelude::DataFrame;
use std::path::Path;

const HEADER: &str = "dataset,group,method,nfe,fid,is,precision,recall";
/// Ours beside published numbers: only what bears the same name.
const COMPARED: [&str; 4] = ["FID", "Inception score", "precision", "recall"];

/// A row of `published.csv`.
struct Line {
    dataset: String,
    group: String,
    method: String,
    nfe: String,
    numbers: Vec<String>,
}

/// The published table of a dataset (`cifar10`, `imagenet64`, `lsun-bedroom` or `lsun-cat`), one
/// row for each method and number of network evaluations, with ours beside it: FID where it was
/// measured on that very dataset, and the command that measures it.
///
/// # Errors
/// A file of `folder` (`reproductions/`) that cannot be read; another dataset.
pub fn published(folder: &Path, dataset: &str) -> Result<DataFrame> {
    let lines = read(&folder.join("published.csv"))?;
    let lines: Vec<Line> = lines.into_iter().filter(|line| line.dataset == dataset).collect();
    ensure!(!lines.is_empty(), "published.csv has no dataset '{dataset}'");
    let mut entries = Vec::new();
    for name in Reproduction::names(folder)? {
        entries.push(Entry::read(folder, &name)?);
    }
    let number = |cell: &String| -> Result<Option<f64>> {
        if cell.is_empty() {
            return Ok(None);
        }
        let parsed = cell.parse().map_err(|_| Error::new(format!("published.csv: '{cell}'")));
        parsed.map(Some)
    };
    let column = |k: usize| -> Result<Vec<Option<f64>>> {
        lines.iter().map(|line| number(&line.numbers[k])).collect()
    };
    let nfe = lines.iter().map(|line| number(&line.nfe)).collect::<Result<Vec<_>>>()?;
    let nfe: Vec<Option<u64>> = nfe.into_iter().map(|n| n.map(|n| n as u64)).collect();
    let ours: Vec<(Option<f64>, Option<String>)> = lines
        .iter()
        .map(|line| {
            let Some((entry, sampling)) = same(line, &entries).into_iter().next() else {
                return (None, None);
            };
            let fid = entry.best(&sampling).and_then(|measured| measured.value("FID"));
            (fid.map(|(mean, ..)| mean), Some(entry.command()))
        })
        .collect();
    let text = |get: fn(&Line) -> &String| -> Vec<&str> {
        lines.iter().map(|line| get(line).as_str()).collect()
    };
    Ok(df![
        "group" => text(|line| &line.group),
        "method" => text(|line| &line.method),
        "NFE" => nfe,
        "FID" => column(0)?,
        "IS" => column(1)?,
        "precision" => column(2)?,
        "recall" => column(3)?,
        "our FID" => ours.iter().map(|(fid, _)| *fid).collect::<Vec<_>>(),
        "made by" => ours.iter().map(|(_, command)| command.as_deref()).collect::<Vec<_>>(),
    ]?)
}

/// One table per dataset of `published.csv`.
pub(super) fn blocks(folder: &Path, entries: &[Entry]) -> Result<Vec<Block>> {
    let lines = read(&folder.join("published.csv"))?;
    for entry in entries {
        check(entry, &lines)?;
    }
    let mut blocks = Vec::new();
    for lines in lines.chunk_by(|a, b| a.dataset == b.dataset) {
        blocks.push(Block::Heading(3, format!("Published on {}", lines[0].dataset)));
        let rows = lines.iter().flat_map(|line| rows(line, entries)).collect();
        blocks.push(Block::Table(Table { columns: heads(), rows }));
    }
    Ok(blocks)
}

fn read(path: &Path) -> Result<Vec<Line>> {
    let text = read_text(path).with_context(|| format!("reading {}", path.display()))?;
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    ensure!(header == HEADER, "{}: the columns are {header}, not {HEADER}", path.display());
    let line = |line: &str| {
        let cells: Vec<String> = line.split(',').map(String::from).collect();
        let [dataset, group, method, nfe, numbers @ ..] = cells.as_slice() else {
            return Err(Error::new(format!("{}: '{line}'", path.display())));
        };
        ensure!(numbers.len() == 4, "{}: '{line}' is not {HEADER}", path.display());
        let [dataset, group, method, nfe] = [dataset, group, method, nfe].map(String::clone);
        Ok(Line { dataset, group, method, nfe, numbers: numbers.to_vec() })
    };
    lines.map(line).collect()
}

// A substitute never bears the real one's name.
fn check(entry: &Entry, lines: &[Line]) -> Result<()> {
    let (name, Some(published)) = (&entry.reproduction.name, &entry.reproduction.published) else {
        return Ok(());
    };
    let (dataset, data) = (published.dataset.replace('-', "_"), entry.data());
    ensure!(
        dataset == data.replace('-', "_"),
        "{name}: published.dataset = '{}', and it is trained on '{data}'; a substitute does not \
         bear the name",
        published.dataset
    );
    ensure!(
        lines.iter().any(|l| l.dataset == published.dataset && l.method == published.method),
        "{name}: published.csv has no row of '{}' with the method '{}'",
        published.dataset,
        published.method
    );
    Ok(())
}

fn heads() -> Vec<Column> {
    let mut all = columns("", &["", "method"]);
    all.extend(columns("published", &["NFE", "FID", "IS", "precision", "recall"]));
    all.extend(columns("ours", &["reproduction", "sampling", "NFE"]));
    all.extend(columns("ours", &["FID", "IS", "precision", "recall"]));
    all.extend(columns("ours", &ORIGIN));
    all
}

/// How many columns are ours.
const OURS: usize = 3 + COMPARED.len() + ORIGIN.len();

/// The kinds of sampling that belong to the published row, measured or not.
fn same<'a>(line: &Line, entries: &'a [Entry]) -> Vec<(&'a Entry, Sampling)> {
    let mut all = Vec::new();
    for entry in entries {
        let Some(published) = &entry.reproduction.published else { continue };
        if published.dataset != line.dataset {
            continue;
        }
        let same = published.method == line.method;
        let samplings = entry.reproduction.samplings().into_iter();
        all.extend(samplings.filter(|one| is_of(one, same, line)).map(|one| (entry, one)));
    }
    all
}

/// The published row; what was measured of it here stands in its first line and below.
fn rows(line: &Line, entries: &[Entry]) -> Vec<Vec<Cell>> {
    let mut ours: Vec<Vec<Cell>> =
        same(line, entries).into_iter().map(|(entry, sampling)| of(entry, &sampling)).collect();
    if ours.is_empty() {
        let mut none = vec![Cell::Missing("-".to_string())];
        none.resize(OURS, Cell::empty());
        ours.push(none);
    }
    let published = |cell: &String| Cell::Published(cell.clone());
    let mut theirs = vec![Cell::Text(line.group.clone()), Cell::Text(line.method.clone())];
    theirs.push(published(&line.nfe));
    theirs.extend(line.numbers.iter().map(published));
    let blank = vec![Cell::empty(); theirs.len()];
    let beside = |(i, ours): (usize, Vec<Cell>)| {
        let first = if i == 0 { theirs.clone() } else { blank.clone() };
        first.into_iter().chain(ours).collect()
    };
    ours.into_iter().enumerate().map(beside).collect()
}

// A consistency model is matched by its steps; a teacher by its name alone, because solvers count
// differently. A solver has its own rows, regardless of who trained the network.
fn is_of(sampling: &Sampling, same: bool, line: &Line) -> bool {
    match sampling {
        Sampling::Multistep { taus } | Sampling::Gamma { taus, .. } => {
            same && line.nfe == (taus.len() + 1).to_string()
        }
        Sampling::Solver(solver) => {
            let method = match solver.sampler {
                Sampler::Heun { .. } => return same,
                Sampler::Ddim { eta: 0.0 } => "DDIM",
                Sampler::DpmSolver2 => "DPM-solver-2",
                Sampler::DpmSolver3 => "DPM-solver-3",
                Sampler::Deis { order: 3 } => "3-DEIS",
                _ => return false,
            };
            line.method == method && line.nfe == solver.sampler.nfe_of(solver.points).to_string()
        }
        Sampling::Renoised { .. }
        | Sampling::FromData { .. }
        | Sampling::FromImages(_)
        | Sampling::HeldOut => false,
    }
}

fn of(entry: &Entry, sampling: &Sampling) -> Vec<Cell> {
    let name = Cell::Text(entry.name());
    let sampler = Cell::Text(sampling.name());
    // Its other numbers have no published counterpart, and stand in our own tables.
    let compared = |measured: &Measured| COMPARED.iter().any(|m| measured.value(m).is_some());
    let mut row = vec![name, sampler];
    // What was measured on a part of the dataset stands in our own tables alone.
    let whole = |measured: &Measured| measured.is_of_all(entry.published_rows());
    match entry.best(sampling).filter(compared).filter(whole) {
        Some(measured) => {
            row.push(Cell::Text(measured.nfe.to_string()));
            row.extend(COMPARED.map(|metric| measured.cell(metric)));
            row.push(measured.origin());
            row.push(measured.commands());
        }
        None => {
            row.extend([Cell::empty(), not_run()]);
            row.resize(OURS - 1, Cell::empty());
            row.push(Cell::Commands(vec![entry.command()]));
        }
    }
    row
}
