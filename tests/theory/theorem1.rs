//! The exact flow, and Theorem 1 with its negative controls.

use super::{agrees, column, last, local, message};
use candle_core::{DType, Device, Tensor};
use consistency::Result;
use consistency::data::digits;
use consistency::process::{
    Empirical, ExactFlow, FlowMap, GaussianMixture, NoiseRange, Scaling, Solver, TimeGrid,
    trajectory,
};
use consistency::rng::Key;
use consistency::seam::{ConsistencyFunction, Counted, Denoiser};
use consistency::theory::{
    AfterFlow, TanhModel, WrongSign, keyed_draws, local_slopes, slope, spread_points, sup_error,
    work_precision, zero_loss_errors,
};

const S: f64 = 0.5;

fn gaussian() -> Result<GaussianMixture> {
    GaussianMixture::new(vec![1.0], vec![vec![0.0]], vec![S])
}

/// x = sqrt(s^2 + t^2): one deviation of p_t.
fn one_sigma(t: f64) -> Result<Tensor> {
    Ok(Tensor::new(&[[S.hypot(t)]], &Device::Cpu)?)
}

/// f(x, t) = x sqrt((eps^2 + s^2) / (t^2 + s^2)) for N(0, s^2 I).
struct Closed;

impl ConsistencyFunction for Closed {
    fn origin(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        let eps = NoiseRange::default().eps;
        let factor: Vec<f64> = t.iter().map(|t| S.hypot(eps) / S.hypot(*t)).collect();
        let factor = Tensor::from_vec(factor, (t.len(), 1), &Device::Cpu)?;
        Ok(x.broadcast_mul(&factor)?)
    }
}

fn grids(points: &[usize], uniform: bool) -> Result<Vec<TimeGrid>> {
    let noise = NoiseRange::default();
    points.iter().map(|n| if uniform { noise.uniform(*n) } else { noise.karras(*n) }).collect()
}

/// The sup errors of the zero-loss function of the Gaussian at one deviation.
fn errors(solver: Solver, grids: &[TimeGrid]) -> Result<Vec<f64>> {
    let error = |grid: &TimeGrid| {
        let f = FlowMap::new(gaussian()?, solver, grid.clone());
        Ok(sup_error(&f, &Closed, grid, &one_sigma)?.error)
    };
    grids.iter().map(error).collect()
}

#[test]
fn the_exact_flow_is_exact() -> Result<()> {
    let noise = NoiseRange::default();
    let flow = ExactFlow::new(gaussian()?, noise.eps)?;
    let t: Vec<f64> = noise.karras(40)?.times().to_vec();
    let x: Vec<f64> =
        (0..40).map(|i| (f64::from(i) / 10.0 - 2.0) * S.hypot(t[i as usize])).collect();
    let x = Tensor::from_vec(x, (40, 1), &Device::Cpu)?;
    let gap = (flow.origin(&x, &t)? - Closed.origin(&x, &t)?)?.abs()?.max_all()?;
    assert!(gap.to_scalar::<f64>()? < 1e-11, "{gap}");
    // A point mass: x - m shrinks as t.
    let mass = GaussianMixture::new(vec![1.0], vec![vec![0.3, -0.1]], vec![0.0])?;
    let flow = ExactFlow::new(mass, noise.eps)?;
    let x = Tensor::new(&[[5.3, -3.1], [0.31, 0.2]], &Device::Cpu)?;
    let got = flow.origin(&x, &[50.0, 0.5])?.to_vec2::<f64>()?;
    let want = [[0.3 + 5.0 * 0.002 / 50.0, -0.1 - 3.0 * 0.002 / 50.0], [0.30004, -0.0988]];
    for (got, want) in got.iter().flatten().zip(want.iter().flatten()) {
        assert!((got - want).abs() < 1e-12, "{got} and {want}");
    }
    Ok(())
}

