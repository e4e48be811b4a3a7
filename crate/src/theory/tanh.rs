//! A consistency function of three parameters with exact derivatives: small enough that
//! every expectation over it can be computed, and as nonlinear as a network.

use super::dual::{Dual, Number};
use crate::process::{NoiseRange, Scaling};
use crate::seam::{ConsistencyFunction, Moved, Tangent, one_a_sample};
use crate::{Result, bail, ensure};
use candle_core::{DType, Device, Tensor};

/// A model with its derivatives by its parameters too: what the limits of gradients need (Theorems 5
/// and 6).
///
/// ```
/// use consistency::prelude::*;
/// use consistency::theory::ByParameter;
/// let f = TanhModel::new([0.0; 3], &NoiseRange::default()); // c_skip(t) x
/// let x = Tensor::new(&[[3.0f64]], &Device::Cpu)?; // (1, 1)
/// let c = Scaling::Boundary { sigma_data: 0.5, eps: 0.002 }.at(1.0);
/// assert!((values(&f.by_parameter(&x, &[1.0], 2)?)?[0] - c.c_out).abs() < 1e-12);
/// # Ok::<(), consistency::Error>(())
/// ```
pub trait ByParameter: Tangent {
    /// df/dtheta_i at (x, t), of the shape of `x`.
    fn by_parameter(&self, x: &Tensor, t: &[f64], i: usize) -> Result<Tensor>;

    /// The relative accuracy of its numbers: no integral over them is asked for more.
    fn accuracy(&self) -> f64 {
        1e-12
    }
}

/// f(x, t) = c_skip(t) x + c_out(t) tanh(a c_in(t) x + b ln t + c), element by element.
///
/// ```
/// use consistency::prelude::*;
/// let noise = NoiseRange::default();
/// let f = TanhModel::new([1.0, 0.2, 0.1], &noise);
/// let x = Tensor::new(&[[3.0f64]], &Device::Cpu)?; // (1, 1)
/// assert_eq!(values(&f.origin(&x, &[noise.eps])?)?, [3.0]); // f(x, eps) = x
/// let broken = f.scaled(Scaling::Edm { sigma_data: 0.5 });
/// assert_ne!(values(&broken.origin(&x, &[noise.eps])?)?, [3.0]);
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TanhModel {
    theta: [f64; 3],
    scaling: Scaling,
    // The noise level where eq. 3 puts x in place of the bare tanh, which it has everywhere else.
    jump: Option<f64>,
}

impl TanhModel {
    /// With parameters theta = (a, b, c) and the scalings of a consistency model:
    /// sigma_data = 0.5 and the eps of `noise`.
    pub fn new(theta: [f64; 3], noise: &NoiseRange) -> Self {
        let scaling = Scaling::Boundary { sigma_data: 0.5, eps: noise.eps };
        Self { theta, scaling, jump: None }
    }

    /// The same under other scalings. EDM's break the boundary condition.
    #[must_use]
    pub fn scaled(self, scaling: Scaling) -> Self {
        Self { scaling, ..self }
    }

    /// The same network in eq. 3 of the talk: f(x, eps) = x, and the bare tanh at any t > eps. It
    /// jumps at eps ([`jump`](super::jump)).
    ///
    /// ```
    /// use consistency::prelude::*;
    /// let noise = NoiseRange::default();
    /// let f = TanhModel::new([1.0, 0.2, 0.1], &noise).piecewise(&noise);
    /// let x = Tensor::new(&[[3.0f64]], &Device::Cpu)?; // (1, 1)
    /// assert_eq!(values(&f.origin(&x, &[noise.eps])?)?, [3.0]);
    /// assert!(values(&f.origin(&x, &[1.0001 * noise.eps])?)?[0] < 1.0);
    /// # Ok::<(), consistency::Error>(())
    /// ```
    #[must_use]
    pub fn piecewise(self, noise: &NoiseRange) -> Self {
        Self { jump: Some(noise.eps), ..self }
    }

    /// f(x, t) over any [`Number`]: with duals for x, t or theta, its derivatives. Of eq. 3 it is
    /// what stands above eps.
    pub fn at<T: Number>(&self, x: T, t: T, theta: [T; 3]) -> T {
        let constant = T::constant;
        let (sigma_data, eps) = match self.scaling {
            Scaling::Edm { sigma_data } => (sigma_data, 0.0),
            Scaling::Boundary { sigma_data, eps } => (sigma_data, eps),
        };
        let (variance, shifted) = (constant(sigma_data * sigma_data), t - constant(eps));
        let norm = (t * t + variance).sqrt();
        let c_skip = variance / (shifted * shifted + variance);
        let c_out = constant(sigma_data) * shifted / norm;
        let [a, b, c] = theta;
        let network = (a * x / norm + b * t.ln() + c).tanh();
        if self.jump.is_some() { network } else { c_skip * x + c_out * network }
    }

    // `f` of each element of x, its level and its index.
    fn each(x: &Tensor, t: &[f64], f: impl Fn(f64, f64, usize) -> f64) -> Result<Tensor> {
        let batch = x.dims().first().copied().unwrap_or(0);
        let levels = one_a_sample(t, batch)?;
        if let Some(bad) = t.iter().find(|t| !(**t > 0.0)) {
            bail!("noise level t = {bad}: needs t > 0");
        }
        let each = x.elem_count() / batch.max(1);
        let mut values = x.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
        for (i, value) in values.iter_mut().enumerate() {
            *value = f(*value, levels[i / each], i);
        }
        let values = Tensor::from_vec(values, x.dims(), &Device::Cpu)?;
        Ok(values.to_dtype(x.dtype())?.to_device(x.device())?)
    }
}

impl ConsistencyFunction for TanhModel {
    fn origin(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        let at_eps = |t: f64| self.jump == Some(t);
        Self::each(x, t, |x, t, _| if at_eps(t) { x } else { self.at(x, t, self.theta) })
    }
}

impl Tangent for TanhModel {
    fn push_forward(&self, x: &Tensor, t: &[f64], v: &Tensor, w: &[f64]) -> Result<Moved> {
        let batch = x.dims().first().copied().unwrap_or(0);
        ensure!(
            x.dims() == v.dims(),
            "a direction of shape {:?} at points of shape {:?}",
            v.dims(),
            x.dims()
        );
        let w = one_a_sample(w, batch)?;
        let v = v.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
        let each = x.elem_count() / batch.max(1);
        let theta = self.theta.map(Dual::constant);
        let moved = Self::each(x, t, |x, t, i| {
            if self.jump == Some(t) {
                return v[i];
            }
            let (x, t) =
                (Dual { value: x, tangent: v[i] }, Dual { value: t, tangent: w[i / each] });
            self.at(x, t, theta).tangent
        })?;
        Ok((self.origin(x, t)?, moved))
    }
}

impl ByParameter for TanhModel {
    fn by_parameter(&self, x: &Tensor, t: &[f64], i: usize) -> Result<Tensor> {
        ensure!(i < self.theta.len(), "parameter {i}: theta has {}", self.theta.len());
        let mut theta = self.theta.map(Dual::constant);
        theta[i].tangent = 1.0;
        Self::each(x, t, |x, t, _| {
            let moved = self.at(Dual::constant(x), Dual::constant(t), theta).tangent;
            if self.jump == Some(t) { 0.0 } else { moved }
        })
    }
}
