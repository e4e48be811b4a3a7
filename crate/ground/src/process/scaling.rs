//! Scalings around a network and the two parameterizations of a consistency
//! function (the paper, section 3 and appendix C; the talk, eqs. 3 and 4).

use crate::seam::{Moved, one_a_sample, per_sample};
use crate::{Result, ensure};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// c_skip, c_out and c_in at one noise level: `c_skip x + c_out F(c_in x, c_noise)`.
///
/// ```
/// use consistency::process::{Coefficients, Scaling};
/// let Coefficients { c_skip, c_out, c_in } = Scaling::Edm { sigma_data: 0.5 }.at(1.2);
/// // x_t has the variance 0.25 + 1.2^2 = 1.3^2, and the network's input the variance 1.
/// assert!((c_in * 1.3 - 1.0).abs() < 1e-12);
/// assert!((c_skip - 0.25 / 1.69).abs() < 1e-12 && (c_out - 0.5 * 1.2 / 1.3).abs() < 1e-12);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coefficients {
    /// The weight of the input.
    pub c_skip: f64,
    /// The weight of the network's output.
    pub c_out: f64,
    /// The factor on the network's input.
    pub c_in: f64,
}

impl Coefficients {
    /// Each of them times `factor`: slopes by t where t moves at that rate.
    #[must_use]
    pub fn times(self, factor: f64) -> Self {
        let Self { c_skip, c_out, c_in } = self;
        Self { c_skip: c_skip * factor, c_out: c_out * factor, c_in: c_in * factor }
    }
}

/// The scalings that turn a network F into a denoiser or a consistency function.
///
/// ```
/// use consistency::prelude::*;
/// let x = Tensor::new(&[[3.0f64]], &Device::Cpu)?; // (1, 1)
/// let at_eps = |scaling: Scaling| scaling.apply(&x, &[0.002], |x, _| Ok(x.exp()?));
/// // Any network will do, here e^x.
/// let boundary = Scaling::Boundary { sigma_data: 0.5, eps: 0.002 };
/// assert_eq!(values(&at_eps(boundary)?)?, [3.0]);
/// assert!(values(&at_eps(Scaling::Edm { sigma_data: 0.5 })?)?[0] > 3.1);
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Scaling {
    /// EDM's, for a denoiser (Karras et al. 2022, table 1).
    Edm {
        /// The standard deviation of the data.
        sigma_data: f64,
    },
    /// The consistency model's: shifted so that c_skip(eps) = 1 and c_out(eps) = 0.
    Boundary {
        /// The standard deviation of the data.
        sigma_data: f64,
        /// The noise level where f is the identity.
        eps: f64,
    },
}

impl Scaling {
    /// The coefficients at noise level `t`.
    ///
    /// The shift by eps is only in c_skip and in the numerator of c_out.
    ///
    /// ```
    /// use consistency::process::Scaling;
    /// let c = Scaling::Boundary { sigma_data: 0.5, eps: 0.002 }.at(0.002);
    /// assert_eq!((c.c_skip, c.c_out), (1.0, 0.0));
    /// ```
    pub fn at(&self, t: f64) -> Coefficients {
        let (sigma_data, shifted) = self.shifted(t);
        let variance = sigma_data * sigma_data;
        let norm = (t * t + variance).sqrt();
        Coefficients {
            c_skip: variance / (shifted * shifted + variance),
            c_out: sigma_data * shifted / norm,
            c_in: 1.0 / norm,
        }
    }

    // sigma_data, and the noise level from where it is counted.
    fn shifted(&self, t: f64) -> (f64, f64) {
        match *self {
            Self::Edm { sigma_data } => (sigma_data, t),
            Self::Boundary { sigma_data, eps } => (sigma_data, t - eps),
        }
    }

    /// The derivatives of the coefficients by t.
    ///
    /// ```
    /// use consistency::process::Scaling;
    /// let edm = Scaling::Edm { sigma_data: 0.5 };
    /// let by_difference = (edm.at(1.2 + 1e-6).c_out - edm.at(1.2 - 1e-6).c_out) / 2e-6;
    /// assert!((edm.slopes(1.2).c_out - by_difference).abs() < 1e-9);
    /// ```
    pub fn slopes(&self, t: f64) -> Coefficients {
        let (sigma_data, shifted) = self.shifted(t);
        let variance = sigma_data * sigma_data;
        let norm = (t * t + variance).sqrt();
        let around = shifted * shifted + variance;
        Coefficients {
            c_skip: -2.0 * variance * shifted / (around * around),
            c_out: sigma_data * (norm * norm - shifted * t) / norm.powi(3),
            c_in: -t / norm.powi(3),
        }
    }