#[test]
fn the_exact_flow_of_a_mixture_is_self_consistent() -> Result<()> {
    let plane = GaussianMixture::new(
        vec![1.0, 2.0, 1.0],
        vec![vec![-0.7, 0.2], vec![0.5, 0.6], vec![0.3, -0.8]],
        vec![0.1, 0.25, 0.08],
    )?;
    // From T straight to eps, and by way of another level in between.
    let z = Key::new(2).normal(0..16, &[2], DType::F64, &Device::Cpu)?;
    let start = (z * 80.0)?;
    let straight = ExactFlow::new(&plane, 0.002)?.origin(&start, &[80.0])?;
    let halfway = ExactFlow::new(&plane, 0.7)?.origin(&start, &[80.0])?;
    let onward = ExactFlow::new(&plane, 0.002)?.origin(&halfway, &[0.7])?;
    let gap = (&straight - onward)?.abs()?.max_all()?.to_scalar::<f64>()?;
    assert!(gap < 1e-10, "{gap}");
    // And to another tolerance.
    let loose = ExactFlow::new(&plane, 0.002)?.tolerance(1e-9)?.origin(&start, &[80.0])?;
    let gap = (straight - loose)?.abs()?.max_all()?.to_scalar::<f64>()?;
    assert!(gap > 0.0 && gap < 1e-6, "{gap}");
    Ok(())
}

#[test]
fn the_exact_flow_refuses_what_it_cannot_follow() -> Result<()> {
    struct Broken;
    impl Denoiser for Broken {
        fn denoise(&self, x: &Tensor, _: &[f64]) -> Result<Tensor> {
            Ok((x * f64::NAN)?)
        }
    }
    let x = Tensor::new(&[[1.0]], &Device::Cpu)?;
    let error = message(ExactFlow::new(Broken, 0.002)?.origin(&x, &[1.0]));
    assert!(error.contains("not finite"), "{error}");
    let error = message(ExactFlow::new(gaussian()?, 0.002)?.origin(&x, &[0.001]));
    assert!(error.contains("0.001 lies below eps = 0.002"), "{error}");
    assert!(ExactFlow::new(gaussian()?, 0.0).is_err());
    Ok(())
}

#[test]
fn theorem_1_holds_to_the_digits_on_the_karras_grid() -> Result<()> {
    let grids = grids(&[9, 18, 36, 72, 144, 288, 576, 1152, 2304, 4608], false)?;
    let gaps: Vec<f64> = grids.iter().map(TimeGrid::max_gap).collect();
    let intervals: Vec<f64> = grids.iter().map(|g| (g.points() - 1) as f64).collect();
    // (solver, errors at N = 18 and 4608, slopes against N - 1 up to N = 18 and at last,
    // the last against Delta t)
    let rows = [
        (Solver::Euler, "7.70e-2", "3.08e-4", "0.89", "1.00", "1.00"),
        (Solver::Heun, "2.76e-2", "3.32e-7", "2.14", "2.00", "2.00"),
    ];
    for (solver, first, fine, by_n, by_n_last, by_gap) in rows {
        let errors = errors(solver, &grids)?;
        agrees("error at N = 18", errors[1], first);
        agrees("error at N = 4608", errors[9], fine);
        let slopes = local_slopes(&intervals, &errors);
        agrees("first slope against N - 1", -local(&slopes, 1), by_n);
        agrees("last slope against N - 1", -local(&slopes, 9), by_n_last);
        let slopes = local_slopes(&gaps, &errors);
        agrees("last slope against Delta t", local(&slopes, 9), by_gap);
        if solver == Solver::Heun {
            agrees("first slope against Delta t", local(&slopes, 1), "2.68");
        }
        // The interval of the asymptote holds the order.
        let found = slope(&gaps[6..], &errors[6..])?;
        let order = f64::from(solver.order());
        assert!((found.value - order).abs() < found.half_width.max(0.01), "{solver:?}: {found}");
    }
    Ok(())
}

#[test]
fn theorem_1_holds_at_order_3() -> Result<()> {
    let grids = grids(&[65, 129, 257, 513], false)?;
    let gaps: Vec<f64> = grids.iter().map(TimeGrid::max_gap).collect();
    let slopes = local_slopes(&gaps, &errors(Solver::Kutta3, &grids)?);
    assert!((local(&slopes, 3) - 3.0).abs() < 0.05, "{slopes:?}");
    Ok(())
}

