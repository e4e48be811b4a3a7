//! Orders of convergence: slopes of log error on log step, local and global.

use crate::{Result, ensure};
use polars::prelude::{Column, DataFrame};

/// The slope of a straight line through logarithms, with its 95 % interval.
///
/// ```
/// use consistency::theory::slope;
/// let found = slope(&[1.0, 2.0, 4.0], &[3.0, 12.0, 48.0])?; // y = 3 x^2
/// assert!((found.value - 2.0).abs() < 1e-12 && found.half_width < 1e-9);
/// assert_eq!(found.to_string(), "2.0000 +- 0.0000");
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slope {
    /// The slope.
    pub value: f64,
    /// Half the width of its 95 % interval: Student's, from the scatter about the line. Where the
    /// errors are computed and not sampled, it says how straight the line is.
    pub half_width: f64,
}

impl std::fmt::Display for Slope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // As many digits as the interval has.
        let digits = (1.0 - self.half_width.max(1e-9).log10()).floor().clamp(2.0, 4.0) as usize;
        // No minus sign on a zero.
        let rounded = format!("{:.digits$}", self.value);
        let zero = rounded.trim_start_matches('-').chars().all(|c| c == '0' || c == '.');
        let value = if zero { 0.0 } else { self.value };
        write!(f, "{value:.digits$} +- {:.digits$}", self.half_width)
    }
}

/// The least-squares slope of ln |y| on ln |x|.
///
/// # Errors
/// Fewer than three points, or values without a logarithm.
pub fn slope(x: &[f64], y: &[f64]) -> Result<Slope> {
    ensure!(
        x.len() == y.len() && x.len() >= 3,
        "a slope through {} abscissas and {} values: give three or more of each",
        x.len(),
        y.len()
    );
    let log = |values: &[f64]| -> Result<Vec<f64>> {
        let logs: Vec<f64> = values.iter().map(|v| v.abs().ln()).collect();
        ensure!(logs.iter().all(|l| l.is_finite()), "no logarithm of one of {values:?}");
        Ok(logs)
    };
    let (x, y) = (log(x)?, log(y)?);
    let count = x.len() as f64;
    let (mean_x, mean_y) = (x.iter().sum::<f64>() / count, y.iter().sum::<f64>() / count);
    let spread: f64 = x.iter().map(|x| (x - mean_x).powi(2)).sum();
    ensure!(spread > 0.0, "a slope over one abscissa alone");
    let value = x.iter().zip(&y).map(|(x, y)| (x - mean_x) * (y - mean_y)).sum::<f64>() / spread;
    let left: f64 =
        x.iter().zip(&y).map(|(x, y)| (y - mean_y - value * (x - mean_x)).powi(2)).sum();
    let error = (left / (count - 2.0) / spread).sqrt();
    Ok(Slope { value, half_width: student(x.len() - 2) * error })
}

/// The slope between each point and the one before, none for the first and where one of the
/// values is 0:
/// ln |y_i / y_{i-1}| / ln |x_i / x_{i-1}|.
pub fn local_slopes(x: &[f64], y: &[f64]) -> Vec<Option<f64>> {
    let between = |i: usize| (y[i] / y[i - 1]).abs().ln() / (x[i] / x[i - 1]).abs().ln();
    (0..x.len().min(y.len()))
        .map(|i| (i > 0).then(|| between(i)).filter(|s| s.is_finite()))
        .collect()
}

/// The two-sided 95 % quantile of Student's t.
pub(super) fn student(freedom: usize) -> f64 {
    const FEW: [f64; 6] = [12.706_205, 4.302_653, 3.182_446, 2.776_445, 2.570_582, 2.446_912];
    if (1..=FEW.len()).contains(&freedom) {
        return FEW[freedom - 1];
    }
    // Cornish and Fisher's expansion about the normal quantile: to 1e-3 from 7 on.
    let (z, n) = (NORMAL, freedom.max(1) as f64);
    z + (z.powi(3) + z) / (4.0 * n)
        + (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * n * n)
        + (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / (384.0 * n.powi(3))
}

/// The two-sided 95 % quantile of the normal distribution.
pub(super) const NORMAL: f64 = 1.959_964;

/// A frame of these columns, all of one length.
pub(super) fn frame(columns: Vec<Column>) -> Result<DataFrame> {
    let rows = columns.first().map_or(0, Column::len);
    Ok(DataFrame::new(rows, columns)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_law_has_its_exponent() -> Result<()> {
        let x: Vec<f64> = (1..6).map(|i| 0.5f64.powi(i)).collect();
        let y: Vec<f64> = x.iter().map(|x| -3.0 * x.powi(2)).collect();
        let found = slope(&x, &y)?;
        assert!((found.value - 2.0).abs() < 1e-12 && found.half_width < 1e-10, "{found}");
        assert!(local_slopes(&x, &y).iter().skip(1).flatten().all(|s| (s - 2.0).abs() < 1e-12));
        assert_eq!(local_slopes(&x, &y)[0], None);
        assert_eq!(local_slopes(&x, &[0.0; 5]), [None; 5]);
        Ok(())
    }

    #[test]
    fn quantiles_of_student() {
        // From the tables.
        for (freedom, want) in [(1, 12.706), (4, 2.776), (5, 2.571), (10, 2.228), (30, 2.042)] {
            assert!((student(freedom) - want).abs() < 2e-3, "{freedom}: {}", student(freedom));
        }
    }
}
