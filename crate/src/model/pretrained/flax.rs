//! The CIFAR-10 checkpoints of the paper's authors: NCSN++ under flax's names.
//!
//! flax counts the modules of each class in the order in which they are called, score_sde counts
//! all modules in the order in which they are made; the two orders are the same.

use super::msgpack::{self, Array};
use super::scheduler::{CmSchedule, Kind};
use super::source::not_a_pointer;
use super::weights::finite;
use super::{Pretrained, build};
use crate::model::{NcsnppConfig, NetworkConfig};
use crate::nn::{Params, Scope, Shapes};
use crate::{Context, Error, Result, bail, ensure};
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;
use std::path::Path;

/// Which parameters of a training state are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FlaxParams {
    /// Their average, `params_ema`: the one that is sampled.
    #[default]
    Ema,
    /// Those in training, `params`.
    Params,
    /// The target's, `target_params`.
    Target,
}

impl FlaxParams {
    fn key(self) -> &'static str {
        match self {
            Self::Ema => "params_ema",
            Self::Params => "params",
            Self::Target => "target_params",
        }
    }
}

/// How a flax file is read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FlaxOptions {
    /// Which parameters of a training state.
    pub which: FlaxParams,
    /// A teacher (EDM's scalings, sigma_data 0.5), not a consistency model.
    pub teacher: bool,
    /// The network; images are 3x32x32 where it does not say.
    pub config: NcsnppConfig,
}

impl FlaxOptions {
    /// For the authors' file of this name: a teacher where `edm` is part of the name.
    pub fn for_file(path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        Self { teacher: name.contains("edm"), ..Self::default() }
    }
}

impl Pretrained {
    /// NCSN++ from a flax msgpack file: a training state, or a tree of parameters alone.
    ///
    /// # Errors
    /// A file that is damaged or of another format; arrays that are not the network's, all in
    /// one message under flax's names; numbers that are not finite.
    pub fn load_flax(path: &Path, options: &FlaxOptions) -> Result<Self> {
        let read = || -> Result<Self> {
            not_a_pointer(path)?;
            let bytes = std::fs::read(path)?;
            Self::from_flax(&bytes, options)
        };
        read().with_context(|| format!("reading {}", path.display()))
    }

    fn from_flax(bytes: &[u8], options: &FlaxOptions) -> Result<Self> {
        let config = &options.config;
        let size = config.image_size.unwrap_or(32);
        let shape = [config.channels.unwrap_or(3), size, size];
        let config = NetworkConfig::Ncsnpp(config.for_images(&shape)?);
        let kind = match options.teacher {
            true => Kind::Edm { sigma_data: 0.5 },
            false => {
                Kind::Consistency(CmSchedule { num_train_timesteps: 18, ..Default::default() })
            }
        };
        let build = |scope: &mut Scope| build(scope, &kind, &config, &shape);

        let file = msgpack::decode(bytes)?;
        let arrays = msgpack::arrays(tree(&file, options.which)?)?;
        let tensors = translate(&Shapes::of(build)?, &arrays)?;
        let params = Params::given(build, tensors, DType::F32, &Device::Cpu)?;
        Ok(Self { kind, config, shape, params })
    }
}

// The parameters in a training state; or the file itself, where it is a tree of them.
fn tree<'v, 'a>(file: &'v rmpv::ValueRef<'a>, which: FlaxParams) -> Result<&'v rmpv::ValueRef<'a>> {
    let rmpv::ValueRef::Map(entries) = file else {
        bail!("a flax file is a map; this one is not");
    };
    let key = which.key();
    let tree = match msgpack::entry(file, key) {
        Some(tree) => tree,
        // `params` alone is how flax wraps a tree.
        None => match msgpack::entry(file, "params").filter(|_| entries.len() == 1) {
            Some(tree) => tree,
            None => {
                let state = ["step", "params", "opt_state"];
                ensure!(
                    !state.iter().any(|name| msgpack::entry(file, name).is_some()),
                    "this training state has no {key}"
                );
                file
            }
        },
    };
    Ok(msgpack::entry(tree, "params").unwrap_or(tree))
}

/// The layouts in which flax keeps arrays, where ours differ.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Layout {
    Same,
    /// (in, out) where ours is (out, in).
    Dense,
    /// (H, W, in, out) where ours is (out, in, H, W).
    Conv,
    /// (C), in older files (1, 1, 1, C).
    Vector,
}

impl Layout {
    fn flax(self, ours: &[usize]) -> Vec<usize> {
        match (self, ours) {
            (Self::Dense, &[o, i]) => vec![i, o],
            (Self::Conv, &[o, i, h, w]) => vec![h, w, i, o],
            _ => ours.to_vec(),
        }
    }

