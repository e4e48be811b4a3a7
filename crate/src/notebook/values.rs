//! Tensors as plain numbers, for figures and checks.

use crate::{Result, ensure};
use candle_core::{DType, Tensor};
use polars::prelude::DataFrame;

/// All values of a tensor in order, as f64.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use consistency::notebook::values;
/// let x = Tensor::new(&[[1.0f32, 0.5], [0.25, 2.0]], &Device::Cpu)?; // (2, 2)
/// assert_eq!(values(&x)?, [1.0, 0.5, 0.25, 2.0]);
/// # Ok::<(), consistency::Error>(())
/// ```
pub fn values(x: &Tensor) -> Result<Vec<f64>> {
    Ok(x.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?)
}

/// The column `name` of a frame as f64, for figures and checks; what is missing is NaN.
///
/// # Errors
/// No such column, or one that holds no numbers.
pub fn column(frame: &DataFrame, name: &str) -> Result<Vec<f64>> {
    let column = frame.column(name)?.cast(&polars::prelude::DataType::Float64)?;
    Ok(column.f64()?.iter().map(|v| v.unwrap_or(f64::NAN)).collect())
}

/// The states of samples on a line, (N, 1) each, at these times: one path (times, heights) per
/// sample, for [`crate::plot::Figure::lines`].
///
/// # Errors
/// A number of states that differs from the number of times.
pub fn paths(times: &[f64], states: &[Tensor]) -> Result<Vec<(Vec<f64>, Vec<f64>)>> {
    ensure!(
        times.len() == states.len(),
        "{} states at {} times: give as many",
        states.len(),
        times.len()
    );
    let columns = states.iter().map(values).collect::<Result<Vec<_>>>()?;
    let samples = columns.first().map_or(0, Vec::len);
    Ok((0..samples).map(|i| (times.to_vec(), columns.iter().map(|c| c[i]).collect())).collect())
}

/// The mean of the squares of all values.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use consistency::notebook::mean_square;
/// assert_eq!(mean_square(&Tensor::new(&[3.0f32, 4.0], &Device::Cpu)?)?, 12.5);
/// # Ok::<(), consistency::Error>(())
/// ```
pub fn mean_square(x: &Tensor) -> Result<f64> {
    let all = values(x)?;
    Ok(all.iter().map(|v| v * v).sum::<f64>() / all.len().max(1) as f64)
}
