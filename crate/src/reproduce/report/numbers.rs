//! What was measured of a reproduction, sampling by sampling.

use super::super::config::Reproduction;
use super::super::released::{recorded, weights_of};
use super::super::results::{self, Row, interval};
use super::super::sampling::Sampling;
use crate::Result;
use crate::data::{entry, name_in_revision};
use crate::experiment::{DataConfig, Experiment};
use crate::method::Gives;
use crate::record::Budget;
use crate::record::page::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The metrics in the order of their columns.
pub(super) const METRICS: [&str; 19] = [
    "FID",
    "KID",
    "KID's deviation over subsets",
    "Inception score",
    "precision",
    "recall",
    "kernel distance",
    "Frechet distance to held-out images",
    "Frechet distance, extrapolated",
    "precision on classifier features",
    "recall on classifier features",
    "variance over the held-out",
    "nearest training image over the held-out",
    "share near a training image",
    "Frechet distance on classifier features",
    "Frechet distance on pixels",
    "variance over the data's",
    "accuracy on held-out images",
    "accuracy on training images",
];

/// Before references were recorded, every metric took all images where there were at most this
/// many, else the first ones.
const ALL_TAKEN: usize = 20_000;

/// A reproduction or a variant, with the rows of its present kinds of sampling.
pub(super) struct Entry {
    pub reproduction: Reproduction,
    pub experiment: Experiment,
    /// The released network that was measured in place of its runs.
    pub weights: Option<String>,
    /// Each row, and whether its configuration is the present one.
    rows: Vec<(Row, bool)>,
}

/// What one kind of sampling gave with one budget.
pub(super) struct Measured {
    pub nfe: u64,
    pub budget: String,
    /// Whether the configuration is the present one.
    current: bool,
    rows: Vec<Row>,
    name: String,
    /// Whether a metric may have taken the first images, where no reference is recorded.
    in_order: bool,
}

impl Entry {
    /// The reproduction or variant `name` of `folder`.
    pub fn read(folder: &Path, name: &str) -> Result<Self> {
        Self::read_with(folder, name, None)
    }

    /// The same with each released network that was measured in place of its runs.
    pub fn released(folder: &Path, name: &str) -> Result<Vec<Self>> {
        let rows = results::read(&Reproduction::read(folder, name)?.folder(folder))?;
        let weights = rows.iter().filter_map(|row| weights_of(&row.provenance.experiment, name));
        let weights: BTreeSet<&str> = weights.collect();
        weights.into_iter().map(|id| Self::read_with(folder, name, Some(id))).collect()
    }

    fn read_with(folder: &Path, name: &str, weights: Option<&str>) -> Result<Self> {
        let wanted = weights.map_or_else(|| name.to_string(), |id| recorded(name, id));
        let reproduction = Reproduction::read(folder, name)?;
        // Some precisions exist only on a GPU.
        let experiment = reproduction.experiment(0, Budget::Full, "cuda", Some("the-teacher"))?;
        let mut known: BTreeMap<(u64, String, String), String> = BTreeMap::new();
        let mut rows = Vec::new();
        for row in results::read(&reproduction.folder(folder))? {
            let of = &row.provenance;
            let other = |wanted: String| name_in_revision(&of.data) != wanted;
            if of.experiment != wanted
                || of.has_uncommitted_changes()
                || reproduction.dataset().is_some_and(other)
            {
                continue;
            }
            let budget = Budget::named(&row.budget)?;
            let key = (of.seed, row.budget.clone(), of.device.clone());
            let configuration = match known.get(&key) {
                Some(known) => known.clone(),
                None => reproduction.configuration(folder, of.seed, budget, &of.device)?,
            };
            let samples = reproduction.samples(budget) as u64;
            // The configuration of a released network is that of its weights.
            let same = weights.is_some() || of.configuration == configuration;
            let current = same && row.samples == samples;
            known.insert(key, configuration);
            rows.push((row, current));
        }
        Ok(Self { reproduction, experiment, weights: weights.map(String::from), rows })
    }