#[test]
fn a_uniform_grid_is_far_from_its_asymptote() -> Result<()> {
    let grids = grids(&[9, 18], true)?;
    let intervals = [8.0, 17.0];
    for (solver, want) in [(Solver::Euler, "0.08"), (Solver::Heun, "1.15")] {
        let slopes = local_slopes(&intervals, &errors(solver, &grids)?);
        agrees("slope at N = 18", -local(&slopes, 1), want);
    }
    // Late it gets there.
    let late = super::theorem1::grids(&[1025, 2049], true)?;
    let gaps: Vec<f64> = late.iter().map(TimeGrid::max_gap).collect();
    for (solver, want) in [(Solver::Euler, 1.0), (Solver::Heun, 2.0)] {
        let found = local(&local_slopes(&gaps, &errors(solver, &late)?), 1);
        assert!((found - want).abs() < 0.1, "{solver:?}: {found}");
    }
    Ok(())
}

#[test]
fn control_without_the_boundary_condition_the_error_stays() -> Result<()> {
    let noise = NoiseRange::default();
    let end = TanhModel::new([0.8, 0.2, 0.1], &noise).scaled(Scaling::Edm { sigma_data: 0.5 });
    let grids = grids(&[288, 576, 1152], false)?;
    let gaps: Vec<f64> = grids.iter().map(TimeGrid::max_gap).collect();
    let mut errors = Vec::new();
    for grid in &grids {
        let flow = FlowMap::new(gaussian()?, Solver::Heun, grid.clone());
        let f = AfterFlow { flow, end, eps: noise.eps };
        errors.push(sup_error(&f, &Closed, grid, &one_sigma)?.error);
    }
    agrees("the plateau", errors[2], "6.7e-4");
    for slope in local_slopes(&gaps, &errors).into_iter().flatten() {
        assert!(slope.abs() < 0.1, "an order without the boundary condition: {slope}");
    }
    Ok(())
}

#[test]
fn control_a_wrong_sign_has_no_order() -> Result<()> {
    let grids = grids(&[65, 129, 257], false)?;
    let gaps: Vec<f64> = grids.iter().map(TimeGrid::max_gap).collect();
    for solver in [Solver::Euler, Solver::Heun, Solver::Kutta3] {
        let mut errors = Vec::new();
        for grid in &grids {
            let f = FlowMap::new(WrongSign(gaussian()?), solver, grid.clone());
            errors.push(sup_error(&f, &Closed, grid, &one_sigma)?.error);
        }
        let found = slope(&gaps, &errors)?;
        assert!(found.value < 0.1 && errors[2] > 1.0, "{solver:?}: {found}, {errors:?}");
    }
    Ok(())
}

#[test]
fn mixtures_in_one_two_and_many_dimensions() -> Result<()> {
    let line = GaussianMixture::new(vec![0.4, 0.6], vec![vec![-0.3], vec![0.5]], vec![0.3, 0.4])?;
    let plane = GaussianMixture::new(
        vec![1.0, 1.0],
        vec![vec![-0.3, 0.2], vec![0.4, -0.1]],
        vec![0.4, 0.5],
    )?;
    let means = |sign: f64| (0..64).map(|i| sign * 0.05 * f64::from(i % 3)).collect::<Vec<f64>>();
    let many = GaussianMixture::new(vec![0.5, 0.5], vec![means(1.0), means(-1.0)], vec![0.4, 0.5])?;
    for (mixture, points) in [(line, [257, 513]), (plane, [257, 513]), (many, [17, 33])] {
        let grids = grids(&points, false)?;
        let set = |t: f64| spread_points(&mixture, t, &[-2.0, -1.0, 0.0, 1.0, 2.0]);
        for solver in [Solver::Euler, Solver::Heun] {
            let table = zero_loss_errors(&mixture, solver, &grids, &set)?;
            let slope = last(&column(&table, "local_slope")?)?;
            let order = f64::from(solver.order());
            let tolerance = if points[0] > 100 { 0.1 } else { 0.5 };
            assert!((slope - order).abs() < tolerance, "{} d, {solver:?}: {slope}", mixture.dim());
        }
    }
    Ok(())
}

