//! Promise: the losses are the paper's. Values on cases that can be worked out by hand, and
//! the variants of the public code under their names.

use candle_core::{DType, Device, Tensor};
use consistency::Result;
use consistency::loss::{
    Distance, Metric, Reduction, Weight, Weighting, consistency_loss, distillation_pair,
    score_matching_loss, training_pair,
};
use consistency::process::{
    Convention, Empirical, FlowMap, GaussianMixture, NoiseRange, Solver, TimeGrid, perturb,
};
use consistency::rng::Key;
use consistency::seam::{ConsistencyFunction, Denoiser};

fn noise(name: &str, shape: &[usize]) -> Result<Tensor> {
    let z = Key::new(3).stream(name).normal(
        0..shape[0] as u64,
        &shape[1..],
        DType::F64,
        &Device::Cpu,
    )?;
    Ok(z)
}

fn mixture() -> Result<GaussianMixture> {
    GaussianMixture::new(vec![1.0; 2], vec![vec![-0.5, 0.1], vec![0.4, 0.3]], vec![0.2, 0.1])
}

#[test]
fn distances() -> Result<()> {
    // Two samples of shape (1, 2, 2) that differ by (3, 0, -4, 0) and by 0.
    let x = Tensor::new(&[[[[3f64, 1.0], [-4.0, 2.0]]], [[[1.0, 1.0], [1.0, 1.0]]]], &Device::Cpu)?;
    let y = Tensor::new(&[[[[0f64, 1.0], [0.0, 2.0]]], [[[1.0, 1.0], [1.0, 1.0]]]], &Device::Cpu)?;
    let c = 0.5f64;
    for (metric, want) in [
        (Metric::L1, 7.0),
        (Metric::L2Squared, 25.0),
        (Metric::L2, 5.0),
        // The norm of the whole sample, not elementwise.
        (Metric::PseudoHuber { c }, (25.0 + c * c).sqrt() - c),
    ] {
        let d = Distance::new(metric).per_sample(&x, &y)?.to_vec1::<f64>()?;
        assert!((d[0] - want).abs() < 1e-12 && d[1].abs() < 1e-12, "{metric:?}: {d:?}");
        let mean = Distance { metric, reduction: Reduction::CodeMean };
        let d = mean.per_sample(&x, &y)?.to_vec1::<f64>()?;
        assert!((d[0] - want / 4.0).abs() < 1e-12, "the mean of {metric:?}: {d:?}");
    }
    Ok(())
}

#[test]
fn weights() {
    let at = |weight, at| Weighting { weight, at }.lambda(0.5, 0.25);
    assert_eq!(at(Weight::Uniform, Convention::Paper), 1.0);
    assert_eq!(at(Weight::InverseGap, Convention::Paper), 4.0);
    // lambda at t_n as the paper writes it, at t_{n+1} as the code takes it.
    assert_eq!(at(Weight::Snr, Convention::Paper), 16.0);
    assert_eq!(at(Weight::Snr, Convention::Code), 4.0);
}

#[test]
fn the_solvers_own_flow_map_has_no_distillation_loss() -> Result<()> {
    // The premise of Theorem 1: f built from the solver satisfies f(x_{t_{n+1}}) =
    // f(one solver step of it) exactly.
    let grid = NoiseRange::default().karras(12)?;
    let (x0, z) = (noise("x0", &[11, 2])?, noise("z", &[11, 2])?);
    let n: Vec<usize> = (1..=11).collect();
    for solver in [Solver::Euler, Solver::Heun] {
        let pair = distillation_pair(&x0, &z, &n, &grid, &mixture()?, solver)?;
        let f = FlowMap::new(mixture()?, solver, grid.clone());
        let (distance, weighting) = (Distance::default(), Weighting::default());
        let loss = consistency_loss(&f, &f, &pair, &distance, &weighting)?;
        assert!(loss.to_scalar::<f64>()? < 1e-24, "{solver:?}: {loss}");
        // And the other solver's flow map has some.
        let other = if solver == Solver::Euler { Solver::Heun } else { Solver::Euler };
        let f = FlowMap::new(mixture()?, other, grid.clone());
        let loss = consistency_loss(&f, &f, &pair, &distance, &weighting)?;
        assert!(loss.to_scalar::<f64>()? > 1e-6, "{other:?} on {solver:?}'s pairs: {loss}");
    }
    Ok(())
}

