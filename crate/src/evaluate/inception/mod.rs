//! FID, KID and the Inception score: what the published Inception network says about images.

mod weights;

use super::features::{Features, PUBLISHED};
use super::kernel::{Spread, kernel_distance_of_subsets};
use super::manifold::{NEIGHBOURS, PrecisionRecall, precision_recall};
use super::score::inception_score;
use super::statistics::Statistics;
use crate::hub::Hub;
use crate::model::{Condition, INCEPTION_FEATURES, InceptionV3, Network, Taped};
use crate::nn::{Params, Shapes};
use crate::rng::Key;
use crate::{Context, Result, bail, ensure};
use candle_core::{DType, Device, Tensor};
use sha2::{Digest, Sha256};
use std::path::Path;

const REPOSITORY: &str = "nikhilr01/sen-bridge-weights";
const FILE: &str = "fid_inception.safetensors";
/// The subsets that KID is a mean over, and the images of each.
const KID_SUBSETS: usize = 100;
const KID_SIZE: usize = 1000;
/// Images of one pass: their largest activations are 180 MB.
const BATCH: usize = 32;

/// pytorch-fid's Inception, for inference in f32.
///
/// ```no_run
/// use consistency::prelude::*;
/// let inception = Inception::from_hub(&Hub::from_env()?, &Device::Cpu)?; // 95 MB
/// let images = Tensor::zeros((4, 3, 32, 32), DType::F32, &Device::Cpu)?; // in [0, 1]
/// assert_eq!(inception.evaluate(&images)?.pool().dims(), [4, 2048]);
/// # Ok::<(), consistency::Error>(())
/// ```
pub struct Inception {
    network: Taped<InceptionV3>,
    features: Features,
    device: Device,
}

/// What Inception gives for a set of images.
///
/// ```no_run
/// use consistency::prelude::*;
/// let inception = Inception::from_hub(&Hub::from_env()?, &Device::Cpu)?; // 95 MB
/// let grey = |level: f32| {
///     inception.evaluate(&Tensor::full(level, (4, 3, 32, 32), &Device::Cpu)?)
/// };
/// let (real, fake) = (grey(0.2)?, grey(0.4)?);
/// assert!(real.fid(&fake)? > real.fid(&real)?);
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct InceptionFeatures {
    features: Features,
    pool: Tensor,
    unbiased: Tensor,
}

impl std::fmt::Debug for Inception {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Inception({})", self.features.name())
    }
}

impl Inception {
    /// With the weights of a safetensors file under pytorch-fid's names, on `device`.
    ///
    /// # Errors
    /// A file that cannot be read, or names and shapes that are not the network's, all in one
    /// message.
    pub fn load(path: &Path, device: &Device) -> Result<Self> {
        let what = || format!("Inception's weights {}", path.display());
        let hash = sha256(path).with_context(what)?;
        let tensors = weights::read(path).with_context(what)?;
        let params = Params::given(InceptionV3::new, tensors, DType::F32, device)?;
        Ok(Self {
            network: params.frozen(|scope| Taped::build(scope, InceptionV3::new))?,
            features: Features::inception(&hash),
            device: device.clone(),
        })
    }

    /// With the published weights, from the Hub or its cache (95 MB).
    ///
    /// # Errors
    /// Those of the Hub, and a file that is not the published one.
    pub fn from_hub(hub: &Hub, device: &Device) -> Result<Self> {
        let path = hub.model(REPOSITORY, "main")?.file(FILE)?;
        let inception = Self::load(&path, device)?;
        ensure!(
            inception.features.is_inception(),
            "{} of {REPOSITORY}: its features would be {:?}, and FID is of weights with SHA-256 \
             {PUBLISHED}: the repository has changed, or the file in the cache was replaced",
            path.display(),
            inception.features.name()
        );
        Ok(inception)
    }

    /// The names and shapes of its weights in a file.
    pub fn shapes() -> Result<Shapes> {
        weights::published()
    }

    /// What the features are: which weights.
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// The pool features and logits of `images`, (N, 3, H, W) in \[0, 1\], resized bilinearly
    /// to 299 x 299.
    ///
    /// # Errors
    /// Another number of channels, or values outside \[0, 1\].
    pub fn evaluate(&self, images: &Tensor) -> Result<InceptionFeatures> {
        let (count, channels, ..) = images.dims4()?;
        ensure!(
            channels == 3,
            "Inception takes three channels, got images of shape {:?}; repeat a single one",
            images.dims()
        );
        ensure!(count > 0, "Inception's features of no images");
        let images = images.to_device(&self.device)?.to_dtype(DType::F32)?;
        let (low, high) = (images.min_all()?, images.max_all()?);
        let (low, high) = (low.to_scalar::<f32>()?, high.to_scalar::<f32>()?);
        ensure!(
            low >= 0.0 && high <= 1.0,
            "Inception takes images in [0, 1], these lie in [{low}, {high}]; those in [-1, 1] \
             are (x + 1) / 2, clamped"
        );
        let mut pooled = Vec::with_capacity(count.div_ceil(BATCH));
        for first in (0..count).step_by(BATCH) {
            let part = images.narrow(0, first, BATCH.min(count - first))?;
            pooled.push(self.network.forward(&part, Condition::default())?);
        }
        let pool = Tensor::cat(&pooled, 0)?;
        let unbiased = pool.matmul(&self.network.network().classifier.tensor().t()?)?;
        Ok(InceptionFeatures { features: self.features.clone(), pool, unbiased })
    }

