//! What is reproduced, as a TOML file.

use crate::experiment::Experiment;
use crate::{Context, Error, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A reproduction: an experiment, the seeds it is run with, and how it is judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reproduction {
    /// Its name: that of its folder.
    #[serde(skip)]
    pub name: String,
    /// One line on what it shows.
    pub title: String,
    /// The roots of the random numbers, a run each.
    pub seeds: Vec<u64>,
    /// The reproduction that trains the teacher, with the same seed.
    pub teacher: Option<String>,
    /// How its samples are judged.
    pub evaluate: Evaluate,
    /// The experiment without `name`, `seed` and the teacher's folder.
    experiment: toml::Table,
}

/// How samples are drawn and judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluate {
    /// How many samples of each kind.
    pub samples: usize,
    /// For a consistency model: the noise levels after T, for each kind of sampling; none for
    /// one step.
    #[serde(default)]
    pub taus: Vec<Vec<f64>>,
    /// For a teacher: the points of Heun's grid, for each kind of sampling.
    #[serde(default)]
    pub points: Vec<usize>,
}

/// How much of a reproduction is run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Effort {
    /// A fiftieth of the steps: whether it runs.
    Quick,
    /// A quarter.
    Standard,
    /// All of it.
    #[default]
    Full,
}

impl Effort {
    /// By name.
    ///
    /// # Errors
    /// Another name.
    pub fn named(name: &str) -> Result<Self> {
        match name {
            "quick" => Ok(Self::Quick),
            "standard" => Ok(Self::Standard),
            "full" => Ok(Self::Full),
            other => bail!("the budget '{other}': choose quick, standard or full"),
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Standard => "standard",
            Self::Full => "full",
        }
    }

    fn of(self, count: u64) -> u64 {
        match self {
            Self::Quick => (count / 50).max(1),
            Self::Standard => (count / 4).max(1),
            Self::Full => count,
        }
    }
}

impl Reproduction {
    /// The reproduction `name` in `folder` (`reproductions/`).
    ///
    /// # Errors
    /// No such folder: those that there are; a file that is no reproduction, by field.
    pub fn read(folder: &Path, name: &str) -> Result<Self> {
        let path = folder.join(name).join("experiment.toml");
        if !path.is_file() {
            bail!(
                "there is no reproduction '{name}'; there are {}",
                Self::names(folder)?.join(", ")
            );
        }
        let reading = || format!("reading {}", path.display());
        let text = std::fs::read_to_string(&path).with_context(reading)?;
        let read: Self =
            toml::from_str(&text).map_err(|e| Error::new(e.to_string())).with_context(reading)?;
        let read = Self { name: name.to_string(), ..read };
        read.check().with_context(reading)?;
        Ok(read)
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
        ensure!(self.evaluate.samples > 1, "evaluate.samples: give at least 2");
        let kinds = self.evaluate.taus.len() + self.evaluate.points.len();
        ensure!(kinds > 0, "evaluate: give taus (a consistency model) or points (a teacher)");
        // Numbers are kept under the kind's name, which says how many steps it takes.
        let mut steps: Vec<usize> = self.evaluate.taus.iter().map(Vec::len).collect();
        steps.sort_unstable();
        ensure!(
            steps.windows(2).all(|pair| pair[0] != pair[1]),
            "evaluate.taus: two kinds of as many steps would bear one name"
        );
        for key in ["name", "seed"] {
            ensure!(
                !self.experiment.contains_key(key),
                "experiment.{key}: it comes from the folder and from seeds"
            );
        }
        // The rest is checked as an experiment.
        self.experiment(self.seeds[0], Effort::Full, "cpu", Some("a-teacher")).map(drop)
    }

    /// The experiment of one seed, with the folder of its teacher's run.
    ///
    /// # Errors
    /// A configuration that makes no sense, by field.
    pub fn experiment(
        &self,
        seed: u64,
        effort: Effort,
        device: &str,
        teacher: Option<&str>,
    ) -> Result<Experiment> {
        let mut table = self.experiment.clone();
        let seed =
            i64::try_from(seed).map_err(|_| Error::new(format!("seed {seed}: too large")))?;
        table.insert("name".to_string(), self.name.clone().into());
        table.insert("seed".to_string(), seed.into());
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
        if let Some(count) = iterations.and_then(|count| i64::try_from(effort.of(count)).ok()) {
            training.insert("iterations".to_string(), count.into());
        }
        let text = toml::to_string(&table).map_err(|e| Error::new(e.to_string()))?;
        Experiment::parse(&text).context("experiment")
    }

    /// How many samples an effort draws.
    pub fn samples(&self, effort: Effort) -> usize {
        (effort.of(self.evaluate.samples as u64) as usize).max(100).min(self.evaluate.samples)
    }
}
