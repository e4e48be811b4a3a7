//! The rows of a set of features: checked once, read in f64 a block at a time.

use crate::{Result, bail, ensure};
use candle_core::{DType, Device, Tensor};
use consistency_linalg::{Mat, MatRef, multiply};
use rayon::prelude::*;

/// Rows of one block of a matrix of pairs: 32 MB of products, whatever the sets' sizes.
pub(super) const BLOCK: usize = 2048;

enum Values {
    F32(Vec<f32>),
    F64(Vec<f64>),
}

/// A set of points, shape (N, D), all finite.
pub(super) struct Points {
    values: Values,
    rows: usize,
    dim: usize,
}

impl Points {
    /// The rows of `tensor`, shape (N, ..); `what` names them in a message.
    pub fn new(what: &str, tensor: &Tensor) -> Result<Self> {
        ensure!(tensor.rank() >= 2, "{what} of shape {:?}: give (N, ..)", tensor.dims());
        let flat = tensor.flatten_from(1)?.to_device(&Device::Cpu)?;
        let (rows, dim) = flat.dims2()?;
        let flat = flat.flatten_all()?;
        let values = match flat.dtype() {
            DType::F64 => Values::F64(flat.to_vec1()?),
            _ => Values::F32(flat.to_dtype(DType::F32)?.to_vec1()?),
        };
        let bad = match &values {
            Values::F32(values) => values.par_iter().position_first(|v| !v.is_finite()),
            Values::F64(values) => values.par_iter().position_first(|v| !v.is_finite()),
        };
        let points = Self { values, rows, dim };
        if let Some(at) = bad {
            let (row, column) = (at / dim, at % dim);
            bail!("{what}: number {column} of row {row} is {}", points.row(row)[column]);
        }
        Ok(points)
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn dim(&self) -> usize {
        self.dim
    }

    /// One row.
    pub fn row(&self, row: usize) -> Vec<f64> {
        self.block(row, 1)
    }

    /// `count` rows from `first`, one after another.
    pub fn block(&self, first: usize, count: usize) -> Vec<f64> {
        let range = first * self.dim..(first + count) * self.dim;
        match &self.values {
            Values::F32(values) => values[range].iter().map(|v| f64::from(*v)).collect(),
            Values::F64(values) => values[range].to_vec(),
        }
    }

    /// The first row and the number of rows of each block.
    pub fn blocks(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let rows = self.rows;
        (0..rows).step_by(BLOCK).map(move |first| (first, BLOCK.min(rows - first)))
    }
}

/// The inner products of the rows of `a` and of `b`: entry (i, j) of a matrix whose columns, one
/// for each row of `b`, are contiguous.
pub(super) fn products(a: &[f64], b: &[f64], dim: usize) -> Mat<f64> {
    let (rows, columns) = (a.len() / dim.max(1), b.len() / dim.max(1));
    let a = MatRef::from_row_major_slice(a, rows, dim);
    let b = MatRef::from_row_major_slice(b, columns, dim);
    multiply(a, b.transpose())
}

/// Two sets of one dimension.
pub(super) fn pair(what: &str, a: &Tensor, b: &Tensor) -> Result<(Points, Points)> {
    let (a, b) = (Points::new(what, a)?, Points::new(what, b)?);
    ensure!(a.dim == b.dim, "{what} of {} and of {} numbers a row", a.dim, b.dim);
    Ok((a, b))
}
