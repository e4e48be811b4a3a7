//! Promise: samplers do what their algorithm says, and count what they spend.

use candle_core::{DType, Device, Tensor};
use consistency::Result;
use consistency::evaluate::frechet_distance;
use consistency::process::{FlowMap, GaussianMixture, NoiseRange, Solver};
use consistency::rng::Key;
use consistency::sample;
use consistency::seam::{ConsistencyFunction, Counted};

fn mixture() -> Result<GaussianMixture> {
    GaussianMixture::new(vec![1.0, 1.0], vec![vec![-0.6, 0.0], vec![0.6, 0.3]], vec![0.1, 0.2])
}

fn z(count: usize) -> Result<Tensor> {
    Key::new(0).normal(0..count as u64, &[2], DType::F64, &Device::Cpu)
}

#[test]
fn one_step_is_f_of_t_z() -> Result<()> {
    let range = NoiseRange::default();
    let grid = range.karras(40)?;
    let f = Counted::new(FlowMap::new(mixture()?, Solver::Heun, grid.clone()));
    let one = sample::one_step(&f, &z(5)?, range.t_max)?;
    let whole = sample::pf_ode(&mixture()?, Solver::Heun, &z(5)?, &grid)?;
    assert_eq!(one.to_vec2::<f64>()?, whole.to_vec2::<f64>()?);
    assert_eq!(f.nfe(), 1);
    Ok(())
}

/// Remembers what it is asked and answers a constant.
struct Recorder(std::sync::Mutex<Vec<(Tensor, f64)>>);

impl ConsistencyFunction for Recorder {
    fn origin(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        if let Ok(mut asked) = self.0.lock() {
            asked.push((x.clone(), t[0]));
        }
        Ok((x.ones_like()? * 0.25)?)
    }
}

#[test]
fn multistep_renoises_by_the_root_of_tau_squared_minus_eps_squared() -> Result<()> {
    let (eps, taus) = (0.5, [2.0, 1.0]);
    let f = Recorder(Default::default());
    let count = 50_000;
    let x = sample::multistep(&f, &z(count)?, 80.0, &taus, eps, &Key::new(9))?;
    assert_eq!(x.flatten_all()?.to_vec1::<f64>()?[0], 0.25);
    let Ok(asked) = f.0.lock() else { return Ok(()) };
    assert_eq!(asked.iter().map(|a| a.1).collect::<Vec<_>>(), [80.0, 2.0, 1.0]);
    for ((x, _), tau) in asked[1..].iter().zip(taus) {
        // x_tau = 0.25 + sqrt(tau^2 - eps^2) z: not tau z.
        let std = ((x - 0.25)?.sqr()?.mean_all()?.to_scalar::<f64>()?).sqrt();
        let want = (tau * tau - eps * eps).sqrt();
        assert!((std - want).abs() < 0.01 * want, "tau = {tau}: {std}, not {want}");
    }
    // Fresh noise for each step.
    let (a, b) = ((&asked[1].0 - 0.25)?, (&asked[2].0 - 0.25)?);
    let correlation = (a * b)?.mean_all()?.to_scalar::<f64>()?;
    assert!(correlation.abs() < 0.05, "the noise of two steps is correlated: {correlation}");
    Ok(())
}

#[test]
fn every_sampler_draws_the_data() -> Result<()> {
    let count = 20_000;
    let range = NoiseRange::default();
    let grid = range.karras(60)?;
    let exact = mixture()?.sample(count, &Key::new(1), DType::F64, &Device::Cpu)?;
    let f = FlowMap::new(mixture()?, Solver::Heun, grid.clone());
    let tau = grid.times()[30];
    let key = Key::new(2);
    let samples = [
        ("one step", sample::one_step(&f, &z(count)?, range.t_max)?),
        ("two steps", sample::multistep(&f, &z(count)?, range.t_max, &[tau], range.eps, &key)?),
        ("Heun", sample::pf_ode(&mixture()?, Solver::Heun, &z(count)?, &grid)?),
        ("the reverse SDE", sample::reverse(&mixture()?, &z(count)?, &grid, &key)?),
    ];
    for (what, x) in samples {
        let distance = frechet_distance(&exact, &x)?;
        assert!(distance < 2e-3, "{what}: {distance}");
    }
    Ok(())
}

#[test]
fn noise_levels_out_of_order_are_refused() -> Result<()> {
    let f = Recorder(Default::default());
    for taus in [[0.5, 1.0], [90.0, 1.0], [1.0, 0.001]] {
        let refused = sample::multistep(&f, &z(2)?, 80.0, &taus, 0.002, &Key::new(0));
        let message = refused.err().map(|e| e.to_string()).unwrap_or_default();
        assert!(message.contains("must decrease from below T = 80"), "{message}");
    }
    Ok(())
}
