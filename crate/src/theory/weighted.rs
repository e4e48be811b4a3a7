//! The denoiser of a minibatch, at one point.

/// D(x, t) of a few data, each weighted by exp(-|x - x_i|^2 / (2 t^2)): the self-normalised
/// estimate, which is the denoiser `Empirical` of those rows (of one row, the single-sample
/// estimate). Computed without tensors, because every point has its own batch. `data` holds rows
/// as long as x.
pub(super) fn weighted_mean(x: &[f64], t: f64, data: &[f64]) -> Vec<f64> {
    let exponent = |row: &[f64]| -> f64 {
        -row.iter().zip(x).map(|(d, x)| (x - d) * (x - d)).sum::<f64>() / (2.0 * t * t)
    };
    let exponents: Vec<f64> = data.chunks(x.len()).map(exponent).collect();
    let top = exponents.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let (mut mean, mut total) = (vec![0.0; x.len()], 0.0);
    for (row, exponent) in data.chunks(x.len()).zip(exponents) {
        let weight = (exponent - top).exp();
        total += weight;
        mean.iter_mut().zip(row).for_each(|(mean, d)| *mean += weight * d);
    }
    mean.iter_mut().for_each(|mean| *mean /= total);
    mean
}

#[cfg(test)]
mod tests {
    use super::weighted_mean;
    use crate::process::Empirical;
    use crate::rng::Key;
    use crate::seam::Denoiser;
    use candle_core::{DType, Device, Tensor};

    #[test]
    fn a_minibatch_is_the_empirical_denoiser_of_its_rows() -> crate::Result<()> {
        for rows in [1, 7] {
            let data = Key::new(rows).normal(0..rows, &[3], DType::F64, &Device::Cpu)?;
            let x = [0.3, -0.8, 1.1];
            let flat = data.flatten_all()?.to_vec1::<f64>()?;
            let at = Tensor::new(&[x], &Device::Cpu)?;
            for t in [0.01, 0.7, 20.0] {
                let exact = Empirical::new(&data)?.denoise(&at, &[t])?.flatten_all()?;
                for (a, b) in exact.to_vec1::<f64>()?.iter().zip(weighted_mean(&x, t, &flat)) {
                    assert!((a - b).abs() < 1e-12, "{rows} rows, t = {t}: {a} and {b}");
                }
            }
        }
        Ok(())
    }
}
