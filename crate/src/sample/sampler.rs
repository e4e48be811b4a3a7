//! The samplers of the field under one roof: their names, their settings, what they cost.

use super::churn::{Churn, churned};
use super::corrector::predictor_corrector;
use super::ddim::{ancestral, ddim};
use super::deis::deis;
use super::dpm::{dpm2, dpm3};
use super::noise::Noise;
use crate::bounds::within;
use crate::process::{Solver, TimeGrid};
use crate::rng::Key;
use crate::seam::Denoiser;
use crate::{Result, ensure};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// A sampler of a [`Denoiser`], from T z down to eps along a grid of N points.
///
/// In a file it is a table with its name under `kind`, such as `{ kind = "ddim", eta = 0.5 }`;
/// what is not named has the default that its field states.
///
/// ```
/// use consistency::prelude::*;
/// use consistency::sample::Sampler;
/// let line = GaussianMixture::new(vec![1.0], vec![vec![0.3]], vec![0.5])?;
/// let z = Key::new(0).normal(0..4, &[1], DType::F64, &Device::Cpu)?;
/// let grid = NoiseRange::default().karras(18)?;
/// for sampler in [Sampler::heun(), Sampler::Deis { order: 3 }, Sampler::Ancestral] {
///     let counted = Counted::new(&line);
///     let x = sampler.sample(&counted, &z, &grid, &Key::new(1))?;
///     assert_eq!((x.dims(), counted.nfe()), (&[4, 1][..], sampler.nfe(&grid)));
/// }
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Sampler {
    /// Euler along the PF ODE, with EDM's churn. Order 1 without it; NFE N - 1.
    Euler {
        /// Noise added before each step; none by default.
        #[serde(default)]
        churn: Churn,
    },
    /// EDM's algorithm 2 (Karras et al. 2022). Order 2 without churn; NFE 2 (N - 1).
    Heun {
        /// Noise added before each step; none by default.
        #[serde(default)]
        churn: Churn,
    },
    /// DDIM (Song, Meng and Ermon 2021). Order 1; NFE N - 1.
    Ddim {
        /// The share of fresh noise, 0 to 1. At 0 (the default) nothing is random, and with
        /// drift 0 it is Euler's step; at 1 it is the ancestral sampler of DDPM.
        #[serde(default)]
        eta: f64,
    },
    /// DPM-Solver-2 (Lu et al. 2022), singlestep. Order 2; NFE 2 (N - 1).
    DpmSolver2,
    /// DPM-Solver-3 (Lu et al. 2022), singlestep. Order 3; NFE 3 (N - 1).
    DpmSolver3,
    /// tAB-DEIS (Zhang and Chen 2022). NFE N - 1, whatever the order.
    ///
    /// Its first steps have fewer predictions to go by, which formally costs it the orders above
    /// 2. They lie near T = 80, where the PF ODE is all but straight: on Karras grids of up to 513
    /// points the orders 3 and 4 are what is measured.
    Deis {
        /// How many noise predictions a step uses, 1 to 4 (the paper's r is one less), which
        /// is its order; 3 by default.
        #[serde(default = "three")]
        order: usize,
    },
    /// Euler's ancestral sampler, DDIM with eta = 1. NFE N - 1.
    Ancestral,
    /// Reverse diffusion with Langevin corrections (Song et al. 2021, algorithm 2).
    /// NFE (N - 1) (1 + corrections).
    PredictorCorrector {
        /// The corrector's ratio of signal to noise, between 0 and 1; 0.16 by default, the
        /// paper's for CIFAR-10.
        #[serde(default = "snr")]
        snr: f64,
        /// Langevin steps at each noise level; 1 by default.
        #[serde(default = "one")]
        corrections: usize,
    },
}

fn snr() -> f64 {
    0.16
}

fn one() -> usize {
    1
}

fn three() -> usize {
    3
}

impl Sampler {
    /// Euler without churn.
    pub fn euler() -> Self {
        Self::Euler { churn: Churn::default() }
    }

    /// Heun without churn.
    pub fn heun() -> Self {
        Self::Heun { churn: Churn::default() }
    }

    /// The predictor-corrector at its defaults.
    pub fn predictor_corrector() -> Self {
        Self::PredictorCorrector { snr: snr(), corrections: one() }
    }

