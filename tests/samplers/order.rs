//! Orders of convergence, against the exact flow.

use super::{deterministic, gap, karras};
use candle_core::{Device, Tensor};
use consistency::Result;
use consistency::process::{ExactFlow, GaussianMixture, NoiseRange, TimeGrid};
use consistency::rng::Key;
use consistency::seam::{ConsistencyFunction, Denoiser};
use consistency::theory::slope;

/// Two overlapping components, so that the flow is not linear and its asymptote is near.
fn line() -> Result<GaussianMixture> {
    GaussianMixture::new(vec![0.4, 0.6], vec![vec![-0.3], vec![0.5]], vec![0.3, 0.4])
}

/// The slope of the largest error at eps against the largest step, over the last of the grids
/// that Theorem 1 is measured on, and the errors.
fn order(sample: &dyn Fn(&Tensor, &TimeGrid) -> Result<Tensor>) -> Result<(f64, Vec<f64>)> {
    let z = Tensor::from_vec((-4..=4).map(|i| f64::from(i) / 2.0).collect(), (9, 1), &Device::Cpu)?;
    let range = NoiseRange::default();
    let exact = ExactFlow::new(line()?, range.eps)?.origin(&(&z * range.t_max)?, &[range.t_max])?;
    let grids = [129, 257, 513].into_iter().map(karras).collect::<Result<Vec<_>>>()?;
    let gaps: Vec<f64> = grids.iter().map(TimeGrid::max_gap).collect();
    let errors =
        grids.iter().map(|grid| gap(&sample(&z, grid)?, &exact)).collect::<Result<Vec<_>>>()?;
    Ok((slope(&gaps, &errors)?.value, errors))
}

#[test]
fn every_deterministic_sampler_has_its_order() -> Result<()> {
    for (sampler, want) in deterministic() {
        let mixture = line()?;
        let (found, errors) = order(&|z, grid| sampler.sample(&mixture, z, grid, &Key::new(0)))?;
        println!("{sampler:?}: order {found:.3}, errors {errors:?}");
        assert!((found - want).abs() < 0.1, "{sampler:?}: order {found}, errors {errors:?}");
    }
    Ok(())
}

#[test]
fn control_a_wrong_sign_costs_dpm_solver_2_its_order() -> Result<()> {
    let mixture = line()?;
    let e = |x: &Tensor, t: f64| -> Result<Tensor> { Ok(((x - mixture.denoise(x, &[t])?)? / t)?) };
    let (found, errors) = order(&|z, grid| {
        let mut x = (z * grid.last())?;
        for (t, t_next) in grid.descending() {
            let s = (t * t_next).sqrt();
            let now = e(&x, t)?;
            let middle = e(&(&x + (&now * (s - t))?)?, s)?;
            // e - (e_s - e) in place of e + (e_s - e).
            x = (x + (((now * 2.0)? - middle)? * (t_next - t))?)?;
        }
        Ok(x)
    })?;
    assert!(found < 1.2 && errors[2] > 1e-3, "order {found}, errors {errors:?}");
    Ok(())
}
