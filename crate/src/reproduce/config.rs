//! What is reproduced, as a TOML file.

use super::evaluation::Evaluation;
use super::variants::{changes, number, overlay};
use crate::bounds::within;
use crate::experiment::{EXACT, Experiment};
use crate::record::{Budget, from_toml, read_text};
use crate::{Context, Error, Result, bail, ensure};
use polars::df;
use polars::prelude::DataFrame;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A reproduction: an experiment, the seeds it is run with, and how its samples are evaluated.
///
/// Its variants are the same file with some values replaced: what an ablation compares, or the
/// released code where it departs from the paper. `NAME.VARIANT` is the name of one.
///
/// ```
/// use consistency::prelude::*;
/// # let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../reproductions");
/// let digits = Reproduction::read(&folder, "digits-ct")?; // in reproduce::folder()
/// assert_eq!((digits.seeds.len(), digits.samples(Budget::Full)), (3, 10_000));
/// let quick = digits.experiment(0, Budget::Quick, "cpu", None)?;
/// assert_eq!(quick.training.iterations, 4000 / 50);
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reproduction {
    /// Its name: that of its folder, and after a dot that of the variant.
    #[serde(skip)]
    pub name: String,
    /// One line on what it shows.
    pub title: String,
    /// The roots of the random numbers, one run for each.
    pub seeds: Vec<u64>,
    /// The reproduction that trains the teacher, with the same seed; or `exact`, the exact denoiser
    /// of the data.
    pub teacher: Option<String>,
    /// The name that its data must have, where other data could be in their place; for the paper's
    /// own experiments, the published dataset.
    pub dataset: Option<String>,
    /// Whether it is a variant of reduced size, for where the whole cannot be run: it is not an
    /// ablation, and has pictures of its own.
    #[serde(default)]
    pub reduced: bool,
    /// Whether what its first seed trains comes with the lab: the weights are kept in half precision
    /// beside the results, which are measured with the weights as kept.
    #[serde(default)]
    pub ship: bool,
    /// The published number that it should give, where it is the paper's own experiment.
    #[serde(default)]
    pub published: Option<Published>,
    /// How its samples are drawn and evaluated.
    pub evaluate: Evaluation,
    /// The experiment without `name`, `seed` and the teacher's folder.
    experiment: toml::Table,
    /// The values that each variant changes, in any part of the file.
    #[serde(default)]
    variants: BTreeMap<String, toml::Table>,
}

/// A row of the published tables, `published.csv`; its kinds of sampling say how many steps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// The dataset, as named there.
    pub dataset: String,
    /// The method, as named there.
    pub method: String,
}

/// Variants that differ in one number.
#[derive(Clone, Debug, PartialEq)]
pub struct Sweep {
    /// Where it stands in the experiment: `method.points`.
    pub path: String,
    /// Its value in the reproduction itself.
    pub here: f64,
    /// Its other values, and the names of the variants that have them.
    pub variants: Vec<(f64, String)>,
}

/// The folder of a reproduction and its variant, of `FOLDER.VARIANT` or `FOLDER`.
fn parts(name: &str) -> (&str, Option<&str>) {
    name.split_once('.').map_or((name, None), |(base, variant)| (base, Some(variant)))
}

/// The folder of the project's reproductions: where `cargo lab` says that the project is, else
/// below the working folder.
pub fn folder() -> PathBuf {
    let project = std::env::var_os("LAB_PROJECT").filter(|path| !path.is_empty());
    project.map_or_else(PathBuf::new, PathBuf::from).join("reproductions")
}

impl Reproduction {
    /// The reproduction `name` in `folder` (`reproductions/`), or with `NAME.VARIANT` a variant.
    ///
    /// # Errors
    /// No such folder or variant, with those that exist; a file that is not a reproduction, by
    /// field.
    pub fn read(folder: &Path, name: &str) -> Result<Self> {
        let (base, variant) = parts(name);
        let path = folder.join(base).join("experiment.toml");
        if !path.is_file() {
            bail!(
                not_found: "there is no reproduction '{base}'; there are {}",
                Self::names(folder)?.join(", ")
            );
        }
        let reading = || format!("reading {}", path.display());
        let text = read_text(&path).with_context(reading)?;
        let read = Self::parse(&text, variant).with_context(reading)?;
        let read = Self { name: name.to_string(), ..read };
        read.check().with_context(reading)?;
        Ok(read)
    }

