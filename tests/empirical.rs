//! Promise: the exact denoiser of a dataset is exact, for any number of rows, any batch and any
//! number of threads, and does not swallow a number that is not one.

use candle_core::{DType, Device, Tensor, Var};
use consistency::process::{Empirical, GaussianMixture};
use consistency::rng::Key;
use consistency::seam::Denoiser;
use consistency::{Error, Result};

fn noise(name: &str, shape: &[usize]) -> Result<Tensor> {
    let key = Key::new(5).stream(name);
    key.normal(0..shape[0] as u64, &shape[1..], DType::F64, &Device::Cpu)
}

/// Points near rows, at a noise level each from 0.002 to 80.
fn points(data: &Tensor, count: usize) -> Result<(Tensor, Vec<f64>)> {
    let (rows, dim) = data.dims2()?;
    let t: Vec<f64> =
        (0..count).map(|i| 0.002 * 40_000f64.powf(i as f64 / (count.max(2) - 1) as f64)).collect();
    let near: Vec<u32> = (0..count).map(|i| (i * 7919 % rows) as u32).collect();
    let near = data.index_select(&Tensor::new(near, &Device::Cpu)?, 0)?;
    let level = Tensor::new(t.as_slice(), &Device::Cpu)?.unsqueeze(1)?;
    let x = (near + noise("x", &[count, dim])?.broadcast_mul(&level)?)?;
    Ok((x, t))
}

