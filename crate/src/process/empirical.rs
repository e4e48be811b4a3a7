//! The exact denoiser of a finite dataset (Lemma 1 with p_data the empirical
//! distribution): a softmax over the data.

use crate::seam::{Denoiser, per_sample};
use crate::{Result, ensure};
use candle_core::{D, DType, Tensor};

/// The denoiser whose p_data puts equal mass on each row of a dataset.
///
/// D(x, t) = sum_i p_i x_i with p_i proportional to exp(-|x - x_i|^2 / (2 t^2)).
///
/// The weights are computed in f64: at t = 0.002 the exponent divides a squared
/// distance by 8e-6, which f32 cannot resolve.
#[derive(Clone, Debug)]
pub struct Empirical {
    data: Tensor,    // (N, D), f64
    squares: Tensor, // (1, N), |x_i|^2
    dims: Vec<usize>,
}

impl Empirical {
    /// The empirical distribution of the rows of `data`, shape `(N, ..)`.
    ///
    /// # Errors
    /// No rows.
    pub fn new(data: &Tensor) -> Result<Self> {
        let dims = data.dims().to_vec();
        ensure!(dims.len() >= 2 && dims[0] > 0, "a dataset of shape {dims:?} has no rows");
        let data = data.flatten_from(1)?.to_dtype(DType::F64)?.contiguous()?;
        let squares = data.sqr()?.sum(D::Minus1)?.unsqueeze(0)?;
        Ok(Self { data, squares, dims: dims[1..].to_vec() })
    }

    /// The posterior p(i | x_t) over the rows, shape `(B, N)`, in f64.
    pub fn posterior(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        ensure!(
            x.rank() >= 2 && x.dims()[1..] == self.dims,
            "points of shape {:?} for data of shape (N, {:?})",
            x.dims(),
            self.dims
        );
        let x = x.flatten_from(1)?.to_dtype(DType::F64)?;
        // |x|^2 is the same for every row and cancels in the softmax.
        let product = x.matmul(&self.data.t()?)?; // (B, N)
        let exponent = (product * 2.0)?.broadcast_sub(&self.squares)?;
        let scale: Vec<f64> = t.iter().map(|t| 0.5 / (t * t)).collect();
        let logits = exponent.broadcast_mul(&per_sample(&scale, &exponent)?)?;
        Ok(candle_nn::ops::softmax(&logits, D::Minus1)?)
    }
}

impl Denoiser for Empirical {
    fn denoise(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        let mean = self.posterior(x, t)?.matmul(&self.data)?; // (B, D)
        Ok(mean.reshape(x.dims())?.to_dtype(x.dtype())?)
    }
}
