//! Lemma 1: the score is -E\[(x_t - x_0) / t^2 | x_t\], and what it costs to estimate it from
//! samples: bias and variance of the estimators that training rests on.

use super::slope::{NORMAL, frame};
use super::theorem2::mean_interval;
use super::weighted::weighted_mean;
use crate::bar::Bar;
use crate::bounds::{level, within};
use crate::interrupt::{Purpose, check_interrupt};
use crate::process::{Empirical, GaussianMixture};
use crate::rng::Key;
use crate::seam::Denoiser;
use crate::{Result, ensure};
use candle_core::{DType, Device, Tensor};
use polars::prelude::{Column, DataFrame, NamedFrom, Series};
use rayon::prelude::*;

/// The most numbers that are drawn together, of 8 bytes each.
const MOST: usize = 100_000_000;
/// Samples whose exact score is computed together.
const TOGETHER: usize = 2048;

/// Where data come from, with the exact denoiser of their distribution.
///
/// ```
/// use consistency::prelude::*;
/// let data = Tensor::new(&[[-1.0f64], [1.0]], &Device::Cpu)?; // (2, 1)
/// let table = theory::score_errors(&Source::rows(&data)?, &[1.0], &[8], 1000, &Key::new(0))?;
/// // The exact score, the datum itself, the mean over a batch that contains it.
/// let variance = column(&table, "variance")?;
/// assert!(variance[0] == 0.0 && variance[2] < variance[1]);
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Debug)]
pub enum Source {
    /// A mixture.
    Mixture(GaussianMixture),
    /// The empirical distribution of the rows of a dataset: [`Source::rows`].
    Rows {
        /// The rows, (N, ..).
        data: Tensor,
        /// Their exact denoiser.
        exact: Empirical,
    },
}

impl Source {
    /// The empirical distribution of the rows of `data`, (N, ..).
    ///
    /// # Errors
    /// No rows, or one that is not finite.
    pub fn rows(data: &Tensor) -> Result<Self> {
        Ok(Self::Rows { data: data.clone(), exact: Empirical::new(data)? })
    }

    // The numbers of one point.
    fn dim(&self) -> usize {
        match self {
            Self::Mixture(mixture) => mixture.dim(),
            Self::Rows { data, .. } => data.dims()[1..].iter().product(),
        }
    }

    fn denoiser(&self) -> &dyn Denoiser {
        match self {
            Self::Mixture(mixture) => mixture,
            Self::Rows { exact, .. } => exact,
        }
    }

    // The draws 0..count under `key`, row after row of D numbers, and the shape of one.
    fn draw(&self, count: usize, key: &Key) -> Result<(Vec<f64>, Vec<usize>)> {
        let x0 = match self {
            Self::Mixture(mixture) => mixture.sample(count, key, DType::F64, &Device::Cpu)?,
            Self::Rows { data, .. } => {
                let rows = key.integers(0..count as u64, 0..data.dims()[0])?;
                let rows: Vec<u32> = rows.into_iter().map(|row| row as u32).collect();
                data.index_select(&Tensor::new(rows, data.device())?, 0)?.to_dtype(DType::F64)?
            }
        };
        Ok((x0.flatten_all()?.to_vec1()?, x0.dims()[1..].to_vec()))
    }
}

/// Bias, the half width of its 95 % interval, and variance, each per dimension.
#[derive(Clone, Copy, Default)]
struct Summary {
    bias: f64,
    interval: f64,
    variance: f64,
}

/// The errors of an estimator, estimate minus exact score.
struct Errors {
    dim: usize,
    rows: Vec<f64>, // (samples, dim)
}

impl Errors {
    // The bias is |mean| / sqrt(D), the variance the mean square about the mean.
    fn summary(&self) -> Summary {
        let count = (self.rows.len() / self.dim) as f64;
        let mut mean = vec![0.0; self.dim];
        for row in self.rows.chunks(self.dim) {
            mean.iter_mut().zip(row).for_each(|(mean, e)| *mean += e / count);
        }
        let mut spread = vec![0.0; self.dim];
        for row in self.rows.chunks(self.dim) {
            for d in 0..self.dim {
                spread[d] += (row[d] - mean[d]).powi(2) / (count - 1.0);
            }
        }
        let dim = self.dim as f64;
        let bias = (mean.iter().map(|m| m * m).sum::<f64>() / dim).sqrt();
        let variance = spread.iter().sum::<f64>() / dim;
        // |mean - bias|^2 is a sum of squares: its quantile by Satterthwaite's degrees of
        // freedom and Wilson and Hilferty's cube; exact in one dimension.
        let squares: f64 = spread.iter().map(|s| s * s).sum();
        let freedom = if squares > 0.0 { (variance * dim).powi(2) / squares } else { 1.0 };
        let quantile = if freedom <= 1.0 {
            NORMAL * NORMAL
        } else {
            let part = 2.0 / (9.0 * freedom);
            freedom * (1.0 - part + 1.644_854 * part.sqrt()).powi(3)
        };
        Summary { bias, interval: (variance / count * quantile / freedom).sqrt(), variance }
    }
}

