//! The orthogonal transforms of an edit: some of the coefficients are known, the others are free.

use crate::{Result, ensure};
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

/// The weights of red, green and blue in the paper's grey value; they sum to 0.9999.
pub const LUMA: [f64; 3] = [0.2989, 0.5870, 0.1140];

/// An invertible linear map A of images (the paper, algorithm 4), here always orthogonal.
///
/// Of the matrices below the paper fixes one column, q; any orthonormal columns may complete it.
/// Here they are Householder reflections that take (1, 0, .., 0) to q: symmetric, and their own
/// inverse.
///
/// ```
/// use consistency::prelude::*;
/// let image = Tensor::new(&[[1.0f64, 2.0], [3.0, 6.0]], &Device::Cpu)?.reshape((1, 1, 2, 2))?;
/// let coefficients = Operator::Patch(2).apply(&image)?; // (1, 1, 4, 1, 1)
/// assert!((values(&coefficients)?[0] - 2.0 * 3.0).abs() < 1e-12); // p times the mean
/// let back = Operator::Patch(2).invert(&coefficients)?;
/// assert!(mean_square(&(back - image)?)? < 1e-24);
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operator {
    /// A x = x, for any shape.
    Identity,
    /// Across the three channels of `(B, 3, H, W)`: channel 0 of A x is proportional to the
    /// grey value, the two others hold the colour.
    Color,
    /// Within each p x p patch of each channel: `(B, C, H, W)` to `(B, C, p p, H / p, W / p)`.
    /// Coefficient 0 is p times the mean of the patch.
    Patch(usize),
}

impl Operator {
    /// A x.
    ///
    /// # Errors
    /// A shape that the operator does not fit.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        self.check(x.dims())?;
        match *self {
            Self::Identity => Ok(x.clone()),
            Self::Color => self.reflect(x, 1),
            Self::Patch(p) => {
                let (b, c, h, w) = x.dims4()?;
                let cut = x.reshape(&[b, c, h / p, p, w / p, p][..])?;
                let patches = cut.permute([0, 1, 3, 5, 2, 4])?; // (B, C, p, p, H/p, W/p)
                self.reflect(&patches.reshape((b, c, p * p, h / p, w / p))?, 2)
            }
        }
    }

    /// A^-1 y, of the shape that [`Operator::apply`] took.
    ///
    /// # Errors
    /// A shape that [`Operator::apply`] does not give.
    pub fn invert(&self, y: &Tensor) -> Result<Tensor> {
        match *self {
            Self::Identity => Ok(y.clone()),
            Self::Color => {
                self.check(y.dims())?;
                self.reflect(y, 1)
            }
            Self::Patch(p) => {
                let (b, c, coefficients, h, w) = y.dims5()?;
                ensure!(
                    p > 0 && coefficients == p * p,
                    "{coefficients} coefficients a patch: patches of {p} x {p} have {}",
                    p * p
                );
                let cut = self.reflect(y, 2)?.reshape(&[b, c, p, p, h, w][..])?;
                let rows = cut.permute([0, 1, 4, 2, 5, 3])?; // (B, C, H/p, p, W/p, p)
                Ok(rows.reshape((b, c, h * p, w * p))?)
            }
        }
    }

    /// Its matrix Q, row by row: (A x)_k = sum_l x_l Q\[l\]\[k\] over the channels or over the
    /// pixels of a patch; 1 for the identity.
    pub fn matrix(&self) -> Vec<Vec<f64>> {
        let v = self.normal();
        let square: f64 = v.iter().map(|v| v * v).sum();
        let entry = |l: usize, k: usize| {
            let reflected = if square > 0.0 { 2.0 * v[l] * v[k] / square } else { 0.0 };
            f64::from(u8::from(l == k)) - reflected
        };
        (0..v.len()).map(|l| (0..v.len()).map(|k| entry(l, k)).collect()).collect()
    }

    /// The first column q of its matrix, of length 1.
    fn first_column(&self) -> Vec<f64> {
        match *self {
            Self::Identity => vec![1.0],
            Self::Color => {
                let length = LUMA.iter().map(|w| w * w).sum::<f64>().sqrt();
                LUMA.iter().map(|w| w / length).collect()
            }
            Self::Patch(p) => vec![1.0 / p as f64; p * p],
        }
    }

    /// v = q - e_1: Q = 1 - 2 v v^T / |v|^2.
    fn normal(&self) -> Vec<f64> {
        let mut v = self.first_column();
        v[0] -= 1.0;
        v
    }

    /// x - 2 v (v . x) / |v|^2 along the dimension `dim`.
    fn reflect(&self, x: &Tensor, dim: usize) -> Result<Tensor> {
        let v = self.normal();
        let square: f64 = v.iter().map(|v| v * v).sum();
        if square == 0.0 {
            return Ok(x.clone()); // patches of one pixel
        }
        let mut dims = vec![1; x.rank()];
        dims[dim] = v.len();
        let v =
            Tensor::from_vec(v, dims, &Device::Cpu)?.to_dtype(x.dtype())?.to_device(x.device())?;
        let along = (x.broadcast_mul(&v)?.sum_keepdim(dim)? * (2.0 / square))?;
        Ok((x - along.broadcast_mul(&v)?)?)
    }

    fn check(&self, dims: &[usize]) -> Result<()> {
        match *self {
            Self::Identity => {}
            Self::Color => ensure!(
                dims.len() == 4 && dims[1] == 3,
                "colour needs images of 3 channels, (B, 3, H, W), not the shape {dims:?}"
            ),
            Self::Patch(p) => ensure!(
                p > 0 && dims.len() == 4 && dims[2].is_multiple_of(p) && dims[3].is_multiple_of(p),
                "patches of {p} x {p} need images (B, C, H, W) whose height and width they \
                 divide, not the shape {dims:?}"
            ),
        }
        Ok(())
    }
}

/// The grey values of colour images, `(B, 3, H, W)` to `(B, 1, H, W)`: their mean under
/// [`LUMA`], so that (g, g, g) is g.
///
/// # Errors
/// Images of another shape.
pub fn grey(x: &Tensor) -> Result<Tensor> {
    Operator::Color.check(x.dims())?;
    let total: f64 = LUMA.iter().sum();
    let weights: Vec<f64> = LUMA.iter().map(|w| w / total).collect();
    let weights = Tensor::from_vec(weights, (1, 3, 1, 1), &Device::Cpu)?
        .to_dtype(x.dtype())?
        .to_device(x.device())?;
    Ok(x.broadcast_mul(&weights)?.sum_keepdim(1)?)
}
