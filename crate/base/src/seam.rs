//! The seams: anything that denoises is a [`Denoiser`], anything that maps a point of a trajectory
//! to its origin is a [`ConsistencyFunction`], anything that maps it to any later point is a
//! [`TwoTimeMap`], and anything that turns noise into samples in one evaluation is a [`Generator`].
//!
//! Noise levels `t` are given on the host in f64: one per sample, or a single one for the whole
//! batch. They are known before any network runs, and differences such as `t - eps` keep their
//! digits.

use crate::{Result, ensure};
use candle_core::Tensor;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A denoiser D: the conditional mean E\[x0 | x_t = x\] or an estimate of it.
///
/// Exact mixtures, the empirical distribution of a dataset, trained networks and teachers from the
/// Hub are all denoisers.
///
/// ```
/// use consistency::prelude::*;
/// /// For data that are always 0: the mean is 0 for every x.
/// struct Zero;
/// impl Denoiser for Zero {
///     fn denoise(&self, x: &Tensor, _: &[f64]) -> consistency::Result<Tensor> {
///         Ok(x.zeros_like()?)
///     }
/// }
/// let x = Tensor::new(&[[3.0f64]], &Device::Cpu)?; // (1, 1)
/// assert_eq!(values(&Zero.score(&x, &[2.0])?)?, [-0.75]); // -x / t^2
/// # Ok::<(), consistency::Error>(())
/// ```
pub trait Denoiser: Send + Sync {
    /// E\[x0 | x_t = x\]; `x` is `(B, ..)`, `t` holds one noise level or `B`; the
    /// answer has the shape of `x`.
    fn denoise(&self, x: &Tensor, t: &[f64]) -> Result<Tensor>;

    /// The score, by Tweedie's formula (Lemma 1): `(D(x, t) - x) / t^2`.
    fn score(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        let squared: Vec<f64> = t.iter().map(|t| t * t).collect();
        Ok((self.denoise(x, t)? - x)?.broadcast_div(&per_sample(&squared, x)?)?)
    }
}

/// A consistency function f: `(x_t, t) -> x_eps`, the identity at `t = eps`.
///
/// Exact flow maps, solvers iterated to eps, trained models and loaded checkpoints are all
/// consistency functions.
///
/// ```
/// use consistency::prelude::*;
/// /// For data that are always 0: x_t = t z, so that x_eps is (eps / t) x_t.
/// struct Shrink {
///     eps: f64,
/// }
/// impl ConsistencyFunction for Shrink {
///     fn origin(&self, x: &Tensor, t: &[f64]) -> consistency::Result<Tensor> {
///         let factors: Vec<f64> = t.iter().map(|t| self.eps / t).collect();
///         Ok(x.broadcast_mul(&per_sample(&factors, x)?)?)
///     }
/// }
/// let x = Tensor::new(&[[8.0f64], [8.0]], &Device::Cpu)?; // (2, 1), each at its own level
/// assert_eq!(values(&Shrink { eps: 0.5 }.origin(&x, &[4.0, 0.5])?)?, [1.0, 8.0]);
/// # Ok::<(), consistency::Error>(())
/// ```
pub trait ConsistencyFunction: Send + Sync {
    /// f(x, t); `x` is `(B, ..)`, `t` holds one noise level or `B`; the answer has
    /// the shape of `x`.
    fn origin(&self, x: &Tensor, t: &[f64]) -> Result<Tensor>;
}

/// A value, and what it moves along: its derivative in the direction in which its arguments move.
pub type Moved = (Tensor, Tensor);