/// Bias and variance of score estimators at x_t = x_0 + t z drawn from p_t, `samples` of them
/// at each of `times`: columns `time`, `estimator`, `batch` (data that one estimate uses),
/// `bias`, `bias_ci` and `variance`.
///
/// The estimators, each an estimate of the denoiser D in (D - x) / t^2:
/// `exact`, that of the distribution (no data: batch 0); `single`, the datum x_0 itself, whose
/// mean given x_t is the score by Lemma 1 and which training learns from; `minibatch`, the
/// self-normalised mean over a batch of independent data that contains x_0.
///
/// That the batch contains x_0 makes its estimate the mean of `single` given x_t and the
/// batch: it has no bias at any batch size, and less variance (Rao and Blackwell).
///
/// An error is the estimate less the exact score. `bias` is the norm of the mean error over
/// sqrt(D), `bias_ci` the half width of its 95 % interval; `variance` is the mean square of the
/// error about its mean, per dimension.
///
/// # Errors
/// Fewer than two samples, a batch of none, or more of either than 1e8 numbers; a noise level
/// that is not between 1e-6 and 1e6.
pub fn score_errors(
    source: &Source,
    times: &[f64],
    batches: &[usize],
    samples: usize,
    key: &Key,
) -> Result<DataFrame> {
    let most = MOST / source.dim().max(1);
    within("samples", samples, 2..=most)?;
    batches.iter().try_for_each(|batch| within("batch", *batch, 1..=most))?;
    times.iter().try_for_each(|t| level("time", *t))?;
    let mut rows: Vec<(f64, &str, usize, Summary)> = Vec::new();
    let each: u64 = 1 + batches.iter().map(|batch| *batch as u64).sum::<u64>();
    let mut bar = Bar::new("data", samples as u64 * times.len() as u64 * each);
    for &t in times {
        rows.push((t, "exact", 0, Summary::default()));
        rows.push((t, "single", 1, errors(source, t, 1, samples, key)?.summary()));
        bar.add(samples as u64)?;
        for &batch in batches {
            rows.push((t, "minibatch", batch, errors(source, t, batch, samples, key)?.summary()));
            bar.add((samples * batch) as u64)?;
        }
    }
    frame(vec![
        Column::new("time".into(), rows.iter().map(|r| r.0).collect::<Vec<_>>()),
        Series::new("estimator".into(), rows.iter().map(|r| r.1).collect::<Vec<_>>()).into(),
        Series::new("batch".into(), rows.iter().map(|r| r.2 as u32).collect::<Vec<_>>()).into(),
        Column::new("bias".into(), rows.iter().map(|r| r.3.bias).collect::<Vec<_>>()),
        Column::new("bias_ci".into(), rows.iter().map(|r| r.3.interval).collect::<Vec<_>>()),
        Column::new("variance".into(), rows.iter().map(|r| r.3.variance).collect::<Vec<_>>()),
    ])
}

// The errors of the estimate from batches of `batch` that contain the datum; with 1 it is
// the datum alone.
fn errors(source: &Source, t: f64, batch: usize, samples: usize, key: &Key) -> Result<Errors> {
    let (x0, shape) = source.draw(samples, &key.stream("data"))?;
    let dim: usize = shape.iter().product();
    let z = key.stream("noise").normal(0..samples as u64, &shape, DType::F64, &Device::Cpu)?;
    let z = z.flatten_all()?.to_vec1::<f64>()?;
    let x: Vec<f64> = x0.iter().zip(&z).map(|(x0, z)| x0 + t * z).collect();
    let exact = exact_denoiser(source, &x, &shape, t)?;
    let others = key.stream("batch");
    let mut rows = vec![0.0; samples * dim];
    let purpose = Purpose::here();
    rows.par_chunks_mut(dim).enumerate().try_for_each(|(i, row)| -> Result<()> {
        purpose.run(check_interrupt)?;
        let own = &x0[i * dim..][..dim];
        let estimate = if batch == 1 {
            own.to_vec()
        } else {
            let (mut data, _) = source.draw(batch - 1, &others.step(i as u64))?;
            data.extend_from_slice(own);
            weighted_mean(&x[i * dim..][..dim], t, &data)
        };
        for d in 0..dim {
            row[d] = (estimate[d] - exact[i * dim + d]) / (t * t);
        }
        Ok(())
    })?;
    Ok(Errors { dim, rows })
}

