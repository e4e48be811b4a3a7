//! LPIPS (Zhang et al. 2018): a distance between images in the features of VGG16. It serves as
//! a metric and, as in the paper, as the distance of a loss.
//!
//! VGG16 was trained on ImageNet, as Inception was: a model trained under LPIPS has a head start in
//! FID, and its numbers are labelled so.

use super::distance::Compare;
use crate::bounds::within;
use crate::hub::Hub;
use crate::model::{Taped, VGG_CHANNELS, Vgg16};
use crate::nn::{
    Init, Params, Scope, Settings, Shapes, Tape, Value, average_pool2, max_pool, resize_bilinear,
};
use crate::{Context, Error, Result, ensure};
use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const REPOSITORY: &str = "nikhilr01/sen-bridge-weights";
const FILE: &str = "lpips_vgg.safetensors";
/// SHA-256 of the published weights, VGG16 and the linear layers of version 0.1, as the
/// repository's card states it. The commit is not pinned: whatever `main` holds, no other file is
/// accepted.
const PUBLISHED: &str = "a96ef46bc0b0a064b67e277c15af82caa42278dd79aba0034815ed355e1aaacb";

const SHIFT: [f64; 3] = [-0.030, -0.088, -0.188];
const SCALE: [f64; 3] = [0.458, 0.448, 0.450];
/// What is added to the norm of a position's features.
const EPS: f64 = 1e-10;

/// What lies between VGG16's blocks.
///
/// ```
/// use consistency::loss::{LpipsConfig, Pooling};
/// let side = |side, pooling| LpipsConfig { side: Some(side), pooling, weights: None };
/// assert!(side(100, Pooling::Max).check().is_ok());
/// assert!(side(100, Pooling::Average).check().is_err()); // not a multiple of 16
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// The largest of every four, as VGG16 was trained.
    #[default]
    Max,
    /// The mean of every four, as the public code of consistency models has it.
    Average,
}

/// LPIPS as the distance of an experiment.
///
/// ```
/// use consistency::loss::LpipsConfig;
/// let paper = LpipsConfig { side: Some(224), ..LpipsConfig::default() };
/// assert!(paper.check().is_ok());
/// assert!(LpipsConfig { side: Some(8), ..paper }.check().is_err()); // too small for VGG16
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LpipsConfig {
    /// The side that images are resized to, bilinearly, before they are compared; without it they
    /// stay as they are. The paper takes 224 for images smaller than 256.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub side: Option<usize>,
    /// What lies between VGG16's blocks.
    pub pooling: Pooling,
    /// A file of weights (see [`Lpips::load`]), whose names and shapes are checked, but no hash.
    /// Without it: the published weights, from the Hub, by their SHA-256.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<PathBuf>,
}

impl LpipsConfig {
    /// The smallest side of which VGG16's four halvings leave something.
    const SMALLEST: usize = 16;
    /// The largest: VGG16 keeps 64 numbers for each pixel.
    const LARGEST: usize = 4096;

    /// Whether the values make sense.
    ///
    /// # Errors
    /// The one that does not.
    pub fn check(&self) -> Result<()> {
        if let Some(side) = self.side {
            within("side", side, Self::SMALLEST..=Self::LARGEST)?;
            // Average pooling has no rule for a last odd row.
            ensure!(
                self.pooling == Pooling::Max || side % 16 == 0,
                "side = {side}: with average pooling it is halved four times; choose a multiple of 16"
            );
        }
        Ok(())
    }

    /// The distance, in f32 on `device`.
    ///
    /// # Errors
    /// Those of the Hub, and of [`Lpips::load`].
    pub fn load(&self, device: &Device) -> Result<Lpips> {
        self.check()?;
        let lpips = match &self.weights {
            Some(path) => Lpips::load(path, DType::F32, device)?,
            None => Lpips::from_hub(&Hub::from_env()?, DType::F32, device)?,
        };
        let lpips = lpips.with_pooling(self.pooling);
        Ok(match self.side {
            Some(side) => lpips.resizing_to(side),
            None => lpips,
        })
    }
}

