//! What a network is, and how one runs on a tape.

use crate::Result;
use crate::nn::{Link, Masks, Scope, Settings, Tape, Value, on_tape};
use candle_core::Tensor;

/// What a network is conditioned on besides its input.
#[derive(Clone, Copy, Debug, Default)]
pub struct Condition<'a> {
    /// c_noise, the number that stands for the noise level: one, or one per sample.
    pub noise: &'a [f64],
    /// c_noise of the noise level s where a map ends, for a network of two noise levels: one, or
    /// one per sample.
    pub second: Option<&'a [f64]>,
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

/// F in `c_skip x + c_out F(c_in x, c_noise)`: an image and c_noise in, an image out.
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
    /// `xs`: (B, C, H, W), the same out.
    fn forward(&self, xs: &Tensor, condition: Condition) -> Result<Tensor>;
}

impl<N: Network + ?Sized> Network for Box<N> {
    fn forward(&self, xs: &Tensor, condition: Condition) -> Result<Tensor> {
        (**self).forward(xs, condition)
    }
}

/// A network as steps of a tape.
pub(super) trait OnTape: Send + Sync {
    fn run(&self, tape: &mut Tape, xs: &Value, condition: Condition) -> Result<Value>;
}

/// A network that runs on a tape, with the link to its parameters' gradients.
pub(super) struct Taped<N> {
    network: N,
    link: Option<Link>,
    settings: Settings,
}

impl<N: OnTape> Taped<N> {
    pub fn new(scope: &Scope, network: N) -> Self {
        Self { network, link: scope.link(), settings: scope.settings() }
    }
}

impl<N: OnTape> Network for Taped<N> {
    fn forward(&self, xs: &Tensor, condition: Condition) -> Result<Tensor> {
        on_tape(xs, self.link.as_ref(), self.settings, |tape, xs| {
            self.network.run(tape, xs, condition)
        })
    }
}
