//! Promise: the known mathematics. Exact scores, orders of convergence, and that the SDE
//! and the ODE have the same marginals.

use candle_core::{DType, Device, Tensor};
use consistency::Result;
use consistency::evaluate::Statistics;
use consistency::process::{
    Empirical, FlowMap, GaussianMixture, NoiseRange, Solver, TimeGrid, forward_sde, perturb,
    pf_ode_slope, reverse_sde, trajectory,
};
use consistency::rng::Key;
use consistency::seam::{ConsistencyFunction, Counted, Denoiser};

fn plane() -> Result<GaussianMixture> {
    GaussianMixture::new(
        vec![1.0, 2.0, 1.0],
        vec![vec![-0.7, 0.2], vec![0.5, 0.6], vec![0.3, -0.8]],
        vec![0.1, 0.25, 0.05],
    )
}

fn points(count: usize, scale: f64, name: &str) -> Result<Tensor> {
    let z = Key::new(1).stream(name).normal(0..count as u64, &[2], DType::F64, &Device::Cpu)?;
    Ok((z * scale)?)
}

#[test]
fn the_mixture_score_is_the_gradient_of_its_log_density() -> Result<()> {
    let (mixture, x, h) = (plane()?, points(20, 1.0, "x")?, 1e-5);
    for t in [0.05, 0.5, 3.0] {
        let score = mixture.score(&x, &[t])?.to_vec2::<f64>()?;
        for axis in 0..2 {
            let step =
                Tensor::new(&[[f64::from(axis == 0) * h, f64::from(axis == 1) * h]], &Device::Cpu)?;
            let up = mixture.log_density(&x.broadcast_add(&step)?, &[t])?.to_vec1::<f64>()?;
            let down = mixture.log_density(&x.broadcast_sub(&step)?, &[t])?.to_vec1::<f64>()?;
            for (i, row) in score.iter().enumerate() {
                let slope = (up[i] - down[i]) / (2.0 * h);
                let error = (slope - row[axis]).abs() / slope.abs().max(1.0);
                assert!(error < 1e-6, "t = {t}, point {i}, axis {axis}: {slope} and {}", row[axis]);
            }
        }
    }
    Ok(())
}

#[test]
fn the_empirical_denoiser_is_a_mixture_of_point_masses() -> Result<()> {
    let data = points(50, 0.5, "data")?;
    let rows = data.to_vec2::<f64>()?;
    let mixture = GaussianMixture::new(vec![1.0; 50], rows, vec![0.0; 50])?;
    let empirical = Empirical::new(&data)?;
    let x = points(30, 1.0, "x")?;
    let t: Vec<f64> = (0..30).map(|i| 0.02 * 1.3f64.powi(i)).collect();
    let difference = (mixture.denoise(&x, &t)? - empirical.denoise(&x, &t)?)?;
    assert!(difference.abs()?.max_all()?.to_scalar::<f64>()? < 1e-9);
    // At the smallest noise it is the nearest datum.
    let near = (data.narrow(0, 0, 5)? + 1e-4)?;
    let difference = (empirical.denoise(&near, &[0.002])? - data.narrow(0, 0, 5)?)?;
    assert!(difference.abs()?.max_all()?.to_scalar::<f64>()? < 1e-9);
    Ok(())
}

#[test]
fn noise_levels_a_sample_are_the_same_as_one_by_one() -> Result<()> {
    let (mixture, x) = (plane()?, points(6, 1.0, "x")?);
    let t = [0.1, 0.2, 0.5, 1.0, 5.0, 70.0];
    let next = [0.05, 0.1, 0.3, 0.7, 4.0, 60.0];
    for solver in [Solver::Euler, Solver::Heun] {
        let all = solver.step(&mixture, &x, &t, &next)?.to_vec2::<f64>()?;
        for i in 0..6 {
            let one = solver.step(&mixture, &x.narrow(0, i, 1)?, &t[i..=i], &next[i..=i])?;
            for (a, b) in one.to_vec2::<f64>()?[0].iter().zip(&all[i]) {
                assert!((a - b).abs() < 1e-13);
            }
        }
    }
    Ok(())
}