    /// The dataset that it is trained on, by the name of the catalog unless it says another.
    pub fn data(&self) -> &str {
        if let Some(dataset) = &self.reproduction.dataset {
            return dataset;
        }
        match &self.experiment.data {
            DataConfig::Spirals { .. } => "spirals",
            DataConfig::Moons { .. } => "moons",
            _ => self.listed().unwrap_or_default(),
        }
    }

    /// The name by which its images are looked up.
    pub fn listed(&self) -> Option<&str> {
        match &self.experiment.data {
            DataConfig::Images { of, .. } => Some(of),
            DataConfig::Digits => Some("digits"),
            DataConfig::Spirals { .. } | DataConfig::Moons { .. } => None,
        }
    }

    /// What it is called.
    pub fn name(&self) -> String {
        let name = &self.reproduction.name;
        self.weights.as_ref().map_or_else(|| name.clone(), |id| recorded(name, id))
    }

    /// Its place in the tables: 0 if it trains a teacher, 1 if it distils one, else 2.
    pub fn place(&self) -> u8 {
        let method = &self.experiment.method;
        match method.gives() {
            Gives::Denoiser if method.teacher().is_none() => 0,
            _ if method.teacher().is_some() => 1,
            _ => 2,
        }
    }

    /// Whether anything was measured with a kind of sampling that it has now.
    pub fn was_run(&self) -> bool {
        self.reproduction.samplings().iter().any(|sampling| self.best(sampling).is_some())
    }

    /// What `sampling` gave with the largest budget that was run.
    pub fn best(&self, sampling: &Sampling) -> Option<Measured> {
        Budget::ALL.into_iter().rev().find_map(|budget| self.measured(sampling, budget))
    }

    /// What `sampling` gave with this budget. Rows of an earlier configuration count where
    /// there are no others.
    pub fn measured(&self, sampling: &Sampling, budget: Budget) -> Option<Measured> {
        let (sampler, budget) = (sampling.name(), budget.name());
        let of = |current: bool| -> Vec<Row> {
            let ours = self.rows.iter().filter(|(row, is)| {
                *is == current && row.sampler == sampler && row.budget == budget
            });
            ours.map(|(row, _)| row.clone()).collect()
        };
        let (mut rows, current) = match of(true) {
            rows if rows.is_empty() => (of(false), false),
            rows => (rows, true),
        };
        rows.sort_by_key(|row| row.provenance.seed);
        let nfe = rows.first()?.nfe;
        let mut name = self.reproduction.name.clone();
        if let Some(id) = &self.weights {
            name += &format!(" --weights {id}");
        }
        let budget = budget.to_string();
        let in_order = self.images().is_none_or(|count| count > ALL_TAKEN);
        Some(Measured { nfe, budget, current, rows, name, in_order })
    }

    // How many images it is trained on, according to the catalog.
    fn images(&self) -> Option<usize> {
        let data = &self.experiment.data;
        let split = entry(self.listed()?).ok()?.splits.get(data.split())?.rows?;
        match data {
            DataConfig::Images { limit: Some(limit), .. } => Some(split.min(*limit)),
            _ => Some(split),
        }
    }

    /// How many images are published by the name of its dataset.
    pub fn published_rows(&self) -> Option<usize> {
        entry(self.listed()?).ok()?.published_rows()
    }

    /// The command that measures what was not measured.
    pub fn command(&self) -> String {
        // The paper's own experiments are for a GPU.
        let device = if self.reproduction.published.is_some() { " --device cuda" } else { "" };
        format!("cargo lab reproduce {}{device}", self.reproduction.name)
    }
}

impl Measured {
    /// Whether all was measured against as many real images as are published by the dataset's name:
    /// a part of it, or more than it, is another dataset. `all` is none where nobody says how many.
    pub fn is_of_all(&self, all: Option<usize>) -> bool {
        let Some(all) = all.map(|all| format!(" of {all}, ")) else { return true };
        let images = self.rows.iter().filter_map(|row| row.reference.as_deref());
        images.filter(|images| images.contains(" of ")).all(|images| images.contains(&all))
    }