/// A consistency function with its exact derivative along any direction.
///
/// Trained models have it, and so do model functions whose derivatives are known in closed form: the
/// continuous-time limits of the losses (Theorems 3 to 6) and the methods built on them need it.
///
/// ```
/// use consistency::prelude::*;
/// let f = TanhModel::new([0.0; 3], &NoiseRange::default()); // c_skip(t) x
/// let x = Tensor::new(&[[3.0f64]], &Device::Cpu)?; // (1, 1)
/// let c = Scaling::Boundary { sigma_data: 0.5, eps: 0.002 }.at(1.0);
/// let along_x = f.jvp(&x, &[1.0], &x.ones_like()?, &[0.0])?; // df/dx
/// assert!((values(&along_x)?[0] - c.c_skip).abs() < 1e-12);
/// # Ok::<(), consistency::Error>(())
/// ```
pub trait Tangent: ConsistencyFunction {
    /// f(x, t), and the Jacobian-vector product df/dx v + df/dt w at (x, t): `v` has the shape of
    /// `x`, `w` is one number per sample or one for all. Forward mode, exact to rounding; neither
    /// takes a gradient.
    fn push_forward(&self, x: &Tensor, t: &[f64], v: &Tensor, w: &[f64]) -> Result<Moved>;

    /// The Jacobian-vector product alone.
    fn jvp(&self, x: &Tensor, t: &[f64], v: &Tensor, w: &[f64]) -> Result<Tensor> {
        Ok(self.push_forward(x, t, v, w)?.1)
    }
}

/// A two-time map with its exact derivative along any direction.
///
/// ```
/// use consistency::prelude::*;
/// /// For data that are always 0: x_s = (s / t) x_t.
/// struct Shrink;
/// impl TwoTimeMap for Shrink {
///     fn map(&self, x: &Tensor, t: &[f64], s: &[f64]) -> consistency::Result<Tensor> {
///         Ok((x * (s[0] / t[0]))?)
///     }
/// }
/// impl MapTangent for Shrink {
///     fn push_forward(
///         &self,
///         x: &Tensor,
///         (t, s): (&[f64], &[f64]),
///         v: &Tensor,
///         (dt, ds): (&[f64], &[f64]),
///     ) -> consistency::Result<(Tensor, Tensor)> {
///         let by_levels = ds[0] / t[0] - s[0] * dt[0] / (t[0] * t[0]);
///         Ok((self.map(x, t, s)?, ((v * (s[0] / t[0]))? + (x * by_levels)?)?))
///     }
/// }
/// let x = Tensor::new(&[[8.0f64]], &Device::Cpu)?; // (1, 1)
/// let still = x.zeros_like()?;
/// let (_, by_s) = Shrink.push_forward(&x, (&[4.0], &[1.0]), &still, (&[0.0], &[1.0]))?;
/// assert_eq!(values(&by_s)?, [2.0]);
/// # Ok::<(), consistency::Error>(())
/// ```
pub trait MapTangent: TwoTimeMap {
    /// x_s at the noise levels (t, s), and the Jacobian-vector product of the map by x along `v`, by t
    /// along `rates.0` and by s along `rates.1`, each one number per sample or one for all.
    fn push_forward(
        &self,
        x: &Tensor,
        levels: (&[f64], &[f64]),
        v: &Tensor,
        rates: (&[f64], &[f64]),
    ) -> Result<Moved>;
}

/// A map between two noise levels of one trajectory: `(x_t, t, s) -> x_s` with `s <= t`, the
/// identity at `s = t`. The case `s = eps` is a consistency function ([`EndingAt`]).
///
/// The exact flow of a PF ODE is one, and the reference of all others.
///
/// ```
/// use consistency::prelude::*;
/// let normal = GaussianMixture::new(vec![1.0], vec![vec![0.0]], vec![1.0])?; // N(0, 1)
/// let flow = ExactFlow::new(normal, 0.002)?;
/// let x = Tensor::new(&[[5.0f64]], &Device::Cpu)?; // (1, 1), at t = 7
/// // x_t / sqrt(1 + t^2) stays the same: 5 / sqrt(50) = 1 / sqrt(2).
/// assert!((values(&flow.map(&x, &[7.0], &[1.0])?)?[0] - 1.0).abs() < 1e-9);
/// # Ok::<(), consistency::Error>(())
/// ```
pub trait TwoTimeMap: Send + Sync {
    /// x_s; `x` is `(B, ..)`, `t` and `s` hold one noise level or `B`; the answer has the shape
    /// of `x`.
    fn map(&self, x: &Tensor, t: &[f64], s: &[f64]) -> Result<Tensor>;
}

