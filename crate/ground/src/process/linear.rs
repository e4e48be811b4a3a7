//! Linear SDEs in general, dx = f(t) x dt + g(t) dw (eq. 1), and the exact change of variables to the
//! paper's own, dx = sqrt(2t) dw.

use super::{perturb, pf_ode_slope};
use crate::seam::{Denoiser, per_sample};
use crate::{Result, ensure};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// A linear SDE. Given x_0 its x_t is s(t) (x_0 + sigma(t) z): x_t / s(t) is the paper's process at
/// the noise level sigma(t), and its trajectories are the paper's. So a denoiser of the paper's
/// noise levels serves all of them, and what holds for one holds for the others.
///
/// Song et al. 2021, section 3.4 and appendix B.
///
/// ```
/// use consistency::prelude::*;
/// let vp = LinearSde::VariancePreserving { beta_min: 0.1, beta_max: 20.0 };
/// let (scale, sigma) = (vp.scale(1.0), vp.sigma(1.0));
/// // The variance of data of variance 1 stays 1.
/// assert!((scale * scale * (1.0 + sigma * sigma) - 1.0).abs() < 1e-12);
/// assert!((vp.time(sigma)? - 1.0).abs() < 1e-12);
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub enum LinearSde {
    /// The paper's choice: f = 0, g = sqrt(2t), so that s = 1 and sigma = t.
    #[default]
    Paper,
    /// Variance exploding: f = 0, and sigma grows geometrically from t = 0 to t = 1.
    VarianceExploding {
        /// sigma at t = 0.
        sigma_min: f64,
        /// sigma at t = 1.
        sigma_max: f64,
    },
    /// Variance preserving: f = -beta / 2, g = sqrt(beta), beta linear from t = 0 to t = 1.
    VariancePreserving {
        /// beta at t = 0.
        beta_min: f64,
        /// beta at t = 1.
        beta_max: f64,
    },
    /// Sub-VP: the same f, g = sqrt(beta (1 - e^(-2B))) with B(t) the integral of beta.
    SubVp {
        /// beta at t = 0.
        beta_min: f64,
        /// beta at t = 1.
        beta_max: f64,
    },
}

impl LinearSde {
    /// Whether its constants make sense.
    ///
    /// # Errors
    /// Those that do not.
    pub fn check(&self) -> Result<()> {
        match *self {
            Self::Paper => {}
            Self::VarianceExploding { sigma_min, sigma_max } => ensure!(
                0.0 < sigma_min && sigma_min < sigma_max && sigma_max.is_finite(),
                "sigma_min = {sigma_min}, sigma_max = {sigma_max}: needs 0 < sigma_min < sigma_max"
            ),
            Self::VariancePreserving { beta_min, beta_max }
            | Self::SubVp { beta_min, beta_max } => {
                ensure!(
                    0.0 < beta_min && beta_min <= beta_max && beta_max.is_finite(),
                    "beta_min = {beta_min}, beta_max = {beta_max}: needs 0 < beta_min <= beta_max"
                );
            }
        }
        Ok(())
    }

    // beta(t) and its integral B(t), where there is a beta.
    fn betas(&self, t: f64) -> Option<(f64, f64)> {
        match *self {
            Self::VariancePreserving { beta_min, beta_max }
            | Self::SubVp { beta_min, beta_max } => {
                let slope = beta_max - beta_min;
                Some((beta_min + slope * t, beta_min * t + 0.5 * slope * t * t))
            }
            Self::Paper | Self::VarianceExploding { .. } => None,
        }
    }

    /// f(t), the drift's factor on x.
    pub fn drift(&self, t: f64) -> f64 {
        self.betas(t).map_or(0.0, |(beta, _)| -0.5 * beta)
    }

    /// g(t).
    pub fn diffusion(&self, t: f64) -> f64 {
        match (*self, self.betas(t)) {
            (Self::VarianceExploding { sigma_min, sigma_max }, _) => {
                self.sigma(t) * (2.0 * (sigma_max / sigma_min).ln()).sqrt()
            }
            // 1 - e^(-2B), which for small B is no difference of numbers near 1.
            (Self::SubVp { .. }, Some((beta, b))) => (-beta * (-2.0 * b).exp_m1()).sqrt(),
            (_, Some((beta, _))) => beta.sqrt(),
            (_, None) => (2.0 * t).sqrt(),
        }
    }

    /// s(t), the factor on the signal: the exponential of the integral of f.
    pub fn scale(&self, t: f64) -> f64 {
        self.betas(t).map_or(1.0, |(_, b)| (-0.5 * b).exp())
    }