#[test]
fn solvers_converge_at_their_order() -> Result<()> {
    // For Gaussian data N(0, s^2 I) the flow is known: x_eps = x_t sqrt((eps^2+s^2)/(t^2+s^2)).
    let s = 0.5;
    let gaussian = GaussianMixture::new(vec![1.0], vec![vec![0.0, 0.0]], vec![s])?;
    let range = NoiseRange::default();
    let start = (points(16, 1.0, "x")? * range.t_max)?;
    let factor = ((range.eps.powi(2) + s * s) / (range.t_max.powi(2) + s * s)).sqrt();
    let exact = (&start * factor)?;
    for solver in [Solver::Euler, Solver::Heun] {
        let error = |points: usize| -> Result<f64> {
            let grid = range.karras(points)?;
            let Some(end) = trajectory(&gaussian, solver, &start, &grid)?.pop() else {
                return Ok(f64::NAN);
            };
            Ok((end - &exact)?.abs()?.max_all()?.to_scalar::<f64>()?)
        };
        // The slope of the last doubling.
        let slope = (error(257)? / error(513)?).log2();
        let order = f64::from(solver.order());
        assert!((slope - order).abs() < 0.05, "{solver:?} converges at {slope}");
    }
    Ok(())
}

#[test]
fn evaluations_are_counted() -> Result<()> {
    let grid = NoiseRange::default().karras(10)?;
    for (solver, want) in [(Solver::Euler, 9), (Solver::Heun, 18)] {
        let counted = Counted::new(plane()?);
        trajectory(&counted, solver, &points(3, 80.0, "x")?, &grid)?;
        assert_eq!(counted.nfe(), want);
    }
    Ok(())
}

/// The largest difference of the two sets' means and variances, axis by axis, in its
/// standard errors.
fn moments_off(a: &Tensor, b: &Tensor) -> Result<f64> {
    let moments = |x: &Tensor| -> Result<(Vec<f64>, Vec<f64>)> {
        let mean = x.mean_keepdim(0)?;
        let variance = x.broadcast_sub(&mean)?.sqr()?.mean(0)?;
        Ok((mean.flatten_all()?.to_vec1()?, variance.to_vec1()?))
    };
    let ((mean_a, var_a), (mean_b, var_b)) = (moments(a)?, moments(b)?);
    let count = a.dims()[0] as f64;
    let mut worst = 0.0f64;
    for axis in 0..mean_a.len() {
        let mean = (mean_a[axis] - mean_b[axis]).abs() / (2.0 * var_a[axis] / count).sqrt();
        // The variance of a variance is at most that of a Gaussian's for these sets.
        let variance = (var_b[axis] / var_a[axis] - 1.0).abs() / (4.0 / count).sqrt();
        worst = worst.max(mean).max(variance);
    }
    Ok(worst)
}

/// A set of samples for the tests of marginals, and a grid fine enough that what a step
/// of the SDE leaves out is below a standard error.
const SAMPLES: usize = 20_000;
const POINTS: usize = 400;

/// The worst of [`moments_off`] over the last two thirds of the way down to eps.
fn path_off(forward: &[Tensor], down: &[Tensor]) -> Result<f64> {
    let mut worst = 0.0f64;
    for n in [0, POINTS / 4, POINTS / 2, 2 * POINTS / 3] {
        worst = worst.max(moments_off(&forward[n], &down[POINTS - 1 - n])?);
    }
    Ok(worst)
}

#[test]
fn sde_and_ode_have_the_same_marginals() -> Result<()> {
    let mixture = plane()?;
    let range = NoiseRange::default();
    let grid = range.karras(POINTS)?;
    let x0 = mixture.sample(SAMPLES, &Key::new(2), DType::F64, &Device::Cpu)?;
    let start = (points(SAMPLES, 1.0, "start")? * range.t_max)?;
    let forward = forward_sde(&x0, &grid, &Key::new(3))?;
    let reverse = reverse_sde(&mixture, &start, &grid, &Key::new(4))?;
    let ode = trajectory(&mixture, Solver::Heun, &start, &grid)?;
    for (what, path) in [("the reverse SDE", &reverse), ("the ODE", &ode)] {
        let off = path_off(&forward, path)?;
        assert!(off < 5.0, "{what} is {off} standard errors off the forward SDE");
    }
    // Beyond moments: the share of samples around each component.
    for (mean, share) in [([-0.7, 0.2], 0.25), ([0.5, 0.6], 0.5), ([0.3, -0.8], 0.25)] {
        for path in [&reverse, &ode] {
            let Some(end) = path.last() else { continue };
            let near = end.to_vec2::<f64>()?;
            let near = near.iter().filter(|p| (p[0] - mean[0]).hypot(p[1] - mean[1]) < 0.7);
            let got = near.count() as f64 / SAMPLES as f64;
            assert!((got - share).abs() < 0.02, "around {mean:?}: {got} of the samples");
        }
    }
    Ok(())
}

