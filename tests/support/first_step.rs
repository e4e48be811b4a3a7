//! The loss of a method's first step on points of the plane, with the exact denoiser of the data as
//! the teacher and the network as it is initialised.

use candle_core::{Device, Tensor};
use consistency::Result;
use consistency::method::{
    Averages, Batch, LearningRate, MethodConfig, Setting, Teachers, Weights,
};
use consistency::model::NetworkConfig;
use consistency::model::pretrained::Teacher;
use consistency::nn::{OptimizerConfig, Settings};
use consistency::process::{Empirical, NoiseRange};
use consistency::rng::Key;

/// The exact denoiser of these data.
struct Exact<'a>(&'a Tensor);

impl Teachers for Exact<'_> {
    fn find(&self, name: &str) -> Result<(Teacher, Option<Weights>)> {
        assert_eq!(name, "exact");
        Ok((Teacher::Exact(Empirical::new(self.0)?), None))
    }
}

/// All of `data` as a batch.
pub fn batch(data: &Tensor) -> Batch {
    Batch { x0: data.clone(), labels: None, first: 0, key: Key::new(5) }
}

/// The loss of `method` with `network` on `batch`; the teacher is that of `data`.
pub fn loss(
    method: &MethodConfig,
    network: &NetworkConfig,
    data: &Tensor,
    batch: &Batch,
) -> Result<f32> {
    let trainer = method.build(&Setting {
        init: None,
        shape: &[2],
        network,
        noise: NoiseRange::default(),
        sigma_data: 0.5,
        optimizer: OptimizerConfig::default(),
        schedule: LearningRate::new(30, 0.0),
        averages: Averages { rates: &[0.9], warm_up: true },
        settings: Settings::default(),
        device: &Device::Cpu,
        key: Key::new(3),
        teachers: &Exact(data),
    })?;
    Ok(trainer.loss(0, 0, batch)?.to_scalar::<f32>()?)
}
