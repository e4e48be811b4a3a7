//! Optimizers whose whole state can be saved: Adam (Kingma and Ba 2015) and RAdam (Liu
//! et al. 2020), the paper's choice.

use super::gradients::Gradients;
use super::ops::{self, Step};
use super::params::Params;
use crate::{Result, bail, ensure};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Which rule moves the parameters.
///
/// ```
/// use consistency::nn::Init;
/// use consistency::prelude::*;
/// // w after the first step from w = 2 down |w|^2, whose gradient there is 4.
/// let first = |kind: OptimizerKind| -> consistency::Result<f64> {
///     let mut params = Params::new(DType::F64, &Device::Cpu);
///     let w = params.init(&Key::new(0), |scope| scope.tensor("w", &[1], Init::Constant(2.0)))?;
///     let config = OptimizerConfig { kind, learning_rate: 0.1, ..OptimizerConfig::default() };
///     let gradients = params.gradients(&w.sqr()?.sum_all()?)?;
///     Optimizer::new(config, &params)?.step(&params, &gradients, 1.0)?;
///     Ok(values(&w)?[0])
/// };
/// assert!((first(OptimizerKind::Adam)? - 1.9).abs() < 1e-8); // the learning rate
/// assert!((first(OptimizerKind::Radam)? - 1.6).abs() < 1e-8); // times the gradient
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Adam.
    Adam,
    /// Adam with decoupled weight decay (Loshchilov and Hutter 2019).
    AdamW,
    /// Adam with the variance of its step size rectified, which needs no warm-up. But its first
    /// five steps (with beta_2 = 0.999) are momentum alone: the gradient times the learning rate,
    /// a long step where the loss is a sum over many pixels. Clip the gradient there, or choose
    /// Adam.
    #[default]
    Radam,
}

/// The hyper-parameters of an optimizer.
///
/// ```
/// use consistency::nn::{OptimizerConfig, OptimizerKind};
/// let paper = OptimizerConfig::default();
/// let config = OptimizerConfig { learning_rate: 1e-3, clip: Some(1.0), ..paper };
/// assert_eq!((config.kind, config.betas), (OptimizerKind::Radam, (0.9, 0.999)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    /// The rule.
    pub kind: OptimizerKind,
    /// The learning rate.
    pub learning_rate: f64,
    /// The decay rates of the two moments.
    pub betas: (f64, f64),
    /// Added to the root of the second moment.
    pub eps: f64,
    /// The weight decay of AdamW: each step multiplies the parameters by
    /// 1 - learning_rate weight_decay.
    pub weight_decay: f64,
    /// The largest norm of the gradient: a larger gradient is scaled down to it. The paper does not
    /// clip.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip: Option<f64>,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            kind: OptimizerKind::Radam,
            learning_rate: 4e-4,
            betas: (0.9, 0.999),
            eps: 1e-8,
            weight_decay: 0.0,
            clip: None,
        }
    }
}

/// An optimizer over a set of parameters: first and second moments by name, and the
/// number of steps taken.
///
/// ```
/// use consistency::nn::Init;
/// use consistency::prelude::*;
/// let mut params = Params::new(DType::F64, &Device::Cpu);
/// let w = params.init(&Key::new(0), |scope| scope.tensor("w", &[1], Init::Constant(2.0)))?;
/// let adam = OptimizerConfig { kind: OptimizerKind::Adam, ..OptimizerConfig::default() };
/// let mut optimizer = Optimizer::new(OptimizerConfig { learning_rate: 0.05, ..adam }, &params)?;
/// for _ in 0..500 {
///     let loss = (&w - 3.0)?.sqr()?.sum_all()?;
///     optimizer.step(&params, &params.gradients(&loss)?, 1.0)?;
/// }
/// assert_eq!(optimizer.steps(), 500);
/// assert!((values(&w)?[0] - 3.0).abs() < 1e-3);
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Optimizer {
    config: OptimizerConfig,
    step: u64,
    first: BTreeMap<String, Tensor>,
    second: BTreeMap<String, Tensor>,
}

