//! A network that predicts the noise of a variance-preserving process, as a denoiser of ours.

use super::network::{Condition, Network};
use super::wrap::Conditioned;
use crate::Result;
use crate::process::{NoiseRange, VpSchedule, step_of};
use crate::seam::{Denoiser, per_sample};
use candle_core::Tensor;
use std::sync::atomic::{AtomicBool, Ordering};

/// D(x, sigma) = x - sigma eps(x / sqrt(1 + sigma^2), i(sigma)): the scaled input is what the
/// process gives at the step i whose relative noise is sigma, found by interpolation in
/// ln sigma among the process's own levels.
///
/// Outside [`VariancePreserving::range`] the nearest step is taken. Below it that is extrapolation,
/// which is reported once on stderr: with DDPM's linear schedule it begins at 0.0100, and the
/// paper's eps = 0.002 lies there.
pub struct VariancePreserving {
    network: Box<dyn Network>,
    range: NoiseRange,
    sigmas: Vec<f64>,
    extrapolated: AtomicBool,
}

impl VariancePreserving {
    /// Wrap `network`, which takes time steps as they are.
    ///
    /// # Errors
    /// An invalid schedule.
    pub fn new(network: Box<dyn Network>, schedule: VpSchedule) -> Result<Self> {
        schedule.check()?;
        let (sigmas, range) = (schedule.sigmas(), schedule.range());
        Ok(Self { network, range, sigmas, extrapolated: AtomicBool::new(false) })
    }

    /// The noise levels that the network was trained on.
    pub fn range(&self) -> NoiseRange {
        self.range
    }

    /// Whether it has been asked for a noise level below its range.
    pub fn extrapolated(&self) -> bool {
        self.extrapolated.load(Ordering::Relaxed)
    }

    fn run(&self, x: &Tensor, t: &[f64], on: Condition) -> Result<Tensor> {
        if let Some(bad) = t.iter().find(|t| !(**t > 0.0)) {
            crate::bail!("noise level t = {bad}: needs t > 0");
        }
        let lowest = self.range.eps;
        // The lowest level itself comes out of a grid with a rounding error.
        if let Some(low) = t.iter().find(|t| **t < lowest * (1.0 - 1e-9))
            && !self.extrapolated.swap(true, Ordering::Relaxed)
        {
            eprintln!(
                "warning: a variance-preserving teacher is asked for the noise level {low}; it \
                 has seen none below {lowest:.4}, and this is extrapolation"
            );
        }
        let steps: Vec<f64> = t.iter().map(|&t| step_of(&self.sigmas, t)).collect();
        let factors: Vec<f64> = t.iter().map(|t| 1.0 / t.hypot(1.0)).collect();
        let inner = x.broadcast_mul(&per_sample(&factors, x)?)?;
        let noise = self.network.forward(&inner, Condition { noise: &steps, ..on })?;
        Ok((x - noise.broadcast_mul(&per_sample(t, x)?)?)?)
    }
}

impl Denoiser for VariancePreserving {
    fn denoise(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        self.run(x, t, Condition::default())
    }
}

impl Denoiser for Conditioned<'_, VariancePreserving> {
    fn denoise(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        let (of, on) = self.parts();
        of.run(x, t, on)
    }
}
