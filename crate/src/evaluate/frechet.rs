//! The Frechet distance between two sets (Dowson and Landau 1982): the distance of the
//! Gaussians that have their means and covariances. On Inception's features it is FID
//! (Heusel et al. 2017).

use super::statistics::Statistics;
use crate::{Result, ensure};
use candle_core::Tensor;
use consistency_linalg::{Mat, MatRef, eigen, eigenvalues, multiply};

/// Eigenvalues below this fraction of the largest are rounding.
const ROUNDING: f64 = 4.0 * f64::EPSILON;

impl Statistics {
    /// |m1 - m2|^2 + tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2), with covariances divided by
    /// N - 1.
    ///
    /// The number of rows on both sides biases it: compare only distances with equal numbers.
    ///
    /// # Errors
    /// Dimensions or features that differ, or a set of fewer than two rows.
    pub fn frechet_distance(&self, other: &Self) -> Result<f64> {
        self.features().must_equal(other.features())?;
        let (mine, theirs) = (self.mean(), other.mean());
        ensure!(
            mine.len() == theirs.len(),
            "a Frechet distance between dimensions {} and {}",
            mine.len(),
            theirs.len()
        );
        let means: f64 = mine.iter().zip(theirs).map(|(a, b)| (a - b).powi(2)).sum();
        let (s1, s2) = (self.covariance_matrix()?, other.covariance_matrix()?);
        let traces = trace(s1.as_ref()) + trace(s2.as_ref());
        Ok(means + traces - 2.0 * trace_of_root(s1.as_ref(), s2.as_ref())?)
    }

    /// The Frechet Inception distance: [`Statistics::frechet_distance`] where the features
    /// are those of the published Inception.
    ///
    /// # Errors
    /// Other features, for which there is no FID; and the errors of the distance.
    pub fn fid(&self, other: &Self) -> Result<f64> {
        self.features().must_be_inception("FID")?;
        self.frechet_distance(other)
    }
}

fn trace(matrix: MatRef<f64>) -> f64 {
    (0..matrix.nrows()).map(|i| matrix[(i, i)]).sum()
}

/// tr (a^1/2 b a^1/2)^1/2 of two covariances: with a = w w', the eigenvalues of w' b w. Where `a`
/// does not have full rank, w has fewer columns.
fn trace_of_root(a: MatRef<f64>, b: MatRef<f64>) -> Result<f64> {
    let (vectors, values) = eigen(a)?;
    let largest = values.iter().fold(0.0, |m: f64, v| m.max(*v));
    let kept: Vec<usize> = (0..a.nrows()).filter(|i| values[*i] > ROUNDING * largest).collect();
    if kept.is_empty() {
        return Ok(0.0);
    }
    let w =
        Mat::from_fn(a.nrows(), kept.len(), |i, j| vectors[(i, kept[j])] * values[kept[j]].sqrt());
    let inner = multiply(w.transpose(), multiply(b, w.as_ref()).as_ref());
    let values = eigenvalues(inner.as_ref())?;
    let largest = values.iter().fold(0.0, |m: f64, v| m.max(*v));
    Ok(values.into_iter().filter(|v| *v > ROUNDING * largest).map(f64::sqrt).sum())
}

/// The Frechet distance between the rows of `a` and of `b`, shape `(N, ..)`, on the values
/// themselves: for images, a distance on pixels, which is not FID.
///
/// The number of rows on both sides biases it: compare only distances with equal numbers.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use consistency::evaluate::frechet_distance;
/// let a = Tensor::new(&[[0.0f64], [1.0]], &Device::Cpu)?; // (2, 1)
/// let b = (&a + 3.0)?;
/// // The same covariance, and means that are 3 apart: 3^2.
/// assert!((frechet_distance(&a, &b)? - 9.0).abs() < 1e-9);
/// # Ok::<(), consistency::Error>(())
/// ```
///
/// # Errors
/// Fewer than two rows, dimensions that differ, or a value that is not finite.
pub fn frechet_distance(a: &Tensor, b: &Tensor) -> Result<f64> {
    Statistics::of(a)?.frechet_distance(&Statistics::of(b)?)
}