impl Optimizer {
    /// An optimizer that has taken no step.
    pub fn new(config: OptimizerConfig, params: &Params) -> Result<Self> {
        let zeros = || -> Result<BTreeMap<String, Tensor>> {
            params.trained().map(|(n, v)| Ok((n.to_string(), v.zeros_like()?))).collect()
        };
        Ok(Self { config, step: 0, first: zeros()?, second: zeros()? })
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// Move `params` along `gradients` with the learning rate times `rate`.
    ///
    /// # Errors
    /// A parameter without a gradient, by name.
    pub fn step(&mut self, params: &Params, gradients: &Gradients, rate: f64) -> Result<()> {
        self.step += 1;
        let (step_size, adaptive) = self.step_size();
        let rate = self.config.learning_rate * rate;
        // The second moment is corrected inside the root: v / (1 - beta2^t).
        let correction = 1.0 / (1.0 - self.config.betas.1.powf(self.step as f64));
        let decay = match self.config.kind {
            OptimizerKind::AdamW => rate * self.config.weight_decay,
            OptimizerKind::Adam | OptimizerKind::Radam => 0.0,
        };
        let by = Step {
            betas: self.config.betas,
            keep: 1.0 - decay,
            scale: step_size * rate,
            adaptive: adaptive.then_some((correction, self.config.eps)),
        };
        for (name, var) in params.trained() {
            let moments = (self.first.get_mut(name), self.second.get_mut(name));
            let (Some(gradient), (Some(first), Some(second))) = (gradients.get(name), moments)
            else {
                bail!("parameter {name} has no gradient or no moments");
            };
            ops::step(var, first, second, gradient, &by)?;
        }
        Ok(())
    }

    // The step size of this step before the learning rate, and whether the second
    // moment divides it.
    fn step_size(&self) -> (f64, bool) {
        let (beta1, beta2) = self.config.betas;
        let t = self.step as f64;
        let unbiased = 1.0 / (1.0 - beta1.powf(t));
        match self.config.kind {
            OptimizerKind::Adam | OptimizerKind::AdamW => (unbiased, true),
            OptimizerKind::Radam => {
                // rho_t, the length of the approximated simple moving average.
                let rho_inf = 2.0 / (1.0 - beta2) - 1.0;
                let decay = beta2.powf(t);
                let rho = rho_inf - 2.0 * t * decay / (1.0 - decay);
                if rho > 5.0 {
                    let rectify = ((rho - 4.0) * (rho - 2.0) * rho_inf)
                        / ((rho_inf - 4.0) * (rho_inf - 2.0) * rho);
                    (unbiased * rectify.sqrt(), true)
                } else {
                    (unbiased, false)
                }
            }
        }
    }

    /// The state by name, for a checkpoint: `first.NAME` and `second.NAME`.
    pub fn tensors(&self) -> BTreeMap<String, Tensor> {
        let with = |prefix: &str, map: &BTreeMap<String, Tensor>| -> Vec<(String, Tensor)> {
            map.iter().map(|(n, t)| (format!("{prefix}.{n}"), t.clone())).collect()
        };
        let mut all: BTreeMap<String, Tensor> = with("first", &self.first).into_iter().collect();
        all.extend(with("second", &self.second));
        all
    }

    /// Take back a state saved by [`Optimizer::tensors`] after `steps` steps.
    ///
    /// # Errors
    /// A moment that is missing or has another shape.
    pub fn restore(&mut self, steps: u64, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        for (prefix, map) in [("first", &mut self.first), ("second", &mut self.second)] {
            for (name, moment) in map.iter_mut() {
                let full = format!("{prefix}.{name}");
                let Some(saved) = tensors.get(&full) else {
                    bail!("the optimizer's {full} is missing");
                };
                ensure!(
                    saved.shape() == moment.shape(),
                    "the optimizer's {full} has shape {:?}, needs {:?}",
                    saved.dims(),
                    moment.dims()
                );
                // A copy: the moments are updated in place.
                *moment = saved.to_device(moment.device())?.copy()?;
            }
        }
        self.step = steps;
        Ok(())
    }
}
