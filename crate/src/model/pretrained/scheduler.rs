//! What a network is, from the configuration of the scheduler beside it.

use crate::process::{Betas, NoiseRange, TimeGrid, VpSchedule};
use crate::{Context, Error, Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// What a published network is.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// A consistency model.
    Consistency(CmSchedule),
    /// A teacher that predicts the noise of a discrete variance-preserving process.
    VariancePreserving(VpSchedule),
    /// A teacher with EDM's scalings.
    Edm {
        /// The standard deviation of the data.
        sigma_data: f64,
    },
}

impl Kind {
    /// From the text of a `scheduler_config.json`.
    ///
    /// # Errors
    /// A scheduler, or a value of one, that is not known here, by name.
    pub fn from_json(text: &str) -> Result<Self> {
        let named: Named = parse(text)?;
        let class = named.class.as_deref().unwrap_or("without a _class_name");
        match class {
            "CMStochasticIterativeScheduler" => {
                let schedule: CmSchedule = parse(text)?;
                schedule.check().context(class)?;
                Ok(Self::Consistency(schedule))
            }
            "DDPMScheduler" | "DDIMScheduler" => {
                let scheduler: Discrete = parse(text)?;
                Ok(Self::VariancePreserving(scheduler.schedule().context(class)?))
            }
            _ => bail!(
                "a scheduler {class}: known are CMStochasticIterativeScheduler (a consistency \
                 model), DDPMScheduler and DDIMScheduler (a teacher)"
            ),
        }
    }

    /// The noise levels that it was trained on.
    pub fn noise_range(&self) -> NoiseRange {
        match self {
            Self::Consistency(schedule) => schedule.range(),
            Self::VariancePreserving(schedule) => schedule.range(),
            Self::Edm { .. } => NoiseRange::default(),
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Consistency(schedule) => write!(
                f,
                "a consistency model (sigma {} to {}, {} grid points)",
                schedule.sigma_min, schedule.sigma_max, schedule.num_train_timesteps
            ),
            Self::VariancePreserving(schedule) => write!(
                f,
                "a teacher (predicts the noise of a variance-preserving process of {} steps)",
                schedule.steps
            ),
            Self::Edm { sigma_data } => {
                write!(f, "a teacher (EDM's scalings, sigma_data {sigma_data})")
            }
        }
    }
}

/// diffusers' `CMStochasticIterativeScheduler`, under its keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CmSchedule {
    /// eps, where f is the identity.
    pub sigma_min: f64,
    /// T.
    pub sigma_max: f64,
    /// The standard deviation of the data.
    pub sigma_data: f64,
    /// The exponent of the grid.
    pub rho: f64,
    /// N, the points of the grid from which the noise levels of sampling are chosen.
    pub num_train_timesteps: usize,
    /// A factor on the noise of multistep sampling.
    pub s_noise: f64,
    /// Clip each answer to \[-1, 1\].
    pub clip_denoised: bool,
}

impl Default for CmSchedule {
    fn default() -> Self {
        Self {
            sigma_min: 0.002,
            sigma_max: 80.0,
            sigma_data: 0.5,
            rho: 7.0,
            num_train_timesteps: 40,
            s_noise: 1.0,
            clip_denoised: true,
        }
    }
}

impl CmSchedule {
    /// eps, T and rho.
    pub fn range(&self) -> NoiseRange {
        NoiseRange { eps: self.sigma_min, t_max: self.sigma_max, rho: self.rho }
    }

    /// The grid from which the noise levels of sampling are chosen.
    ///
    /// # Errors
    /// Values that make no grid.
    pub fn grid(&self) -> Result<TimeGrid> {
        self.range().karras(self.num_train_timesteps)
    }

    fn check(&self) -> Result<()> {
        self.range().check()?;
        let Self { sigma_data, num_train_timesteps, s_noise, .. } = *self;
        ensure!(sigma_data > 0.0 && sigma_data.is_finite(), "sigma_data = {sigma_data}: needs > 0");
        ensure!(s_noise >= 0.0 && s_noise.is_finite(), "s_noise = {s_noise}: needs >= 0");
        ensure!(
            (2..=1_000_000).contains(&num_train_timesteps),
            "num_train_timesteps = {num_train_timesteps}: needs 2 or more, to a million"
        );
        Ok(())
    }
}

#[derive(Deserialize)]
struct Named {
    #[serde(rename = "_class_name")]
    class: Option<String>,
}

/// The keys of diffusers' discrete schedulers on which the noise depends.
#[derive(Deserialize)]
#[serde(default)]
struct Discrete {
    beta_start: f64,
    beta_end: f64,
    beta_schedule: String,
    num_train_timesteps: usize,
    prediction_type: String,
    trained_betas: Option<serde_json::Value>,
    rescale_betas_zero_snr: bool,
}

impl Default for Discrete {
    fn default() -> Self {
        Self {
            beta_start: 1e-4,
            beta_end: 0.02,
            beta_schedule: "linear".to_string(),
            num_train_timesteps: 1000,
            prediction_type: "epsilon".to_string(),
            trained_betas: None,
            rescale_betas_zero_snr: false,
        }
    }
}

impl Discrete {
    fn schedule(&self) -> Result<VpSchedule> {
        let betas = match self.beta_schedule.as_str() {
            "linear" => Betas::Linear,
            "scaled_linear" => Betas::ScaledLinear,
            other => bail!("beta_schedule = '{other}': known are linear and scaled_linear"),
        };
        ensure!(
            self.prediction_type == "epsilon",
            "prediction_type = '{}': known is epsilon alone",
            self.prediction_type
        );
        ensure!(self.trained_betas.is_none(), "trained_betas: not known here");
        ensure!(!self.rescale_betas_zero_snr, "rescale_betas_zero_snr = true: not known here");
        let (beta_start, beta_end) = (self.beta_start, self.beta_end);
        let schedule = VpSchedule { beta_start, beta_end, betas, steps: self.num_train_timesteps };
        schedule.check()?;
        Ok(schedule)
    }
}

fn parse<T: for<'a> Deserialize<'a>>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|e| Error::new(e.to_string()))
}