    /// The mean of a metric over the seeds, half of its interval, and how many seeds.
    pub fn value(&self, metric: &str) -> Option<(f64, Option<f64>, usize)> {
        let rows = self.rows.iter().filter(|row| row.metric == metric);
        let values: Vec<f64> = rows.map(|row| row.value).collect();
        let (mean, half) = interval(&values);
        (!values.is_empty()).then_some((mean, half, values.len()))
    }

    /// The same as a cell.
    pub fn cell(&self, metric: &str) -> Cell {
        let Some((mean, half, seeds)) = self.value(metric) else { return Cell::empty() };
        let digits = if matches!(metric, "FID" | "Inception score") { 2 } else { 3 };
        let mut text = format!("{mean:.digits$}");
        if let Some(half) = half {
            text += &format!(" ± {half:.digits$}");
        }
        if seeds != self.seeds().len() {
            text += &format!(" ({seeds} seeds)");
        }
        Cell::Number(text)
    }

    fn seeds(&self) -> Vec<u64> {
        let mut seeds: Vec<u64> = self.rows.iter().map(|row| row.provenance.seed).collect();
        seeds.dedup();
        seeds
    }

    /// Seeds, steps, samples, budget, device and commit, in words.
    pub fn origin(&self) -> Cell {
        let of = |get: fn(&Row) -> String| {
            let mut all: Vec<String> = self.rows.iter().map(get).collect();
            all.sort();
            all.dedup();
            all.join(", ")
        };
        let seeds = match self.seeds().len() {
            1 => "1 seed".to_string(),
            count => format!("{count} seeds"),
        };
        let earlier = if self.current { "" } else { " (earlier configuration)" };
        let steps = |row: &Row| match row.iterations {
            0 => "trained elsewhere".to_string(),
            count => format!("{count} steps"),
        };
        Cell::Origin(
            format!(
                "{seeds}; {}; {} samples; {}{earlier}; {}; {}",
                of(steps),
                of(|row| row.samples.to_string()),
                self.budget,
                of(|row| row.provenance.device.clone()),
                of(|row| row.provenance.commit.clone()),
            ) + &self.reference(),
        )
    }

    // Which real images the numbers are measured against; the hashes are left to the records.
    fn reference(&self) -> String {
        let recorded = self.rows.iter().filter_map(|row| row.reference.as_deref());
        let counts = recorded.filter_map(|text| text.rsplit_once(", ").map(|(count, _)| count));
        let mut all: Vec<&str> = counts.collect();
        all.sort_unstable();
        all.dedup();
        let mut text = match all.is_empty() {
            true => String::new(),
            false => format!("; reference {}", all.join(" and ")),
        };
        if self.in_order && self.rows.iter().any(|row| row.reference.is_none()) {
            text += "; reference not recorded";
        }
        text
    }

    /// The commands that give the same numbers again, one per device.
    pub fn commands(&self) -> Cell {
        let mut devices: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for row in &self.rows {
            let (seeds, seed) = (
                devices.entry(&row.provenance.device).or_default(),
                row.provenance.seed.to_string(),
            );
            if seeds.last() != Some(&seed) {
                seeds.push(seed);
            }
        }
        let all = devices.into_iter().map(|(device, seeds)| {
            let device =
                if device == "cpu" { String::new() } else { format!(" --device {device}") };
            let (name, budget, seeds) = (&self.name, &self.budget, seeds.join(","));
            format!("cargo lab reproduce {name} --budget {budget} --seeds {seeds}{device}")
        });
        Cell::Commands(all.collect())
    }
}

/// The headings of [`Measured::origin`] and of the commands.
pub(super) const ORIGIN: [&str; 2] = ["measured with", "made by"];

/// The metrics that any of these has, in order; those that are not in [`METRICS`] come last.
pub(super) fn metrics<'a>(entries: impl Iterator<Item = &'a Entry>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for entry in entries {
        for sampling in entry.reproduction.samplings() {
            let sampler = sampling.name();
            let rows = entry.rows.iter().filter(|(row, _)| row.sampler == sampler);
            all.extend(rows.map(|(row, _)| row.metric.clone()));
        }
    }
    all.sort_by_key(|metric| {
        (METRICS.iter().position(|known| known == metric).unwrap_or(METRICS.len()), metric.clone())
    });
    all.dedup();
    all
}
