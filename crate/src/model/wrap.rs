//! A network as a denoiser (EDM), as a consistency function (boundary scalings), and as a map
//! between two noise levels.

use super::network::{Condition, Network, answer, moved_answer};
use crate::nn::Masks;
use crate::process::{Coefficients, Parameterization, Scaling, moving_condition, time_condition};
use crate::seam::{
    ConsistencyFunction, Denoiser, MapTangent, Moved, Tangent, TwoTimeMap, one_a_sample, per_sample,
};
use crate::{Result, bail};
use candle_core::Tensor;

/// The EDM denoiser around a network: a teacher.
///
/// ```
/// use consistency::prelude::*;
/// let config = NetworkConfig::Mlp(MlpConfig { width: 16, blocks: 1, ..MlpConfig::default() });
/// let mut params = Params::new(DType::F32, &Device::Cpu);
/// let network = params.init(&Key::new(0), |scope| config.build(scope, &[2]))?;
/// let denoiser = EdmDenoiser::new(network, 0.5);
/// // A new network answers 0, so that D(x, t) = c_skip(t) x; at t = sigma_data it is x / 2.
/// let x = Tensor::new(&[[3.0f32, -1.0]], &Device::Cpu)?; // (1, 2)
/// assert_eq!(values(&denoiser.denoise(&x, &[0.5])?)?, [1.5, -0.5]);
/// # Ok::<(), consistency::Error>(())
/// ```
pub struct EdmDenoiser {
    network: Box<dyn Network>,
    scaling: Scaling,
}

impl EdmDenoiser {
    /// Wrap `network`; `sigma_data` is the standard deviation of the data.
    pub fn new(network: Box<dyn Network>, sigma_data: f64) -> Self {
        Self { network, scaling: Scaling::Edm { sigma_data } }
    }

    fn run(&self, x: &Tensor, t: &[f64], on: Condition) -> Result<Tensor> {
        let network = self.network.as_ref();
        self.scaling.apply(x, t, |xs, noise| answer(network, xs, Condition { noise, ..on }))
    }

    /// D(x, t) and its derivative along `v` by x and `w` by t, as [`Tangent`] has it for consistency
    /// functions.
    ///
    /// # Errors
    /// A network without derivatives.
    pub fn push_forward(&self, x: &Tensor, t: &[f64], v: &Tensor, w: &[f64]) -> Result<Moved> {
        let network = self.network.as_ref();
        self.scaling.push_forward((x, v), (t, w), |moving, noise| {
            moved_answer(network, moving, at_rate(noise, Condition::default()))
        })
    }
}

// The condition `on` at c_noise, which moves at this rate.
fn at_rate<'a>((noise, rate): (&'a [f64], &'a [f64]), on: Condition<'a>) -> Condition<'a> {
    Condition { noise, noise_rate: Some(rate), ..on }
}

impl Denoiser for EdmDenoiser {
    fn denoise(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        self.run(x, t, Condition::default())
    }
}

/// A consistency model: f(x, t) with f(x, eps) = x by construction.
///
/// ```
/// use consistency::prelude::*;
/// let config = NetworkConfig::Mlp(MlpConfig { width: 16, blocks: 1, ..MlpConfig::default() });
/// let mut params = Params::new(DType::F32, &Device::Cpu);
/// let network = params.init(&Key::new(0), |scope| config.build(scope, &[2]))?;
/// let f = ConsistencyModel::new(network, Parameterization::Skip, 0.5, 0.002);
/// let x = Tensor::new(&[[3.0f32, -1.0]], &Device::Cpu)?; // (1, 2)
/// assert_eq!(values(&f.origin(&x, &[0.002])?)?, [3.0, -1.0]); // f(x, eps) = x
/// # Ok::<(), consistency::Error>(())
/// ```
pub struct ConsistencyModel {
    network: Box<dyn Network>,
    parameterization: Parameterization,
    sigma_data: f64,
    eps: f64,
}

impl ConsistencyModel {
    /// Wrap `network`; `sigma_data` is the standard deviation of the data, `eps` the
    /// noise level of the boundary condition.
    pub fn new(
        network: Box<dyn Network>,
        parameterization: Parameterization,
        sigma_data: f64,
        eps: f64,
    ) -> Self {
        Self { network, parameterization, sigma_data, eps }
    }

    fn run(&self, x: &Tensor, t: &[f64], on: Condition) -> Result<Tensor> {
        self.parameterization.apply(self.sigma_data, self.eps, x, t, |xs, noise| {
            answer(self.network.as_ref(), xs, Condition { noise, ..on })
        })
    }

