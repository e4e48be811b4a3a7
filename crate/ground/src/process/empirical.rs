//! The exact denoiser of a finite dataset (Lemma 1 with p_data the empirical
//! distribution): a softmax over the data.

use super::rows::Rows;
use crate::interrupt::check_interrupt;
use crate::seam::{Denoiser, per_sample};
use crate::{Result, bail, ensure};
use candle_core::{D, DType, Device, Storage, Tensor};

/// The denoiser whose p_data puts equal mass on each row of a dataset.
///
/// D(x, t) = sum_i p_i x_i with p_i proportional to exp(-|x - x_i|^2 / (2 t^2)).
///
/// Everything is computed in f64: at t = 0.002 the exponent divides a squared distance by 8e-6,
/// which f32 cannot resolve. (In f64 the exponents are exact to about 1e-16 |x|^2 / t^2, 1e-8 for
/// an image of 784 pixels at that t.) Results have the dtype and the device of `x`; the work is
/// done on the CPU, on the threads of the rayon pool that the call is made in.
///
/// [`Denoiser::denoise`] and [`log_density`](Self::log_density) go over the rows in chunks and
/// never hold a (B, N) matrix: beside the data, 376 MB in f64 for 60 000 rows of 784, they need a
/// few MB per thread. A result is the same to the bit for any number of threads, and whatever else
/// is in the batch. It carries no gradient to `x`, and an `x` for which a gradient is tracked is
/// refused. A sample with a NaN or an infinity in it gives NaN; the other samples are not affected.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use consistency::process::Empirical;
/// use consistency::seam::Denoiser;
/// // Two points of data, -1 and 1: D(x, t) = tanh(x / t^2).
/// let data = Empirical::new(&Tensor::new(&[[-1.0f64], [1.0]], &Device::Cpu)?)?;
/// let x = Tensor::new(&[[2.0f64]], &Device::Cpu)?; // (1, 1)
/// let x0 = data.denoise(&x, &[2.0])?.to_vec2::<f64>()?;
/// assert!((x0[0][0] - 0.5f64.tanh()).abs() < 1e-12);
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Empirical {
    data: Tensor,    // (N, D), f64, contiguous, on the CPU
    squares: Tensor, // (N), |x_i|^2
    dims: Vec<usize>,
}

impl Empirical {
    /// The empirical distribution of the rows of `data`, shape `(N, ..)`.
    ///
    /// # Errors
    /// No rows, or a row whose squared length is not finite.
    pub fn new(data: &Tensor) -> Result<Self> {
        let dims = data.dims().to_vec();
        ensure!(
            dims.len() >= 2 && data.elem_count() > 0,
            "a dataset of shape {dims:?} has no rows"
        );
        let data = data.detach().flatten_from(1)?.to_device(&Device::Cpu)?;
        let data = data.to_dtype(DType::F64)?.contiguous()?;
        // Row by row: the squares of all rows would be a second dataset in memory.
        let squared = |row: &[f64]| row.iter().map(|v| v * v).sum::<f64>();
        let squares: Vec<f64> = with_values(&data, |values| {
            values.chunks_exact(values.len() / dims[0]).map(squared).collect()
        })?;
        if let Some(row) = squares.iter().position(|square| !square.is_finite()) {
            bail!("row {row} of the dataset holds a number that is not finite, or too large");
        }
        let squares = Tensor::from_vec(squares, dims[0], &Device::Cpu)?;
        Ok(Self { data, squares, dims: dims[1..].to_vec() })
    }

    /// The posterior p(i | x_t) over the rows, shape `(B, N)`, in f64.
    ///
    /// # Errors
    /// Points that have another shape than the rows or for which a gradient is tracked, or noise
    /// levels that are neither one nor one per sample, or not positive and finite.
    pub fn posterior(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        let (points, scale) = self.question(x, t)?;
        // |x|^2 is the same for every row and cancels in the softmax.
        let product = points.matmul(&self.data.t()?)?; // (B, N)
        let exponent = (product * 2.0)?.broadcast_sub(&self.squares.unsqueeze(0)?)?;
        let logits = exponent.broadcast_mul(&per_sample(&scale, &exponent)?)?;
        Ok(candle_nn::ops::softmax(&logits, D::Minus1)?.to_device(x.device())?)
    }

    /// ln p_t(x) for `x` of shape `(B, ..)`, with p_t = 1/N sum_i N(x_i, t^2 I); the result is
    /// `(B)`, in nats, in the dtype of `x`.
    ///
    /// # Errors
    /// As [`posterior`](Self::posterior).
    pub fn log_density(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        let (points, scale) = self.question(x, t)?;
        let (rows, dim) = self.data.dims2()?;
        let mut values = self.answer(&points, |rows, x| rows.log_sums(x, &scale))?;
        for (value, scale) in values.iter_mut().zip(&scale) {
            // 2 pi t^2 = pi / scale.
            *value -= (rows as f64).ln() + 0.5 * dim as f64 * (std::f64::consts::PI / scale).ln();
        }
        let values = Tensor::from_vec(values, x.dims()[0], &Device::Cpu)?;
        Ok(values.to_dtype(x.dtype())?.to_device(x.device())?)
    }

    /// `x` as (B, D) in f64 on the CPU, and 1 / (2 t^2) for each sample.
    fn question(&self, x: &Tensor, t: &[f64]) -> Result<(Tensor, Vec<f64>)> {
        ensure!(
            x.rank() >= 2 && x.dims()[1..] == self.dims,
            "points of shape {:?} for data of shape (N, {:?})",
            x.dims(),
            self.dims
        );
        ensure!(
            !x.track_op(),
            "the denoiser of a dataset carries no gradient to x: detach x first"
        );
        per_sample(t, x)?; // checks the number of noise levels
        let mut scale: Vec<f64> = t.iter().map(|t| 0.5 / (t * t)).collect();
        if let Some(i) = (0..t.len()).find(|&i| !(t[i] > 0.0 && scale[i].is_finite())) {
            bail!("noise level t = {}: the posterior over data needs t > 0", t[i]);
        }
        if scale.len() == 1 {
            scale = vec![scale[0]; x.dims()[0]];
        }
        let points = x.flatten_from(1)?.to_device(&Device::Cpu)?;
        Ok((points.to_dtype(DType::F64)?.contiguous()?, scale))
    }

    /// The result of `f` for the rows and points (B, D).
    fn answer(&self, points: &Tensor, f: impl Fn(&Rows, &[f64]) -> Vec<f64>) -> Result<Vec<f64>> {
        let dim = self.data.dims()[1];
        with_values(&self.data, |values| {
            with_values(&self.squares, |squares| {
                with_values(points, |points| f(&Rows { values, squares, dim }, points))
            })?
        })?
    }
}

impl Denoiser for Empirical {
    fn denoise(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        check_interrupt()?;
        let (points, scale) = self.question(x, t)?;
        let means = self.answer(&points, |rows, x| rows.means(x, &scale))?;
        let means = Tensor::from_vec(means, x.dims(), &Device::Cpu)?;
        Ok(means.to_dtype(x.dtype())?.to_device(x.device())?)
    }
}

/// Call `f` with the values of a contiguous tensor, f64 and on the CPU.
fn with_values<R>(tensor: &Tensor, f: impl FnOnce(&[f64]) -> R) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(storage), Some((start, end))) => {
            Ok(f(&storage.as_slice::<f64>()?[start..end]))
        }
        _ => bail!("a tensor of shape {:?} is not contiguous, or not on the CPU", tensor.dims()),
    }
}
