//! Published networks: folders and repositories in diffusers' layout, and the flax files of the
//! paper's authors.

mod files;
mod flax;
mod msgpack;
mod pickle;
mod scheduler;
mod source;
mod weights;

pub use flax::{FlaxOptions, FlaxParams};
pub use scheduler::{CmSchedule, Kind};
pub use source::Source;

use super::config::NetworkConfig;
use super::network::Network;
use super::unet::{UNet, UNetConfig};
use super::vp::VariancePreserving;
use super::wrap::{Conditioned, ConsistencyModel, EdmDenoiser};
use crate::nn::{Params, Scope, Shapes};
use crate::process::{Empirical, NoiseRange, Parameterization};
use crate::seam::Denoiser;
use crate::{Context, Result, bail, ensure};
use candle_core::{DType, Device, Tensor};
use files::Files;
use source::read_text;

const SAFETENSORS: &str = "diffusion_pytorch_model.safetensors";
const PICKLE: &str = "diffusion_pytorch_model.bin";

/// How published files are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// Read a PyTorch pickle where there is no safetensors file. (The pickles of
    /// openai/diffusers-cd_imagenet64_* are older than their configuration and lack the norm of the
    /// attention in the middle; the safetensors files beside them have it.)
    pub pickle: bool,
    /// The weights of this variant, `fp16` or another, as diffusers names them:
    /// `diffusion_pytorch_model.fp16.safetensors`. They are read into f32.
    pub variant: Option<String>,
}

/// A published network: its configuration, its parameters in f32, and what it is.
///
/// ```no_run
/// use consistency::prelude::*;
/// let ddpm = Pretrained::open("google/ddpm-cifar10-32")?; // from the Hub, 143 MB
/// assert_eq!((ddpm.shape(), ddpm.classes()), ([3, 32, 32], None));
/// let teacher = ddpm.denoiser()?;
/// let x = Tensor::zeros((1, 3, 32, 32), DType::F32, &Device::Cpu)?;
/// assert_eq!(teacher.denoise(&x, &[1.0])?.dims(), x.dims());
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Debug)]
pub struct Pretrained {
    kind: Kind,
    config: NetworkConfig,
    shape: [usize; 3],
    params: Params,
}

/// A teacher: a denoiser, which may be conditioned on classes ([`Conditioned`]).
pub enum Teacher {
    /// It predicts the noise of a variance-preserving process.
    VariancePreserving(VariancePreserving),
    /// It has EDM's scalings.
    Edm(EdmDenoiser),
    /// The exact denoiser of a dataset, which is not conditioned on classes.
    Exact(Empirical),
}

impl Pretrained {
    /// A flax file ([`Pretrained::load_flax`], a teacher where `edm` is part of its name); or
    /// the network of a folder or repository: `unet/config.json` with its weights and
    /// `scheduler/scheduler_config.json`, or the three of them at the top. Weights in several files
    /// (shards) are found by their index.
    ///
    /// # Errors
    /// A file that is missing or damaged; weights that are not the network's (all of them in
    /// one message) or not finite; a network or scheduler that is not known here.
    pub fn load(source: &Source, options: LoadOptions) -> Result<Self> {
        if let Some(path) = source.flax() {
            return Self::load_flax(path, &FlaxOptions::for_file(path));
        }
        let (at, config) = match source.file_if_there("unet/config.json")? {
            Some(config) => ("unet/", config),
            None => match source.file_if_there("config.json")? {
                Some(config) => ("", config),
                None => bail!("{source} holds neither unet/config.json nor config.json"),
            },
        };
        let place = config.display().to_string();
        let config = UNetConfig::from_json(&read_text(&config)?).with_context(|| place.clone())?;
        let kind = Self::kind_of(source)?;
        let shape = shape_of(&config).with_context(|| place.clone())?;
        let config = NetworkConfig::Unet(config);
        let build = |scope: &mut Scope| build(scope, &kind, &config, &shape);
        let network = Shapes::of(build).context(place)?;
        let tensors = weights::read(&Files::find(source, at, &options)?, &network)?;
        let params = Params::given(build, tensors, DType::F32, &Device::Cpu)?;
        Ok(Self { kind, config, shape, params })
    }

    /// [`Source::find`] and [`Pretrained::load`] with their defaults.
    ///
    /// # Errors
    /// As those two.
    pub fn open(id_or_folder: &str) -> Result<Self> {
        Self::load(&Source::find(id_or_folder, None)?, LoadOptions::default())
    }