    /// [`Scaling::apply`] with its derivative along (v, w): `v` has the shape of x, `w` is one rate of
    /// t or one per sample. `f` gets the network's input and what it moves along, then c_noise and
    /// its rate, and gives the network's answer and what that moves along.
    ///
    /// # Errors
    /// Those of `f`; a noise level that is not positive, or a number of rates that is neither one nor
    /// the batch.
    pub fn push_forward(
        &self,
        (x, v): (&Tensor, &Tensor),
        (t, w): (&[f64], &[f64]),
        f: impl FnOnce((&Tensor, &Tensor), (&[f64], &[f64])) -> Result<Moved>,
    ) -> Result<Moved> {
        let (inner, moved) = self.moving_input((x, v), (t, w))?;
        let (noise, rate) = moving_condition(t, w)?;
        let (y, dy) = f((&inner, &moved), (&noise, &rate))?;
        let (skip, out, _) = self.columns(x, t)?;
        let [d_skip, d_out, _] = self.moving_columns(x, t, w)?;
        let value = (x.broadcast_mul(&skip)? + y.broadcast_mul(&out)?)?;
        let by_x = (v.broadcast_mul(&skip)? + dy.broadcast_mul(&out)?)?;
        let by_t = (x.broadcast_mul(&d_skip)? + y.broadcast_mul(&d_out)?)?;
        Ok((value, (by_x + by_t)?))
    }

    /// c_in x, the network's input, and what it moves along.
    ///
    /// # Errors
    /// A number of noise levels or of rates that is neither one nor the batch.
    pub fn moving_input(
        &self,
        (x, v): (&Tensor, &Tensor),
        (t, w): (&[f64], &[f64]),
    ) -> Result<Moved> {
        let (_, _, inner) = self.columns(x, t)?;
        let [_, _, d_inner] = self.moving_columns(x, t, w)?;
        let moved = (v.broadcast_mul(&inner)? + x.broadcast_mul(&d_inner)?)?;
        Ok((x.broadcast_mul(&inner)?, moved))
    }

    // The derivatives of the three columns, where t moves along w.
    fn moving_columns(&self, x: &Tensor, t: &[f64], w: &[f64]) -> Result<[Tensor; 3]> {
        let batch = x.dims().first().copied().unwrap_or(1);
        let (t, w) = (one_a_sample(t, batch)?, one_a_sample(w, batch)?);
        let column = |pick: fn(&Coefficients) -> f64| {
            let each = t.iter().zip(&w).map(|(t, w)| pick(&self.slopes(*t).times(*w)));
            per_sample(&each.collect::<Vec<_>>(), x)
        };
        Ok([column(|c| c.c_skip)?, column(|c| c.c_out)?, column(|c| c.c_in)?])
    }

    /// `c_skip x + c_out F(c_in x, c_noise(t))` for the network `f`.
    pub fn apply(
        &self,
        x: &Tensor,
        t: &[f64],
        f: impl FnOnce(&Tensor, &[f64]) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let (skip, out, inner) = self.columns(x, t)?;
        let answer = f(&x.broadcast_mul(&inner)?, &condition(t)?)?;
        Ok((x.broadcast_mul(&skip)? + answer.broadcast_mul(&out)?)?)
    }

    // (c_skip, c_out, c_in), each broadcasting over x.
    fn columns(&self, x: &Tensor, t: &[f64]) -> Result<(Tensor, Tensor, Tensor)> {
        let all: Vec<Coefficients> = t.iter().map(|&t| self.at(t)).collect();
        let column = |pick: fn(&Coefficients) -> f64| {
            per_sample(&all.iter().map(pick).collect::<Vec<_>>(), x)
        };
        Ok((column(|c| c.c_skip)?, column(|c| c.c_out)?, column(|c| c.c_in)?))
    }
}

/// c_noise(t) = ln(t) / 4, the form in which a network takes the noise level.
pub fn time_condition(t: f64) -> f64 {
    0.25 * t.ln()
}

/// c_noise(t) and its rates w / 4t, where t moves along `w`. Either argument holds one number or as
/// many as the other.
///
/// # Errors
/// A noise level that is not positive; two numbers of values, neither of which is one.
pub fn moving_condition(t: &[f64], w: &[f64]) -> Result<(Vec<f64>, Vec<f64>)> {
    let count = t.len().max(w.len());
    let (all, w) = (one_a_sample(t, count)?, one_a_sample(w, count)?);
    Ok((condition(t)?, all.iter().zip(&w).map(|(t, w)| 0.25 * w / t).collect()))
}

