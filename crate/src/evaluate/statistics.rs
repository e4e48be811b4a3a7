//! Means and covariances of features, from any number of batches.

use super::features::Features;
use super::points::Points;
use crate::record::write_tensors;
use crate::{Context, Result, bail, ensure};
use candle_core::{Device, Tensor};
use consistency_linalg::{Mat, MatRef, multiply};
use safetensors::SafeTensors;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_128;

/// The mean and the covariance of a set of features, in f64: batches are added as they come,
/// and parts that were counted separately are merged.
///
/// ```
/// use consistency::prelude::*;
/// let x = Tensor::new(&[[0.0f64, 0.0], [2.0, 4.0]], &Device::Cpu)?; // (2, 2)
/// let whole = Statistics::of(&x)?;
/// assert_eq!((whole.mean(), whole.covariance()?), (&[1.0, 2.0][..], vec![2.0, 4.0, 4.0, 8.0]));
/// let mut parts = Statistics::of(&x.narrow(0, 0, 1)?)?;
/// parts.merge(&Statistics::of(&x.narrow(0, 1, 1)?)?)?;
/// assert_eq!(parts.covariance()?, whole.covariance()?);
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Statistics {
    features: Features,
    count: u64,
    mean: Vec<f64>,
    /// The sum of (x - mean)(x - mean)' over the rows, (D, D).
    scatter: Mat<f64>,
}

impl Statistics {
    /// Statistics of no rows yet; the rows to come are `features` of `dim` numbers.
    ///
    /// # Errors
    /// A `dim` of 0.
    pub fn new(features: Features, dim: usize) -> Result<Self> {
        ensure!(dim > 0, "statistics of rows without a number");
        Ok(Self { features, count: 0, mean: vec![0.0; dim], scatter: Mat::zeros(dim, dim) })
    }

    /// Statistics of the rows of `points`, shape `(N, ..)`, taken as they are:
    /// [`Features::values`].
    ///
    /// # Errors
    /// A value that is not finite.
    pub fn of(points: &Tensor) -> Result<Self> {
        let dim = points.dims().iter().skip(1).product();
        let mut statistics = Self::new(Features::values(), dim)?;
        statistics.add(points)?;
        Ok(statistics)
    }

    /// Add the rows of `points`, shape `(N, ..)`.
    ///
    /// # Errors
    /// Rows of another length, or a value that is not finite, by its place.
    pub fn add(&mut self, points: &Tensor) -> Result<()> {
        let points = Points::new(self.features.name(), points)?;
        let dim = self.mean.len();
        ensure!(points.dim() == dim, "rows of {} numbers for statistics of {dim}", points.dim());
        for (first, count) in points.blocks() {
            let mut rows = points.block(first, count);
            let mut mean = vec![0.0; dim];
            for row in rows.chunks_exact(dim) {
                mean.iter_mut().zip(row).for_each(|(m, x)| *m += x);
            }
            mean.iter_mut().for_each(|m| *m /= count as f64);
            for row in rows.chunks_exact_mut(dim) {
                row.iter_mut().zip(&mean).for_each(|(x, m)| *x -= m);
            }
            let rows = MatRef::from_row_major_slice(&rows, count, dim);
            let scatter = multiply(rows.transpose(), rows);
            self.join(count as u64, &mean, scatter.as_ref());
        }
        Ok(())
    }