    /// The logits (N, 1008) with the classifier's bias.
    pub fn logits(&self, of: &InceptionFeatures) -> Result<Tensor> {
        Ok(of.unbiased.broadcast_add(self.network.network().classifier_bias.tensor())?)
    }

    /// Statistics of this network's features, with none added yet.
    pub fn statistics(&self) -> Result<Statistics> {
        Statistics::new(self.features.clone(), INCEPTION_FEATURES)
    }
}

impl InceptionFeatures {
    /// The pool features, (N, 2048).
    pub fn pool(&self) -> &Tensor {
        &self.pool
    }

    /// The logits without the classifier's bias, (N, 1008): those of the Inception score.
    pub fn unbiased_logits(&self) -> &Tensor {
        &self.unbiased
    }

    /// What they are: which weights.
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// The features of several sets of images, one after the other.
    ///
    /// # Errors
    /// Features from different weights, or no sets.
    pub fn join(parts: &[Self]) -> Result<Self> {
        let Some(first) = parts.first() else { bail!("Inception's features of no images") };
        for part in parts {
            first.features.must_equal(&part.features)?;
        }
        let all =
            |of: fn(&Self) -> &Tensor| Tensor::cat(&parts.iter().map(of).collect::<Vec<_>>(), 0);
        let (pool, unbiased) = (all(Self::pool)?, all(Self::unbiased_logits)?);
        Ok(Self { features: first.features.clone(), pool, unbiased })
    }

    /// Those of the first `count` images, or of all where there are fewer.
    ///
    /// # Errors
    /// An error of the device.
    pub fn first(&self, count: usize) -> Result<Self> {
        let count = count.min(self.pool.dim(0)?);
        let of = |all: &Tensor| all.narrow(0, 0, count);
        let (pool, unbiased) = (of(&self.pool)?, of(&self.unbiased)?);
        Ok(Self { features: self.features.clone(), pool, unbiased })
    }

    /// Their mean and covariance.
    pub fn statistics(&self) -> Result<Statistics> {
        let mut statistics = Statistics::new(self.features.clone(), INCEPTION_FEATURES)?;
        statistics.add(&self.pool)?;
        Ok(statistics)
    }

    /// The Frechet Inception distance.
    ///
    /// # Errors
    /// Weights other than the published ones, on either side; fewer than two images.
    pub fn fid(&self, other: &Self) -> Result<f64> {
        self.statistics()?.fid(&other.statistics()?)
    }

    /// The kernel Inception distance with its spread, as it was published: over 100 random subsets
    /// of 1000 images under `key`, or fewer where one of the sides has fewer than 1000.
    ///
    /// # Errors
    /// As [`InceptionFeatures::fid`].
    pub fn kid(&self, other: &Self, key: &Key) -> Result<Spread> {
        self.same("KID", other)?;
        let size = KID_SIZE.min(self.pool.dim(0)?).min(other.pool.dim(0)?);
        kernel_distance_of_subsets(&self.pool, &other.pool, KID_SUBSETS, size, key)
    }

    /// Improved precision and recall of the images `fake` against these real ones, k = 3.
    ///
    /// # Errors
    /// As [`InceptionFeatures::fid`]; fewer than four images.
    pub fn precision_recall(&self, fake: &Self) -> Result<PrecisionRecall> {
        self.same("precision and recall", fake)?;
        precision_recall(&self.pool, &fake.pool, NEIGHBOURS)
    }

    /// The Inception score over `splits` parts.
    ///
    /// # Errors
    /// Weights other than the published ones; more splits than images.
    pub fn inception_score(&self, splits: usize) -> Result<Spread> {
        self.features.must_be_inception("the Inception score")?;
        inception_score(&self.unbiased, splits)
    }

    fn same(&self, metric: &str, other: &Self) -> Result<()> {
        self.features.must_be_inception(metric)?;
        self.features.must_equal(&other.features)
    }
}

fn sha256(path: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    std::io::copy(&mut std::fs::File::open(path)?, &mut hash)?;
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
