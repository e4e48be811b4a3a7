//! Which samples a step is taken on, and which are held out of training.

use super::config::Experiment;
use super::data::Data;
use crate::data::{batch_rows, part_rows, select};
use crate::method::{Batch, Gives};
use crate::rng::Key;
use crate::{Result, ensure};
use candle_core::Tensor;

/// The samples that are trained on and those that are not.
pub(super) struct Split {
    trained: Vec<u32>,
    held_out: Vec<u32>,
}

impl Split {
    /// The split of `data` that `experiment` asks for, under its key.
    ///
    /// # Errors
    /// Data of which nothing would be left to train on.
    pub fn of(experiment: &Experiment, data: &Data, key: &Key) -> Result<Self> {
        let (count, rows) = (experiment.training.held_out, data.rows());
        ensure!(
            count < rows,
            "training.held_out = {count}: of {rows} samples none are left to train on"
        );
        let mut held_out = match count {
            0 => Vec::new(),
            _ => part_rows(rows, count, &key.stream("held out")),
        };
        held_out.sort_unstable();
        let is_trained = |row: &u32| held_out.binary_search(row).is_err();
        Ok(Self { trained: (0..rows as u32).filter(is_trained).collect(), held_out })
    }

    /// All samples of `data` that are trained on, none mirrored.
    pub fn trained_of(&self, data: &Data) -> Result<Tensor> {
        let all = data.all()?;
        if self.held_out.is_empty() { Ok(all) } else { select(&all, &self.trained) }
    }
}

/// The rows of a batch, and the parts that it is split into.
pub(super) struct Rows<'a> {
    data: &'a Data,
    rows: Vec<u32>,
    part: usize,
    conditional: bool,
    /// The class that stands for none, and the share of the samples that have it.
    unlabelled: Option<(u32, f64)>,
    key: Key,
}

impl<'a> Rows<'a> {
    /// The batch of step `step`.
    pub fn of_step(
        experiment: &Experiment,
        data: &'a Data,
        split: &Split,
        key: &Key,
        step: u64,
    ) -> Self {
        let size = experiment.training.batch;
        let picked = batch_rows(split.trained.len(), size, step, &key.stream("order"));
        let rows = picked.into_iter().map(|i| split.trained[i as usize]).collect();
        let part = size.div_ceil(experiment.training.accumulate);
        Self::new(experiment, data, (rows, part), key.stream("step").step(step))
    }

    /// All samples that are held out, with the same random numbers every time; none where nothing
    /// is held out.
    pub fn held_out(
        experiment: &Experiment,
        data: &'a Data,
        split: &Split,
        key: &Key,
    ) -> Option<Self> {
        let part = experiment.training.batch.div_ceil(experiment.training.accumulate);
        let rows = split.held_out.clone();
        let key = key.stream("held out");
        (!rows.is_empty()).then(|| Self::new(experiment, data, (rows, part), key))
    }

    fn new(
        experiment: &Experiment,
        data: &'a Data,
        (rows, part): (Vec<u32>, usize),
        key: Key,
    ) -> Self {
        let classifies = experiment.method.gives() == Gives::Classifier;
        let conditional = classifies || experiment.network.classes().is_some();
        let unlabelled = experiment.no_class().map(|class| (class, experiment.training.unlabelled));
        Self { data, rows, part, conditional, unlabelled, key }
    }

    // The labels of the samples from place `first` on, some of them replaced by "no class".
    fn some_dropped(&self, mut labels: Vec<u32>, first: u64) -> Vec<u32> {
        let Some((class, share)) = self.unlabelled else { return labels };
        let drawn = self.key.stream("unlabelled").uniforms(first..first + labels.len() as u64);
        for (label, drawn) in labels.iter_mut().zip(drawn) {
            if drawn < share {
                *label = class;
            }
        }
        labels
    }

    /// Each part, and its share of the batch.
    pub fn parts(&self) -> impl Iterator<Item = Result<(Batch, f64)>> + '_ {
        self.rows.chunks(self.part).enumerate().map(|(i, rows)| {
            let first = (i * self.part) as u64;
            let x0 = self.data.batch(rows, first, &self.key)?;
            let labels = self.conditional.then(|| self.data.labels(rows)).flatten();
            let labels = labels.map(|labels| self.some_dropped(labels, first));
            let share = rows.len() as f64 / self.rows.len() as f64;
            Ok((Batch { x0, labels, first, key: self.key }, share))
        })
    }
}