#[test]
fn between_separated_modes_the_asymptote_is_far_out() -> Result<()> {
    let plane = GaussianMixture::new(
        vec![1.0; 3],
        vec![vec![-0.7, 0.2], vec![0.5, 0.6], vec![0.3, -0.8]],
        vec![0.08, 0.25, 0.12],
    )?;
    let set = |t: f64| spread_points(&plane, t, &[-2.0, -1.0, 0.0, 1.0, 2.0]);
    let table = zero_loss_errors(&plane, Solver::Euler, &grids(&[9, 65], false)?, &set)?;
    let errors = column(&table, "sup_error")?;
    assert!(errors[1] < errors[0] && errors[1] > 0.4, "Euler's error between modes: {errors:?}");
    Ok(())
}

#[test]
fn the_empirical_score_of_the_digits_has_a_flow_too() -> Result<()> {
    let digits = digits(DType::F64, &Device::Cpu)?;
    let data = digits.train.flatten_from(1)?.narrow(0, 0, 200)?;
    let denoiser = Empirical::new(&data)?;
    let key = Key::new(5);
    let set = |t: f64| keyed_draws(&data, 8, &key, t);
    let table = zero_loss_errors(&denoiser, Solver::Heun, &grids(&[9, 17], false)?, &set)?;
    let errors = column(&table, "sup_error")?;
    assert!(errors.iter().all(|e| e.is_finite() && *e > 0.0), "{errors:?}");
    // The draws at one level do not depend on the grid.
    let (a, b) = (set(1.0)?, keyed_draws(&data, 4, &key, 1.0)?);
    let gap = (a.narrow(0, 0, 4)? - b)?.abs()?.max_all()?.to_scalar::<f64>()?;
    assert!(gap == 0.0, "{gap}");
    Ok(())
}

#[test]
fn a_flow_map_does_not_mind_the_order_of_its_samples() -> Result<()> {
    let noise = NoiseRange::default();
    let grid = noise.karras(12)?;
    let f = FlowMap::new(gaussian()?, Solver::Heun, grid.clone());
    let t: Vec<f64> = [3, 11, 0, 7, 7, 1].iter().map(|i| grid.times()[*i]).collect();
    let x = Tensor::from_vec(vec![0.3, -80.0, 0.7, 2.0, -1.0, 0.1], (6, 1), &Device::Cpu)?;
    let all = f.origin(&x, &t)?.flatten_all()?.to_vec1::<f64>()?;
    for i in 0..6 {
        let one = f.origin(&x.narrow(0, i, 1)?, &t[i..=i])?.flatten_all()?.to_vec1::<f64>()?[0];
        assert_eq!(one, all[i], "sample {i}");
    }
    assert_eq!(all[2], 0.7, "at eps it is the identity");
    Ok(())
}

#[test]
fn work_is_what_the_denoiser_counts() -> Result<()> {
    let grids = grids(&[9, 17], false)?;
    let x = Tensor::new(&[[40.0], [-90.0]], &Device::Cpu)?;
    let solvers = [Solver::Euler, Solver::Heun, Solver::Kutta3];
    let table = work_precision(&gaussian()?, &solvers, &grids, &x)?;
    let nfe: Vec<u32> = table.column("nfe")?.u32()?.iter().flatten().collect();
    for (i, solver) in solvers.into_iter().enumerate() {
        let counted = Counted::new(gaussian()?);
        trajectory(&counted, solver, &x, &grids[1])?;
        assert_eq!(nfe[2 * i + 1] as usize, counted.nfe(), "{solver:?}");
    }
    let errors = column(&table, "error")?;
    assert!(errors[1] > errors[3] && errors[3] > errors[5], "{errors:?}");
    Ok(())
}