    /// Add the rows that `other` has counted.
    ///
    /// # Errors
    /// Another dimension, or other features.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        self.features.must_equal(&other.features)?;
        ensure!(
            self.mean.len() == other.mean.len(),
            "statistics of dimensions {} and {}",
            self.mean.len(),
            other.mean.len()
        );
        self.join(other.count, &other.mean, other.scatter.as_ref());
        Ok(())
    }

    // Chan, Golub and LeVeque (1983): a sum of squares would have few digits left once the mean's
    // square is subtracted.
    fn join(&mut self, count: u64, mean: &[f64], scatter: MatRef<f64>) {
        if count == 0 {
            return;
        }
        let all = (self.count + count) as f64;
        let gap: Vec<f64> = mean.iter().zip(&self.mean).map(|(a, b)| a - b).collect();
        let weight = self.count as f64 * count as f64 / all;
        for (j, right) in gap.iter().enumerate() {
            for (i, left) in gap.iter().enumerate() {
                self.scatter[(i, j)] += scatter[(i, j)] + weight * left * right;
            }
        }
        self.mean.iter_mut().zip(&gap).for_each(|(m, g)| *m += g * (count as f64 / all));
        self.count += count;
    }

    /// What the rows are.
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// How many rows.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their mean, (D).
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// Their covariance, divided by N - 1: (D, D), row by row.
    ///
    /// # Errors
    /// Fewer than two rows.
    pub fn covariance(&self) -> Result<Vec<f64>> {
        // Symmetric, so that its columns are its rows.
        let matrix = self.covariance_matrix()?;
        Ok(matrix
            .col_iter()
            .flat_map(|column| column.iter().copied().collect::<Vec<_>>())
            .collect())
    }

    /// Their total variance, the trace of the covariance: the mean square distance from the mean.
    ///
    /// # Errors
    /// As [`Statistics::covariance`].
    pub fn variance(&self) -> Result<f64> {
        let dim = self.mean.len();
        Ok(self.covariance()?.iter().step_by(dim + 1).sum())
    }

    pub(super) fn covariance_matrix(&self) -> Result<Mat<f64>> {
        ensure!(self.count >= 2, "a covariance needs 2 points or more, got {}", self.count);
        let factor = 1.0 / (self.count - 1) as f64;
        let dim = self.mean.len();
        Ok(Mat::from_fn(dim, dim, |i, j| {
            0.5 * (self.scatter[(i, j)] + self.scatter[(j, i)]) * factor
        }))
    }

    /// Write to a safetensors file: `mean` and `covariance` in f64, and in its header the
    /// count and what the features are.
    ///
    /// # Errors
    /// Fewer than two rows, or a file that cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        self.write(path, "")
    }

    fn write(&self, path: &Path, key: &str) -> Result<()> {
        let dim = self.mean.len();
        let tensors = BTreeMap::from([
            ("mean".to_string(), Tensor::from_slice(&self.mean, dim, &Device::Cpu)?),
            (
                "covariance".to_string(),
                Tensor::from_vec(self.covariance()?, (dim, dim), &Device::Cpu)?,
            ),
        ]);
        let count = self.count.to_string();
        let header = [("count", &*count), ("features", self.features.name()), ("key", key)];
        write_tensors(path, &tensors, &header)
    }

    /// Read what [`Statistics::save`] wrote.
    ///
    /// # Errors
    /// A file that is not of this kind, by its path.
    pub fn load(path: &Path) -> Result<Self> {
        Ok(Self::read(path).with_context(|| format!("statistics {}", path.display()))?.0)
    }

    fn read(path: &Path) -> Result<(Self, String)> {
        let bytes = std::fs::read(path)?;
        let (_, header) = SafeTensors::read_metadata(&bytes)?;
        let said = header.metadata().clone().unwrap_or_default();
        let of = |name: &str| match said.get(name) {
            Some(value) => Ok(value.clone()),
            None => bail!("its header has no {name:?}: not a file of Statistics::save"),
        };
        let Ok(count) = of("count")?.parse::<u64>() else {
            bail!("its count is {:?}, not a number", of("count")?);
        };
        ensure!(count >= 2, "its count is {count}");
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)?;
        let (Some(mean), Some(covariance)) = (tensors.get("mean"), tensors.get("covariance"))
        else {
            bail!("it needs the tensors mean and covariance");
        };
        let dim = mean.dims1()?;
        ensure!(
            dim > 0 && covariance.dims() == [dim, dim],
            "a mean of {dim} numbers and a covariance of shape {:?}",
            covariance.dims()
        );
        let points = Points::new("covariance", covariance)?;
        let mean = Points::new("mean", &mean.unsqueeze(0)?)?.row(0);
        let rows = points.block(0, dim);
        let scatter = Mat::from_fn(dim, dim, |i, j| rows[i * dim + j] * (count - 1) as f64);
        let features = Features::stored(&of("features")?);
        Ok((Self { features, count, mean, scatter }, of("key")?))
    }

    /// The statistics of a set that never changes, kept in `folder` under a name made from `key`:
    /// read from the file if it is there, else what `compute` gives. The key says everything that
    /// the numbers depend on: the dataset's revision, the split, the features' weights.
    ///
    /// # Errors
    /// A file that is there and cannot be read, or belongs to another key; those of `compute`.
    pub fn kept(folder: &Path, key: &str, compute: impl FnOnce() -> Result<Self>) -> Result<Self> {
        let path = Self::place(folder, key);
        if path.exists() {
            let (statistics, found) = Self::read(&path)
                .with_context(|| format!("statistics {}; remove the file", path.display()))?;
            ensure!(
                found == key,
                "{} holds the statistics of {found:?}, not of {key:?}; remove the file",
                path.display()
            );
            return Ok(statistics);
        }
        let statistics = compute()?;
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        statistics.write(&path, key)?;
        Ok(statistics)
    }

    fn place(folder: &Path, key: &str) -> PathBuf {
        folder.join(format!("{:032x}.safetensors", xxh3_128(key.as_bytes())))
    }
}
