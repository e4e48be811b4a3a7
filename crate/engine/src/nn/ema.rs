//! Exponential moving averages of parameters.

use super::ops;
use super::params::Params;
use crate::{Error, Result};

/// average = rate * average + (1 - rate) * value, one tensor per parameter.
///
/// With a fixed rate it is the average that samples are drawn with; with the rate mu(k) it is the
/// target of consistency training.
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