#[test]
fn the_marginals_test_sees_a_wrong_diffusion() -> Result<()> {
    // Negative control: a reverse SDE whose noise is 10 % too large must not pass.
    let mixture = plane()?;
    let grid = NoiseRange::default().karras(POINTS)?;
    let x0 = mixture.sample(SAMPLES, &Key::new(2), DType::F64, &Device::Cpu)?;
    let forward = forward_sde(&x0, &grid, &Key::new(3))?;
    let mut x = (points(SAMPLES, 1.0, "start")? * 80.0)?;
    let mut path = vec![x.clone()];
    for (n, (t, next)) in grid.descending().enumerate() {
        let variance = t * t - next * next;
        let drift = (mixture.score(&x, &[t])? * variance)?;
        let z = Key::new(4).step(n as u64).normal_like(&x, 0)?;
        x = perturb(&(x + drift)?, &[1.1 * variance.sqrt()], &z)?;
        path.push(x.clone());
    }
    let off = path_off(&forward, &path)?;
    assert!(off > 10.0, "noise 10 % too large is off by {off} standard errors only");
    Ok(())
}

#[test]
fn the_gap_between_the_prior_and_p_t() -> Result<()> {
    // p_T = p_data * N(0, T^2 I) against N(0, T^2 I): for Gaussian data N(m, s^2) on a line
    // the Frechet distance is m^2 + (sqrt(T^2 + s^2) - T)^2, of which little is left beside
    // T^2.
    let (m, s) = (0.3, 0.5f64);
    let data = GaussianMixture::new(vec![1.0], vec![vec![m]], vec![s])?;
    let count = 200_000;
    let x0 = data.sample(count, &Key::new(5), DType::F64, &Device::Cpu)?;
    let z = Key::new(6).normal(0..count as u64, &[1], DType::F64, &Device::Cpu)?;
    for t in [2.0f64, 80.0] {
        let p_t = Statistics::of(&perturb(&x0, &[t], &z)?)?;
        // The prior with the same z: their difference is the data's alone.
        let gap = p_t.frechet_distance(&Statistics::of(&(&z * t)?)?)?;
        let want = m * m + ((t * t + s * s).sqrt() - t).powi(2);
        assert!((gap - want).abs() < 0.02 * want + 3e-3, "T = {t}: {gap}, the formula {want}");
        assert!(gap / (t * t) < 0.03);
    }
    Ok(())
}

#[test]
fn a_flow_map_is_self_consistent() -> Result<()> {
    let mixture = plane()?;
    let grid = NoiseRange::default().karras(30)?;
    let path = trajectory(&mixture, Solver::Heun, &points(8, 80.0, "x")?, &grid)?;
    let f = FlowMap::new(mixture, Solver::Heun, grid.clone());
    let Some(origin) = path.last() else { return Ok(()) };
    for (x, t) in path.iter().zip(grid.times().iter().rev()) {
        let difference = (f.origin(x, &[*t])? - origin)?;
        assert_eq!(difference.abs()?.max_all()?.to_scalar::<f64>()?, 0.0, "t = {t}");
    }
    // One noise level a sample.
    let t: Vec<f64> = (0..8).map(|i| grid.times()[29 - 3 * i]).collect();
    let states = (0..8).map(|i| path[3 * i].narrow(0, i, 1)).collect::<Result<Vec<_>, _>>()?;
    let difference = (f.origin(&Tensor::cat(&states, 0)?, &t)? - origin)?;
    assert_eq!(difference.abs()?.max_all()?.to_scalar::<f64>()?, 0.0);
    let off = f.origin(&points(8, 1.0, "x")?, &[0.5]).err().map(|e| e.to_string());
    assert_eq!(off.as_deref(), Some("noise level t = 0.5 is not a point of the flow map's grid"));
    Ok(())
}

#[test]
fn the_slope_is_minus_t_times_the_score() -> Result<()> {
    let (mixture, x) = (plane()?, points(10, 2.0, "x")?);
    let slope = pf_ode_slope(&mixture, &x, &[1.5])?;
    let score = (mixture.score(&x, &[1.5])? * -1.5)?;
    assert!((slope - score)?.abs()?.max_all()?.to_scalar::<f64>()? < 1e-12);
    let grid = TimeGrid::new(vec![1.0, 0.5]).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(grid.contains("strictly increasing"), "{grid}");
    Ok(())
}