/// The distance.
///
/// ```no_run
/// use consistency::prelude::*;
/// let lpips = Lpips::from_hub(&Hub::from_env()?, DType::F32, &Device::Cpu)?.resizing_to(224);
/// let x = Key::new(0).normal(0..2, &[3, 32, 32], DType::F32, &Device::Cpu)?.clamp(-1.0, 1.0)?;
/// assert_eq!(values(&lpips.distance(&x, &x)?)?, [0.0, 0.0]);
/// # Ok::<(), consistency::Error>(())
/// ```
pub struct Lpips {
    network: Taped<Network>,
    side: Option<usize>,
    pooling: Pooling,
    dtype: DType,
    device: Device,
}

struct Network {
    vgg: Vgg16,
    weights: Vec<Tensor>, // (C) of each block
}

impl std::fmt::Debug for Lpips {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lpips({:?}, {:?})", self.pooling, self.dtype)
    }
}

impl Network {
    fn new(scope: &mut Scope) -> Result<Self> {
        let vgg = Vgg16::new(scope)?;
        let weights = VGG_CHANNELS.into_iter().enumerate().map(|(block, channels)| {
            let line = format!("lin{block}.model.1.weight");
            let zero = Init::Constant(0.0);
            Ok(scope.fixed(&line, &[1, channels, 1, 1], zero)?.reshape(channels)?)
        });
        let weights = weights.collect::<Result<_>>()?;
        Ok(Self { vgg, weights })
    }
}

impl Lpips {
    /// With the weights of a safetensors file: VGG16 under torchvision's names
    /// (`features.N.weight`), the linear layers as `linK.model.1.weight`. torchvision's classifier
    /// is skipped if it is there. It computes in `dtype`, on `device`.
    ///
    /// # Errors
    /// A file that cannot be read, or names and shapes that are not the network's, all in one
    /// message.
    pub fn load(path: &Path, dtype: DType, device: &Device) -> Result<Self> {
        let read = || -> Result<Params> {
            let tensors = candle_core::safetensors::load(path, &Device::Cpu)?;
            let tensors: BTreeMap<String, Tensor> =
                tensors.into_iter().filter(|(name, _)| !name.starts_with("classifier.")).collect();
            Self::shapes()?.check(&Shapes::of_tensors(&tensors))?;
            Params::given(Network::new, tensors, dtype, device)
        };
        let params = read().with_context(|| format!("LPIPS's weights {}", path.display()))?;
        Ok(Self {
            network: params.frozen(|scope| Taped::build(scope, Network::new))?,
            side: None,
            pooling: Pooling::Max,
            dtype,
            device: device.clone(),
        })
    }

    /// With the published weights, from the Hub or its cache (59 MB): the file whose SHA-256 is
    /// fixed here, and no other.
    ///
    /// # Errors
    /// Those of the Hub, and a file that is not the published one.
    pub fn from_hub(hub: &Hub, dtype: DType, device: &Device) -> Result<Self> {
        let path = hub.model(REPOSITORY, "main")?.file(FILE)?;
        let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
        let hash = format!("{:x}", Sha256::digest(&bytes));
        ensure!(
            hash == PUBLISHED,
            "{} of {REPOSITORY} has SHA-256 {hash}, and the published LPIPS {PUBLISHED}: the \
             repository has changed, or the file in the cache was replaced; delete it to fetch it \
             again, or give a copy of your own (lpips.weights)",
            path.display()
        );
        Self::load(&path, dtype, device)
    }

    /// The names and shapes of its weights in a file.
    pub fn shapes() -> Result<Shapes> {
        Shapes::of(Network::new)
    }

