//! A small classifier, trained on the spot, and its features: for data that Inception says little
//! about. A distance on them is "Frechet distance on classifier features", never FID.

use super::features::Features;
use super::statistics::Statistics;
use crate::bar::Bar;
use crate::model::{CONVNET_FEATURES, Condition, ConvNet, ConvNetConfig, Network, Taped};
use crate::nn::Params;
use crate::record::write_tensors;
use crate::{Context, Error, Result, bail, ensure};
use candle_core::{D, DType, Device, Tensor};
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};
use std::path::Path;
use xxhash_rust::xxh3::Xxh3;

/// Images in one pass.
const MANY: usize = 500;
/// The key in a file's header that holds everything but the weights.
const KEY: &str = "classifier";
const FORMAT: &str = "consistency-lab classifier 1";

/// A trained [`ConvNetConfig`] network: its 64 features and its logits.
///
/// It is trained by [`Classifier::train`], in the module [`method`](crate::method).
///
/// ```
/// use consistency::prelude::*;
/// let digits = digits(DType::F32, &Device::Cpu)?;
/// let labels: Vec<u32> = digits.train_labels.iter().map(|label| u32::from(*label)).collect();
/// let config = ClassifierConfig { steps: 20, ..ClassifierConfig::default() };
/// let classifier = Classifier::train(&digits.train, &labels, 10, config, &Key::new(0))?;
/// assert_eq!(classifier.evaluate(&digits.held_out)?.dims(), [450, 64]);
/// assert_eq!(classifier.logits(&digits.held_out)?.dims(), [450, 10]);
/// assert!(!classifier.features().is_inception());
/// # Ok::<(), consistency::Error>(())
/// ```
pub struct Classifier {
    network: Taped<ConvNet>,
    params: Params,
    config: ConvNetConfig,
    features: Features,
    shape: [usize; 3],
}

/// What a file holds besides the weights.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    format: String,
    features: String,
    shape: [usize; 3],
    network: ConvNetConfig,
}

impl std::fmt::Debug for Classifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Classifier({}, {:?})", self.features.name(), self.shape)
    }
}

impl Classifier {
    /// The network of `config` on trained `params`, for images of `shape` (C, H, W).
    pub(crate) fn new(params: Params, config: ConvNetConfig, shape: [usize; 3]) -> Result<Self> {
        let network = params.frozen(|scope| config.taped(scope, &shape))?;
        let features = Features::named(&format!("classifier {}", fingerprint(&params)?))?;
        Ok(Self { network, params, config, features, shape })
    }

    /// Write it to a safetensors file: the weights, and in the header what they belong to.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let about = About {
            format: FORMAT.to_string(),
            features: self.features.name().to_string(),
            shape: self.shape,
            network: self.config,
        };
        let about = serde_json::to_string(&about).map_err(|e| Error::new(e.to_string()))?;
        let mut tensors = self.params.tensors();
        for tensor in tensors.values_mut() {
            *tensor = tensor.to_device(&Device::Cpu)?;
        }
        write_tensors(path, &tensors, &[(KEY, &about)])
    }

    /// Read what [`Classifier::save`] wrote, onto `device`: the same classifier, to the bit and by
    /// name.
    ///
    /// # Errors
    /// A file that is not of this kind, or whose weights have changed since, by its path.
    pub fn load(path: &Path, device: &Device) -> Result<Self> {
        Self::read(path, device).with_context(|| format!("the classifier {}", path.display()))
    }

    fn read(path: &Path, device: &Device) -> Result<Self> {
        let bytes = std::fs::read(path)?;
        let (_, header) = SafeTensors::read_metadata(&bytes)?;
        let Some(about) = header.metadata().as_ref().and_then(|said| said.get(KEY)) else {
            bail!("its header has no {KEY:?}: not a file of Classifier::save");
        };
        let About { format, features, shape, network } = serde_json::from_str(about)
            .map_err(|e| Error::new(format!("its header's {KEY:?}: {e}")))?;
        ensure!(format == FORMAT, "its format is {format:?}, and this program reads {FORMAT:?}");
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)?;
        let tensors = tensors.into_iter().collect();
        let params = Params::given(|s| network.taped(s, &shape), tensors, DType::F32, device)?;
        let read = Self::new(params, network, shape)?;
        ensure!(
            read.features.name() == features,
            "its weights are those of {:?}, and were saved as {features:?}: the file is damaged",
            read.features.name()
        );
        Ok(read)
    }

    /// What the features are: a hash of the trained weights is in their name.
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// The features (N, 64) of `images`.
    ///
    /// # Errors
    /// Images of a shape other than those it was trained on.
    pub fn evaluate(&self, images: &Tensor) -> Result<Tensor> {
        self.by_parts(images, |part| self.network.through(part, ConvNet::features))
    }

    /// The logits (N, classes) of `images`.
    ///
    /// # Errors
    /// As [`Classifier::evaluate`].
    pub fn logits(&self, images: &Tensor) -> Result<Tensor> {
        self.by_parts(images, |part| self.network.forward(part, Condition::default()))
    }

    fn by_parts(
        &self,
        images: &Tensor,
        answer: impl Fn(&Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let (count, channels, height, width) = images.dims4()?;
        ensure!(
            [channels, height, width] == self.shape && count > 0,
            "images of shape {:?} for a classifier of (N, {:?})",
            images.dims(),
            self.shape
        );
        let images = images.to_dtype(DType::F32)?;
        let mut parts = Vec::new();
        let mut bar = Bar::new("features", count as u64);
        for first in (0..count).step_by(MANY) {
            let many = MANY.min(count - first);
            parts.push(answer(&images.narrow(0, first, many)?)?);
            bar.add(many as u64)?;
        }
        Ok(Tensor::cat(&parts, 0)?)
    }

    /// The share of `images` whose predicted class is their label.
    ///
    /// # Errors
    /// As [`Classifier::evaluate`]; a number of labels that differs from the number of images.
    pub fn accuracy(&self, images: &Tensor, labels: &[u32]) -> Result<f64> {
        let said = self.logits(images)?.argmax(D::Minus1)?.to_vec1::<u32>()?;
        ensure!(said.len() == labels.len(), "{} labels for {} images", labels.len(), said.len());
        let right = said.iter().zip(labels).filter(|(said, label)| said == label).count();
        Ok(right as f64 / labels.len() as f64)
    }

    /// The mean and covariance of the features of `images`.
    ///
    /// # Errors
    /// As [`Classifier::evaluate`], and features that are not finite.
    pub fn statistics(&self, images: &Tensor) -> Result<Statistics> {
        let mut statistics = Statistics::new(self.features.clone(), CONVNET_FEATURES)?;
        statistics.add(&self.evaluate(images)?)?;
        Ok(statistics)
    }

    /// The Frechet distance on classifier features between two sets of images.
    ///
    /// # Errors
    /// As [`Classifier::statistics`]; fewer than two images in a set.
    pub fn frechet_distance(&self, a: &Tensor, b: &Tensor) -> Result<f64> {
        self.statistics(a)?.frechet_distance(&self.statistics(b)?)
    }
}

/// A hash of the weights, 16 hexadecimal digits.
pub(crate) fn fingerprint(params: &Params) -> Result<String> {
    let mut hash = Xxh3::new();
    for (name, var) in params.iter() {
        hash.update(name.as_bytes());
        for value in var.as_detached_tensor().flatten_all()?.to_vec1::<f32>()? {
            hash.update(&value.to_le_bytes());
        }
    }
    Ok(format!("{:016x}", hash.digest()))
}