    /// Its name in tables, with the settings that are not the usual ones.
    pub fn name(&self) -> String {
        let churned = |churn: &Churn| if *churn == Churn::default() { "" } else { ", churn" };
        match self {
            Self::Euler { churn } => format!("Euler{}", churned(churn)),
            Self::Heun { churn } => format!("Heun{}", churned(churn)),
            Self::Ddim { eta: 0.0 } => "DDIM".to_string(),
            Self::Ddim { eta } => format!("DDIM, eta {eta}"),
            Self::DpmSolver2 => "DPM-Solver-2".to_string(),
            Self::DpmSolver3 => "DPM-Solver-3".to_string(),
            Self::Deis { order } => format!("DEIS of order {order}"),
            Self::Ancestral => "ancestral".to_string(),
            Self::PredictorCorrector { snr, corrections } => {
                format!("predictor-corrector, snr {snr}, {corrections} corrections")
            }
        }
    }

    /// Samples from the noise `z` of standard deviation 1, `(B, ..)`: x at eps, with the shape,
    /// dtype and device of `z`. The samples of the batch are numbered from 0.
    ///
    /// # Errors
    /// Settings out of range, by name; what the denoiser refuses.
    pub fn sample(
        &self,
        denoiser: &dyn Denoiser,
        z: &Tensor,
        grid: &TimeGrid,
        key: &Key,
    ) -> Result<Tensor> {
        self.sample_from(denoiser, z, grid, key, 0)
    }

    /// The same for a batch whose first sample is number `first`: noise depends on that number, so
    /// a sample is the same whatever batch it is drawn in.
    ///
    /// # Errors
    /// As [`Sampler::sample`].
    pub fn sample_from(
        &self,
        denoiser: &dyn Denoiser,
        z: &Tensor,
        grid: &TimeGrid,
        key: &Key,
        first: u64,
    ) -> Result<Tensor> {
        self.check()?;
        let noise = Noise { key, first };
        let start = (z * grid.last())?;
        match self {
            Self::Euler { churn } => churned(denoiser, Solver::Euler, churn, start, grid, &noise),
            Self::Heun { churn } => churned(denoiser, Solver::Heun, churn, start, grid, &noise),
            Self::Ddim { eta } => ddim(denoiser, *eta, start, grid, &noise),
            Self::DpmSolver2 => dpm2(denoiser, start, grid),
            Self::DpmSolver3 => dpm3(denoiser, start, grid),
            Self::Deis { order } => deis(denoiser, *order, start, grid),
            Self::Ancestral => ancestral(denoiser, start, grid, &noise),
            Self::PredictorCorrector { snr, corrections } => {
                predictor_corrector(denoiser, *snr, *corrections, start, grid, &noise)
            }
        }
    }

    /// The evaluations of the denoiser on `grid`.
    pub fn nfe(&self, grid: &TimeGrid) -> usize {
        self.nfe_of(grid.points())
    }

    /// The evaluations of the denoiser on a grid of `points`.
    pub fn nfe_of(&self, points: usize) -> usize {
        let each = match self {
            Self::Euler { .. } | Self::Ddim { .. } | Self::Deis { .. } | Self::Ancestral => 1,
            Self::Heun { .. } | Self::DpmSolver2 => 2,
            Self::DpmSolver3 => 3,
            Self::PredictorCorrector { corrections, .. } => 1 + corrections,
        };
        each * points.saturating_sub(1)
    }

    /// Whether the settings are in range.
    ///
    /// # Errors
    /// The one that is not.
    pub fn check(&self) -> Result<()> {
        match self {
            Self::Euler { churn } | Self::Heun { churn } => churn.check(),
            Self::Ddim { eta } => {
                ensure!((0.0..=1.0).contains(eta), "eta = {eta}: needs 0 to 1");
                Ok(())
            }
            Self::Deis { order } => {
                ensure!((1..=4).contains(order), "DEIS of order {order}: needs 1 to 4");
                Ok(())
            }
            Self::PredictorCorrector { snr, corrections } => {
                ensure!(*snr > 0.0 && *snr < 1.0, "snr = {snr}: needs 0 < snr < 1");
                within("corrections", *corrections, ..=1000)
            }
            Self::DpmSolver2 | Self::DpmSolver3 | Self::Ancestral => Ok(()),
        }
    }
}
