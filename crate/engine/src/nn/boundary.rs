//! Where a tape meets candle: a whole network is one operation of candle's graph.

use super::gradients::Gradients;
use super::ops;
use super::tape::{Settings, Slots, Tape, Value};
use crate::Result;
use candle_core::{CpuStorage, CustomOp2, DType, Device, Layout, Shape, Tensor, Var};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where a network's parameters receive their gradients.
#[derive(Clone)]
pub struct Link {
    /// Tells candle that the network's output depends on something that takes a gradient.
    anchor: Var,
    sink: Arc<Mutex<BTreeMap<Arc<str>, Tensor>>>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Link")
    }
}

impl Link {
    pub(super) fn new() -> Result<Self> {
        let anchor = Var::zeros((), DType::F32, &Device::Cpu)?;
        Ok(Self { anchor, sink: Arc::default() })
    }

    /// What has arrived since the last call.
    pub(super) fn drain(&self) -> BTreeMap<Arc<str>, Tensor> {
        std::mem::take(&mut lock(&self.sink))
    }

    fn add(&self, gradients: BTreeMap<Arc<str>, Tensor>) -> candle_core::Result<()> {
        let mut sink = lock(&self.sink);
        for (name, gradient) in gradients {
            let sum = match sink.remove(&name) {
                Some(there) => (there + gradient)?,
                None => gradient,
            };
            sink.insert(name, sum);
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A map left behind by a panicking thread is intact: entries go in one by one.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Run `network` on `xs` as one operation of candle's graph. With a `link`, its parameters receive
/// gradients, which [`Params::gradients`](super::Params::gradients) collects; `xs` receives one if
/// candle tracks it.
///
/// # Errors
/// Those of the network.
pub fn on_tape(
    xs: &Tensor,
    link: Option<&Link>,
    settings: Settings,
    network: impl FnOnce(&mut Tape, &Value) -> Result<Value>,
) -> Result<Tensor> {
    let followed = xs.track_op();
    let input = xs.detach().contiguous()?;
    if link.is_none() && !followed {
        let mut tape = Tape::new(settings, false);
        let input = tape.constant(input);
        return Ok(network(&mut tape, &input)?.tensor().clone());
    }
    let mut tape = Tape::new(settings, true);
    let input = if followed { tape.leaf(input) } else { tape.constant(input) };
    let output = network(&mut tape, &input)?;
    let anchor = match link {
        Some(link) => link.anchor.as_tensor().clone(),
        None => Tensor::zeros((), DType::F32, &Device::Cpu)?,
    };
    // The operands of one operation must lie on one device.
    let anchor = anchor.to_device(xs.device())?;
    let state = Mutex::new(Some((tape, input)));
    let operation = Operation { state, output, link: link.cloned(), followed };
    Ok(xs.apply_op2(&anchor, operation)?)
}

/// The output of `network` on `xs`, and the gradients of `sum(output * cotangent)` with respect to
/// `xs` and to the parameters of the link: one forward and one backward pass without candle's
/// graph.
///
/// # Errors
/// Those of the network.
pub fn pull_back(
    xs: &Tensor,
    cotangent: &Tensor,
    link: Option<&Link>,
    settings: Settings,
    network: impl FnOnce(&mut Tape, &Value) -> Result<Value>,
) -> Result<(Tensor, Tensor, Gradients)> {
    let mut tape = Tape::new(settings, true);
    let input = tape.leaf(xs.detach().contiguous()?);
    let output = network(&mut tape, &input)?;
    let mut slots = tape.backward(&output, cotangent.detach().contiguous()?)?;
    let by_input = match slots.of(&input) {
        Some(gradient) => gradient,
        None => xs.zeros_like()?,
    };
    let mut parameters = BTreeMap::new();
    if link.is_some() {
        let named = slots.into_parameters().into_iter();
        parameters.extend(named.map(|(name, gradient)| (name.to_string(), gradient)));
    }
    Ok((output.tensor().clone(), by_input, Gradients::new(parameters)))
}

/// The output of `network` on `xs`, and what it moves along where `xs` moves along `dxs` (not at all
/// for `None`): the Jacobian-vector product, in one forward pass that carries a tangent through
/// each step. Without a gradient.
///
/// # Errors
/// Those of the network; a tangent of another shape.
pub fn push_forward(
    xs: &Tensor,
    dxs: Option<&Tensor>,
    settings: Settings,
    network: impl FnOnce(&mut Tape, &Value) -> Result<Value>,
) -> Result<(Tensor, Tensor)> {
    let mut tape = Tape::new(settings, false);
    let input = xs.detach().contiguous()?;
    let input = match dxs {
        Some(dxs) => tape.moving(input, dxs.detach().contiguous()?)?,
        None => tape.constant(input),
    };
    let output = network(&mut tape, &input)?;
    Ok((output.tensor().clone(), output.tangent_or_zeros()?))
}

struct Operation {
    state: Mutex<Option<(Tape, Value)>>,
    output: Value,
    link: Option<Link>,
    followed: bool,
}

impl CustomOp2 for Operation {
    fn name(&self) -> &'static str {
        "network"
    }

    // The forward pass has run: this hands its output over.
    fn cpu_fwd(
        &self,
        _xs: &CpuStorage,
        _: &Layout,
        _anchor: &CpuStorage,
        _: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let ys = self.output.tensor().contiguous()?;
        let shape = ys.shape().clone();
        ops::with_real!(ys, T => {
            let copy = ops::with_values([&ys], |[ys]: [&[T]; 1]| Ok(ys.to_vec()))?;
            Ok((super::kernels::Real::wrap(copy), shape))
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        _xs: &candle_core::CudaStorage,
        _: &Layout,
        _anchor: &candle_core::CudaStorage,
        _: &Layout,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        use candle_core::backend::BackendStorage;
        let ys = self.output.tensor().contiguous()?;
        let (storage, layout) = ys.storage_and_layout();
        match &*storage {
            candle_core::Storage::Cuda(storage) => {
                Ok((storage.try_clone(layout)?, ys.shape().clone()))
            }
            _ => candle_core::bail!("a network on CUDA answered on another device"),
        }
    }

    fn bwd(
        &self,
        _xs: &Tensor,
        anchor: &Tensor,
        _ys: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let Some((tape, input)) = lock(&self.state).take() else {
            candle_core::bail!(
                "backward through one evaluation of a network twice: what it kept is gone; \
                 evaluate it again"
            );
        };
        let mut slots: Slots = tape.backward(&self.output, gradient.contiguous()?)?;
        let by_input = if self.followed { slots.of(&input) } else { None };
        if let Some(link) = &self.link {
            link.add(slots.into_parameters())?;
        }
        Ok((by_input, Some(anchor.zeros_like()?)))
    }
}