/// A generator: noise and, for a conditional one, classes to samples, in one evaluation.
///
/// The networks that knowledge distillation, flow distillation and GANs train are generators.
///
/// ```
/// use consistency::prelude::*;
/// // N(3, 0.25) from noise of standard deviation 1.
/// struct Gaussian;
/// impl Generator for Gaussian {
///     fn noise_shape(&self) -> &[usize] {
///         &[1]
///     }
///     fn generate(&self, z: &Tensor, _: Option<&[u32]>) -> consistency::Result<Tensor> {
///         Ok(((z * 0.5)? + 3.0)?)
///     }
/// }
/// let counted = Counted::new(Gaussian);
/// let x = counted.generate(&Tensor::new(&[[-2.0f64], [0.0]], &Device::Cpu)?, None)?; // (2, 1)
/// assert_eq!(x.to_vec2::<f64>()?, [[2.0], [3.0]]);
/// assert_eq!(counted.nfe(), 1);
/// # Ok::<(), consistency::Error>(())
/// ```
pub trait Generator: Send + Sync {
    /// The shape of the noise of one sample.
    fn noise_shape(&self) -> &[usize];

    /// Samples `(B, ..)` from `z`, `(B, noise_shape..)` with standard deviation 1; `classes` has
    /// one class per sample for a generator that is conditioned on classes, and is `None` for one
    /// that is not.
    fn generate(&self, z: &Tensor, classes: Option<&[u32]>) -> Result<Tensor>;
}

impl<G: Generator + ?Sized> Generator for &G {
    fn noise_shape(&self) -> &[usize] {
        (**self).noise_shape()
    }

    fn generate(&self, z: &Tensor, classes: Option<&[u32]>) -> Result<Tensor> {
        (**self).generate(z, classes)
    }
}

impl<G: Generator + ?Sized> Generator for Box<G> {
    fn noise_shape(&self) -> &[usize] {
        (**self).noise_shape()
    }

    fn generate(&self, z: &Tensor, classes: Option<&[u32]>) -> Result<Tensor> {
        (**self).generate(z, classes)
    }
}

impl<M: TwoTimeMap + ?Sized> TwoTimeMap for &M {
    fn map(&self, x: &Tensor, t: &[f64], s: &[f64]) -> Result<Tensor> {
        (**self).map(x, t, s)
    }
}

impl<M: TwoTimeMap + ?Sized> TwoTimeMap for Box<M> {
    fn map(&self, x: &Tensor, t: &[f64], s: &[f64]) -> Result<Tensor> {
        (**self).map(x, t, s)
    }
}

/// The consistency function of a two-time map: it always ends at s = eps.
///
/// ```
/// use consistency::prelude::*;
/// let normal = GaussianMixture::new(vec![1.0], vec![vec![0.0]], vec![1.0])?; // N(0, 1)
/// let flow = ExactFlow::new(normal, 0.002)?;
/// let x = Tensor::new(&[[5.0f64]], &Device::Cpu)?; // (1, 1)
/// let f = EndingAt::new(&flow, 1.0);
/// assert_eq!(values(&f.origin(&x, &[7.0])?)?, values(&flow.map(&x, &[7.0], &[1.0])?)?);
/// # Ok::<(), consistency::Error>(())
/// ```
pub struct EndingAt<M> {
    map: M,
    eps: f64,
}

impl<M> EndingAt<M> {
    /// The origins of `map` at the noise level `eps`.
    pub fn new(map: M, eps: f64) -> Self {
        Self { map, eps }
    }
}

impl<M: TwoTimeMap> ConsistencyFunction for EndingAt<M> {
    fn origin(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        self.map.map(x, t, &[self.eps])
    }
}

impl<D: Denoiser + ?Sized> Denoiser for &D {
    fn denoise(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        (**self).denoise(x, t)
    }
}

impl<D: Denoiser + ?Sized> Denoiser for Box<D> {
    fn denoise(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        (**self).denoise(x, t)
    }
}

impl<F: ConsistencyFunction + ?Sized> ConsistencyFunction for &F {
    fn origin(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        (**self).origin(x, t)
    }
}

