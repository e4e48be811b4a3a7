//! The Frechet distance between two sets (Dowson and Landau 1982): the distance of the
//! Gaussians that have their means and covariances.

use crate::{Result, ensure};
use candle_core::{DType, Tensor};
use nalgebra::{DMatrix, DVector, SymmetricEigen};

/// The mean and the covariance of a set of points.
#[derive(Clone, Debug)]
pub struct Gaussian {
    mean: DVector<f64>,
    covariance: DMatrix<f64>,
}

impl Gaussian {
    /// Of the rows of `points`, shape `(N, ..)`; the covariance is divided by N - 1.
    ///
    /// # Errors
    /// Fewer than two rows, or a value that is not finite.
    pub fn fit(points: &Tensor) -> Result<Self> {
        let points = points.flatten_from(1)?.to_dtype(DType::F64)?;
        let (rows, dim) = points.dims2()?;
        ensure!(rows >= 2, "a covariance needs 2 points or more, got {rows}");
        let values = points.flatten_all()?.to_vec1::<f64>()?;
        ensure!(
            values.iter().all(|v| v.is_finite()),
            "a Frechet distance of points that are not all finite"
        );
        let matrix = DMatrix::from_row_slice(rows, dim, &values);
        let mean = matrix.row_mean().transpose();
        let mut centred = matrix;
        for mut row in centred.row_iter_mut() {
            row -= mean.transpose();
        }
        let covariance = centred.transpose() * &centred / (rows - 1) as f64;
        Ok(Self { mean, covariance })
    }

    /// |m1 - m2|^2 + tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2).
    ///
    /// # Errors
    /// Dimensions that differ.
    pub fn distance(&self, other: &Self) -> Result<f64> {
        ensure!(
            self.mean.len() == other.mean.len(),
            "a Frechet distance between dimensions {} and {}",
            self.mean.len(),
            other.mean.len()
        );
        let root = square_root(&self.covariance);
        let product = &root * &other.covariance * &root;
        // Symmetric in exact arithmetic; the solver reads one triangle.
        let product = (&product + product.transpose()) * 0.5;
        let cross: f64 =
            SymmetricEigen::new(product).eigenvalues.iter().map(|v| v.max(0.0).sqrt()).sum();
        let means = (&self.mean - &other.mean).norm_squared();
        Ok(means + self.covariance.trace() + other.covariance.trace() - 2.0 * cross)
    }
}

fn square_root(matrix: &DMatrix<f64>) -> DMatrix<f64> {
    let eigen = SymmetricEigen::new(matrix.clone());
    let roots = eigen.eigenvalues.map(|v| v.max(0.0).sqrt());
    &eigen.eigenvectors * DMatrix::from_diagonal(&roots) * eigen.eigenvectors.transpose()
}

/// The Frechet distance between the rows of `a` and of `b`, on the values themselves:
/// for images, a distance on pixels, which is not FID.
///
/// Both sides are biased by their number of rows: compare equal numbers with equal.
pub fn frechet_distance(a: &Tensor, b: &Tensor) -> Result<f64> {
    Gaussian::fit(a)?.distance(&Gaussian::fit(b)?)
}
