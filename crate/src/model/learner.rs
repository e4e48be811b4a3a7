//! A model with everything that a hand-written training loop needs.

use super::config::NetworkConfig;
use super::network::Network;
use crate::Result;
use crate::nn::{Ema, Params};
use crate::rng::Key;
use candle_core::{DType, Device};

/// A model f on three sets of parameters, in the paper's symbols: theta, which takes gradients; the
/// target theta-; and the average of theta, which is sampled.
///
/// ```
/// use consistency::prelude::*;
/// let network = NetworkConfig::Mlp(MlpConfig { width: 16, blocks: 1, ..MlpConfig::default() });
/// let model = |network| ConsistencyModel::new(network, Parameterization::Skip, 0.5, 0.002);
/// let Learner { theta, f, theta_minus, f_minus, .. } =
///     Learner::new(&network, &[2], &Key::new(0), model)?;
/// let x = Key::new(1).normal(0..4, &[2], DType::F32, &Device::Cpu)?;
///
/// // One step of gradient descent on |f(x, 1) - x|^2, and theta- = 0.9 theta- + 0.1 theta.
/// let loss = (f.origin(&x, &[1.0])? - &x)?.sqr()?.mean_all()?;
/// let mut optimizer = Optimizer::new(OptimizerConfig::default(), &theta)?;
/// optimizer.step(&theta, &theta.gradients(&loss)?, 1.0)?;
/// theta_minus.update(&theta, 0.9)?;
/// let apart = (f.origin(&x, &[1.0])? - f_minus.origin(&x, &[1.0])?)?;
/// assert!(mean_square(&apart)? > 0.0);
/// # Ok::<(), consistency::Error>(())
/// ```
pub struct Learner<M> {
    /// theta.
    pub theta: Params,
    /// f_theta.
    pub f: M,
    /// theta-, the target; it starts at theta.
    pub theta_minus: Ema,
    /// f_theta-, which takes no gradients.
    pub f_minus: M,
    /// The average of theta; it starts at theta.
    pub average: Ema,
    /// f on the average, which takes no gradients.
    pub f_average: M,
    /// The loss of each step, where the loop notes it.
    pub losses: Vec<f64>,
}

impl<M> Learner<M> {
    /// `network` for samples of `shape` on fresh parameters on the CPU, the same as those of an
    /// experiment whose seed `key` has; `model` makes f of it.
    ///
    /// # Errors
    /// A network that cannot be built for these samples.
    pub fn new(
        network: &NetworkConfig,
        shape: &[usize],
        key: &Key,
        model: impl Fn(Box<dyn Network>) -> M,
    ) -> Result<Self> {
        let mut theta = Params::new(DType::F32, &Device::Cpu);
        let f = theta.init(&key.stream("network"), |scope| network.build(scope, shape))?;
        let frozen = |of: &Ema| of.params().frozen(|scope| network.build(scope, shape));
        let (theta_minus, average) = (Ema::new(&theta)?, Ema::new(&theta)?);
        let (f_minus, f_average) = (frozen(&theta_minus)?, frozen(&average)?);
        let (f, f_minus, f_average) = (model(f), model(f_minus), model(f_average));
        Ok(Self { theta, f, theta_minus, f_minus, average, f_average, losses: Vec::new() })
    }

    /// Set theta, theta- and the average to `params`: a student starts from its teacher.
    ///
    /// # Errors
    /// A parameter that is missing or has another shape, by name.
    pub fn start_from(&self, params: &Params) -> Result<()> {
        [&self.theta, self.theta_minus.params(), self.average.params()]
            .into_iter()
            .try_for_each(|own| own.assign(params))
    }
}