fn exact_denoiser(source: &Source, x: &[f64], shape: &[usize], t: f64) -> Result<Vec<f64>> {
    let dim: usize = shape.iter().product();
    let mut exact = Vec::with_capacity(x.len());
    for part in x.chunks(TOGETHER * dim) {
        let mut dims = vec![part.len() / dim];
        dims.extend_from_slice(shape);
        let points = Tensor::from_slice(part, dims, &Device::Cpu)?;
        exact.extend(source.denoiser().denoise(&points, &[t])?.flatten_all()?.to_vec1::<f64>()?);
    }
    Ok(exact)
}

/// The same at one given point x, (D): batches drawn anew `samples` times, none of which need
/// contain the datum that x came from. Columns `batch`, `bias`, `bias_ci`, `variance`.
///
/// Without the generating datum the self-normalised mean is a ratio of two averages: its
/// bias and its variance both fall as 1 / batch.
///
/// # Errors
/// As [`score_errors`], or a point of another dimension.
pub fn score_errors_at(
    source: &Source,
    x: &[f64],
    t: f64,
    batches: &[usize],
    samples: usize,
    key: &Key,
) -> Result<DataFrame> {
    let most = MOST / x.len().max(1);
    within("samples", samples, 2..=most)?;
    batches.iter().try_for_each(|batch| within("batch", *batch, 1..=most))?;
    level("t", t)?;
    let (_, shape) = source.draw(1, key)?;
    let exact = exact_denoiser(source, x, &shape, t)?;
    let mut rows = Vec::with_capacity(batches.len());
    let mut bar = Bar::new("data", batches.iter().map(|batch| (batch * samples) as u64).sum());
    for &batch in batches {
        let mut errors = vec![0.0; samples * x.len()];
        let purpose = Purpose::here();
        errors.par_chunks_mut(x.len()).enumerate().try_for_each(|(i, row)| -> Result<()> {
            purpose.run(check_interrupt)?;
            let (data, _) = source.draw(batch, &key.stream("batch").step(i as u64))?;
            let estimate = weighted_mean(x, t, &data);
            for d in 0..x.len() {
                row[d] = (estimate[d] - exact[d]) / (t * t);
            }
            Ok(())
        })?;
        rows.push((batch as u32, Errors { dim: x.len(), rows: errors }.summary()));
        bar.add((batch * samples) as u64)?;
    }
    frame(vec![
        Series::new("batch".into(), rows.iter().map(|r| r.0).collect::<Vec<_>>()).into(),
        Column::new("bias".into(), rows.iter().map(|r| r.1.bias).collect::<Vec<_>>()),
        Column::new("bias_ci".into(), rows.iter().map(|r| r.1.interval).collect::<Vec<_>>()),
        Column::new("variance".into(), rows.iter().map(|r| r.1.variance).collect::<Vec<_>>()),
    ])
}

/// Lemma 1 seen directly, for data on a line: (x_0, z) drawn, and -(x_t - x_0) / t^2 averaged
/// over those whose x_t falls between two neighbours of `edges`, beside the exact score
/// averaged over the same x_t. Columns `x` (the mean of x_t), `mean` and `ci` (of the
/// difference, the half width of the 95 % interval), `exact`, `count`; bins of fewer than
/// ten samples are left out.
///
/// # Errors
/// A mixture in more than one dimension, or fewer than two edges.
pub fn binned_score(
    mixture: &GaussianMixture,
    t: f64,
    edges: &[f64],
    samples: usize,
    key: &Key,
) -> Result<DataFrame> {
    ensure!(mixture.dim() == 1, "bins are for data on a line, not in {} dimensions", mixture.dim());
    ensure!(edges.len() >= 2, "{} edges: bins need two or more", edges.len());
    let source = Source::Mixture(mixture.clone());
    let (x0, _) = source.draw(samples, &key.stream("data"))?;
    let z = key.stream("noise").normals(0..samples as u64);
    let x: Vec<f64> = x0.iter().zip(&z).map(|(x0, z)| x0 + t * z).collect();
    let exact = exact_denoiser(&source, &x, &[1], t)?;
    let (mut at, mut mean, mut ci, mut score, mut count) = (vec![], vec![], vec![], vec![], vec![]);
    for bin in edges.windows(2) {
        let inside: Vec<usize> =
            (0..samples).filter(|i| (bin[0]..bin[1]).contains(&x[*i])).collect();
        if inside.len() < 10 {
            continue;
        }
        let average = |f: &dyn Fn(usize) -> f64| {
            mean_interval(&inside.iter().map(|i| f(*i)).collect::<Vec<_>>())
        };
        let square = t * t;
        at.push(average(&|i| x[i]).0);
        mean.push(average(&|i| (x0[i] - x[i]) / square).0);
        score.push(average(&|i| (exact[i] - x[i]) / square).0);
        ci.push(average(&|i| (x0[i] - exact[i]) / square).1);
        count.push(inside.len() as u32);
    }
    frame(vec![
        Column::new("x".into(), at),
        Column::new("mean".into(), mean),
        Column::new("ci".into(), ci),
        Column::new("exact".into(), score),
        Series::new("count".into(), count).into(),
    ])
}