    fn run_moved(
        &self,
        moving: (&Tensor, &Tensor),
        levels: (&[f64], &[f64]),
        on: Condition,
    ) -> Result<Moved> {
        let of = (self.sigma_data, self.eps);
        self.parameterization.push_forward(of, moving, levels, |moving, noise| {
            moved_answer(self.network.as_ref(), moving, at_rate(noise, on))
        })
    }
}

impl ConsistencyFunction for ConsistencyModel {
    fn origin(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        self.run(x, t, Condition::default())
    }
}

impl Tangent for ConsistencyModel {
    fn push_forward(&self, x: &Tensor, t: &[f64], v: &Tensor, w: &[f64]) -> Result<Moved> {
        self.run_moved((x, v), (t, w), Condition::default())
    }
}

impl Tangent for Conditioned<'_, ConsistencyModel> {
    fn push_forward(&self, x: &Tensor, t: &[f64], v: &Tensor, w: &[f64]) -> Result<Moved> {
        self.of.run_moved((x, v), (t, w), self.condition())
    }
}

/// A map between two noise levels, around a network that is conditioned on both:
/// G(x, t, s) = (s / t) x + (1 - s / t) g(x, t, s), where g has EDM's scalings, as in consistency
/// trajectory models (Kim et al. 2023). G(x, t, t) = x by construction.
pub struct TwoTimeModel {
    network: Box<dyn Network>,
    scaling: Scaling,
}

impl TwoTimeModel {
    /// Wrap `network`, built for [`Times::Two`](super::Times::Two); `sigma_data` is the standard
    /// deviation of the data.
    pub fn new(network: Box<dyn Network>, sigma_data: f64) -> Self {
        Self { network, scaling: Scaling::Edm { sigma_data } }
    }

    fn run(&self, x: &Tensor, t: &[f64], s: &[f64], on: Condition) -> Result<Tensor> {
        let (t, s) = both(x, t, s)?;
        let column = |of: &dyn Fn(Coefficients, f64) -> f64| {
            let each = t.iter().zip(&s).map(|(t, s)| of(self.scaling.at(*t), s / t));
            per_sample(&each.collect::<Vec<f64>>(), x)
        };
        let skip = column(&|c, ratio| ratio + (1.0 - ratio) * c.c_skip)?;
        let out = column(&|c, ratio| (1.0 - ratio) * c.c_out)?;
        let inner = x.broadcast_mul(&column(&|c, _| c.c_in)?)?;
        let noise = |levels: &[f64]| levels.iter().map(|t| time_condition(*t)).collect::<Vec<_>>();
        let (first, second) = (noise(&t), noise(&s));
        let on = Condition { noise: &first, second: Some(&second), ..on };
        let answer = answer(self.network.as_ref(), &inner, on)?;
        Ok((x.broadcast_mul(&skip)? + answer.broadcast_mul(&out)?)?)
    }

    fn run_moved(
        &self,
        (x, v): (&Tensor, &Tensor),
        (t, s): (&[f64], &[f64]),
        (dt, ds): (&[f64], &[f64]),
        on: Condition,
    ) -> Result<Moved> {
        let (t, s) = both(x, t, s)?;
        let (dt, ds) = (one_a_sample(dt, t.len())?, one_a_sample(ds, t.len())?);
        // c_skip and c_out of G, and what they move along: those of the scaling by t, the ratio
        // r = s / t by both.
        let column = |of: &dyn Fn([Coefficients; 2], [f64; 2]) -> f64| {
            let each = (0..t.len()).map(|i| {
                let ratio = s[i] / t[i];
                let by = (ds[i] - ratio * dt[i]) / t[i];
                of([self.scaling.at(t[i]), self.scaling.slopes(t[i]).times(dt[i])], [ratio, by])
            });
            per_sample(&each.collect::<Vec<f64>>(), x)
        };
        let skip = column(&|[c, _], [r, _]| r + (1.0 - r) * c.c_skip)?;
        let out = column(&|[c, _], [r, _]| (1.0 - r) * c.c_out)?;
        let d_skip = column(&|[c, d], [r, by]| by * (1.0 - c.c_skip) + (1.0 - r) * d.c_skip)?;
        let d_out = column(&|[c, d], [r, by]| (1.0 - r) * d.c_out - by * c.c_out)?;
        let (inner, moving) = self.scaling.moving_input((x, v), (&t, &dt))?;
        let (first, first_rate) = moving_condition(&t, &dt)?;
        let (second, second_rate) = moving_condition(&s, &ds)?;
        let on = Condition { second: Some(&second), second_rate: Some(&second_rate), ..on };
        let on = at_rate((&first, &first_rate), on);
        let (y, dy) = moved_answer(self.network.as_ref(), (&inner, &moving), on)?;
        let value = (x.broadcast_mul(&skip)? + y.broadcast_mul(&out)?)?;
        let by_x = (v.broadcast_mul(&skip)? + dy.broadcast_mul(&out)?)?;
        let by_levels = (x.broadcast_mul(&d_skip)? + y.broadcast_mul(&d_out)?)?;
        Ok((value, (by_x + by_levels)?))
    }