    // The shape without the leading ones of older files.
    fn read(self, flax: &[usize]) -> Vec<usize> {
        match (self, flax) {
            (Self::Vector, [ones @ .., c]) if ones.iter().all(|d| *d == 1) => vec![*c],
            _ => flax.to_vec(),
        }
    }

    fn ours(self, tensor: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Same => tensor.clone(),
            Self::Dense => tensor.t()?.contiguous()?,
            Self::Conv => tensor.permute((3, 2, 0, 1))?.contiguous()?,
            Self::Vector => tensor.flatten_all()?,
        })
    }
}

/// The arrays under our names and in our layouts.
fn translate(
    network: &Shapes,
    arrays: &BTreeMap<String, Array>,
) -> Result<BTreeMap<String, Tensor>> {
    let names = names(network)?;
    let layouts: BTreeMap<&str, Layout> = names.values().map(|(f, l)| (f.as_str(), *l)).collect();
    let needed = network.iter().filter_map(|(ours, shape)| {
        let (flax, layout) = names.get(ours)?;
        Some((flax.clone(), layout.flax(shape)))
    });
    let given = arrays.iter().map(|(name, array)| {
        let layout = layouts.get(name.as_str()).copied().unwrap_or(Layout::Same);
        (name.clone(), layout.read(array.shape()))
    });
    needed.collect::<Shapes>().check(&given.collect())?;
    let mut tensors = BTreeMap::new();
    for (ours, (flax, layout)) in names {
        let read = || -> Result<Tensor> {
            let tensor = arrays[&flax].tensor()?;
            finite(&tensor)?;
            layout.ours(&tensor)
        };
        tensors.insert(ours, read().with_context(|| format!("the array {flax}"))?);
    }
    Ok(tensors)
}

/// A parameter of a module: its name, what follows the module's number, its shape.
type Member<'a> = (&'a str, &'a str, &'a [usize]);

/// flax's name and layout of each of our parameters.
fn names(network: &Shapes) -> Result<BTreeMap<String, (String, Layout)>> {
    let mut modules: BTreeMap<usize, Vec<Member>> = BTreeMap::new();
    for (name, shape) in network.iter() {
        let parts = name.strip_prefix("all_modules.").and_then(|rest| rest.split_once('.'));
        let Some((index, rest)) = parts.and_then(|(i, rest)| Some((i.parse().ok()?, rest))) else {
            bail!("the parameter {name} is not NCSN++'s");
        };
        modules.entry(index).or_default().push((name, rest, shape));
    }
    let mut names = BTreeMap::new();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for parameters in modules.values() {
        let class = class(parameters)?;
        let count = counts.entry(class).or_default();
        for (name, rest, shape) in parameters {
            let (rest, layout) = leaf(class, rest, shape.len());
            names.insert((*name).to_string(), (format!("{class}_{count}/{rest}"), layout));
        }
        *count += 1;
    }
    Ok(names)
}

fn class(parameters: &[Member]) -> Result<&'static str> {
    let rank = |wanted: &str| {
        let found = parameters.iter().find(|(_, rest, _)| *rest == wanted);
        found.map(|(_, _, shape)| shape.len())
    };
    Ok(if rank("W").is_some() {
        "GaussianFourierProjection"
    } else if rank("Conv2d_0.weight").is_some() {
        "Downsample"
    } else if rank("NIN_0.W").is_some() {
        "AttnBlockpp"
    } else if rank("Conv_0.weight").is_some() {
        "ResnetBlockBigGANpp"
    } else {
        match rank("weight") {
            Some(1) => "GroupNorm",
            Some(2) => "Dense",
            Some(4) => "Conv",
            _ => return Err(Error::new(format!("NCSN++ has no module of {parameters:?}"))),
        }
    })
}

// `Conv_0.weight` is `Conv_0/kernel`, and so on.
fn leaf(class: &str, ours: &str, rank: usize) -> (String, Layout) {
    let flax = ours.replace('.', "/");
    let Some(stem) = flax.strip_suffix("weight").map(String::from) else {
        let layout = if rank == 1 && class != "GaussianFourierProjection" {
            Layout::Vector
        } else {
            Layout::Same
        };
        return (flax, layout);
    };
    match rank {
        1 => (format!("{stem}scale"), Layout::Vector),
        2 => (format!("{stem}kernel"), Layout::Dense),
        // The halving convolution is a layer of score_sde's own.
        _ if class == "Downsample" => (flax, Layout::Conv),
        _ => (format!("{stem}kernel"), Layout::Conv),
    }
}
