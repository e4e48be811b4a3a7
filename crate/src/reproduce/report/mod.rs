//! All numbers in tables, beside the paper's: one page as Markdown and as HTML.

mod ablations;
mod cards;
mod html;
mod numbers;
mod ours;
mod published;

pub use published::published;

use super::config::Reproduction;
use super::released::command_of;
use super::results;
use crate::record::page::{Block, markdown};
use crate::record::write_atomically;
use crate::{Context, Result};
use numbers::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const TITLE: &str = "Reproductions";

/// The report on a folder of reproductions.
#[derive(Clone, Debug)]
pub struct Report {
    blocks: Vec<Block>,
    /// Model cards, and where they belong.
    cards: Vec<(PathBuf, String)>,
    left_out: Vec<String>,
}

/// The report on the reproductions in `folder`, whose `published.csv` has the paper's numbers.
///
/// # Errors
/// A file that cannot be read, by name; a reproduction that names a published number which is
/// not there, or another dataset's.
pub fn report(folder: &Path) -> Result<Report> {
    let names = Reproduction::names(folder)?;
    let mut entries: Vec<Entry> = Vec::new();
    for name in &names {
        let entry = Entry::read(folder, name)?;
        let variants = entry.reproduction.variants();
        entries.push(entry);
        for variant in variants {
            // Variants of what is published are other ways to the same row.
            let variant = Entry::read(folder, &variant)?;
            let of = &variant.reproduction;
            entries.extend((of.reduced || of.published.is_some()).then_some(variant));
        }
    }
    let part = |heading: &str, text: &str| {
        [Block::Heading(2, heading.to_string()), Block::Text(text.to_string())]
    };
    let mut blocks = vec![Block::Text(INTRODUCTION.to_string())];
    let left_out = uncommitted(folder, &names)?;
    if !left_out.is_empty() {
        blocks.push(Block::Text(format!("**Left out**: {}.", left_out.join("; "))));
    }
    blocks.extend(part("The paper's tables (Figure 4 of the talk)", PUBLISHED));
    // Released networks have rows of their own in the tables, and no cards or ablations here.
    let own = entries.len();
    for name in &names {
        entries.extend(Entry::released(folder, name)?);
    }
    blocks.extend(published::blocks(folder, &entries)?);
    blocks.extend(part("Ours", OURS));
    blocks.extend(ours::blocks(folder, &entries)?);
    entries.truncate(own);
    let ablations = ablations::blocks(folder, &entries)?;
    if !ablations.is_empty() {
        blocks.extend(part("Ablations", ABLATIONS));
        blocks.extend(ablations);
    }
    blocks.push(Block::Heading(2, "How to read this page".to_string()));
    blocks.extend(LEGEND.map(|text| Block::Text(text.to_string())));
    let cards = cards::cards(folder, &entries)?;
    Ok(Report { blocks, cards, left_out })
}

// What was measured while files of the library differed from their commit, in words.
fn uncommitted(folder: &Path, names: &[String]) -> Result<Vec<String>> {
    let mut found: BTreeMap<(String, String), (usize, BTreeSet<u64>)> = BTreeMap::new();
    for name in names {
        for row in results::read(&folder.join(name))? {
            if row.provenance.has_uncommitted_changes() {
                let (count, seeds) =
                    found.entry((row.provenance.experiment, row.budget)).or_default();
                *count += 1;
                seeds.insert(row.provenance.seed);
            }
        }
    }
    let say = |((recorded, budget), (count, seeds)): ((String, String), (usize, BTreeSet<u64>))| {
        let seeds: Vec<String> = seeds.iter().map(u64::to_string).collect();
        let name = command_of(&recorded);
        format!(
            "{count} rows of `{recorded}`, measured with uncommitted changes under `crate/`: commit them, \
             then `cargo lab reproduce {name} --budget {budget} --seeds {}`",
            seeds.join(",")
        )
    };
    Ok(found.into_iter().map(say).collect())
}

impl Report {
    /// The records that it does not show, and how to measure them again: those of a library with
    /// uncommitted changes.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// The text of `REPORT.md`; its pictures are files beside it.
    pub fn markdown(&self) -> String {
        markdown(TITLE, &self.blocks)
    }