    fn parse(text: &str, variant: Option<&str>) -> Result<Self> {
        let read: Self = from_toml(text)?;
        let Some(variant) = variant else { return Ok(read) };
        let Some(other) = read.variants.get(variant) else { return Err(read.no_variant(variant)) };
        let mut table: toml::Table = from_toml(text)?;
        table.remove("variants");
        overlay(&mut table, other);
        table
            .try_into()
            .map_err(|e| Error::new(e.to_string()))
            .with_context(|| format!("variants.{variant}"))
    }

    /// The name that its data must have, if it states one.
    pub(super) fn dataset(&self) -> Option<String> {
        let published = || self.published.as_ref().map(|of| of.dataset.replace('-', "_"));
        self.dataset.clone().or_else(published)
    }

    /// The names of its variants, `NAME.VARIANT`, in order.
    pub fn variants(&self) -> Vec<String> {
        self.variants.keys().map(|variant| format!("{}.{variant}", self.name)).collect()
    }

    /// Which variant it is; none for the reproduction itself.
    pub fn variant(&self) -> Option<&str> {
        parts(&self.name).1
    }

    /// The values that the variant changes, one row for each: where it stands in the file, its
    /// value here, and its value there.
    ///
    /// # Errors
    /// No such variant.
    pub fn differences(&self, variant: &str) -> Result<DataFrame> {
        let Some(other) = self.variants.get(variant) else { return Err(self.no_variant(variant)) };
        let here = toml::Table::try_from(self).map_err(|e| Error::new(e.to_string()))?;
        let changed = changes(&here, other);
        let changed: Vec<_> = changed.iter().filter(|(path, ..)| path != "title").collect();
        let text = |value: &Option<toml::Value>| value.as_ref().map(toml::Value::to_string);
        Ok(df![
            "value" => changed.iter().map(|(path, ..)| path.as_str()).collect::<Vec<_>>(),
            &self.name => changed.iter().map(|(_, old, _)| text(old)).collect::<Vec<_>>(),
            variant => changed.iter().map(|(_, _, new)| new.to_string()).collect::<Vec<_>>(),
        ]?)
    }

    fn no_variant(&self, variant: &str) -> Error {
        let known: Vec<&str> = self.variants.keys().map(String::as_str).collect();
        Error::not_found(format!("there is no variant '{variant}'; there are {}", known.join(", ")))
    }

    /// What its variants sweep: a number of the experiment by its path, its value here, and the
    /// variants (by their names, `NAME.VARIANT`) that have another value and differ in nothing
    /// else. A sweep has two variants or more.
    pub fn sweeps(&self) -> Vec<Sweep> {
        let mut all: BTreeMap<String, Sweep> = BTreeMap::new();
        for (variant, other) in &self.variants {
            let elsewhere = other.keys().any(|key| key != "title" && key != "experiment");
            let Some(toml::Value::Table(other)) = other.get("experiment") else { continue };
            if elsewhere {
                continue;
            }
            let changed = changes(&self.experiment, other);
            let [(path, Some(old), new)] = changed.as_slice() else { continue };
            let (Some(here), Some(value)) = (number(old), number(new)) else { continue };
            let sweep = Sweep { path: path.clone(), here, variants: Vec::new() };
            let sweep = all.entry(path.clone()).or_insert(sweep);
            sweep.variants.push((value, format!("{}.{variant}", self.name)));
        }
        all.into_values().filter(|sweep| sweep.variants.len() > 1).collect()
    }

    /// The folder that it is from, in `reproductions`; its variants have the same one.
    pub fn folder(&self, reproductions: &Path) -> PathBuf {
        reproductions.join(parts(&self.name).0)
    }

