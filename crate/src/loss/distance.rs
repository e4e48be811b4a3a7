//! The distances d(x, y) between a student's answer and its target (the paper,
//! section 5; Song and Dhariwal 2023 for pseudo-Huber).

use crate::bounds::{LARGEST, SMALLEST, within};
use crate::{Result, ensure};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// Which distance.
///
/// ```
/// use consistency::prelude::*;
/// let x = Tensor::new(&[[4.0f64]], &Device::Cpu)?; // (1, 1)
/// let d = |metric| values(&Distance::new(metric).per_sample(&x, &x.zeros_like()?)?);
/// assert_eq!((d(Metric::L1)?, d(Metric::L2Squared)?), (vec![4.0], vec![16.0]));
/// assert_eq!(d(Metric::PseudoHuber { c: 3.0 })?, [2.0]); // sqrt(16 + 9) - 3
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Metric {
    /// The sum of absolute differences.
    L1,
    /// The sum of squared differences.
    L2Squared,
    /// The Euclidean norm of the difference.
    L2,
    /// sqrt(|x - y|^2 + c^2) - c with the norm of the whole sample, not elementwise.
    PseudoHuber {
        /// Where the quadratic turns linear; iCT takes 0.00054 sqrt(dimension).
        c: f64,
    },
}

/// How the elements of one sample are put together.
///
/// ```
/// use consistency::prelude::*;
/// let x = Tensor::new(&[[3.0f64, 4.0]], &Device::Cpu)?; // (1, 2)
/// let summed = Distance::new(Metric::L2Squared);
/// let mean = Distance { reduction: Reduction::CodeMean, ..summed };
/// assert_eq!(values(&summed.per_sample(&x, &x.zeros_like()?)?)?, [25.0]);
/// assert_eq!(values(&mean.per_sample(&x, &x.zeros_like()?)?)?, [12.5]);
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reduction {
    /// Summed over C, H, W, as in the paper.
    #[default]
    Sum,
    /// The mean over C, H, W, as in the public code: the sum divided by the dimension.
    /// (For the norms, divided after the root.)
    CodeMean,
}

/// What can serve as d: [`Distance`], and [`Lpips`](super::Lpips).
///
/// ```
/// use consistency::prelude::*;
/// /// The largest difference of a sample.
/// struct Largest;
/// impl Compare for Largest {
///     fn per_sample(&self, x: &Tensor, y: &Tensor) -> consistency::Result<Tensor> {
///         Ok((x - y)?.abs()?.flatten_from(1)?.max(1)?)
///     }
/// }
/// let x = Tensor::new(&[[3.0f64, -4.0], [0.0, 1.0]], &Device::Cpu)?; // (2, 2)
/// assert_eq!(values(&Largest.per_sample(&x, &x.zeros_like()?)?)?, [4.0, 1.0]);
/// # Ok::<(), consistency::Error>(())
/// ```
pub trait Compare {
    /// d(x, y) for `(B, ..)` and `(B, ..)`: `(B)`.
    ///
    /// # Errors
    /// Shapes that differ, or that it does not take.
    fn per_sample(&self, x: &Tensor, y: &Tensor) -> Result<Tensor>;
}

impl Compare for Distance {
    fn per_sample(&self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        Self::per_sample(self, x, y)
    }
}

/// A distance between batches, one number per sample.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use consistency::loss::{Distance, Metric};
/// let x = Tensor::new(&[[3.0f64, 4.0], [0.0, 1.0]], &Device::Cpu)?; // (2, 2)
/// let y = Tensor::zeros_like(&x)?;
/// let squared = Distance::new(Metric::L2Squared).per_sample(&x, &y)?;
/// assert_eq!(squared.to_vec1::<f64>()?, [25.0, 1.0]);
/// let norm = Distance::new(Metric::L2).per_sample(&x, &y)?;
/// assert_eq!(norm.to_vec1::<f64>()?, [5.0, 1.0]);
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distance {
    /// Which distance.
    pub metric: Metric,
    /// Sum or mean over the elements of a sample.
    #[serde(default)]
    pub reduction: Reduction,
}

impl Default for Distance {
    /// Squared l2, summed.
    fn default() -> Self {
        Self::new(Metric::L2Squared)
    }
}

impl Distance {
    /// This metric, summed over the elements of a sample.
    pub fn new(metric: Metric) -> Self {
        Self { metric, reduction: Reduction::Sum }
    }

    /// Whether its numbers make sense.
    ///
    /// # Errors
    /// A c of pseudo-Huber that is not between 1e-6 and 1e6: it is squared in f32.
    pub fn check(&self) -> Result<()> {
        match self.metric {
            Metric::PseudoHuber { c } => within("c", c, SMALLEST..=LARGEST),
            Metric::L1 | Metric::L2Squared | Metric::L2 => Ok(()),
        }
    }

    /// d(x, y) for `(B, ..)` and `(B, ..)`: `(B)`.
    ///
    /// The gradient of `L2` where x = y is taken as 0, like that of `L1`.
    ///
    /// # Errors
    /// Shapes that differ.
    pub fn per_sample(&self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        ensure!(
            x.dims() == y.dims() && x.rank() >= 1,
            "a distance between shapes {:?} and {:?}",
            x.dims(),
            y.dims()
        );
        let batch = x.dims()[0];
        let difference = (x - y)?.reshape((batch, ()))?; // (B, D)
        let dim = difference.dims()[1].max(1);
        let squares = || difference.sqr()?.sum(1);
        let value = match self.metric {
            // candle's |.| has slope +1 at 0: the sign, held constant, has slope 0.
            Metric::L1 => (&difference * difference.detach().sign()?)?.sum(1)?,
            Metric::L2Squared => squares()?,
            Metric::L2 => {
                // The root of 0 has no gradient (candle gives NaN): add 1 to a 0 before the root
                // and subtract it again afterwards.
                let squares = squares()?;
                let zero = squares.detach().eq(0.0)?.to_dtype(squares.dtype())?;
                ((squares + &zero)?.sqrt()? - zero)?
            }
            Metric::PseudoHuber { c } => {
                ensure!(c > 0.0, "pseudo-Huber with c = {c}: needs c > 0");
                (((squares()? + c * c)?).sqrt()? - c)?
            }
        };
        Ok(match self.reduction {
            Reduction::Sum => value,
            Reduction::CodeMean => (value / dim as f64)?,
        })
    }
}