    /// The same with other pooling.
    #[must_use]
    pub fn with_pooling(mut self, pooling: Pooling) -> Self {
        self.pooling = pooling;
        self
    }

    /// The same, with images resized bilinearly to `side` x `side` before they are compared;
    /// gradients reach the original images.
    #[must_use]
    pub fn resizing_to(mut self, side: usize) -> Self {
        self.side = Some(side);
        self
    }

    /// The same, run as `settings` say.
    #[must_use]
    pub fn with(mut self, settings: Settings) -> Self {
        self.network = self.network.with(settings);
        self
    }

    /// The distance of each image of `a` from that of `b`, both (N, 3, H, W) in \[-1, 1\]: (N). It
    /// is one operation of candle's graph, with gradients for whichever of the two candle tracks.
    ///
    /// # Errors
    /// Shapes that differ, another number of channels, or images too small for four halvings.
    pub fn distance(&self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        ensure!(a.dims() == b.dims(), "LPIPS between shapes {:?} and {:?}", a.dims(), b.dims());
        let (_, channels, height, width) = a.dims4()?;
        let (height, width) = self.side.map_or((height, width), |side| (side, side));
        let smallest = LpipsConfig::SMALLEST;
        ensure!(
            channels == 3 && height >= smallest && width >= smallest,
            "LPIPS takes images of three channels and at least {smallest} x {smallest} pixels, \
             got {:?}: it can resize them to a side of 224, as the paper does",
            a.dims()
        );
        ensure!(
            a.dtype() == self.dtype && b.dtype() == self.dtype,
            "images in {:?} and {:?} for an LPIPS in {:?}",
            a.dtype(),
            b.dtype(),
            self.dtype
        );
        let along_a = self.one_sided(a, &b.detach())?;
        if !b.track_op() {
            return Ok(along_a);
        }
        // The distance is symmetric: the gradient by the second image is that by the first with the
        // two swapped. It is added through a term whose value is zero.
        let along_b = self.one_sided(b, &a.detach())?;
        Ok((along_a + (&along_b - along_b.detach())?)?)
    }

    fn one_sided(&self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        let line = |values: [f64; 3]| -> Result<Tensor> {
            Ok(Tensor::new(&values, &Device::Cpu)?
                .to_dtype(self.dtype)?
                .to_device(&self.device)?
                .reshape((1, 3, 1, 1))?)
        };
        let (shift, scale) = (line(SHIFT)?, line(SCALE)?);
        let scaled = |x: &Tensor| x.broadcast_sub(&shift)?.broadcast_div(&scale);
        let others =
            self.network.values(&scaled(b)?, |of, tape, xs| self.features(of, tape, xs))?;
        self.network.through(&scaled(a)?, |network, tape, xs| {
            let features = self.features(network, tape, xs)?;
            let mut sum: Option<Value> = None;
            for ((own, other), weights) in features.iter().zip(&others).zip(&network.weights) {
                let part = tape.unit_difference(own, other.tensor(), weights, EPS)?;
                sum = Some(match &sum {
                    Some(sum) => tape.add(sum, &part, 1.0)?,
                    None => part,
                });
            }
            sum.ok_or_else(|| Error::new("an LPIPS of no blocks"))
        })
    }

    /// VGG16's activations (B, H', W', C) for images (B, 3, H, W), resized where that is asked for.
    fn features(&self, network: &Network, tape: &mut Tape, xs: &Value) -> Result<Vec<Value>> {
        let mut xs = tape.channels_last(xs)?;
        if let Some(side) = self.side {
            xs = resize_bilinear(tape, &xs, (side, side))?;
        }
        network.vgg.features(tape, &xs, |tape, xs| match self.pooling {
            Pooling::Max => max_pool(tape, xs, 2, 2, 0),
            Pooling::Average => average_pool2(tape, xs),
        })
    }
}

impl Compare for Lpips {
    fn per_sample(&self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        self.distance(x, y)
    }
}
