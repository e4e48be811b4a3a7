//! What stochastic samplers draw: the data in the limit, and the law of their own recursion.

use super::{churn, karras, noise, stochastic};
use candle_core::{DType, Tensor};
use consistency::Result;
use consistency::process::GaussianMixture;
use consistency::rng::Key;
use consistency::sample::{Churn, Sampler};

const MEAN: f64 = 0.3;
const STD: f64 = 0.5;

fn gaussian() -> Result<GaussianMixture> {
    GaussianMixture::new(vec![1.0], vec![vec![MEAN]], vec![STD])
}

/// Mean and variance of samples of shape (N, 1).
fn moments(x: &Tensor) -> Result<(f64, f64)> {
    let mean = x.mean_all()?.to_scalar::<f64>()?;
    Ok((mean, (x - mean)?.sqr()?.mean_all()?.to_scalar::<f64>()?))
}

/// How far mean and variance are from those of a normal law, in standard errors; the larger.
fn standard_errors(x: &Tensor, mean: f64, variance: f64) -> Result<f64> {
    let count = x.elem_count() as f64;
    let (got_mean, got_variance) = moments(x)?;
    let of_mean = (got_mean - mean).abs() / (variance / count).sqrt();
    let of_variance = (got_variance - variance).abs() / (variance * (2.0 / count).sqrt());
    Ok(of_mean.max(of_variance))
}

#[test]
fn stochastic_samplers_draw_the_data() -> Result<()> {
    let (grid, z) = (karras(600)?, noise(8000, 1)?);
    let variance = STD * STD + grid.first() * grid.first();
    for sampler in stochastic() {
        let x = sampler.sample(&gaussian()?, &z, &grid, &Key::new(3))?;
        let off = standard_errors(&x, MEAN, variance)?;
        println!("{sampler:?}: {off:.2} standard errors");
        assert!(off < 4.0, "{sampler:?}: {off} standard errors from the data");
    }
    // Control: too much noise is seen.
    let loud = Churn { s_noise: 1.2, ..churn(40.0) };
    let x = Sampler::Heun { churn: loud }.sample(&gaussian()?, &z, &grid, &Key::new(3))?;
    let off = standard_errors(&x, MEAN, variance)?;
    assert!(off > 8.0, "noise a fifth too loud: {off} standard errors");
    Ok(())
}

#[test]
fn stochastic_samplers_draw_each_mode_as_often_as_it_is() -> Result<()> {
    let weight = 0.3;
    let modes = GaussianMixture::new(
        vec![1.0 - weight, weight],
        vec![vec![-0.6], vec![0.6]],
        vec![0.1, 0.1],
    )?;
    let (grid, count) = (karras(150)?, 8000);
    for sampler in stochastic() {
        let x = sampler.sample(&modes, &noise(count, 1)?, &grid, &Key::new(4))?;
        let right = x.gt(0.0)?.to_dtype(DType::F64)?.mean_all()?.to_scalar::<f64>()?;
        let error = (weight * (1.0 - weight) / count as f64).sqrt();
        assert!((right - weight).abs() < 4.0 * error, "{sampler:?}: {right} in the right mode");
    }
    Ok(())
}

/// For N(m, s^2) each step takes x - m to a (x - m) + sqrt(b) z: the (a, b) of a step from t to
/// t', one of `steps`.
fn linear(sampler: &Sampler, t: f64, next: f64, steps: usize) -> (f64, f64) {
    let (v, v_next) = (STD * STD + t * t, STD * STD + next * next);
    let up = |eta: f64| eta * next * (1.0 - next * next / (t * t)).sqrt();
    match *sampler {
        Sampler::Ddim { eta } => {
            let kept = (next * next - up(eta).powi(2)).sqrt();
            (STD * STD / v + kept * t / v, up(eta).powi(2))
        }
        Sampler::Ancestral => (1.0 + t / v * (next * next / t - t), up(1.0).powi(2)),
        Sampler::PredictorCorrector { snr, .. } => {
            let (variance, step) = (t * t - next * next, 2.0 * (snr * next).powi(2));
            let (a, corrected) = (1.0 - variance / v, 1.0 - step / v_next);
            (a * corrected, variance * corrected * corrected + 2.0 * step)
        }
        Sampler::Euler { churn } | Sampler::Heun { churn } => {
            let inside = t >= churn.s_tmin && t <= churn.s_tmax;
            let most = 2f64.sqrt() - 1.0;
            let gamma = if inside { (churn.s_churn / steps as f64).min(most) } else { 0.0 };
            let hat = t * (1.0 + gamma);
            let slope = hat / (STD * STD + hat * hat);
            let euler = 1.0 + (next - hat) * slope;
            let both = 0.5 * (slope + next / v_next * euler);
            let heun = matches!(sampler, Sampler::Heun { .. });
            let a = if heun { 1.0 + (next - hat) * both } else { euler };
            (a, (a * churn.s_noise).powi(2) * (hat * hat - t * t))
        }
        _ => (f64::NAN, f64::NAN),
    }
}

#[test]
fn on_a_coarse_grid_the_law_is_the_algorithms_own() -> Result<()> {
    // Far from the data's: 20 points leave the ancestral sampler 0.57 of their variance.
    let (grid, z) = (karras(20)?, noise(20_000, 1)?);
    // At its own snr the corrector adds little in 20 steps; at 0.6 a wrong factor is seen.
    let strong = Sampler::PredictorCorrector { snr: 0.6, corrections: 1 };
    for sampler in stochastic().into_iter().chain([strong]) {
        let (mut mean, mut variance) = (-MEAN, grid.last() * grid.last());
        for (t, next) in grid.descending() {
            let (a, b) = linear(&sampler, t, next, 19);
            (mean, variance) = (a * mean, a * a * variance + b);
        }
        let x = sampler.sample(&gaussian()?, &z, &grid, &Key::new(6))?;
        let off = standard_errors(&x, MEAN + mean, variance)?;
        let far = (variance / (STD * STD) - 1.0).abs();
        println!("{sampler:?}: {off:.2} standard errors, {far:.2} from the data's variance");
        assert!(off < 4.0 && far > 0.1, "{sampler:?}: {off} standard errors; {far}");
    }
    Ok(())
}
