//! A model card for what was trained: what it is, its data, how good it is, how it was made.

use super::super::seeds::SHIPPED_FILE;
use super::numbers::{Entry, ORIGIN, metrics};
use super::ours::{heads, rows};
use crate::data::Dataset;
use crate::experiment::Trained;
use crate::record::page::{Block, Table, columns, markdown};
use crate::{Error, Result};
use std::path::{Path, PathBuf};

const LIMITS: &str = "Made to measure the method and to teach it, at a size that a laptop trains. \
    Its distances compare what was trained on these data and judged in this way, and nothing \
    else: none of them is a FID, unless it is called one.";

/// The cards of all that was run, and where they belong.
pub(super) fn cards(folder: &Path, entries: &[Entry]) -> Result<Vec<(PathBuf, String)>> {
    let ran = entries.iter().filter(|entry| entry.was_run());
    ran.map(|entry| {
        let reproduction = &entry.reproduction;
        let file = match reproduction.variant() {
            Some(variant) => format!("model-card-{variant}.md"),
            None => "model-card.md".to_string(),
        };
        Ok((reproduction.folder(folder).join(file), card(entry, folder)?))
    })
    .collect()
}

fn card(entry: &Entry, folder: &Path) -> Result<String> {
    let (reproduction, experiment) = (&entry.reproduction, &entry.experiment);
    let name = &reproduction.name;
    let heading = |text: &str| Block::Heading(2, text.to_string());
    let kind = experiment.method.summary(reproduction.teacher.as_deref());
    let network =
        toml::Value::try_from(&experiment.network).map_err(|e| Error::new(e.to_string()))?;
    let training = &experiment.training;
    let mut blocks = vec![
        Block::Text(format!("{}. {kind} ({}).", reproduction.title, experiment.method.source())),
        Block::Text(format!(
            "Network: `{network}`. {} steps of {} images each. The whole configuration is in \
             `experiment.toml`.",
            training.iterations, training.batch
        )),
        heading("Data"),
        Block::Text(data(entry)?),
        heading("Measured"),
    ];
    let metrics = metrics(std::iter::once(entry));
    let mut names = vec!["".to_string(), "sampling".to_string(), "NFE".to_string()];
    names.extend(heads(&metrics));
    names.extend(ORIGIN.map(String::from));
    let pick = |sampling: &_| entry.best(sampling);
    let rows = rows(entry, &reproduction.samplings(), &metrics, name, &pick);
    blocks.push(Block::Table(Table { columns: columns("", &names), rows }));
    blocks.push(heading("Limits"));
    blocks.push(Block::Text(LIMITS.to_string()));
    blocks.push(heading("Made again"));
    blocks.push(Block::Text(format!(
        "`cargo lab reproduce {name}` trains it, samples it and judges it; `cargo lab export` \
         makes a folder for diffusers of a run whose network is a U-Net."
    )));
    let file = entry.reproduction.folder(folder).join(SHIPPED_FILE);
    let kept = match reproduction.ship && file.is_file() {
        true => shipped(&Trained::unpack(&file)?, name),
        false => "The weights are not kept here.".to_string(),
    };
    blocks.extend([heading("Weights"), Block::Text(kept)]);
    Ok(markdown(name, &blocks))
}

fn shipped(trained: &Trained, name: &str) -> String {
    let costs: Vec<String> = trained.costs().iter().map(ToString::to_string).collect();
    let seconds: f64 = trained.costs().iter().map(|cost| cost.seconds).sum();
    format!(
        "`{SHIPPED_FILE}` holds {} parameters in half precision, rounded from the average of seed {}: \
         the numbers of that seed are measured with them as they are there. In a notebook, \
         `Trained::shipped(\"{name}\")?` gives them. What they cost, one after the other, {:.0} \
         minutes in all: {}.",
        trained.params().count(),
        trained.experiment().seed,
        seconds / 60.0,
        costs.join("; ")
    )
}

fn data(entry: &Entry) -> Result<String> {
    // A copy that is encoded differently has a name of its own, but the original's entry.
    let name = entry.data();
    let Some(listed) = entry.listed() else { return Ok(format!("`{name}`, made on the spot.")) };
    let dataset = Dataset::find(listed)?;
    let of = dataset.entry();
    let mut text = format!("`{name}`");
    if name != listed {
        text += &format!(", a copy of `{listed}`");
    }
    if let Some(hub) = &of.hub {
        text += &format!(", `{hub}` on the Hugging Face Hub");
    }
    text += &format!(": {}. Licence: {}.", of.title, of.licence);
    Ok(text)
}
