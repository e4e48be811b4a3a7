//! A released network in place of a run of ours (`--weights ID`): sampled and measured alike, and
//! recorded under a name of its own.

use super::config::Reproduction;
use super::draw::Source;
use crate::evaluate::fingerprint;
use crate::experiment::Experiment;
use crate::method::Gives;
use crate::model::Pretrained;
use crate::model::pretrained::Kind;
use crate::record::{Provenance, commit};
use crate::{Context, Result, ensure};
use candle_core::Device;
use std::path::Path;

const WITH: &str = " with ";

/// What the numbers of `reproduction` measured with the weights `id` are recorded as.
pub(super) fn recorded(reproduction: &str, id: &str) -> String {
    format!("{reproduction}{WITH}{id}")
}

/// The weights, where `experiment` is the recorded name of `reproduction` with some.
pub(super) fn weights_of<'a>(experiment: &'a str, reproduction: &str) -> Option<&'a str> {
    experiment.strip_prefix(reproduction)?.strip_prefix(WITH)
}

/// The same as arguments of `cargo lab reproduce`.
pub(super) fn command_of(recorded: &str) -> String {
    recorded.replacen(WITH, " --weights ", 1)
}

/// A network that somebody has trained and released.
pub(super) struct Released {
    network: Pretrained,
    id: String,
}

impl Released {
    /// `id` is a repository `OWNER/NAME[@REVISION]`, a folder or a flax file.
    ///
    /// # Errors
    /// A network that cannot be had, is for other images, or is not what the reproduction trains.
    pub fn open(id: &str, experiment: &Experiment, device: &Device) -> Result<Self> {
        let network = Pretrained::open(id).with_context(|| format!("--weights {id}"))?;
        let (shape, name) = (experiment.data.images()?.shape().to_vec(), &experiment.name);
        ensure!(
            network.shape().as_slice() == shape,
            "--weights {id}: its images are {:?}, those of {name} {shape:?}",
            network.shape()
        );
        let (consistency, wanted) =
            (matches!(network.kind(), Kind::Consistency(_)), experiment.method.gives());
        let fits = match wanted {
            Gives::Consistency(_) => consistency,
            Gives::Denoiser => !consistency,
            _ => false,
        };
        ensure!(
            fits,
            "--weights {id}: this is {}, and {name} trains {}",
            network.kind(),
            wanted.name()
        );
        // A path is of this machine alone.
        let here = Path::new(id).exists();
        let own = Path::new(id).file_name().filter(|_| here);
        let id = own.map_or_else(|| id.to_string(), |own| own.to_string_lossy().into_owned());
        Ok(Self { network: network.to_device(device)?, id })
    }

    /// What samples are drawn from, at the reproduction's noise levels.
    pub fn source<'a>(&self, experiment: &'a Experiment, device: &Device) -> Result<Source<'a>> {
        Source::released(&self.network, experiment, device)
    }

    /// Where its numbers come from; the configuration is a hash of the weights.
    pub fn provenance(
        &self,
        reproduction: &Reproduction,
        experiment: &Experiment,
        data: String,
    ) -> Result<Provenance> {
        Ok(Provenance {
            experiment: recorded(&reproduction.name, &self.id),
            configuration: fingerprint(self.network.params())?,
            seed: experiment.seed,
            device: experiment.training.device.clone(),
            dtype: "f32".to_string(),
            commit: commit(),
            data,
        })
    }
}
