//! Promise: a two-time map takes a point of a trajectory to any later one. The exact flow is one,
//! in closed form on a Gaussian; its end at eps is the consistency function.

use candle_core::{DType, Device, Tensor};
use consistency::Result;
use consistency::process::{ExactFlow, GaussianMixture, Solver};
use consistency::rng::Key;
use consistency::seam::{ConsistencyFunction, Denoiser, EndingAt, TwoTimeMap};

const EPS: f64 = 0.002;

fn gap(a: &Tensor, b: &Tensor) -> Result<f64> {
    Ok((a - b)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f64>()?)
}

fn mixture() -> Result<GaussianMixture> {
    let means = vec![vec![-1.0, 0.2], vec![0.4, -0.6], vec![0.9, 1.1]];
    GaussianMixture::new(vec![0.3, 0.3, 0.4], means, vec![0.1, 0.3, 0.2])
}

#[test]
fn on_a_gaussian_it_is_the_closed_form() -> Result<()> {
    let (mean, deviation) = (0.3, 0.5f64);
    let data = GaussianMixture::new(vec![1.0], vec![vec![mean]], vec![deviation])?;
    let flow = ExactFlow::new(data, EPS)?;
    // A pair of noise levels for each sample, also below eps and with nothing between.
    let x = [12.0, -80.0, 0.7, 0.31, 5.0];
    let (t, s) = ([20.0, 80.0, 1.0, 0.1, 3.0], [2.0, 0.002, 0.5, 0.0005, 3.0]);
    let found = flow.map(&Tensor::new(&x, &Device::Cpu)?.reshape((5, 1))?, &t, &s)?;
    for (i, found) in found.flatten_all()?.to_vec1::<f64>()?.into_iter().enumerate() {
        let variance = |level: f64| deviation * deviation + level * level;
        let wanted = mean + (x[i] - mean) * (variance(s[i]) / variance(t[i])).sqrt();
        assert!((found - wanted).abs() < 1e-11 * wanted.abs().max(1.0), "{i}: {found}, {wanted}");
    }
    assert_eq!(found_last(&flow, 5.0)?, 5.0);
    Ok(())
}

// The identity at s = t, to the bit.
fn found_last(flow: &dyn TwoTimeMap, x: f64) -> Result<f64> {
    let found = flow.map(&Tensor::new(&[[x]], &Device::Cpu)?, &[3.0], &[3.0])?;
    Ok(found.flatten_all()?.to_vec1::<f64>()?[0])
}

/// One step of Euler from t to s: a two-time map that is not a flow.
struct Euler<D>(D);

impl<D: Denoiser> TwoTimeMap for Euler<D> {
    fn map(&self, x: &Tensor, t: &[f64], s: &[f64]) -> Result<Tensor> {
        Solver::Euler.step(&self.0, x, t, s)
    }
}

#[test]
fn a_flow_composes_and_ends_at_its_consistency_function() -> Result<()> {
    let x = (Key::new(4).normal(0..6, &[2], DType::F64, &Device::Cpu)? * 80.0)?;
    let composed = |of: &dyn TwoTimeMap| -> Result<f64> {
        let halfway = of.map(&x, &[80.0], &[0.7])?;
        gap(&of.map(&halfway, &[0.7], &[0.05])?, &of.map(&x, &[80.0], &[0.05])?)
    };
    let flow = ExactFlow::new(mixture()?, EPS)?;
    assert!(composed(&flow)? < 1e-10, "{}", composed(&flow)?);
    assert!(composed(&Euler(mixture()?))? > 1e-2, "{}", composed(&Euler(mixture()?))?);

    let origin = flow.origin(&x, &[80.0])?;
    assert_eq!(gap(&EndingAt::new(&flow, EPS).origin(&x, &[80.0])?, &origin)?, 0.0);
    // Its own eps does not matter to the map.
    let other = ExactFlow::new(mixture()?, 0.5)?;
    assert_eq!(gap(&other.map(&x, &[80.0], &[EPS])?, &origin)?, 0.0);
    Ok(())
}

#[test]
fn what_goes_up_or_to_nothing_is_refused() -> Result<()> {
    let (flow, x) = (ExactFlow::new(mixture()?, EPS)?, Tensor::new(&[[1.0, 2.0]], &Device::Cpu)?);
    for (t, s) in [(1.0, 2.0), (1.0, 0.0), (f64::INFINITY, 1.0), (f64::NAN, 1.0), (1.0, f64::NAN)] {
        let error = flow.map(&x, &[t], &[s]).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.contains("needs t >= s > 0"), "{t} to {s}: {error}");
    }
    Ok(())
}