    /// The text of `report.html`, which loads nothing: style and pictures are inside.
    pub fn html(&self) -> String {
        html::page(TITLE, &self.blocks)
    }

    /// Write `REPORT.md`, `report.html`, the figures of `figures/` and a model card for all that
    /// was run into `folder`, that of the reproductions. Returns the paths of the two pages.
    ///
    /// # Errors
    /// A folder or a disk that cannot be written.
    pub fn write(&self, folder: &Path) -> Result<[PathBuf; 2]> {
        for block in &self.blocks {
            let Block::Pictures(pictures) = block else { continue };
            // Samples are where `reproduce` has put them.
            for picture in pictures.iter().filter(|picture| !picture.pixels) {
                let path = folder.join(&picture.file);
                if let Some(above) = path.parent() {
                    std::fs::create_dir_all(above).with_context(|| above.display().to_string())?;
                }
                write_atomically(&path, &picture.png)?;
            }
        }
        for (path, card) in &self.cards {
            write_atomically(path, card.as_bytes())?;
        }
        let pages = [folder.join("REPORT.md"), folder.join("report.html")];
        write_atomically(&pages[0], self.markdown().as_bytes())?;
        write_atomically(&pages[1], self.html().as_bytes())?;
        Ok(pages)
    }
}

const INTRODUCTION: &str = "Made by `cargo lab report` from what `cargo lab reproduce NAME` has \
    kept. Each number that was measured here has the command that makes it again beside it; what \
    was not measured is marked \"not run\", with the command that would measure it. Published \
    numbers stand in columns of their own.";

const PUBLISHED: &str = "Numbers under \"published\" are those of the paper or of the works that \
    it cites; none of them was measured here. Numbers under \"ours\" were measured by this \
    laboratory, and only by a reproduction of exactly that row on exactly that dataset. In the \
    rows of samplers the networks differ: theirs are those of the cited works, ours is our \
    teacher. A dash: there is no reproduction of that row.";

const OURS: &str = "Teachers, consistency distillation (CD), consistency training (CT) and other \
    methods, small enough for a laptop unless the paper's dataset is named. None of these numbers \
    is the paper's, and none can be compared with a number measured on another dataset.";

const ABLATIONS: &str = "The reproduction first, then its variants: the same file with the named \
    values replaced. All rows have the same budget where there is one that they share; the figure \
    shows no others. `cargo lab reproduce NAME --variants` runs all variants of one reproduction.";

const LEGEND: [&str; 7] = [
    "**Interval.** `a ± b` is the mean over the seeds and half of its 95 % interval, by Student's \
     t; each seed is a training of its own, with a teacher of its own. A number without `±` is \
     from one seed.",
    "**FID, KID, Inception score, precision and recall** use the features of pytorch-fid's \
     published Inception, against the training images. KID is the mean over 100 subsets of 1000 \
     images, with the deviation over the subsets beside it. Precision and recall are the shares \
     of samples in the manifold of the data and of data in that of the samples, by 3 neighbours.",
    "**Frechet distances** on the features of a small classifier that is trained on the data, or \
     on the pixels, are not FID: they compare numbers measured on one dataset, and nothing else. \
     Smaller is better. **Variance over the data's** is the total variance of the pixels: below \
     1, samples are nearer to their mean than the data, as the outputs of a network that averages \
     are.",
    "**Reference**: the training images that the samples were compared with, and how many of how \
     many; the records have a hash of them and name the images that the classifier was trained \
     on. Where there are more images than are used (20 000 to train the classifier, 50 000 for \
     Inception, one for each sample \"from data\"), a fixed key chooses them. **Not recorded**: \
     measured by an earlier version, which took the first images of the files in place of a \
     random part and did not record them.",
    "**NFE** is the number of network evaluations that one sample costs.",
    "**Budget**: `full` is all steps and samples of an experiment, `standard` a quarter, `quick` \
     a fiftieth. **Commit**: the commit of the library that computed. An \
     **earlier configuration** is one that the experiment's file no longer has: its command measures \
     the present one.",
    "**To run one**: `cargo lab reproduce NAME`, its teacher first; add `--device cuda` for a GPU, \
     `--budget quick` to see whether it runs. `cargo lab reproduce` lists them.",
];