    /// sigma(t), the noise relative to the signal, which is the paper's noise level: the root of the
    /// integral of g^2 / s^2.
    pub fn sigma(&self, t: f64) -> f64 {
        match (*self, self.betas(t)) {
            (Self::VarianceExploding { sigma_min, sigma_max }, _) => {
                sigma_min * (sigma_max / sigma_min).powf(t)
            }
            (Self::SubVp { .. }, Some((_, b))) => 2.0 * (0.5 * b).sinh(),
            (_, Some((_, b))) => b.exp_m1().sqrt(),
            (_, None) => t,
        }
    }

    /// The t whose sigma(t) is this noise level of the paper.
    ///
    /// # Errors
    /// A noise level that is not positive.
    pub fn time(&self, sigma: f64) -> Result<f64> {
        ensure!(sigma > 0.0 && sigma.is_finite(), "noise level {sigma}: needs a positive number");
        let by_b = |b: f64, beta_min: f64, beta_max: f64| {
            // The root of beta_min t + (beta_max - beta_min) t^2 / 2 = B, without a difference.
            let slope = beta_max - beta_min;
            2.0 * b / (beta_min + (beta_min * beta_min + 2.0 * slope * b).sqrt())
        };
        Ok(match *self {
            Self::Paper => sigma,
            Self::VarianceExploding { sigma_min, sigma_max } => {
                (sigma / sigma_min).ln() / (sigma_max / sigma_min).ln()
            }
            Self::VariancePreserving { beta_min, beta_max } => {
                by_b((sigma * sigma).ln_1p(), beta_min, beta_max)
            }
            Self::SubVp { beta_min, beta_max } => {
                by_b(2.0 * (0.5 * sigma).asinh(), beta_min, beta_max)
            }
        })
    }

    /// x_t = s(t) (x_0 + sigma(t) z): a draw of p_t given x_0; `t` holds one time or one per sample.
    pub fn perturb(&self, x0: &Tensor, t: &[f64], z: &Tensor) -> Result<Tensor> {
        let sigma: Vec<f64> = t.iter().map(|t| self.sigma(*t)).collect();
        self.from_paper(&perturb(x0, &sigma, z)?, t)
    }

    /// x_t / s(t) and sigma(t): the same point of the same trajectory in the paper's variables.
    pub fn to_paper(&self, x: &Tensor, t: &[f64]) -> Result<(Tensor, Vec<f64>)> {
        let inverse: Vec<f64> = t.iter().map(|t| 1.0 / self.scale(*t)).collect();
        let sigma = t.iter().map(|t| self.sigma(*t)).collect();
        Ok((x.broadcast_mul(&per_sample(&inverse, x)?)?, sigma))
    }

    /// s(t) times a point of the paper's process at sigma(t): back from [`LinearSde::to_paper`].
    pub fn from_paper(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        let scale: Vec<f64> = t.iter().map(|t| self.scale(*t)).collect();
        Ok(x.broadcast_mul(&per_sample(&scale, x)?)?)
    }

    /// The score of p_t at x, from a denoiser of the paper's noise levels: that of x / s divided by s.
    pub fn score(&self, denoiser: &dyn Denoiser, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        let (inner, sigma) = self.to_paper(x, t)?;
        let inverse: Vec<f64> = t.iter().map(|t| 1.0 / self.scale(*t)).collect();
        Ok(denoiser.score(&inner, &sigma)?.broadcast_mul(&per_sample(&inverse, x)?)?)
    }

    /// The slope of its PF ODE, dx/dt = f x - g^2 score / 2.
    ///
    /// ```
    /// use consistency::prelude::*;
    /// let normal = GaussianMixture::new(vec![1.0], vec![vec![0.0]], vec![1.0])?; // N(0, 1)
    /// let vp = LinearSde::VariancePreserving { beta_min: 0.1, beta_max: 20.0 };
    /// let x = Tensor::new(&[[3.0f64]], &Device::Cpu)?; // (1, 1)
    /// // N(0, 1) stays N(0, 1), and its points stay where they are.
    /// assert!(mean_square(&vp.pf_ode_slope(&normal, &x, &[0.4])?)? < 1e-20);
    /// # Ok::<(), consistency::Error>(())
    /// ```
    pub fn pf_ode_slope(&self, denoiser: &dyn Denoiser, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        if *self == Self::Paper {
            return pf_ode_slope(denoiser, x, t);
        }
        let half: Vec<f64> = t.iter().map(|t| -0.5 * self.diffusion(*t).powi(2)).collect();
        let drift: Vec<f64> = t.iter().map(|t| self.drift(*t)).collect();
        let score = self.score(denoiser, x, t)?;
        let by_score = score.broadcast_mul(&per_sample(&half, x)?)?;
        Ok((x.broadcast_mul(&per_sample(&drift, x)?)? + by_score)?)
    }
}
