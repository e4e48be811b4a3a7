//! What a method builds its players with.

use super::player::{Averages, LearningRate, Player};
use crate::bounds::within;
use crate::model::pretrained::Teacher;
use crate::model::{Network, NetworkConfig, SECOND, Times};
use crate::nn::{OptimizerConfig, Params, Settings};
use crate::process::NoiseRange;
use crate::rng::Key;
use crate::{Context, Result, ensure};
use candle_core::{DType, Device};
use std::collections::BTreeMap;

/// The largest image networks have a few billion parameters; more does not fit on a machine.
const MOST_PARAMETERS: usize = 10_000_000_000;

/// What an experiment says besides its method.
pub struct Setting<'a> {
    /// The shape of one sample.
    pub shape: &'a [usize],
    /// The network of what a run gives.
    pub network: &'a NetworkConfig,
    /// eps, T and rho.
    pub noise: NoiseRange,
    /// The standard deviation of the data.
    pub sigma_data: f64,
    /// What moves the parameters.
    pub optimizer: OptimizerConfig,
    /// K, and how the learning rate falls.
    pub schedule: LearningRate,
    /// The averages of a player's parameters.
    pub averages: Averages<'a>,
    /// How networks run.
    pub settings: Settings,
    /// Where they run.
    pub device: &'a Device,
    /// The root of all random numbers.
    pub key: Key,
    /// The weights to start from; new ones where there are none.
    pub init: Option<Weights>,
    /// Where teachers are found.
    pub teachers: &'a dyn Teachers,
}

/// Where a method finds a teacher by its name.
pub trait Teachers {
    /// The teacher, as a denoiser on the student's device, and the weights that a student of the
    /// same network starts from.
    ///
    /// # Errors
    /// No teacher of this name, or one for other data.
    fn find(&self, name: &str) -> Result<(Teacher, Option<Weights>)>;
}

/// Parameters to start from.
pub struct Weights(pub Params);

impl Weights {
    /// Copy them into `params` if it has the same names; returns whether it has. What a network of
    /// two noise levels has for the second is left as it is: it starts at zero.
    ///
    /// # Errors
    /// A parameter of another shape, by name.
    pub fn start(&self, params: &Params) -> Result<bool> {
        let own = self.0.tensors();
        let all = params.tensors();
        let (second, first): (BTreeMap<_, _>, BTreeMap<_, _>) = all
            .into_iter()
            .partition(|(name, _)| name.starts_with(SECOND) && !own.contains_key(name));
        let same = own.keys().eq(first.keys());
        if same {
            // A variable is never set to its own storage.
            let second = second.into_iter().map(|(name, tensor)| Ok((name, tensor.copy()?)));
            let all = own.into_iter().map(Ok).chain(second).collect::<Result<_>>()?;
            params.assign_tensors(&all)?;
        }
        Ok(same)
    }
}

impl Setting<'_> {
    /// The experiment's network, with new parameters that take gradients.
    ///
    /// # Errors
    /// A network that cannot be built for these data.
    pub fn network(&self) -> Result<(Params, Box<dyn Network>)> {
        self.network_for(Times::One)
    }

    /// The same, conditioned on `times` noise levels.
    ///
    /// # Errors
    /// As [`Setting::network`].
    pub fn network_for(&self, times: Times) -> Result<(Params, Box<dyn Network>)> {
        // Checked before any memory is taken for it.
        let parameters = self.network.parameters(self.shape).context("network")?;
        within("network.parameters", parameters, 1..=MOST_PARAMETERS)?;
        let mut params = Params::new(DType::F32, self.device).with(self.settings);
        let key = self.key.stream("network");
        let network =
            params.init(&key, |scope| self.network.build_for(scope, self.shape, times))?;
        if let Some(init) = &self.init {
            ensure!(init.start(&params)?, "init: that network has other parameters than this one");
        }
        Ok((params, network))
    }

    /// Let `params` begin as a teacher's `weights`, unless the experiment names another start;
    /// returns whether they begin as either.
    ///
    /// # Errors
    /// As [`Weights::start`].
    pub fn start(&self, params: &Params, weights: &Weights) -> Result<bool> {
        if self.init.is_some() { Ok(true) } else { weights.start(params) }
    }

    /// The experiment's network once more, on `params`, for which it takes no gradients.
    ///
    /// # Errors
    /// A parameter that is missing or has another shape, by name.
    pub fn frozen(&self, params: &Params) -> Result<Box<dyn Network>> {
        self.frozen_for(params, Times::One)
    }

    /// The same, conditioned on `times` noise levels.
    ///
    /// # Errors
    /// As [`Setting::frozen`].
    pub fn frozen_for(&self, params: &Params, times: Times) -> Result<Box<dyn Network>> {
        params.frozen(|scope| self.network.build_for(scope, self.shape, times))
    }

    /// A player of `params`, with the experiment's optimizer, schedule and averages.
    ///
    /// # Errors
    /// An error of the device.
    pub fn player(&self, name: &'static str, params: Params) -> Result<Player> {
        Player::new(name, params, self.optimizer, self.schedule.clone(), self.averages)
    }

    /// The same, for a method of several stages, which end before the steps `ends`: in each of
    /// them optimizer and learning rate start anew.
    ///
    /// # Errors
    /// An error of the device.
    pub fn player_in_stages(
        &self,
        name: &'static str,
        params: Params,
        ends: Vec<u64>,
    ) -> Result<Player> {
        Player::new(name, params, self.optimizer, self.schedule.in_stages(ends), self.averages)
    }
}
