//! What a network is, from the configuration of the scheduler beside it.

use crate::bounds::{LARGEST, POINTS, level, within};
use crate::model::json::{self, Keys};
use crate::process::{Betas, NoiseRange, TimeGrid, VpSchedule};
use crate::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

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
    /// From the text of a `scheduler_config.json`: a key that is left out has diffusers' default.
    ///
    /// # Errors
    /// A scheduler, or a value of one, that is not known here or makes no noise levels, by name.
    pub fn from_json(text: &str) -> Result<Self> {
        let keys = json::object(text)?;
        let class = keys.get("_class_name").and_then(Value::as_str).map(String::from);
        match class.as_deref() {
            Some(class @ "CMStochasticIterativeScheduler") => {
                Ok(Self::Consistency(CmSchedule::of(keys).context(class)?))
            }
            Some(class @ ("DDPMScheduler" | "DDIMScheduler")) => {
                let schedule = || json::typed::<Discrete>(truths(keys))?.schedule();
                Ok(Self::VariancePreserving(schedule().context(class)?))
            }
            other => bail!(
                "a scheduler {}: known are CMStochasticIterativeScheduler (a consistency \
                 model), DDPMScheduler and DDIMScheduler (a teacher)",
                other.map_or("without a _class_name".to_string(), json::short)
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

    fn of(keys: Keys) -> Result<Self> {
        let schedule: Self = json::typed(truths(keys))?;
        schedule.check()?;
        Ok(schedule)
    }

    // Errors name the keys of the file: whoever reads the message looks there.
    fn check(&self) -> Result<()> {
        let Self { sigma_min, sigma_max, .. } = *self;
        level("sigma_min", sigma_min)?;
        level("sigma_max", sigma_max)?;
        ensure!(
            sigma_min < sigma_max,
            "sigma_min = {sigma_min}, sigma_max = {sigma_max}: needs sigma_min < sigma_max"
        );
        level("sigma_data", self.sigma_data)?;
        within("rho", self.rho, 0.1..=1e3)?;
        within("s_noise", self.s_noise, 0.0..=LARGEST)?;
        within("num_train_timesteps", self.num_train_timesteps, 2..=POINTS)?;
        self.grid().map(drop)
    }
}

// diffusers tests these for truth: null counts as false there.
fn truths(mut keys: Keys) -> Keys {
    for key in ["clip_denoised", "rescale_betas_zero_snr"] {
        if let Some(value) = keys.get_mut(key).filter(|value| value.is_null()) {
            *value = Value::Bool(false);
        }
    }
    keys
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
            other => bail!(
                "beta_schedule = '{}': known are linear and scaled_linear",
                json::short(other)
            ),
        };
        ensure!(
            self.prediction_type == "epsilon",
            "prediction_type = '{}': known is epsilon alone",
            json::short(&self.prediction_type)
        );
        ensure!(self.trained_betas.is_none(), "trained_betas: not known here");
        ensure!(!self.rescale_betas_zero_snr, "rescale_betas_zero_snr = true: not known here");
        let Self { beta_start, beta_end, num_train_timesteps: steps, .. } = *self;
        within("num_train_timesteps", steps, 2..=POINTS)?;
        let schedule = VpSchedule { beta_start, beta_end, betas, steps };
        schedule.check()?;
        // A schedule may leave nothing of the signal, or next to no noise.
        schedule.range().check().with_context(|| {
            format!("the noise levels of beta_start = {beta_start} to beta_end = {beta_end}")
        })?;
        Ok(schedule)
    }
}
