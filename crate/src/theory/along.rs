//! A trained network as a model function of the theory.

use super::tanh::ByParameter;
use crate::nn::Params;
use crate::rng::Key;
use crate::seam::{ConsistencyFunction, Moved, Tangent};
use crate::{Result, ensure};
use candle_core::{DType, Device, Tensor};

/// How far the parameters are moved along a direction: in f64 differences over two points then keep
/// eight digits.
const STEP: f64 = 1e-4;

/// A trained consistency function with its derivatives along directions in the space of its
/// parameters, which take the place of single parameters in Theorems 5 and 6: a gradient's part along
/// each is tested. By x and t its derivatives are exact; along a direction they are the difference
/// of two copies.
///
/// ```
/// use consistency::prelude::*;
/// use consistency::theory::{AlongParameters, ByParameter};
/// let network = NetworkConfig::Mlp(MlpConfig { width: 16, blocks: 1, ..MlpConfig::default() });
/// let model = |network| ConsistencyModel::new(network, Parameterization::Skip, 0.5, 0.002);
/// let learner = Learner::new(&network, &[1], &Key::new(0), model)?;
/// let theta = learner.theta.to_dtype(DType::F64)?;
/// let f = AlongParameters::new(&theta, 2, &Key::new(1), |theta| {
///     Ok(model(theta.frozen(|scope| network.build(scope, &[1]))?))
/// })?;
/// let x = Tensor::new(&[[3.0f64]], &Device::Cpu)?; // (1, 1)
/// assert!(values(&f.by_parameter(&x, &[1.0], 0)?)?[0].abs() > 1e-6);
/// assert_eq!(values(&f.by_parameter(&x, &[0.002], 1)?)?[0], 0.0); // f(x, eps) = x
/// assert!(f.by_parameter(&x, &[1.0], 2).is_err());
/// # Ok::<(), consistency::Error>(())
/// ```
pub struct AlongParameters<F> {
    f: F,
    // f with the parameters moved forwards and back along each direction.
    beside: Vec<[F; 2]>,
}

impl<F> AlongParameters<F> {
    /// The function that `build` makes of the parameters `theta`, and `count` random directions of
    /// length 1 under `key`.
    ///
    /// # Errors
    /// Parameters that are not in f64: convert them first. Errors of `build`.
    pub fn new(
        theta: &Params,
        count: usize,
        key: &Key,
        build: impl Fn(&Params) -> Result<F>,
    ) -> Result<Self> {
        let mut beside = Vec::with_capacity(count);
        for direction in 0..count {
            let key = key.step(direction as u64);
            let mut along = Vec::new();
            for (name, var) in theta.trained() {
                ensure!(
                    var.dtype() == DType::F64,
                    "the parameter {name} is {:?}: differences need f64, `Params::to_dtype` converts",
                    var.dtype()
                );
                let noise = key.stream(name).normal(0..1, var.dims(), DType::F64, &Device::Cpu)?;
                along.push(noise.reshape(var.dims())?);
            }
            let square = |of: &Tensor| Ok(of.sqr()?.sum_all()?.to_scalar::<f64>()?);
            let squares = along.iter().map(square).collect::<Result<Vec<f64>>>()?;
            let length = squares.iter().sum::<f64>().sqrt();
            let moved = |sign: f64| -> Result<F> {
                let copy = theta.duplicate()?;
                for ((_, var), along) in copy.trained().zip(&along) {
                    let by = (along.to_device(var.device())? * (sign * STEP / length))?;
                    var.set(&(var.as_detached_tensor() + by)?)?;
                }
                build(&copy)
            };
            beside.push([moved(1.0)?, moved(-1.0)?]);
        }
        Ok(Self { f: build(theta)?, beside })
    }
}

impl<F: ConsistencyFunction> ConsistencyFunction for AlongParameters<F> {
    fn origin(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        self.f.origin(x, t)
    }
}

impl<F: Tangent> Tangent for AlongParameters<F> {
    fn push_forward(&self, x: &Tensor, t: &[f64], v: &Tensor, w: &[f64]) -> Result<Moved> {
        self.f.push_forward(x, t, v, w)
    }
}

impl<F: Tangent> ByParameter for AlongParameters<F> {
    fn by_parameter(&self, x: &Tensor, t: &[f64], i: usize) -> Result<Tensor> {
        let Some([forwards, back]) = self.beside.get(i) else {
            crate::bail!("direction {i}: this model has {}", self.beside.len());
        };
        Ok(((forwards.origin(x, t)? - back.origin(x, t)?)? / (2.0 * STEP))?)
    }

    fn accuracy(&self) -> f64 {
        1e-7
    }
}