#[test]
fn training_pairs_are_euler_steps_with_the_datum_as_the_denoiser() -> Result<()> {
    // Consistency training's pair is one Euler step of a "dataset" of the datum alone.
    let grid = NoiseRange::default().karras(8)?;
    let (x0, z) = (noise("x0", &[1, 2])?, noise("z", &[1, 2])?);
    for n in 1..8 {
        let trained = training_pair(&x0, &z, &[n], &grid)?;
        let datum = Empirical::new(&x0)?;
        for solver in [Solver::Euler, Solver::Heun] {
            let distilled = distillation_pair(&x0, &z, &[n], &grid, &datum, solver)?;
            let difference = (&trained.x - &distilled.x)?.abs()?.max_all()?.to_scalar::<f64>()?;
            assert!(difference < 1e-11, "n = {n}: {difference}");
            assert_eq!(trained.t, distilled.t);
        }
        assert_eq!((trained.t[0], trained.t_next[0]), (grid.times()[n - 1], grid.times()[n]));
    }
    Ok(())
}

struct Constant(f64);

impl ConsistencyFunction for Constant {
    fn origin(&self, x: &Tensor, _: &[f64]) -> Result<Tensor> {
        Ok(x.ones_like()?.affine(self.0, 0.0)?)
    }
}

#[test]
fn the_loss_sums_over_a_sample_and_averages_over_the_batch() -> Result<()> {
    let grid = TimeGrid::new(vec![0.1, 0.2, 0.6])?;
    let pair = training_pair(
        &noise("x0", &[4, 1, 2, 3])?,
        &noise("z", &[4, 1, 2, 3])?,
        &[1, 1, 2, 2],
        &grid,
    )?;
    let inverse_gap = Weighting { weight: Weight::InverseGap, ..Weighting::default() };
    let loss = |weighting: &Weighting| -> Result<f64> {
        let distance = Distance::default();
        let loss = consistency_loss(&Constant(1.0), &Constant(3.0), &pair, &distance, weighting)?;
        Ok(loss.to_scalar::<f64>()?)
    };
    // |1 - 3|^2 over 6 elements is 24; the gaps are 0.1 and 0.4.
    assert!((loss(&Weighting::default())? - 24.0).abs() < 1e-12);
    assert!((loss(&inverse_gap)? - 24.0 * (10.0 + 2.5) / 2.0).abs() < 1e-9);
    Ok(())
}

#[test]
fn indices_outside_the_grid_are_refused() -> Result<()> {
    let grid = NoiseRange::default().karras(8)?;
    for bad in [0, 8] {
        let refused = training_pair(&noise("x0", &[1, 2])?, &noise("z", &[1, 2])?, &[bad], &grid);
        let message = refused.err().map(|e| e.to_string()).unwrap_or_default();
        assert_eq!(message, format!("grid index n = {bad}: needs 1 <= n <= N - 1 = 7"));
    }
    Ok(())
}

struct Shrunk<D>(D, f64);

impl<D: Denoiser> Denoiser for Shrunk<D> {
    fn denoise(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        Ok((self.0.denoise(x, t)? * self.1)?)
    }
}

#[test]
fn the_exact_denoiser_has_the_least_score_matching_loss() -> Result<()> {
    // 4000 draws with common random numbers: any factor off 1 costs.
    let count = 4000;
    let data = mixture()?;
    let x0 = data.sample(count, &Key::new(0), DType::F64, &Device::Cpu)?;
    let z = noise("z", &[count, 2])?;
    let sigma: Vec<f64> = (0..count).map(|i| 0.05 * 1.0005f64.powi(i as i32)).collect();
    let loss = |factor: f64| -> Result<f64> {
        let denoiser = Shrunk(mixture()?, factor);
        Ok(score_matching_loss(&denoiser, &x0, &z, &sigma, 0.5)?.to_scalar::<f64>()?)
    };
    let exact = loss(1.0)?;
    assert!(loss(0.9)? > exact && loss(1.1)? > exact);
    // Its weight: (sigma^2 + 1/4) / (sigma / 2)^2 times the squared error, by hand.
    let noisy = perturb(&x0, &sigma, &z)?;
    let error = (data.denoise(&noisy, &sigma)? - &x0)?.sqr()?.sum(1)?.to_vec1::<f64>()?;
    let weighted = error.iter().zip(&sigma).map(|(e, s)| e * (s * s + 0.25) / (s * 0.5).powi(2));
    let want = weighted.sum::<f64>() / count as f64;
    assert!((exact - want).abs() < 1e-9 * want);
    Ok(())
}
