//! Parameters: named tensors in a fixed order, initialised by key.

use super::ops;
use crate::rng::Key;
use crate::{Result, bail, ensure};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use std::collections::BTreeMap;

/// How a parameter starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Every element this value.
    Constant(f64),
    /// Normal with this standard deviation.
    Normal(f64),
}

/// The parameters of a network under their names, in the names' order.
///
/// (candle's `VarMap` is a hash map whose order changes from run to run.)
#[derive(Clone)]
pub struct Params {
    vars: BTreeMap<String, Var>,
    dtype: DType,
    device: Device,
}

impl std::fmt::Debug for Params {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Params({} tensors, {} numbers)", self.vars.len(), self.count())
    }
}

impl Params {
    /// No parameters yet; those to come have this dtype and device.
    pub fn new(dtype: DType, device: &Device) -> Self {
        Self { vars: BTreeMap::new(), dtype, device: device.clone() }
    }

    /// Build a network whose parameters are created here, initialised under `key`, and
    /// take gradients.
    pub fn init<N>(&mut self, key: &Key, build: impl FnOnce(&mut Scope) -> Result<N>) -> Result<N> {
        build(&mut Scope { source: Source::Create(self, *key), prefix: String::new() })
    }

    /// Build a network on these parameters that takes no gradients (a teacher, a target
    /// or an average). It shares their storage: it sees every later update.
    ///
    /// # Errors
    /// A parameter that is missing or has another shape, by name.
    pub fn frozen<N>(&self, build: impl FnOnce(&mut Scope) -> Result<N>) -> Result<N> {
        build(&mut Scope { source: Source::Frozen(self), prefix: String::new() })
    }

    /// Copies of these parameters with their own storage.
    pub fn duplicate(&self) -> Result<Self> {
        let mut copy = Self::new(self.dtype, &self.device);
        for (name, var) in &self.vars {
            copy.vars.insert(name.clone(), Var::from_tensor(&var.as_detached_tensor().copy()?)?);
        }
        Ok(copy)
    }

    /// Set every parameter to that of the same name in `other`.
    ///
    /// # Errors
    /// A name or shape that only one of them has.
    pub fn assign(&self, other: &Params) -> Result<()> {
        self.assign_tensors(&other.tensors())
    }

    /// Set every parameter to the tensor of its name.
    ///
    /// # Errors
    /// A missing, extra or wrong-shape tensor, by name.
    pub fn assign_tensors(&self, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        let missing: Vec<&String> =
            self.vars.keys().filter(|n| !tensors.contains_key(*n)).collect();
        let extra: Vec<&String> = tensors.keys().filter(|n| !self.vars.contains_key(*n)).collect();
        ensure!(
            missing.is_empty() && extra.is_empty(),
            "these parameters do not belong to this network: missing {missing:?}, extra {extra:?}"
        );
        for (name, var) in &self.vars {
            let value = &tensors[name];
            ensure!(
                value.shape() == var.shape(),
                "parameter {name} has shape {:?}, the network needs {:?}",
                value.dims(),
                var.dims()
            );
        }
        for (name, var) in &self.vars {
            var.set(&tensors[name].to_dtype(self.dtype)?.to_device(&self.device)?)?;
        }
        Ok(())
    }

    /// Name and variable, in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.vars.iter().map(|(name, var)| (name.as_str(), var))
    }

    /// The tensors by name, without gradients, sharing storage.
    pub fn tensors(&self) -> BTreeMap<String, Tensor> {
        self.vars.iter().map(|(n, v)| (n.clone(), v.as_detached_tensor())).collect()
    }

    /// The Euclidean norm of all their gradients together.
    ///
    /// # Errors
    /// A parameter without a gradient, by name: a cut graph must not pass in silence.
    pub fn gradient_norm(&self, grads: &GradStore) -> Result<f64> {
        let mut sum = 0.0;
        for (name, var) in &self.vars {
            let Some(grad) = grads.get(var.as_tensor()) else {
                bail!("parameter {name} has no gradient: something cut the graph");
            };
            sum += ops::sum_of_squares(grad)?;
        }
        Ok(sum.sqrt())
    }

    /// How many numbers there are in all.
    pub fn count(&self) -> usize {
        self.vars.values().map(|v| v.elem_count()).sum()
    }

    /// The dtype of the parameters.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Where the parameters are.
    pub fn device(&self) -> &Device {
        &self.device
    }
}

enum Source<'a> {
    Create(&'a mut Params, Key),
    Frozen(&'a Params),
}

/// A place in the tree of parameter names, from which layers take their tensors.
pub struct Scope<'a> {
    source: Source<'a>,
    prefix: String,
}

impl Scope<'_> {
    /// The scope `name` below this one.
    pub fn at(&mut self, name: impl std::fmt::Display) -> Scope<'_> {
        let prefix = format!("{}{name}.", self.prefix);
        let source = match &mut self.source {
            Source::Create(params, key) => Source::Create(params, *key),
            Source::Frozen(params) => Source::Frozen(params),
        };
        Scope { source, prefix }
    }

    /// The parameter `name` of this shape, created with `init` or found.
    ///
    /// # Errors
    /// Created twice; or, where parameters are given, missing or of another shape.
    pub fn tensor(&mut self, name: &str, shape: &[usize], init: Init) -> Result<Tensor> {
        let name = format!("{}{name}", self.prefix);
        match &mut self.source {
            Source::Create(params, key) => {
                ensure!(!params.vars.contains_key(&name), "two parameters are called {name}");
                let value = match init {
                    Init::Constant(v) => Tensor::full(v, shape, &Device::Cpu)?,
                    Init::Normal(std) => {
                        let count: usize = shape.iter().product();
                        let z =
                            key.stream(&name).normal(0..1, &[count], DType::F64, &Device::Cpu)?;
                        (z * std)?.reshape(shape)?
                    }
                };
                let value = value.to_dtype(params.dtype)?.to_device(&params.device)?;
                let var = Var::from_tensor(&value.contiguous()?)?;
                let tensor = var.as_tensor().clone();
                params.vars.insert(name, var);
                Ok(tensor)
            }
            Source::Frozen(params) => match params.vars.get(&name) {
                Some(var) if var.dims() == shape => Ok(var.as_detached_tensor()),
                Some(var) => bail!(
                    "parameter {name} has shape {:?}, the network needs {shape:?}",
                    var.dims()
                ),
                None => bail!("parameter {name} is missing"),
            },
        }
    }
}
