//! Promise: each sampler has the order, the law and the cost that its paper states, and a
//! sample does not depend on the batch it is drawn in.

mod batches;
mod laws;
mod order;
mod search;

use candle_core::{DType, Device, Tensor};
use consistency::Result;
use consistency::process::{GaussianMixture, NoiseRange, Solver, TimeGrid};
use consistency::rng::Key;
use consistency::sample::{Churn, Sampler, pf_ode};
use consistency::seam::{Counted, Denoiser};

fn plane() -> Result<GaussianMixture> {
    GaussianMixture::new(vec![1.0, 1.0], vec![vec![-0.6, 0.0], vec![0.6, 0.3]], vec![0.1, 0.2])
}

fn karras(points: usize) -> Result<TimeGrid> {
    NoiseRange::default().karras(points)
}

fn noise(count: usize, dim: usize) -> Result<Tensor> {
    Key::new(5).normal(0..count as u64, &[dim], DType::F64, &Device::Cpu)
}

fn bits(x: &Tensor) -> Result<Vec<u64>> {
    Ok(x.flatten_all()?.to_vec1::<f64>()?.into_iter().map(f64::to_bits).collect())
}

fn gap(a: &Tensor, b: &Tensor) -> Result<f64> {
    Ok((a - b)?.abs()?.max_all()?.to_scalar::<f64>()?)
}

fn churn(s_churn: f64) -> Churn {
    Churn { s_churn, ..Churn::default() }
}

/// The message of what must be refused.
fn message<T>(result: Result<T>) -> String {
    result.map(|_| "it was accepted".to_string()).unwrap_or_else(|error| error.to_string())
}

/// The samplers in which something is random.
fn stochastic() -> [Sampler; 5] {
    [
        Sampler::Euler { churn: churn(5.0) },
        Sampler::Heun { churn: Churn { s_churn: 40.0, s_tmin: 0.05, s_tmax: 50.0, s_noise: 1.0 } },
        Sampler::Ddim { eta: 0.5 },
        Sampler::Ancestral,
        Sampler::predictor_corrector(),
    ]
}

/// The samplers in which nothing is, with their orders.
fn deterministic() -> [(Sampler, f64); 9] {
    [
        (Sampler::euler(), 1.0),
        (Sampler::heun(), 2.0),
        (Sampler::Ddim { eta: 0.0 }, 1.0),
        (Sampler::DpmSolver2, 2.0),
        (Sampler::DpmSolver3, 3.0),
        (Sampler::Deis { order: 1 }, 1.0),
        (Sampler::Deis { order: 2 }, 2.0),
        (Sampler::Deis { order: 3 }, 3.0),
        (Sampler::Deis { order: 4 }, 4.0),
    ]
}

#[test]
fn without_noise_they_are_the_solver_to_the_bit() -> Result<()> {
    let (grid, z, mixture, key) = (karras(18)?, noise(50, 2)?, plane()?, Key::new(0));
    let heun = bits(&pf_ode(&mixture, Solver::Heun, &z, &grid)?)?;
    let outside = Churn { s_churn: 40.0, s_tmin: 100.0, s_tmax: 200.0, s_noise: 1.0 };
    for churn in [Churn::default(), outside] {
        assert_eq!(bits(&Sampler::Heun { churn }.sample(&mixture, &z, &grid, &key)?)?, heun);
    }
    let churned = Sampler::Heun { churn: churn(1.0) }.sample(&mixture, &z, &grid, &key)?;
    assert_ne!(bits(&churned)?, heun, "a churn of 1 does nothing");
    let euler = bits(&pf_ode(&mixture, Solver::Euler, &z, &grid)?)?;
    assert_eq!(bits(&Sampler::euler().sample(&mixture, &z, &grid, &key)?)?, euler);
    Ok(())
}

#[test]
fn ddim_goes_from_euler_to_the_ancestral_sampler() -> Result<()> {
    let (grid, z, mixture, key) = (karras(18)?, noise(50, 2)?, plane()?, Key::new(1));
    let of = |sampler: Sampler| sampler.sample(&mixture, &z, &grid, &key);
    // eta = 0: nothing random, and Euler's step written otherwise.
    let still = of(Sampler::Ddim { eta: 0.0 })?;
    let other = Sampler::Ddim { eta: 0.0 }.sample(&mixture, &z, &grid, &Key::new(2))?;
    assert_eq!(bits(&still)?, bits(&other)?);
    assert!(gap(&still, &of(Sampler::euler())?)? < 1e-12);
    assert!(gap(&still, &of(Sampler::Deis { order: 1 })?)? < 1e-12);
    // eta = 1, with the same noise.
    let fresh = of(Sampler::Ddim { eta: 1.0 })?;
    assert!(gap(&fresh, &of(Sampler::Ancestral)?)? < 1e-12);
    assert!(gap(&fresh, &still)? > 0.1);
    Ok(())
}

