//! Exponential moving averages of parameters.

use super::ops;
use super::params::Params;
use crate::{Error, Result};

/// average = rate * average + (1 - rate) * value, one tensor per parameter.
///
/// With a fixed rate it is the average that samples are drawn with; with the rate mu(k) it is the
/// target of consistency training.
///
/// ```
/// use consistency::nn::Init;
/// use consistency::prelude::*;
/// let mut params = Params::new(DType::F64, &Device::Cpu);
/// params.init(&Key::new(0), |scope| scope.tensor("w", &[1], Init::Constant(2.0)))?;
/// let average = Ema::new(&params)?;
/// params.assign_tensors(&[("w".to_string(), Tensor::new(&[4.0f64], &Device::Cpu)?)].into())?;
/// average.update(&params, 0.75)?;
/// assert_eq!(values(&average.params().tensors()["w"])?, [2.5]); // 0.75 * 2 + 0.25 * 4
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Ema {
    params: Params,
}

impl Ema {
    /// An average that starts at `params`.
    pub fn new(params: &Params) -> Result<Self> {
        Ok(Self { params: params.duplicate()? })
    }

    /// The averaged parameters.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Move towards `params`; rate 0 copies them.
    pub fn update(&self, params: &Params, rate: f64) -> Result<()> {
        for ((name, average), (other, value)) in self.params.trained().zip(params.trained()) {
            if name != other {
                return Err(Error::new(format!("the average has {name} where {other} stands")));
            }
            ops::lerp(average, value, 1.0 - rate)?;
        }
        Ok(())
    }

    /// Move towards `params` after step `k` of a training, counted from 0, at the rate
    /// min(`rate`, (1 + k) / (10 + k)): early on a slow average would remember the start.
    pub fn follow(&self, params: &Params, rate: f64, k: u64) -> Result<()> {
        self.update(params, rate.min((1.0 + k as f64) / (10.0 + k as f64)))
    }
}