    fn kind_of(source: &Source) -> Result<Kind> {
        let (inside, top) = ("scheduler/scheduler_config.json", "scheduler_config.json");
        let found = match source.file_if_there(inside)? {
            Some(path) => Some(path),
            None => source.file_if_there(top)?,
        };
        let Some(path) = found else {
            bail!(
                "{source} holds no {inside} (nor {top}), which is needed: it says whether the \
                 network is a consistency model or a teacher, and of which noise levels"
            );
        };
        Kind::from_json(&read_text(&path)?).with_context(|| path.display().to_string())
    }

    /// The same on another device.
    ///
    /// # Errors
    /// An error of the device.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        Ok(Self {
            kind: self.kind.clone(),
            config: self.config.clone(),
            shape: self.shape,
            params: self.params.to_device(device)?,
        })
    }

    /// What it is.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The network's configuration.
    pub fn config(&self) -> &NetworkConfig {
        &self.config
    }

    /// (C, H, W) of its images.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// How many classes it is conditioned on; none for a network without classes.
    pub fn classes(&self) -> Option<usize> {
        self.config.classes()
    }

    /// Its parameters.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The noise levels that it was trained on.
    pub fn noise_range(&self) -> NoiseRange {
        self.kind.noise_range()
    }

    /// The network alone. That of a consistency model or of an EDM teacher takes c_noise,
    /// ln(t) / 4; a variance-preserving one takes the process's step.
    ///
    /// # Errors
    /// Parameters that are not the network's.
    pub fn network(&self) -> Result<Box<dyn Network>> {
        self.params.frozen(|scope| build(scope, &self.kind, &self.config, &self.shape))
    }

    /// The consistency function: `c_skip x + c_out F(c_in x, c_noise)` with the boundary
    /// scalings.
    ///
    /// # Errors
    /// A teacher.
    pub fn consistency_model(&self) -> Result<ConsistencyModel> {
        let Kind::Consistency(schedule) = &self.kind else {
            bail!("this is {}, not a consistency model", self.kind);
        };
        let (sigma_data, eps) = (schedule.sigma_data, schedule.sigma_min);
        Ok(ConsistencyModel::new(self.network()?, Parameterization::Skip, sigma_data, eps))
    }

    /// The teacher as a denoiser.
    ///
    /// # Errors
    /// A consistency model.
    pub fn denoiser(&self) -> Result<Box<dyn Denoiser>> {
        Ok(Box::new(self.teacher()?))
    }

    /// The same, which may be conditioned on classes ([`Conditioned`]).
    ///
    /// # Errors
    /// A consistency model.
    pub fn teacher(&self) -> Result<Teacher> {
        match &self.kind {
            Kind::VariancePreserving(schedule) => {
                let teacher = VariancePreserving::new(self.network()?, *schedule)?;
                Ok(Teacher::VariancePreserving(teacher))
            }
            Kind::Edm { sigma_data } => {
                Ok(Teacher::Edm(EdmDenoiser::new(self.network()?, *sigma_data)))
            }
            Kind::Consistency(_) => bail!("this is {}, not a teacher", self.kind),
        }
    }
}

impl Denoiser for Teacher {
    fn denoise(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        match self {
            Self::VariancePreserving(teacher) => teacher.denoise(x, t),
            Self::Edm(teacher) => teacher.denoise(x, t),
            Self::Exact(teacher) => teacher.denoise(x, t),
        }
    }
}

impl Denoiser for Conditioned<'_, Teacher> {
    fn denoise(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        let (of, on) = self.parts();
        match of {
            Teacher::VariancePreserving(of) => {
                Conditioned::new(of, on.labels, on.dropout).denoise(x, t)
            }
            Teacher::Edm(of) => Conditioned::new(of, on.labels, on.dropout).denoise(x, t),
            Teacher::Exact(of) => of.denoise(x, t),
        }
    }
}

fn build(
    scope: &mut Scope,
    kind: &Kind,
    config: &NetworkConfig,
    shape: &[usize],
) -> Result<Box<dyn Network>> {
    match (kind, config) {
        (Kind::VariancePreserving(_), NetworkConfig::Unet(config)) => {
            UNet::at_time_steps(scope, &config.for_images(shape)?)
        }
        _ => config.build(scope, shape),
    }
}

fn shape_of(config: &UNetConfig) -> Result<[usize; 3]> {
    let (Some(channels), Some(size)) = (config.in_channels, config.sample_size) else {
        bail!("in_channels and sample_size are needed: they say how large the images are");
    };
    let [height, width] = size.sides();
    ensure!(
        config.out_channels == Some(channels),
        "in_channels = {channels} and out_channels = {:?}: a denoiser has as many in as out",
        config.out_channels
    );
    Ok([channels, height, width])
}
