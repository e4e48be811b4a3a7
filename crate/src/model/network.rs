//! What a network is, and how one runs on a tape.

use crate::nn::{Link, Masks, Scope, Settings, Tape, Value, on_tape, push_forward};
use crate::seam::Moved;
use crate::{Result, bail, ensure};
use candle_core::Tensor;

/// What a network is conditioned on besides its input.
#[derive(Clone, Copy, Debug, Default)]
pub struct Condition<'a> {
    /// c_noise, the number that stands for the noise level: one, or one per sample.
    pub noise: &'a [f64],
    /// c_noise of the noise level s where a map ends, for a network of two noise levels: one, or
    /// one per sample.
    pub second: Option<&'a [f64]>,
    /// What `noise` moves along in [`Network::push_forward`]: one number, or one per sample; `None`
    /// where it stays.
    pub noise_rate: Option<&'a [f64]>,
    /// The same of `second`.
    pub second_rate: Option<&'a [f64]>,
    /// The class of each sample, for a network that is conditioned on classes.
    pub labels: Option<&'a [u32]>,
    /// The dropout's masks; without them nothing is dropped.
    pub dropout: Option<Masks>,
}

impl<'a> From<&'a [f64]> for Condition<'a> {
    fn from(noise: &'a [f64]) -> Self {
        Self { noise, ..Self::default() }
    }
}

impl<'a> From<&'a Vec<f64>> for Condition<'a> {
    fn from(noise: &'a Vec<f64>) -> Self {
        Self::from(noise.as_slice())
    }
}

/// Any network: it takes samples and gives an answer for each. Where the answer has the samples'
/// shape it may be F in `c_skip x + c_out F(c_in x, c_noise)`; a classifier's are logits.
///
/// ```
/// use consistency::model::Condition;
/// use consistency::prelude::*;
/// /// F = 0. With EDM's scalings around it, it is the denoiser of N(0, sigma_data^2).
/// struct Zero;
/// impl Network for Zero {
///     fn forward(&self, xs: &Tensor, _: Condition) -> consistency::Result<Tensor> {
///         Ok(xs.zeros_like()?)
///     }
/// }
/// let normal = GaussianMixture::new(vec![1.0], vec![vec![0.0]], vec![0.5])?;
/// let x = Tensor::new(&[[3.0f64]], &Device::Cpu)?; // (1, 1)
/// let (exact, own) = (normal.denoise(&x, &[2.0])?, EdmDenoiser::new(Box::new(Zero), 0.5));
/// assert!(mean_square(&(own.denoise(&x, &[2.0])? - exact)?)? < 1e-24);
/// # Ok::<(), consistency::Error>(())
/// ```
pub trait Network: Send + Sync {
    /// `xs`: (B, ..), the answers (B, ..).
    fn forward(&self, xs: &Tensor, condition: Condition) -> Result<Tensor>;

    /// The answers, and what they move along where `xs` moves along `dxs` (`None`: it stays) and the
    /// noise levels along the rates of `condition`: the Jacobian-vector product, exact to rounding,
    /// of the answers' shape. Neither takes a gradient.
    ///
    /// The lab's own networks have it, in one pass forward that carries a tangent through each layer.
    ///
    /// # Errors
    /// A network that does not have it; a direction of another shape.
    fn push_forward(
        &self,
        xs: &Tensor,
        dxs: Option<&Tensor>,
        condition: Condition,
    ) -> Result<Moved> {
        let _ = (xs, dxs, condition);
        bail!(
            "this network gives no derivatives: implement `Network::push_forward` for it, or take \
             differences of two evaluations"
        )
    }
}

impl<N: Network + ?Sized> Network for Box<N> {
    fn forward(&self, xs: &Tensor, condition: Condition) -> Result<Tensor> {
        (**self).forward(xs, condition)
    }

    fn push_forward(
        &self,
        xs: &Tensor,
        dxs: Option<&Tensor>,
        condition: Condition,
    ) -> Result<Moved> {
        (**self).push_forward(xs, dxs, condition)
    }
}

/// F(xs) where it is combined with xs: a denoiser, a consistency model, a map, a generator.
///
/// # Errors
/// An answer of another shape, a classifier's for one.
pub(super) fn answer(network: &dyn Network, xs: &Tensor, on: Condition) -> Result<Tensor> {
    let ys = network.forward(xs, on)?;
    same_shape(xs, &ys)?;
    Ok(ys)
}

/// The same with what it moves along where xs moves along `dxs`.
pub(super) fn moved_answer(
    network: &dyn Network,
    (xs, dxs): (&Tensor, &Tensor),
    on: Condition,
) -> Result<Moved> {
    let (ys, dys) = network.push_forward(xs, Some(dxs), on)?;
    same_shape(xs, &ys)?;
    Ok((ys, dys))
}

fn same_shape(xs: &Tensor, ys: &Tensor) -> Result<()> {
    ensure!(
        ys.dims() == xs.dims(),
        "this network answers samples of shape {:?} with {:?}: a denoiser's, and a consistency \
         model's, answers in the samples' own shape",
        xs.dims(),
        ys.dims()
    );
    Ok(())
}

/// A network as steps of a tape.
pub(crate) trait OnTape: Send + Sync {
    fn run(&self, tape: &mut Tape, xs: &Value, condition: Condition) -> Result<Value>;
}

/// A network that runs on a tape, with the link to its parameters' gradients.
pub(crate) struct Taped<N> {
    network: N,
    link: Option<Link>,
    settings: Settings,
}

impl<N> Taped<N> {
    pub fn new(scope: &Scope, network: N) -> Self {
        Self { network, link: scope.link(), settings: scope.settings() }
    }

    /// The network that `build` builds in `scope`.
    pub fn build(scope: &mut Scope, build: impl FnOnce(&mut Scope) -> Result<N>) -> Result<Self> {
        let network = build(scope)?;
        Ok(Self::new(scope, network))
    }

    /// The same, run as `settings` say.
    pub fn with(self, settings: Settings) -> Self {
        Self { settings, ..self }
    }

    /// The network, for its parts.
    pub fn network(&self) -> &N {
        &self.network
    }

    /// What `run` computes from `xs` with the network's layers: its answer, its features, or steps
    /// around it. The whole is one operation of candle's graph.
    pub fn through(
        &self,
        xs: &Tensor,
        run: impl FnOnce(&N, &mut Tape, &Value) -> Result<Value>,
    ) -> Result<Tensor> {
        on_tape(xs, self.link.as_ref(), self.settings, |tape, xs| run(&self.network, tape, xs))
    }

    /// Several values that `run` computes from `xs`, none of which takes a gradient.
    pub fn values(
        &self,
        xs: &Tensor,
        run: impl FnOnce(&N, &mut Tape, &Value) -> Result<Vec<Value>>,
    ) -> Result<Vec<Value>> {
        let mut tape = Tape::new(self.settings, false);
        let xs = tape.constant(xs.detach().contiguous()?);
        run(&self.network, &mut tape, &xs)
    }
}

impl<N: OnTape> Network for Taped<N> {
    fn forward(&self, xs: &Tensor, condition: Condition) -> Result<Tensor> {
        // A tape that records carries no tangents.
        let condition = Condition { noise_rate: None, second_rate: None, ..condition };
        self.through(xs, |network, tape, xs| network.run(tape, xs, condition))
    }

    fn push_forward(
        &self,
        xs: &Tensor,
        dxs: Option<&Tensor>,
        condition: Condition,
    ) -> Result<Moved> {
        push_forward(xs, dxs, self.settings, |tape, xs| self.network.run(tape, xs, condition))
    }
}