/// The mean and ln p_t(x) by the definition.
fn direct(data: &[Vec<f64>], x: &[f64], t: f64) -> (Vec<f64>, f64) {
    let distance = |row: &Vec<f64>| row.iter().zip(x).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
    let exponents: Vec<f64> = data.iter().map(|row| -distance(row) / (2.0 * t * t)).collect();
    let most = exponents.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = exponents.iter().map(|e| (e - most).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let mut mean = vec![0.0; x.len()];
    for (row, weight) in data.iter().zip(&weights) {
        mean.iter_mut().zip(row).for_each(|(m, v)| *m += weight / sum * v);
    }
    let normal = 0.5 * x.len() as f64 * (2.0 * std::f64::consts::PI * t * t).ln();
    (mean, most + sum.ln() - (data.len() as f64).ln() - normal)
}

fn message<T>(result: Result<T>) -> String {
    match result {
        Ok(_) => String::from("no error at all"),
        Err(error) => error.to_string(),
    }
}

fn bits(x: &Tensor) -> Result<Vec<u64>> {
    Ok(x.flatten_all()?.to_vec1::<f64>()?.into_iter().map(f64::to_bits).collect())
}

fn equals_direct(data: &Tensor, count: usize) -> Result<()> {
    let (x, t) = points(data, count)?;
    let empirical = Empirical::new(data)?;
    let means = empirical.denoise(&x, &t)?.to_vec2::<f64>()?;
    let densities = empirical.log_density(&x, &t)?.to_vec1::<f64>()?;
    let posterior = empirical.posterior(&x, &t)?;
    assert_eq!(posterior.dims(), [count, data.dims()[0]]);
    let by_posterior = posterior.matmul(data)?.to_vec2::<f64>()?;
    let rows = data.to_vec2::<f64>()?;
    for (i, x) in x.to_vec2::<f64>()?.iter().enumerate() {
        let (mean, density) = direct(&rows, x, t[i]);
        let shape = data.dims();
        for (d, want) in mean.iter().enumerate() {
            let (found, other) = (means[i][d], by_posterior[i][d]);
            assert!((found - want).abs() < 1e-9, "{shape:?}, t = {}: {found}, {want}", t[i]);
            assert!((found - other).abs() < 1e-9, "{shape:?}, t = {}: {found}, {other}", t[i]);
        }
        let error = (densities[i] - density).abs() / density.abs().max(1.0);
        assert!(error < 1e-10, "{shape:?}, t = {}: {} and {density}", t[i], densities[i]);
    }
    Ok(())
}

#[test]
fn it_is_the_definition_at_every_number_of_rows() -> Result<()> {
    // Around chunks of 504 rows and parts of 8064, which are split anew as they grow.
    let rows = [1, 2, 7, 8, 9, 503, 504, 505, 1008, 1009, 8063, 8064, 8065, 9000, 17_000];
    for rows in rows {
        equals_direct(&noise("data", &[rows, 5])?, 9)?;
    }
    for (rows, dim, count) in [(1, 1, 1), (600, 1, 3), (600, 2, 65), (700, 3, 130), (900, 784, 8)] {
        equals_direct(&noise("data", &[rows, dim])?, count)?;
    }
    Ok(())
}

#[test]
fn equal_rows_count_as_often_as_they_are_there() -> Result<()> {
    let data = noise("data", &[300, 4])?;
    let twice = Tensor::cat(&[&data, &data.narrow(0, 0, 250)?, &data.narrow(0, 0, 1)?], 0)?;
    equals_direct(&twice, 12)?;
    equals_direct(&Tensor::ones((1100, 3), DType::F64, &Device::Cpu)?, 5)
}

#[test]
fn the_density_is_that_of_a_mixture_of_point_masses() -> Result<()> {
    let data = noise("data", &[40, 3])?;
    let mixture = GaussianMixture::new(vec![1.0; 40], data.to_vec2::<f64>()?, vec![0.0; 40])?;
    let (x, t) = points(&data, 30)?;
    let want = mixture.log_density(&x, &t)?.to_vec1::<f64>()?;
    let found = Empirical::new(&data)?.log_density(&x, &t)?.to_vec1::<f64>()?;
    for ((found, want), t) in found.iter().zip(&want).zip(&t) {
        assert!((found - want).abs() < 1e-11 * want.abs().max(1.0), "{t}: {found} and {want}");
    }
    Ok(())
}

#[test]
fn a_weight_is_right_to_its_last_digits() -> Result<()> {
    // Two rows, 0 and 1, and t = 1/2: D = e / (1 + e) with e = exp(4 x - 2), exactly.
    let data = Tensor::new(&[[0.0], [1.0]], &Device::Cpu)?;
    let x: Vec<f64> = (0..4000).map(|i| 0.5 - f64::from(i) * 11.0 / 256.0).collect();
    let count = x.len();
    let points = Tensor::from_vec(x.clone(), (count, 1), &Device::Cpu)?;
    let found = Empirical::new(&data)?.denoise(&points, &[0.5])?.flatten_all()?.to_vec1::<f64>()?;
    for (x, found) in x.iter().zip(found) {
        let exponent = 4.0 * x - 2.0;
        // What the documentation of `exponential` says of very small weights.
        let e = if exponent < -708.0 { 0.0 } else { exponent.exp() };
        let want = e / (1.0 + e);
        assert!((found - want).abs() <= 1e-15 * want, "x = {x}: {found} and {want}");
    }
    Ok(())
}

#[test]
fn a_sample_does_not_depend_on_its_batch() -> Result<()> {
    for (rows, dim) in [(1, 3), (505, 1), (505, 2), (1009, 784), (20_000, 8)] {
        let data = noise("data", &[rows, dim])?;
        let empirical = Empirical::new(&data)?;
        let (x, t) = points(&data, 150)?;
        let (mean, density) = (empirical.denoise(&x, &t)?, empirical.log_density(&x, &t)?);
        for (first, count) in [(0, 1), (149, 1), (3, 2), (60, 9), (17, 64), (63, 70), (1, 129)] {
            let (some, t) = (x.narrow(0, first, count)?, &t[first..first + count]);
            let alone = empirical.denoise(&some, t)?;
            assert_eq!(bits(&alone)?, bits(&mean.narrow(0, first, count)?)?, "{rows} x {dim}");
            let alone = empirical.log_density(&some, t)?;
            assert_eq!(bits(&alone)?, bits(&density.narrow(0, first, count)?)?, "{rows} x {dim}");
        }
        // One level for all is that level for each.
        let one = empirical.denoise(&x, &[0.3])?;
        assert_eq!(bits(&one)?, bits(&empirical.denoise(&x, &[0.3; 150])?)?);
    }
    Ok(())
}

#[test]
fn an_answer_does_not_depend_on_the_number_of_threads() -> Result<()> {
    let data = noise("data", &[20_000, 20])?;
    let empirical = Empirical::new(&data)?;
    let (x, t) = points(&data, 100)?;
    let mut found = Vec::new();
    for threads in [1, 2, 5] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = pool.map_err(|e| Error::new(e.to_string()))?;
        found.push(pool.install(|| -> Result<_> {
            let mean = bits(&empirical.denoise(&x, &t)?)?;
            Ok((mean, bits(&empirical.log_density(&x, &t)?)?))
        })?);
    }
    assert!(found[0] == found[1] && found[0] == found[2]);
    Ok(())
}