impl<F: ConsistencyFunction + ?Sized> ConsistencyFunction for Box<F> {
    fn origin(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        (**self).origin(x, t)
    }
}

impl<F: Tangent + ?Sized> Tangent for &F {
    fn push_forward(&self, x: &Tensor, t: &[f64], v: &Tensor, w: &[f64]) -> Result<Moved> {
        (**self).push_forward(x, t, v, w)
    }
}

/// Counts the network evaluations (NFE) of what it wraps.
///
/// ```
/// use consistency::prelude::*;
/// let normal = GaussianMixture::new(vec![1.0], vec![vec![0.0]], vec![1.0])?; // N(0, 1)
/// let counted = Counted::new(normal);
/// let x = Tensor::new(&[[1.0f64], [2.0]], &Device::Cpu)?; // (2, 1)
/// Solver::Heun.step(&counted, &x, &[2.0], &[1.0])?;
/// assert_eq!(counted.nfe(), 2);
/// # Ok::<(), consistency::Error>(())
/// ```
pub struct Counted<F> {
    inner: F,
    evaluations: AtomicUsize,
}

impl<F> Counted<F> {
    /// Wrap `inner`, at zero evaluations.
    pub fn new(inner: F) -> Self {
        Self { inner, evaluations: AtomicUsize::new(0) }
    }

    /// Evaluations so far: one per call, whatever the batch.
    pub fn nfe(&self) -> usize {
        self.evaluations.load(Ordering::Relaxed)
    }
}

impl<D: Denoiser> Denoiser for Counted<D> {
    fn denoise(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        self.evaluations.fetch_add(1, Ordering::Relaxed);
        self.inner.denoise(x, t)
    }
}

impl<F: ConsistencyFunction> ConsistencyFunction for Counted<F> {
    fn origin(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        self.evaluations.fetch_add(1, Ordering::Relaxed);
        self.inner.origin(x, t)
    }
}

impl<M: TwoTimeMap> TwoTimeMap for Counted<M> {
    fn map(&self, x: &Tensor, t: &[f64], s: &[f64]) -> Result<Tensor> {
        self.evaluations.fetch_add(1, Ordering::Relaxed);
        self.inner.map(x, t, s)
    }
}

impl<G: Generator> Generator for Counted<G> {
    fn noise_shape(&self) -> &[usize] {
        self.inner.noise_shape()
    }

    fn generate(&self, z: &Tensor, classes: Option<&[u32]>) -> Result<Tensor> {
        self.evaluations.fetch_add(1, Ordering::Relaxed);
        self.inner.generate(z, classes)
    }
}

/// `values`, one per sample of `x` or a single one, as a tensor that broadcasts over `x`: shape
/// `(B, 1, ..)` or `(1, 1, ..)`, in the dtype and on the device of `x`.
///
/// # Errors
/// A number of values that is neither 1 nor the batch, or a value that is not finite.
pub fn per_sample(values: &[f64], x: &Tensor) -> Result<Tensor> {
    let batch = x.dims().first().copied().unwrap_or(1);
    check_count(values, batch)?;
    if let Some(bad) = values.iter().find(|v| !v.is_finite()) {
        crate::bail!("{bad} is not a finite noise level or coefficient");
    }
    let mut dims = vec![1; x.rank().max(1)];
    dims[0] = values.len();
    Ok(Tensor::from_slice(values, dims, &candle_core::Device::Cpu)?
        .to_dtype(x.dtype())?
        .to_device(x.device())?)
}

/// `values`, one per sample or a single one, as one for each of `batch` samples.
///
/// # Errors
/// A number of values that is neither 1 nor the batch.
pub fn one_a_sample(values: &[f64], batch: usize) -> Result<Vec<f64>> {
    check_count(values, batch)?;
    Ok(if values.len() == 1 { vec![values[0]; batch] } else { values.to_vec() })
}

fn check_count(values: &[f64], batch: usize) -> Result<()> {
    ensure!(
        values.len() == 1 || values.len() == batch,
        "{} noise levels for a batch of {batch}: give one, or one per sample",
        values.len()
    );
    Ok(())
}