    fn denoise_on(&self, x: &Tensor, t: &[f64], on: Condition) -> Result<Tensor> {
        self.scaling.apply(x, t, |xs, noise| {
            answer(self.network.as_ref(), xs, Condition { noise, second: Some(noise), ..on })
        })
    }
}

/// g(x, t, t) = x - t dG/ds at s = t: the denoiser, where the map is the flow.
impl Denoiser for TwoTimeModel {
    fn denoise(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        self.denoise_on(x, t, Condition::default())
    }
}

impl Denoiser for Conditioned<'_, TwoTimeModel> {
    fn denoise(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        self.of.denoise_on(x, t, self.condition())
    }
}

impl TwoTimeMap for TwoTimeModel {
    fn map(&self, x: &Tensor, t: &[f64], s: &[f64]) -> Result<Tensor> {
        self.run(x, t, s, Condition::default())
    }
}

impl MapTangent for TwoTimeModel {
    fn push_forward(
        &self,
        x: &Tensor,
        levels: (&[f64], &[f64]),
        v: &Tensor,
        rates: (&[f64], &[f64]),
    ) -> Result<Moved> {
        self.run_moved((x, v), levels, rates, Condition::default())
    }
}

// Both noise levels for each sample.
fn both(x: &Tensor, t: &[f64], s: &[f64]) -> Result<(Vec<f64>, Vec<f64>)> {
    let batch = x.dims().first().copied().unwrap_or(1);
    let (t, s) = (one_a_sample(t, batch)?, one_a_sample(s, batch)?);
    if let Some((t, s)) = t.iter().zip(&s).find(|(t, s)| !(0.0 < **s && s <= t)) {
        bail!("a map from noise level t = {t} to s = {s}: needs 0 < s <= t");
    }
    Ok((t, s))
}

/// A model that is conditioned on classes, or that has dropout.
///
/// ```
/// use consistency::model::{Condition, Conditioned};
/// use consistency::prelude::*;
/// /// Answers with each sample's class.
/// struct Label;
/// impl Network for Label {
///     fn forward(&self, xs: &Tensor, on: Condition) -> consistency::Result<Tensor> {
///         let labels = on.labels.unwrap_or(&[0]).iter().map(|label| f64::from(*label));
///         per_sample(&labels.collect::<Vec<_>>(), xs)
///     }
/// }
/// let denoiser = EdmDenoiser::new(Box::new(Label), 0.5);
/// let x = Tensor::zeros((2, 1), DType::F64, &Device::Cpu)?;
/// let x0 = values(&Conditioned::new(&denoiser, Some(&[0, 3]), None).denoise(&x, &[1.0])?)?;
/// assert_eq!(x0, [0.0, 3.0 * Scaling::Edm { sigma_data: 0.5 }.at(1.0).c_out]);
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Conditioned<'a, M> {
    of: &'a M,
    labels: Option<&'a [u32]>,
    dropout: Option<Masks>,
}

impl<'a, M> Conditioned<'a, M> {
    /// `of` with a class for each sample, and with these dropout masks.
    pub fn new(of: &'a M, labels: Option<&'a [u32]>, dropout: Option<Masks>) -> Self {
        Self { of, labels, dropout }
    }

    fn condition(&self) -> Condition<'_> {
        Condition { labels: self.labels, dropout: self.dropout, ..Condition::default() }
    }

    pub(super) fn parts(&self) -> (&'a M, Condition<'_>) {
        (self.of, self.condition())
    }
}

impl Denoiser for Conditioned<'_, EdmDenoiser> {
    fn denoise(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        self.of.run(x, t, self.condition())
    }
}

impl TwoTimeMap for Conditioned<'_, TwoTimeModel> {
    fn map(&self, x: &Tensor, t: &[f64], s: &[f64]) -> Result<Tensor> {
        self.of.run(x, t, s, self.condition())
    }
}

impl ConsistencyFunction for Conditioned<'_, ConsistencyModel> {
    fn origin(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        self.of.run(x, t, self.condition())
    }
}
