//! Our own record of a network's forward pass, and its backward pass.
//!
//! candle's graph starts every gradient from zeros, adds to it out of place on one thread and keeps
//! every activation until the loss is dropped. Here a gradient is handed over and, where nothing
//! else holds it, added to in place; an activation is freed as soon as the step that needed it has
//! run backward. To candle, a whole network is one operation
//! ([`Params::gradients`](super::Params::gradients) collects what it leaves).

use super::Parameter;
use super::ops;
use crate::interrupt::check_interrupt;
use candle_core::{DType, Result, Tensor, bail};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How a network's forward pass runs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Settings {
    /// Keep only the input of each block and compute the block again in the backward pass: less
    /// memory, a third more time, the same bits.
    pub checkpoint: bool,
    /// On CUDA, compute matrix products in this precision; parameters and sums stay f32.
    pub precision: Precision,
    /// Run on candle's tensor operations, as on CUDA, even where the CPU's kernels would serve.
    pub tensors: bool,
}

/// What the factors of matrix products are rounded to on CUDA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// f32 throughout.
    #[default]
    F32,
    /// f32 values, which the tensor cores multiply with 10 bits of mantissa.
    Tf32,
    /// bfloat16 factors, f32 sums.
    Bf16,
}

/// A tensor on a tape. Images are (B, H, W, C), the channels last.
///
/// It may move: then its tangent, of the same shape, is its derivative along the direction in which
/// the network's inputs move, and every step gives its output's tangent with its output.
#[derive(Clone, Debug)]
pub struct Value {
    tensor: Tensor,
    tangent: Option<Tensor>,
    node: Option<usize>,
}

impl Value {
    /// Its numbers.
    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    /// Its shape.
    pub fn dims(&self) -> &[usize] {
        self.tensor.dims()
    }

    /// Its derivative along the direction in which the network's inputs move; `None` where it does
    /// not move with them.
    pub fn tangent(&self) -> Option<&Tensor> {
        self.tangent.as_ref()
    }

    /// Its tangent, zeros where it does not move.
    pub(super) fn tangent_or_zeros(&self) -> Result<Tensor> {
        match &self.tangent {
            Some(tangent) => Ok(tangent.clone()),
            None => self.tensor.zeros_like(),
        }
    }

    /// What a step that is linear in this value makes of its tangent.
    pub(super) fn moved(
        &self,
        step: impl FnOnce(&Tensor) -> Result<Tensor>,
    ) -> Result<Option<Tensor>> {
        self.tangent.as_ref().map(step).transpose()
    }
}

type Backward = Box<dyn FnOnce(Tensor, &mut Slots) -> Result<()> + Send>;

struct Step {
    output: usize,
    backward: Backward,
}

/// The steps of a forward pass.
pub struct Tape {
    settings: Settings,
    recording: bool,
    nodes: usize,
    steps: Vec<Step>,
}

impl std::fmt::Debug for Tape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tape({} steps)", self.steps.len())
    }
}

impl Tape {
    /// A tape that records for gradients, or runs forward alone and keeps nothing.
    pub fn new(settings: Settings, recording: bool) -> Self {
        Self { settings, recording, nodes: 0, steps: Vec::new() }
    }

    /// A value that takes no gradient.
    pub fn constant(&self, tensor: Tensor) -> Value {
        Value { tensor, tangent: None, node: None }
    }

    /// A value that moves along `tangent`.
    ///
    /// # Errors
    /// A tangent of another shape, or a tape that records: derivatives go forward on a tape that
    /// keeps nothing.
    pub fn moving(&self, tensor: Tensor, tangent: Tensor) -> Result<Value> {
        if self.recording {
            bail!("a tape that records for gradients carries no tangents");
        }
        if tensor.dims() != tangent.dims() || tensor.dtype() != tangent.dtype() {
            bail!(
                "a value {:?} {:?} that moves along {:?} {:?}",
                tensor.dtype(),
                tensor.dims(),
                tangent.dtype(),
                tangent.dims()
            );
        }
        Ok(Value { tensor, tangent: Some(tangent), node: None })
    }