fn condition(t: &[f64]) -> Result<Vec<f64>> {
    if let Some(bad) = t.iter().find(|t| !(**t > 0.0)) {
        crate::bail!("noise level t = {bad}: needs t > 0");
    }
    Ok(t.iter().map(|&t| time_condition(t)).collect())
}

/// How a consistency function is built from a network so that f(x, eps) = x.
///
/// ```
/// use consistency::prelude::*;
/// let x = Tensor::new(&[[3.0f64]], &Device::Cpu)?; // (1, 1)
/// let f = |kind: Parameterization, t: f64| {
///     values(&kind.apply(0.5, 0.002, &x, &[t], |x, _| Ok(x.ones_like()?))?)
/// };
/// assert_eq!(f(Parameterization::Piecewise, 0.002)?, [3.0]);
/// assert_eq!(f(Parameterization::Skip, 0.002)?, [3.0]);
/// // The network's answer, here 1, takes over at once in one of them, gradually in the other.
/// assert_eq!(f(Parameterization::Piecewise, 0.003)?, [1.0]);
/// assert!((f(Parameterization::Skip, 0.003)?[0] - 3.0).abs() < 0.002);
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Parameterization {
    /// Eq. 3 of the talk: x at t = eps, the network elsewhere. Not differentiable in
    /// t at eps.
    Piecewise,
    /// Eq. 4 of the talk: `c_skip(t) x + c_out(t) F(x, t)` with the boundary scalings.
    #[default]
    Skip,
}

impl Parameterization {
    /// f(x, t) from the network `f`, which is given its scaled input and c_noise(t).
    ///
    /// # Errors
    /// A noise level below `eps`, where f is not defined.
    pub fn apply(
        &self,
        sigma_data: f64,
        eps: f64,
        x: &Tensor,
        t: &[f64],
        f: impl FnOnce(&Tensor, &[f64]) -> Result<Tensor>,
    ) -> Result<Tensor> {
        if let Some(bad) = t.iter().find(|t| **t < eps) {
            crate::bail!("noise level t = {bad} lies below eps = {eps}, where f is the identity");
        }
        let boundary = Scaling::Boundary { sigma_data, eps };
        match self {
            Self::Skip => boundary.apply(x, t, f),
            Self::Piecewise => {
                ensure!(!t.is_empty(), "no noise level given");
                let (_, _, inner) = boundary.columns(x, t)?;
                let answer = f(&x.broadcast_mul(&inner)?, &condition(t)?)?;
                let at_eps: Vec<f64> = t.iter().map(|&t| f64::from(t == eps)).collect();
                let keep = per_sample(&at_eps, x)?;
                let network = keep.affine(-1.0, 1.0)?;
                Ok((x.broadcast_mul(&keep)? + answer.broadcast_mul(&network)?)?)
            }
        }
    }

    /// [`Parameterization::apply`] with its derivative along (v, w), as [`Scaling::push_forward`]
    /// has it. At eps, eq. 3's has no derivative by t from the left; this is f's own there, v.
    ///
    /// # Errors
    /// As [`Parameterization::apply`] and [`Scaling::push_forward`].
    pub fn push_forward(
        &self,
        (sigma_data, eps): (f64, f64),
        (x, v): (&Tensor, &Tensor),
        (t, w): (&[f64], &[f64]),
        f: impl FnOnce((&Tensor, &Tensor), (&[f64], &[f64])) -> Result<Moved>,
    ) -> Result<Moved> {
        if let Some(bad) = t.iter().find(|t| **t < eps) {
            crate::bail!("noise level t = {bad} lies below eps = {eps}, where f is the identity");
        }
        let boundary = Scaling::Boundary { sigma_data, eps };
        if *self == Self::Skip {
            return boundary.push_forward((x, v), (t, w), f);
        }
        let (inner, moved) = boundary.moving_input((x, v), (t, w))?;
        let (noise, rate) = moving_condition(t, w)?;
        let (y, dy) = f((&inner, &moved), (&noise, &rate))?;
        let keep = per_sample(&t.iter().map(|&t| f64::from(t == eps)).collect::<Vec<_>>(), x)?;
        let network = keep.affine(-1.0, 1.0)?;
        let blend = |own: &Tensor, other: &Tensor| -> Result<Tensor> {
            Ok((own.broadcast_mul(&keep)? + other.broadcast_mul(&network)?)?)
        };
        Ok((blend(x, &y)?, blend(v, &dy)?))
    }
}