#[test]
fn the_denoiser_is_asked_as_often_as_is_documented() -> Result<()> {
    let (grid, z) = (karras(11)?, noise(3, 2)?);
    let three = Sampler::PredictorCorrector { snr: 0.1, corrections: 3 };
    let want = [10, 20, 10, 20, 30, 10, 10, 10, 10, 10, 20, 10, 10, 20, 40];
    let all = deterministic().map(|(sampler, _)| sampler).into_iter().chain(stochastic());
    for (sampler, want) in all.chain([three]).zip(want) {
        let counted = Counted::new(plane()?);
        sampler.sample(&counted, &z, &grid, &Key::new(0))?;
        assert_eq!((counted.nfe(), sampler.nfe(&grid)), (want, want), "{sampler:?}");
    }
    Ok(())
}

#[test]
fn a_sample_is_the_same_in_any_batch() -> Result<()> {
    let (grid, z, key) = (karras(12)?, noise(24, 2)?, Key::new(7));
    for sampler in deterministic().map(|(sampler, _)| sampler).into_iter().chain(stochastic()) {
        let all = sampler.sample(&plane()?, &z, &grid, &key)?.narrow(0, 10, 10)?;
        let few = z.narrow(0, 10, 10)?;
        let alone = sampler.sample_from(&plane()?, &few, &grid, &key, 10)?;
        assert_eq!(bits(&alone)?, bits(&all)?, "{sampler:?}");
        let shifted = bits(&sampler.sample_from(&plane()?, &few, &grid, &key, 11)?)?;
        assert_eq!(shifted != bits(&all)?, stochastic().contains(&sampler), "{sampler:?}");
    }
    Ok(())
}

#[test]
fn shapes_and_types_are_those_of_the_noise() -> Result<()> {
    struct Zero;
    impl Denoiser for Zero {
        fn denoise(&self, x: &Tensor, _: &[f64]) -> Result<Tensor> {
            Ok(x.zeros_like()?)
        }
    }
    let z = Key::new(0).normal(0..2, &[3, 4, 4], DType::F32, &Device::Cpu)?;
    for sampler in deterministic().map(|(sampler, _)| sampler).into_iter().chain(stochastic()) {
        let x = sampler.sample(&Zero, &z, &karras(6)?, &Key::new(0))?;
        assert_eq!((x.dims(), x.dtype()), (z.dims(), DType::F32), "{sampler:?}");
    }
    Ok(())
}

#[test]
fn settings_have_names_and_limits() -> Result<()> {
    let parse = |text: &str| toml::from_str::<Sampler>(text);
    let known = [
        ("kind = 'heun'", Sampler::heun()),
        ("kind = 'heun'\nchurn = { s_churn = 40 }", Sampler::Heun { churn: churn(40.0) }),
        ("kind = 'ddim'", Sampler::Ddim { eta: 0.0 }),
        ("kind = 'deis'", Sampler::Deis { order: 3 }),
        ("kind = 'dpm-solver3'", Sampler::DpmSolver3),
        ("kind = 'ancestral'", Sampler::Ancestral),
        ("kind = 'predictor-corrector'", Sampler::predictor_corrector()),
    ];
    for (text, sampler) in known {
        assert_eq!(parse(text).ok(), Some(sampler), "{text}");
        let json = serde_json::to_string(&sampler).unwrap_or_default();
        assert_eq!(serde_json::from_str::<Sampler>(&json).ok(), Some(sampler), "{json}");
    }
    assert!(parse("kind = 'ddim'\neat = 0.5").is_err(), "a setting that there is not");
    let wrong = [
        (Sampler::Ddim { eta: 1.5 }, "eta = 1.5"),
        (Sampler::Deis { order: 5 }, "order 5"),
        (Sampler::Deis { order: 0 }, "order 0"),
        (Sampler::PredictorCorrector { snr: 0.0, corrections: 1 }, "snr = 0"),
        (Sampler::Heun { churn: churn(-1.0) }, "s_churn = -1"),
        (Sampler::Heun { churn: Churn { s_tmin: 2.0, s_tmax: 1.0, ..churn(1.0) } }, "s_tmax = 1"),
    ];
    for (sampler, want) in wrong {
        let refused = sampler.sample(&plane()?, &noise(2, 2)?, &karras(6)?, &Key::new(0));
        let message = message(refused);
        assert!(message.contains(want), "{sampler:?}: {message}");
    }
    Ok(())
}
