//! A classifier of images, by cross-entropy: the network on whose features samples are compared
//! ([`Classifier`]).

use super::player::{Averages, DecayShape, LearningRate, Player};
use super::step::{Losses, step};
use super::{Batch, DIVERGED, Gives, Method, Setting, Trainer};
use crate::bar::Bar;
use crate::data::{batch_rows, select};
use crate::evaluate::Classifier;
use crate::loss::cross_entropy;
use crate::model::{Condition, ConvNetConfig, Network};
use crate::nn::{OptimizerConfig, OptimizerKind, Params};
use crate::rng::Key;
use crate::{Context, Result, ensure};
use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

/// Training on the classes of the data, by cross-entropy. The network is a `convnet`.
///
/// ```
/// use consistency::method::{Classification, Method};
/// assert_eq!(Classification {}.gives().name(), "a classifier");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Classification {}

impl Method for Classification {
    fn name(&self) -> &'static str {
        "classification by cross-entropy"
    }

    fn source(&self) -> &'static str {
        "no paper: it judges samples, and makes none"
    }

    fn summary(&self, _: Option<&str>) -> String {
        "A classifier, by cross-entropy".to_string()
    }

    fn gives(&self) -> Gives {
        Gives::Classifier
    }

    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn build(&self, setting: &Setting) -> Result<Box<dyn Trainer>> {
        let (params, network) = setting.network()?;
        Ok(Box::new(Training { network, player: setting.player("classifier", params)? }))
    }
}

/// Images in one training step.
const BATCH: usize = 64;

/// How a classifier is trained.
///
/// ```
/// use consistency::prelude::*;
/// let config = ClassifierConfig { steps: 1000, ..ClassifierConfig::default() };
/// assert_eq!(config.learning_rate, 3e-3);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassifierConfig {
    /// Training steps of 64 images each.
    pub steps: u64,
    /// Adam's learning rate; it falls to zero along half a cosine.
    pub learning_rate: f64,
}

impl Default for ClassifierConfig {
    fn default() -> Self {
        Self { steps: 400, learning_rate: 3e-3 }
    }
}

impl Classifier {
    /// Train at once, without a folder or a record, on `images`, (N, C, H, W) in f32, and their
    /// `labels`, below `classes`. Everything is a function of the key: weights, order of the batches.
    ///
    /// # Errors
    /// Labels that do not fit the images or the classes, or a training that diverges.
    pub fn train(
        images: &Tensor,
        labels: &[u32],
        classes: usize,
        config: ClassifierConfig,
        key: &Key,
    ) -> Result<Self> {
        let (count, channels, height, width) = images.dims4()?;
        ensure!(count > 0 && labels.len() == count, "{} labels for {count} images", labels.len());
        if let Some(bad) = labels.iter().find(|l| **l as usize >= classes) {
            crate::bail!("label {bad} with {classes} classes");
        }
        let (network, shape) = (ConvNetConfig { classes }, [channels, height, width]);
        let mut trainer = Training::new(network, &shape, config, key, images)?;
        let mut losses = Losses::of(&trainer);
        let order = key.stream("batches");
        let mut bar = Bar::new("training the classifier", config.steps);
        for k in 0..config.steps {
            let rows = batch_rows(count, BATCH, k, &order);
            let batch = Batch {
                x0: select(images, &rows)?,
                labels: Some(rows.iter().map(|row| labels[*row as usize]).collect()),
                first: 0,
                key: key.stream("step").step(k),
            };
            step(&mut trainer, k, &mut losses, || std::iter::once(Ok((batch.clone(), 1.0))))
                .context("the training of a classifier")?;
            trainer.follow(k)?;
            bar.add(1)?;
        }
        Self::new(trainer.player.params().clone(), network, shape)
    }
}

struct Training {
    network: Box<dyn Network>,
    player: Player,
}

impl Training {
    fn new(
        network: ConvNetConfig,
        shape: &[usize],
        config: ClassifierConfig,
        key: &Key,
        images: &Tensor,
    ) -> Result<Self> {
        let mut params = Params::new(DType::F32, images.device());
        let network = params.init(&key.stream("classifier"), |s| network.build(s, shape))?;
        let adam = OptimizerConfig {
            kind: OptimizerKind::Adam,
            learning_rate: config.learning_rate,
            ..OptimizerConfig::default()
        };
        let none = Averages { rates: &[], warm_up: false };
        let schedule = LearningRate::new(config.steps, 1.0).shaped(DecayShape::Cosine);
        Ok(Self { network, player: Player::new("classifier", params, adam, schedule, none)? })
    }
}

impl Trainer for Training {
    fn players(&self) -> Vec<&Player> {
        vec![&self.player]
    }

    fn players_mut(&mut self) -> Vec<&mut Player> {
        vec![&mut self.player]
    }

    fn loss(&self, _: usize, _: u64, batch: &Batch) -> Result<Tensor> {
        let logits = self.network.forward(&batch.x0, Condition::default())?;
        cross_entropy(&logits, batch.labels().unwrap_or_default())
    }

    fn check_loss(&self, _: usize, loss: f64, first: f64) -> Result<()> {
        ensure!(
            diverged: first <= 0.0 || loss <= DIVERGED * first,
            "the loss is {loss:e}, and began at {first:e}: the training has diverged; lower \
             ClassifierConfig::learning_rate"
        );
        Ok(())
    }
}