    /// A value whose gradient is asked for.
    pub fn leaf(&mut self, tensor: Tensor) -> Value {
        let node = self.recording.then(|| self.node());
        Value { tensor, tangent: None, node }
    }

    fn node(&mut self) -> usize {
        self.nodes += 1;
        self.nodes - 1
    }

    pub(super) fn settings(&self) -> Settings {
        self.settings
    }

    /// Whether a tensor's work is done by the CPU's kernels.
    pub(super) fn on_kernels(&self, tensor: &Tensor) -> bool {
        tensor.device().is_cpu() && !self.settings.tensors
    }

    /// The output of a step, with its tangent where it moves; `backward` is kept if one of `inputs`
    /// or `parameters` takes a gradient.
    pub(super) fn push(
        &mut self,
        (tensor, tangent): (Tensor, Option<Tensor>),
        inputs: &[&Value],
        parameters: &[&Parameter],
        backward: impl FnOnce(Tensor, &mut Slots) -> Result<()> + Send + 'static,
    ) -> Value {
        let needed = inputs.iter().any(|v| v.node.is_some())
            || parameters.iter().any(|p| p.name().is_some());
        if !(self.recording && needed) {
            return Value { tensor, tangent, node: None };
        }
        let output = self.node();
        self.steps.push(Step { output, backward: Box::new(backward) });
        Value { tensor, tangent, node: Some(output) }
    }

    /// `block` on `inputs`. With [`Settings::checkpoint`] only its inputs are kept, and it runs
    /// again in the backward pass.
    ///
    /// # Errors
    /// Those of the block.
    pub fn block(
        &mut self,
        inputs: &[&Value],
        block: impl Fn(&mut Tape, &[Value]) -> crate::Result<Value> + Send + 'static,
    ) -> crate::Result<Value> {
        check_interrupt()?;
        let inputs: Vec<Value> = inputs.iter().map(|v| (*v).clone()).collect();
        if !(self.recording && self.settings.checkpoint) {
            return block(self, &inputs);
        }
        let mut quiet = Tape::new(self.settings, false);
        let tensor = block(&mut quiet, &inputs)?.tensor;
        let output = self.node();
        let settings = self.settings;
        let backward = move |dy: Tensor, slots: &mut Slots| -> Result<()> {
            let mut tape = Tape::new(settings, true);
            let mut inner = Slots { in_place: slots.in_place, ..Slots::default() };
            let mut values = Vec::new();
            for input in &inputs {
                let leaf = match input.node {
                    Some(_) => tape.leaf(input.tensor.clone()),
                    None => tape.constant(input.tensor.clone()),
                };
                // The sums continue from those outside, so that they round alike.
                if let (Some(inside), Some(outside)) = (leaf.node, input.node) {
                    inner.put(inside, slots.take(outside));
                }
                values.push(leaf);
            }
            inner.parameters = std::mem::take(&mut slots.parameters);
            let output = block(&mut tape, &values).map_err(candle_core::Error::wrap)?;
            tape.walk(&output, dy, &mut inner)?;
            slots.parameters = std::mem::take(&mut inner.parameters);
            for (input, value) in inputs.iter().zip(&values) {
                if let (Some(inside), Some(outside)) = (value.node, input.node) {
                    slots.put(outside, inner.take(inside));
                }
            }
            Ok(())
        };
        self.steps.push(Step { output, backward: Box::new(backward) });
        Ok(Value { tensor, tangent: None, node: Some(output) })
    }

    /// The gradients of a scalar with respect to every leaf and parameter, from its gradient with
    /// respect to `output`.
    pub(super) fn backward(self, output: &Value, gradient: Tensor) -> Result<Slots> {
        let mut slots = Slots { in_place: self.on_kernels(&gradient), ..Slots::default() };
        self.walk(output, gradient, &mut slots)?;
        Ok(slots)
    }