    /// The names of all reproductions in `folder`, in order.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn names(folder: &Path) -> Result<Vec<String>> {
        let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
        let paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        let mut names: Vec<String> = paths
            .iter()
            .filter(|path| path.join("experiment.toml").is_file())
            .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
            .collect();
        names.sort();
        Ok(names)
    }

    fn check(&self) -> Result<()> {
        ensure!(!self.seeds.is_empty(), "seeds = []: give at least one");
        within("number of seeds", self.seeds.len(), ..=1000)?;
        self.evaluate.check()?;
        ensure!(
            !self.ship || self.variant().is_none(),
            "ship = true: a variant is not shipped; give it ship = false"
        );
        for key in ["name", "seed"] {
            ensure!(
                !self.experiment.contains_key(key),
                "experiment.{key}: it comes from the folder and from seeds"
            );
        }
        // The rest is checked as an experiment.
        let device = "cuda"; // Some precisions are a GPU's alone.
        let experiment = self.experiment(self.seeds[0], Budget::Full, device, Some("a-teacher"))?;
        self.evaluate.check_levels(experiment.noise)?;
        let gives = experiment.method.gives();
        for sampling in self.samplings() {
            ensure!(
                sampling.fits(gives),
                "evaluate: '{}' is not for {}, which {} gives; points, solvers and again are for \
                 a denoiser, taus for a consistency model or a map between two noise levels, \
                 taus = [[]] for a generator, gammas for a map",
                sampling.name(),
                gives.name(),
                experiment.method.name()
            );
        }
        Ok(())
    }

    /// The experiment of one seed, with the folder of its teacher's run.
    ///
    /// # Errors
    /// A configuration that makes no sense, by field.
    pub fn experiment(
        &self,
        seed: u64,
        budget: Budget,
        device: &str,
        teacher: Option<&str>,
    ) -> Result<Experiment> {
        let mut table = self.experiment.clone();
        let seed =
            i64::try_from(seed).map_err(|_| Error::new(format!("seed {seed}: too large")))?;
        table.insert("name".to_string(), self.name.clone().into());
        table.insert("seed".to_string(), seed.into());
        let teacher = self.teacher.as_deref().filter(|own| *own == EXACT).or(teacher);
        if let (Some(teacher), Some(_)) = (teacher, &self.teacher) {
            let method = table.get_mut("method").and_then(toml::Value::as_table_mut);
            let Some(method) = method else { bail!("experiment.method is missing") };
            method.insert("teacher".to_string(), teacher.into());
        }
        let training = table.get_mut("training").and_then(toml::Value::as_table_mut);
        let Some(training) = training else { bail!("experiment.training is missing") };
        training.insert("device".to_string(), device.into());
        let iterations = training.get("iterations").and_then(toml::Value::as_integer);
        let iterations = iterations.and_then(|count| u64::try_from(count).ok());
        if let Some(count) = iterations.and_then(|count| i64::try_from(budget.of(count)).ok()) {
            training.insert("iterations".to_string(), count.into());
        }
        let text = toml::to_string(&table).map_err(|e| Error::new(e.to_string()))?;
        Experiment::parse(&text).context("experiment")
    }

    /// The hash of the configuration that a result of this seed is recorded with
    /// ([`Provenance`](crate::record::Provenance)), for the reproduction as it is in `folder`.
    ///
    /// # Errors
    /// A teacher that is not there; as [`Reproduction::experiment`].
    pub fn configuration(
        &self,
        folder: &Path,
        seed: u64,
        budget: Budget,
        device: &str,
    ) -> Result<String> {
        let mut run = None;
        for teacher in self.teachers(folder)?.iter().rev() {
            run = Some(teacher.experiment(seed, budget, device, run.as_deref())?.folder()?);
        }
        self.experiment(seed, budget, device, run.as_deref())?.hash()
    }

    /// The reproductions that it builds on: its teacher, that one's teacher, and so on.
    ///
    /// # Errors
    /// One that is not there, or is its own teacher.
    pub fn teachers(&self, folder: &Path) -> Result<Vec<Self>> {
        let mut found: Vec<Self> = Vec::new();
        let mut next = self.teacher.clone();
        while let Some(name) = next.filter(|name| name != EXACT) {
            ensure!(
                name != self.name && found.iter().all(|of| of.name != name),
                "{name} is its own teacher"
            );
            let teacher = Self::read(folder, &name)?;
            next = teacher.teacher.clone();
            found.push(teacher);
        }
        Ok(found)
    }

    /// How many samples are drawn with this budget.
    pub fn samples(&self, budget: Budget) -> usize {
        (budget.of(self.evaluate.samples as u64) as usize).max(100).min(self.evaluate.samples)
    }
}
