//! Parameters: named tensors in a fixed order, initialised by key.

use super::boundary::Link;
use super::gradients::Gradients;
use super::memory;
use super::shapes::Shapes;
use super::tape::Settings;
use crate::rng::Key;
use crate::{Result, bail, ensure};
use candle_core::{DType, Device, Tensor, Var};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How a parameter starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Every element this value.
    Constant(f64),
    /// Normal with this standard deviation.
    Normal(f64),
}

/// A tensor of a layer, and the name under which it takes a gradient.
#[derive(Clone, Debug)]
pub struct Parameter {
    tensor: Tensor,
    name: Option<Arc<str>>,
}

impl Parameter {
    /// Its numbers; they change in place as it is trained.
    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    pub(super) fn name(&self) -> Option<&Arc<str>> {
        self.name.as_ref()
    }
}

/// The parameters of a network under their names, in the names' order.
///
/// (candle's `VarMap` is a hash map whose order changes from run to run.)
///
/// ```
/// use consistency::nn::Init;
/// use consistency::prelude::*;
/// let mut params = Params::new(DType::F64, &Device::Cpu);
/// let w = params.init(&Key::new(0), |scope| scope.tensor("w", &[3], Init::Constant(2.0)))?;
/// assert_eq!(params.count(), 3);
/// let gradients = params.gradients(&w.sqr()?.sum_all()?)?;
/// assert_eq!(gradients.get("w").map(values).transpose()?, Some(vec![4.0; 3])); // 2 w
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone)]
pub struct Params {
    vars: BTreeMap<String, Var>,
    /// Those that are part of the network and never trained.
    fixed: BTreeSet<String>,
    link: Option<Link>,
    settings: Settings,
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
        memory::keep();
        let (vars, fixed) = (BTreeMap::new(), BTreeSet::new());
        let settings = Settings::default();
        Self { vars, fixed, link: None, settings, dtype, device: device.clone() }
    }

    /// The same, for networks that run as `settings` say.
    #[must_use]
    pub fn with(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Build a network whose parameters are created here, initialised under `key`, and
    /// take gradients.
    pub fn init<N>(&mut self, key: &Key, build: impl FnOnce(&mut Scope) -> Result<N>) -> Result<N> {
        if self.link.is_none() {
            self.link = Some(Link::new()?);
        }
        build(&mut Scope { source: Source::Create(self, *key), prefix: String::new() })
    }

    /// The parameters `tensors` of the network that `build` builds. They take no gradients:
    /// a student starts from them by [`Params::assign`].
    ///
    /// # Errors
    /// As [`Params::assign_tensors`].
    pub fn given<N>(
        build: impl FnOnce(&mut Scope) -> Result<N>,
        mut tensors: BTreeMap<String, Tensor>,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let shapes = Shapes::of(build)?;
        shapes.check(&Shapes::of_tensors(&tensors))?;
        let mut params = Self::new(dtype, device);
        params.fixed.extend(shapes.fixed().map(String::from));
        // One by one, each then freed: the largest networks fill most of a laptop's memory.
        while let Some((name, tensor)) = tensors.pop_first() {
            let tensor = tensor.to_dtype(dtype)?.to_device(device)?.contiguous()?;
            params.vars.insert(name, Var::from_tensor(&tensor)?);
        }
        Ok(params)
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
        self.to_device(&self.device)
    }

    /// Copies of these parameters on `device`.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        self.copied(self.dtype, device)
    }

    /// Copies of these parameters in `dtype`: in f64, networks on them compute in f64.
    pub fn to_dtype(&self, dtype: DType) -> Result<Self> {
        self.copied(dtype, &self.device)
    }

    fn copied(&self, dtype: DType, device: &Device) -> Result<Self> {
        let mut copy = Self::new(dtype, device).with(self.settings);
        copy.fixed.clone_from(&self.fixed);
        for (name, var) in &self.vars {
            let tensor = var.as_detached_tensor().to_dtype(dtype)?.to_device(device)?.copy()?;
            copy.vars.insert(name.clone(), Var::from_tensor(&tensor)?);
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
    /// Missing, extra and wrong-shape tensors, in one message; nothing is set then.
    pub fn assign_tensors(&self, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        Shapes::of_tensors(&self.tensors()).check(&Shapes::of_tensors(tensors))?;
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

    /// Name and variable of those that are trained, in the order of names.
    pub fn trained(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.iter().filter(|(name, _)| !self.fixed.contains(*name))
    }

    /// The gradients of the scalar `loss` with respect to every parameter that is trained.
    ///
    /// # Errors
    /// A parameter without a gradient, by name: a cut graph must not go unnoticed.
    pub fn gradients(&self, loss: &Tensor) -> Result<Gradients> {
        // What a backward pass outside this function has left behind is not part of this loss.
        let drain = || self.link.as_ref().map(Link::drain).unwrap_or_default();
        drain();
        let store = loss.backward()?;
        let mut own = drain();
        let mut tensors = BTreeMap::new();
        for (name, var) in self.trained() {
            // A network on a tape leaves its gradients with the link; one that is written in
            // candle's operations, in candle's store.
            let gradient = match (own.remove(name), store.get(var.as_tensor())) {
                (Some(own), Some(other)) => (own + other)?,
                (Some(own), None) => own,
                (None, Some(other)) => other.clone(),
                (None, None) => bail!("parameter {name} has no gradient: something cut the graph"),
            };
            tensors.insert(name.to_string(), gradient);
        }
        Ok(Gradients::new(tensors))
    }

    /// How many numbers are trained.
    pub fn count(&self) -> usize {
        self.trained().map(|(_, v)| v.elem_count()).sum()
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
    Describe(&'a mut Shapes),
}

/// A place in the tree of parameter names, from which layers take their tensors.
pub struct Scope<'a> {
    source: Source<'a>,
    prefix: String,
}

impl Shapes {
    /// Those of the network that `build` builds; no memory is taken for its parameters.
    ///
    /// # Errors
    /// A configuration that no network can have.
    pub fn of<N>(build: impl FnOnce(&mut Scope) -> Result<N>) -> Result<Self> {
        let mut shapes = Self::default();
        build(&mut Scope { source: Source::Describe(&mut shapes), prefix: String::new() })?;
        Ok(shapes)
    }
}

impl Scope<'_> {
    /// The scope `name` below this one.
    pub fn at(&mut self, name: impl std::fmt::Display) -> Scope<'_> {
        let prefix = format!("{}{name}.", self.prefix);
        let source = match &mut self.source {
            Source::Create(params, key) => Source::Create(params, *key),
            Source::Frozen(params) => Source::Frozen(params),
            Source::Describe(shapes) => Source::Describe(shapes),
        };
        Scope { source, prefix }
    }

    /// The full name of `name` below this scope.
    pub fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// How the networks of these parameters run.
    pub fn settings(&self) -> Settings {
        match &self.source {
            Source::Create(params, _) => params.settings,
            Source::Frozen(params) => params.settings,
            Source::Describe(_) => Settings::default(),
        }
    }

    /// Where the gradients of the parameters created here go; none if the parameters are given.
    pub fn link(&self) -> Option<Link> {
        match &self.source {
            Source::Create(params, _) => params.link.clone(),
            Source::Frozen(_) | Source::Describe(_) => None,
        }
    }

    /// The parameter `name` of this shape, created with `init` or found.
    ///
    /// # Errors
    /// Created twice; or, where parameters are given, missing or of another shape.
    pub fn parameter(&mut self, name: &str, shape: &[usize], init: Init) -> Result<Parameter> {
        let tensor = self.tensor(name, shape, init)?.detach();
        let trained = matches!(self.source, Source::Create(..));
        let name = trained.then(|| Arc::from(format!("{}{name}", self.prefix)));
        Ok(Parameter { tensor, name })
    }

    /// A tensor that is saved with the parameters and never trained.
    ///
    /// # Errors
    /// As [`Scope::parameter`].
    pub fn fixed(&mut self, name: &str, shape: &[usize], init: Init) -> Result<Tensor> {
        let tensor = self.tensor(name, shape, init)?.detach();
        let name = format!("{}{name}", self.prefix);
        match &mut self.source {
            Source::Create(params, _) => {
                params.fixed.insert(name);
            }
            Source::Describe(shapes) => shapes.fix(name),
            Source::Frozen(_) => {}
        }
        Ok(tensor)
    }

    /// The parameter `name` as a tensor of candle's, for a network in candle's operations.
    ///
    /// # Errors
    /// As [`Scope::parameter`].
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
            Source::Describe(shapes) => {
                shapes.note(&name, shape)?;
                Ok(Tensor::zeros((), DType::F32, &Device::Cpu)?.broadcast_as(shape)?)
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
