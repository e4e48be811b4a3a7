//! All numbers in tables, beside the paper's.

use super::config::Reproduction;
use super::results::{self, Row, interval};
use crate::{Context, Error, Result, ensure};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// The text of `REPORT.md` for the reproductions in `folder`, whose `published.csv` has the
/// paper's numbers.
///
/// # Errors
/// A file that cannot be read, by name.
pub fn report(folder: &Path) -> Result<String> {
    let mut text = String::from(
        "# Reproductions\n\nMade by `cargo lab report` from what `cargo lab reproduce NAME` has \
         kept in the folders beside it. A number is the mean over the seeds with its 95 % interval \
         (Student's t). The Frechet distance on pixels is no FID.\n\n## Ours\n\n",
    );
    text += "| reproduction | sampling | NFE | Frechet distance on pixels | steps | samples | device | commit | made by |\n";
    text += "|---|---|---|---|---|---|---|---|---|\n";
    for name in Reproduction::names(folder)? {
        ours(folder, &name, &mut text)?;
    }
    text += "\n## The paper's tables (Figure 4 of the talk)\n\nEvery number in this part is published, by the paper or by those whom it cites; none was measured here. What would run the paper's own experiments is not there yet.\n";
    published(&folder.join("published.csv"), &mut text)?;
    Ok(text)
}

fn ours(folder: &Path, name: &str, text: &mut String) -> Result<()> {
    let reproduction = Reproduction::read(folder, name)?;
    let rows = results::read(&folder.join(name))?;
    if rows.is_empty() {
        let _ = writeln!(
            text,
            "| {name}: {} | not run | | | | | | | `cargo lab reproduce {name}` |",
            reproduction.title
        );
    }
    // The largest budget that was run, sampler by sampler.
    let budget =
        ["full", "standard", "quick"].into_iter().find(|b| rows.iter().any(|r| r.budget == *b));
    let mut kinds: BTreeMap<(u64, &str), Vec<&Row>> = BTreeMap::new();
    for row in rows.iter().filter(|row| Some(row.budget.as_str()) == budget) {
        kinds.entry((row.nfe, &row.sampler)).or_default().push(row);
    }
    for ((nfe, sampler), rows) in kinds {
        let values: Vec<f64> = rows.iter().map(|row| row.value).collect();
        let (mean, half) = interval(&values);
        let half = half.map_or(String::new(), |half| format!(" +- {half:.3}"));
        let seeds: Vec<String> = rows.iter().map(|row| row.provenance.seed.to_string()).collect();
        let of = |get: fn(&Row) -> String| {
            let mut all: Vec<String> = rows.iter().map(|row| get(row)).collect();
            all.sort();
            all.dedup();
            all.join(", ")
        };
        let _ = writeln!(
            text,
            "| {name}: {} | {sampler} | {nfe} | {mean:.3}{half} | {} | {} | {} | {} | `cargo lab \
             reproduce {name} --budget {} --seeds {}` |",
            reproduction.title,
            of(|row| row.iterations.to_string()),
            of(|row| row.samples.to_string()),
            of(|row| row.provenance.device.clone()),
            of(|row| row.provenance.commit.clone()),
            budget.unwrap_or_default(),
            seeds.join(","),
        );
    }
    Ok(())
}

fn published(path: &Path, text: &mut String) -> Result<()> {
    let all =
        std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let mut lines = all.lines();
    let header = lines.next().unwrap_or_default();
    ensure!(
        header == "dataset,group,method,nfe,fid,is,precision,recall",
        "{}: the columns are {header}",
        path.display()
    );
    let mut dataset = String::new();
    for line in lines {
        let cells: Vec<&str> = line.split(',').collect();
        let [of, group, method, rest @ ..] = cells.as_slice() else {
            return Err(Error::new(format!("{}: '{line}'", path.display())));
        };
        if *of != dataset {
            dataset = (*of).to_string();
            let _ = write!(
                text,
                "\n### {dataset}\n\n| | method | NFE | FID | IS | precision | recall |\n|---|---|---|---|---|---|---|\n"
            );
        }
        let _ = writeln!(text, "| {group} | {method} | {} |", rest.join(" | "));
    }
    Ok(())
}