    fn walk(mut self, output: &Value, gradient: Tensor, slots: &mut Slots) -> Result<()> {
        let Some(node) = output.node else {
            bail!("nothing in this network takes a gradient");
        };
        // The caller may still hold it.
        slots.add(Some(node), gradient, false)?;
        // Each step is dropped with what it kept.
        while let Some(step) = self.steps.pop() {
            check_interrupt()?;
            if let Some((gradient, _)) = slots.take(step.output) {
                (step.backward)(gradient, slots)?;
            }
        }
        Ok(())
    }
}

/// A gradient, and whether nobody else holds its memory.
type Slot = Option<(Tensor, bool)>;

/// The gradients in the backward pass.
#[derive(Default)]
pub(super) struct Slots {
    nodes: Vec<Slot>,
    parameters: BTreeMap<Arc<str>, Tensor>,
    /// Whether sums may be added to in place: candle's operations may return a view as a new
    /// tensor, ours never do.
    in_place: bool,
}

impl Slots {
    pub fn take(&mut self, node: usize) -> Slot {
        self.nodes.get_mut(node).and_then(Option::take)
    }

    fn put(&mut self, node: usize, slot: Slot) {
        if self.nodes.len() <= node {
            self.nodes.resize(node + 1, None);
        }
        self.nodes[node] = slot;
    }

    /// The gradient of a leaf.
    pub fn of(&mut self, value: &Value) -> Option<Tensor> {
        value.node.and_then(|node| self.take(node)).map(|(tensor, _)| tensor)
    }

    /// Those of the parameters, by name.
    pub fn into_parameters(self) -> BTreeMap<Arc<str>, Tensor> {
        self.parameters
    }

    /// Whether a gradient with respect to `value` is asked for.
    pub fn wants(value: &Value) -> bool {
        value.node.is_some()
    }

    /// Add a gradient that was made for this and that nobody else holds.
    pub fn give(&mut self, value: &Value, gradient: Tensor) -> Result<()> {
        self.add(value.node, gradient, true)
    }

    /// Add a gradient that others hold too.
    pub fn share(&mut self, value: &Value, gradient: &Tensor) -> Result<()> {
        self.add(value.node, gradient.clone(), false)
    }

    fn add(&mut self, node: Option<usize>, gradient: Tensor, own: bool) -> Result<()> {
        let Some(node) = node else { return Ok(()) };
        let sum = match self.take(node) {
            None => (gradient, own && self.in_place),
            Some((there, true)) => {
                ops::add_in_place(&there, &gradient)?;
                (there, true)
            }
            Some((there, false)) if own && self.in_place => {
                ops::add_in_place(&gradient, &there)?;
                (gradient, true)
            }
            Some((there, false)) => ((there + gradient)?, self.in_place),
        };
        self.put(node, Some(sum));
        Ok(())
    }

    /// Add the gradient of a parameter, where it is asked for.
    pub fn parameter(
        &mut self,
        parameter: &Parameter,
        gradient: impl FnOnce() -> Result<Tensor>,
    ) -> Result<()> {
        let Some(name) = parameter.name() else { return Ok(()) };
        let gradient = gradient()?;
        match self.parameters.get(name) {
            Some(there) if self.in_place => ops::add_in_place(there, &gradient),
            Some(there) => {
                let sum = (there + gradient)?;
                self.parameters.insert(name.clone(), sum);
                Ok(())
            }
            None => {
                self.parameters.insert(name.clone(), gradient);
                Ok(())
            }
        }
    }
}

/// The dtype of matrix products' factors.
pub(super) fn factor_type(settings: Settings, tensor: &Tensor) -> DType {
    match settings.precision {
        Precision::Bf16 if tensor.dtype() == DType::F32 => DType::BF16,
        _ => tensor.dtype(),
    }
}
