//! What is trained: parameters with everything that moves them.

use crate::nn::{Ema, Gradients, Optimizer, OptimizerConfig, Params};
use crate::{Result, ensure};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Named parameters, their optimizer, learning-rate schedule and averages.
pub struct Player {
    name: &'static str,
    params: Params,
    config: OptimizerConfig,
    optimizer: Optimizer,
    averages: Vec<(f64, Ema)>,
    average_warms_up: bool,
    schedule: LearningRate,
}

/// The averages of a player's parameters.
#[derive(Clone, Copy, Debug)]
pub struct Averages<'a> {
    /// Their decay rates.
    pub rates: &'a [f64],
    /// Whether the rate after step k is at most (1 + k) / (10 + k) ([`Ema::follow`]).
    pub warm_up: bool,
}

/// The factor on the learning rate: linearly up to 1 over the first steps, then 1, then down to 0
/// over the last steps; in each stage, where a method has several.
///
/// ```
/// use consistency::method::LearningRate;
/// let schedule = LearningRate::new(100, 0.2).warming_up(0.04);
/// assert_eq!([0, 1, 3, 50, 90].map(|k| schedule.factor(k)), [0.25, 0.5, 1.0, 1.0, 0.5]);
/// ```
#[derive(Clone, Debug)]
pub struct LearningRate {
    ends: Vec<u64>,
    decay: f64,
    shape: DecayShape,
    warm_up: f64,
}

/// How a learning rate falls to 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DecayShape {
    /// Along a line.
    #[default]
    Linear,
    /// Along half a cosine.
    Cosine,
}

impl LearningRate {
    /// For `iterations` steps; the rate falls over the last share `decay` of them, along a line.
    pub fn new(iterations: u64, decay: f64) -> Self {
        Self { ends: vec![iterations], decay, shape: DecayShape::Linear, warm_up: 0.0 }
    }

    /// The same, falling along `shape`.
    ///
    /// ```
    /// use consistency::method::{DecayShape, LearningRate};
    /// let schedule = LearningRate::new(90, 1.0).shaped(DecayShape::Cosine);
    /// assert_eq!(schedule.factor(0), 1.0);
    /// assert!((schedule.factor(30) - 0.75).abs() < 1e-12);
    /// ```
    #[must_use]
    pub fn shaped(self, shape: DecayShape) -> Self {
        Self { shape, ..self }
    }

    /// The same, rising over the first share `share` of the steps.
    #[must_use]
    pub fn warming_up(self, share: f64) -> Self {
        Self { warm_up: share, ..self }
    }

    /// The same in each of the stages that end before these steps.
    #[must_use]
    pub(super) fn in_stages(&self, ends: Vec<u64>) -> Self {
        Self { ends, ..self.clone() }
    }

    /// K, the number of steps.
    pub fn iterations(&self) -> u64 {
        self.ends.last().copied().unwrap_or_default()
    }

    /// The factor at step `k`.
    pub fn factor(&self, k: u64) -> f64 {
        let stage = self.ends.partition_point(|end| *end <= k).min(self.ends.len() - 1);
        let begin = if stage == 0 { 0 } else { self.ends[stage - 1] };
        let total = (self.ends[stage] - begin) as f64;
        let falling = self.decay * total;
        let done = (k - begin) as f64;
        let end = match self.shape {
            _ if !(falling > 0.0) => 1.0,
            DecayShape::Linear => (total - done) / falling,
            DecayShape::Cosine => {
                let fallen = (done - (total - falling)).max(0.0) / falling;
                0.5 * (1.0 + (std::f64::consts::PI * fallen).cos())
            }
        };
        let start = (k - begin + 1) as f64 / (self.warm_up * total).max(1.0);
        end.min(start).min(1.0)
    }

    /// Whether a stage begins at step `k`, other than the first.
    fn begins_again(&self, k: u64) -> bool {
        self.ends[..self.ends.len() - 1].contains(&k)
    }
}

impl Player {
    /// A player that has taken no step, with averages that start at `params`.
    ///
    /// # Errors
    /// An error of the device.
    pub fn new(
        name: &'static str,
        params: Params,
        config: OptimizerConfig,
        schedule: LearningRate,
        averages: Averages,
    ) -> Result<Self> {
        let optimizer = Optimizer::new(config, &params)?;
        let Averages { rates, warm_up: average_warms_up } = averages;
        let averages = rates.iter().map(|rate| Ok((*rate, Ema::new(&params)?)));
        let averages = averages.collect::<Result<_>>()?;
        Ok(Self { name, params, config, optimizer, averages, average_warms_up, schedule })
    }

    /// Its name: `student`, `critic`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What it trains.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The learning rate of step `k`.
    pub fn learning_rate(&self, k: u64) -> f64 {
        self.schedule.factor(k) * self.config.learning_rate
    }

    /// Scale `gradients` down to the norm `optimizer.clip`, where `norm` is larger.
    pub(crate) fn clip(&self, gradients: &mut Gradients, norm: f64) -> Result<()> {
        match self.config.clip {
            Some(clip) if norm > clip => gradients.scale(clip / norm),
            _ => Ok(()),
        }
    }

    /// Take step `k` along `gradients`; the averages follow. The optimizer starts anew with each
    /// stage.
    ///
    /// # Errors
    /// A parameter without a gradient, by name.
    pub fn step(&mut self, gradients: &Gradients, k: u64) -> Result<()> {
        if self.schedule.begins_again(k) {
            self.optimizer = Optimizer::new(self.config, &self.params)?;
        }
        self.optimizer.step(&self.params, gradients, self.schedule.factor(k))?;
        self.averages.iter().try_for_each(|(rate, ema)| match self.average_warms_up {
            true => ema.follow(&self.params, *rate, k),
            false => ema.update(&self.params, *rate),
        })
    }

    /// Its whole state: tensors by group (`params`, `ema`, `ema.1`, .., `optimizer`) and name.
    pub(crate) fn state(&self) -> BTreeMap<String, BTreeMap<String, Tensor>> {
        let mut state = BTreeMap::from([
            ("params".to_string(), self.params.tensors()),
            ("optimizer".to_string(), self.optimizer.tensors()),
        ]);
        for (i, (_, ema)) in self.averages.iter().enumerate() {
            state.insert(average(i), ema.params().tensors());
        }
        state
    }

    /// Restore its state as it was after `steps` of its steps.
    ///
    /// # Errors
    /// A group or a tensor that is missing or has another shape, by name.
    pub(crate) fn restore(
        &mut self,
        steps: u64,
        mut group: impl FnMut(&str) -> BTreeMap<String, Tensor>,
    ) -> Result<()> {
        self.params.assign_tensors(&group("params"))?;
        for (i, (_, ema)) in self.averages.iter().enumerate() {
            ema.params().assign_tensors(&group(&average(i)))?;
        }
        self.optimizer.restore(steps, &group("optimizer"))
    }

    /// Whether all its parameters are finite.
    ///
    /// # Errors
    /// The first that is not, by name.
    pub(crate) fn check_finite(&self) -> Result<()> {
        for (name, var) in self.params.iter() {
            // Zero times anything finite is zero, whatever its size.
            let sum = (var.as_detached_tensor() * 0.0)?.sum_all()?;
            let sum = sum.to_dtype(candle_core::DType::F64)?.to_scalar::<f64>()?;
            ensure!(diverged: sum.is_finite(), "the parameter {name} is not finite");
        }
        Ok(())
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.optimizer.steps()
    }
}

/// The group of average `index`.
pub(crate) fn average(index: usize) -> String {
    if index == 0 { "ema".to_string() } else { format!("ema.{index}") }
}
