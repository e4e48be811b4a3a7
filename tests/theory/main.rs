//! Promise: the theorems, measured. Slopes, limits and constants agree with the values computed
//! elsewhere to the digits given, and what must fail fails.

mod jump;
mod lemma1;
mod limits;
mod theorem1;
mod theorem2;

use consistency::polars::prelude::DataFrame;
use consistency::process::{GaussianMixture, NoiseRange};
use consistency::theory::TanhModel;
use consistency::{Error, Result};

/// A column of numbers; those that are missing are NaN.
fn column(frame: &DataFrame, name: &str) -> Result<Vec<f64>> {
    Ok(frame.column(name)?.f64()?.iter().map(|v| v.unwrap_or(f64::NAN)).collect())
}

fn last(values: &[f64]) -> Result<f64> {
    values.last().copied().ok_or_else(|| Error::new("an empty column"))
}

/// The message of what must be refused.
fn message<T>(result: Result<T>) -> String {
    result.map(|_| "it was accepted".to_string()).unwrap_or_else(|error| error.to_string())
}

/// The local slope number `i`; NaN where there is none.
fn local(slopes: &[Option<f64>], i: usize) -> f64 {
    slopes[i].unwrap_or(f64::NAN)
}

/// `got` agrees with `want` to the digits that `want` is given with.
fn agrees(what: &str, got: f64, want: &str) {
    let value: f64 = want.parse().unwrap_or(f64::NAN);
    let (digits, exponent) = want.split_once('e').unwrap_or((want, "0"));
    let places = digits.split_once('.').map_or(0, |(_, after)| after.len() as i32);
    let unit = 10f64.powi(exponent.parse::<i32>().unwrap_or(0) - places);
    assert!((got - value).abs() <= 0.501 * unit, "{what} is {got}, expected {want}");
}

/// The toy of Theorems 2 to 6: three point masses on a line.
fn masses() -> Result<GaussianMixture> {
    GaussianMixture::new(vec![1.0; 3], vec![vec![-0.6], vec![0.1], vec![0.7]], vec![0.0; 3])
}

/// The toy's function.
fn toy() -> TanhModel {
    TanhModel::new([0.8, 0.2, 0.1], &NoiseRange::default())
}