#[test]
fn what_is_not_a_number_shows() -> Result<()> {
    let data = noise("data", &[1500, 6])?;
    let empirical = Empirical::new(&data)?;
    let (x, t) = points(&data, 70)?;
    let clean = (empirical.denoise(&x, &t)?, empirical.log_density(&x, &t)?);
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let mut values = x.to_vec2::<f64>()?;
        values[41][2] = bad;
        let x = Tensor::new(values, &Device::Cpu)?;
        let (mean, density) = (empirical.denoise(&x, &t)?, empirical.log_density(&x, &t)?);
        assert!(mean.get(41)?.to_vec1::<f64>()?.iter().all(|v| v.is_nan()), "{bad}");
        assert!(density.get(41)?.to_scalar::<f64>()?.is_nan(), "{bad}");
        assert!(empirical.posterior(&x, &t)?.get(41)?.to_vec1::<f64>()?[0].is_nan(), "{bad}");
        // The others have nothing to do with it.
        for (first, count) in [(0, 41), (42, 28)] {
            let same = |a: &Tensor, b: &Tensor| -> Result<bool> {
                Ok(bits(&a.narrow(0, first, count)?)? == bits(&b.narrow(0, first, count)?)?)
            };
            assert!(same(&mean, &clean.0)? && same(&density, &clean.1)?, "{bad}");
        }
        // In the data it is refused, by its row.
        let mut values = data.to_vec2::<f64>()?;
        values[999][5] = bad;
        let message = message(Empirical::new(&Tensor::new(values, &Device::Cpu)?));
        assert!(message.contains("row 999"), "{message}");
    }
    for t in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-200] {
        let message = message(empirical.denoise(&x, &[t]));
        assert!(message.contains("noise level"), "{message}");
        assert!(empirical.log_density(&x, &[t]).is_err() && empirical.posterior(&x, &[t]).is_err());
    }
    assert!(empirical.denoise(&x, &[1.0, 2.0]).is_err());
    assert!(empirical.denoise(&data.narrow(1, 0, 5)?, &[1.0]).is_err());
    assert!(Empirical::new(&Tensor::zeros((3, 0), DType::F64, &Device::Cpu)?).is_err());
    Ok(())
}

#[test]
fn answers_have_the_shape_and_dtype_of_the_question() -> Result<()> {
    let data = noise("data", &[30, 2, 3, 4])?;
    let empirical = Empirical::new(&data.to_dtype(DType::F32)?)?;
    let x = noise("x", &[7, 2, 3, 4])?;
    for dtype in [DType::F32, DType::F64] {
        let x = x.to_dtype(dtype)?;
        let (mean, density) = (empirical.denoise(&x, &[0.7])?, empirical.log_density(&x, &[0.7])?);
        assert_eq!((mean.dims(), mean.dtype()), (&[7, 2, 3, 4][..], dtype));
        assert_eq!((density.dims(), density.dtype()), (&[7][..], dtype));
        assert_eq!(empirical.posterior(&x, &[0.7])?.dtype(), DType::F64);
    }
    // Strides are not the rows' business.
    let turned = x.transpose(2, 3)?.contiguous()?.transpose(2, 3)?;
    assert_eq!(bits(&empirical.denoise(&turned, &[0.7])?)?, bits(&empirical.denoise(&x, &[0.7])?)?);
    let tracked = Var::from_tensor(&x)?;
    assert!(empirical.denoise(tracked.as_tensor(), &[0.7]).is_err(), "a gradient cut in silence");
    let none = empirical.denoise(&x.narrow(0, 0, 0)?, &[0.7])?;
    assert_eq!(none.dims(), [0, 2, 3, 4]);
    Ok(())
}
