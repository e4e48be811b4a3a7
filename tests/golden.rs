//! Promise: the numbers of the paper. Scalings, grids and schedules against values computed
//! for the public implementations, in both variants where paper and code differ; the averages of
//! parameters.

use candle_core::{DType, Device, Tensor};
use consistency::Result;
use consistency::nn::{Ema, Init, Params};
use consistency::notebook::values;
use consistency::process::{
    Convention, Density, NoiseRange, Parameterization, Scaling, Schedule, time_condition,
};
use consistency::rng::Key;

fn close(what: &str, got: f64, want: f64, relative: f64) {
    assert!(
        (got - want).abs() <= relative * want.abs().max(1e-12),
        "{what} is {got}, the reference {want}"
    );
}

#[allow(clippy::approx_constant)] // the table's digits, as they stand there
#[test]
fn boundary_scalings() {
    let scaling = Scaling::Boundary { sigma_data: 0.5, eps: 0.002 };
    for (t, c_skip, c_out, c_in) in
        [(0.5, 0.502_004, 0.352_139, 1.414_214), (80.0, 3.906_29e-5, 0.499_978, 0.012_499_8)]
    {
        let c = scaling.at(t);
        close("c_skip", c.c_skip, c_skip, 2e-6);
        close("c_out", c.c_out, c_out, 2e-6);
        close("c_in", c.c_in, c_in, 5e-6);
    }
    let c = scaling.at(0.002);
    assert_eq!((c.c_skip, c.c_out), (1.0, 0.0));
    close("c_in(eps)", c.c_in, 1.999_984, 1e-6);
}

#[test]
fn edm_scalings() {
    let c = Scaling::Edm { sigma_data: 0.5 }.at(0.5);
    close("c_skip", c.c_skip, 0.5, 1e-12);
    close("c_out", c.c_out, 0.5 * 0.5 / 0.5f64.sqrt(), 1e-12);
    close("c_in", c.c_in, 1.0 / 0.5f64.sqrt(), 1e-12);
}

#[test]
fn karras_grid() -> Result<()> {
    let grid = NoiseRange::default().karras(18)?;
    let want = [
        80.0, 57.586, 40.786, 28.375, 19.353, 12.910, 8.401, 5.315, 3.257, 1.923, 1.088, 0.5853,
        0.2964, 0.1395, 0.0599, 0.0229, 0.0075, 0.002,
    ];
    assert_eq!(grid.points(), want.len());
    for (got, want) in grid.times().iter().rev().zip(want) {
        close("a point of the grid", *got, want, 7e-3);
    }
    for (points, gap) in [(18, 22.41), (40, 10.55), (151, 2.87), (201, 2.16)] {
        let largest = NoiseRange::default().karras(points)?.max_gap();
        close(&format!("the largest gap at N = {points}"), largest, gap, 2e-3);
    }
    Ok(())
}

#[test]
fn two_step_noise_levels() -> Result<()> {
    // (grid points, index counted from T as in the public code, noise level)
    for (points, index, sigma) in [
        (40, 22, 1.382),
        (201, 106, 1.913),
        (40, 17, 4.366),
        (40, 18, 3.520),
        (151, 67, 3.991),
        (151, 62, 5.249),
        (18, 11, 0.585),
    ] {
        let grid = NoiseRange::default().karras(points)?;
        close(&format!("{index} of {points}"), grid.times()[points - 1 - index], sigma, 1e-3);
    }
    Ok(())
}

#[test]
fn schedules_of_consistency_training() {
    let total = 800_000;
    let cifar = |convention| Schedule { convention, ..Schedule::growing(2, 150, 0.9) };
    let imagenet = |convention| Schedule { convention, ..Schedule::growing(2, 200, 0.95) };
    let (paper, code) = (cifar(Convention::Paper), cifar(Convention::Code));
    let first_three = (0..total).find(|k| paper.points(*k, total) == 3).unwrap_or(total);
    for (k, points, mu_paper, mu_code) in [
        (0, 2, 0.900, 0.810),
        (first_three, 3, 0.932, 0.900),
        (total / 2, 107, 0.998_03, 0.998_01),
        (total, 151, 0.998_61, 0.998_60),
    ] {
        assert_eq!(paper.points(k, total), points, "N({k})");
        assert_eq!(code.points(k, total), points, "N({k}) of the code");
        close(
            "mu of the paper",
            paper.mu(k, total),
            mu_paper,
            6e-6 + 2e-4 * f64::from(k < total / 2),
        );
        close("mu of the code", code.mu(k, total), mu_code, 6e-6 + 2e-4 * f64::from(k < total / 2));
    }
    let (paper, code) = (imagenet(Convention::Paper), imagenet(Convention::Code));
    assert_eq!((paper.points(0, total), paper.points(total, total)), (2, 201));
    close("mu(0), ImageNet", paper.mu(0, total), 0.95, 1e-9);
    close("mu(0) of the code, ImageNet", code.mu(0, total), 0.9025, 1e-9);
    close("mu(K), ImageNet", paper.mu(total, total), 0.999_49, 6e-6);
}

#[test]
fn schedules_other_than_the_papers() {
    // Song and Dhariwal 2023: K' = floor(K / (log2 floor(s1 / s0) + 1)), N from 11 to 1281.
    let total = 400_000;
    let doubling = Schedule::doubling(10, 1280, 0.0);
    for (k, points) in [(0, 11), (49_999, 11), (50_000, 21), (349_999, 641), (350_000, 1281)] {
        assert_eq!(doubling.points(k, total), points, "N({k}) when doubling");
        assert_eq!(doubling.mu(k, total), 0.0);
    }
    assert_eq!(doubling.points(total, total), 1281);
    // s1 that is no power of two times s0 ends at s1.
    assert_eq!(Schedule::doubling(10, 50, 0.5).points(total, total), 51);
    let fixed = Schedule::fixed(10, 0.9);
    for k in [0, 1, total / 2, total] {
        assert_eq!((fixed.points(k, total), fixed.mu(k, total)), (10, 0.9));
    }
    // The growing schedule from 10 to 10 is neither: N = 11 from the first step on, and mu(k) follows.
    let almost = Schedule::growing(10, 10, 0.9);
    assert_eq!((almost.points(0, total), almost.points(1, total)), (10, 11));
    close("mu(K)", almost.mu(total, total), 0.9f64.powf(10.0 / 11.0), 1e-12);

    let refused =
        |schedule: Schedule| schedule.check().err().map(|e| e.to_string()).unwrap_or_default();
    let uneven = Schedule { s1: 11, ..fixed };
    assert!(refused(uneven).starts_with("schedule s0 = 10, s1 = 11: with points = 'fixed'"));
    assert!(refused(Schedule::fixed(10, 1.0)).contains("needs 0 <= mu0 < 1"));
    assert!(refused(Schedule::growing(2, 4, 0.0)).contains("needs 0 < mu0 < 1"));
    assert!(refused(Schedule::fixed(10, f64::NAN)).contains("needs 0 <= mu0 < 1"));
}

#[test]
fn the_density_of_pairs() -> Result<()> {
    let grid = NoiseRange::default().karras(11)?;
    let density = Density::LogNormal { p_mean: -1.1, p_std: 2.0 };
    let p = density.probabilities(&grid)?;
    // By integration of the normal density over each interval, in ln t.
    let mass = |n: usize| {
        let (a, b) = (grid.times()[n].ln(), grid.times()[n + 1].ln());
        let h = (b - a) / 20_000.0;
        let at = |i: usize| (-0.5 * ((a + (i as f64 + 0.5) * h + 1.1) / 2.0).powi(2)).exp() * h;
        (0..20_000).map(at).sum::<f64>()
    };
    let masses: Vec<f64> = (0..10).map(mass).collect();
    for (n, (p, mass)) in p.iter().zip(&masses).enumerate() {
        close(&format!("n = {}", n + 1), *p, mass / masses.iter().sum::<f64>(), 1e-8);
    }
    // Drawn as often as that: 5 standard deviations of each count.
    let count = 100_000u64;
    let drawn = density.draw(&grid, 0..count, &Key::new(3))?;
    let uniform = Density::Uniform.draw(&grid, 0..count, &Key::new(3))?;
    assert_eq!(uniform, Key::new(3).integers(0..count, 1..11)?);
    for (n, p) in p.iter().enumerate() {
        let seen = drawn.iter().filter(|drawn| **drawn == n + 1).count() as f64;
        let expected = p * count as f64;
        let spread = (expected * (1.0 - p)).sqrt();
        assert!((seen - expected).abs() < 5.0 * spread, "n = {}: {seen}, {expected}", n + 1);
    }
    // A part of a batch draws what the whole one does.
    assert_eq!(density.draw(&grid, 40..60, &Key::new(3))?, drawn[40..60]);
    // Far out on one side, masses keep their digits; with none at all there is an error.
    let far = Density::LogNormal { p_mean: -14.0, p_std: 1.0 }.probabilities(&grid)?;
    assert!(far.iter().all(|p| *p >= 0.0) && far[0] > 0.9 && far[5] > 0.0);
    let none = Density::LogNormal { p_mean: -14.0, p_std: 0.01 }.probabilities(&grid);
    assert!(none.is_err_and(|e| e.to_string().contains("never lies between")));
    let bad = Density::LogNormal { p_mean: 0.0, p_std: 0.0 }.check();
    assert!(bad.is_err_and(|e| e.to_string().starts_with("density: p_std = 0")));
    Ok(())
}

#[test]
fn what_the_network_is_told() {
    // The public code gives 1000 times this to its embedding.
    close("at eps", 1000.0 * time_condition(0.002), -1553.65, 1e-5);
    close("at T", 1000.0 * time_condition(80.0), 1095.51, 1e-5);
}

#[test]
fn both_parameterizations_keep_the_boundary() -> Result<()> {
    let x = Tensor::new(&[[0.3f32, -2.0], [1.5, 0.25]], &Device::Cpu)?;
    for parameterization in [Parameterization::Skip, Parameterization::Piecewise] {
        let f =
            |t: &[f64]| parameterization.apply(0.5, 0.002, &x, t, |xs, _| Ok((xs.sin()? + 7.0)?));
        // The identity at eps to the bit, whatever the network says, also for one sample
        // of a batch.
        assert_eq!(f(&[0.002])?.to_vec2::<f32>()?, x.to_vec2::<f32>()?);
        let mixed = f(&[0.002, 3.0])?.to_vec2::<f32>()?;
        assert_eq!(mixed[0], x.to_vec2::<f32>()?[0]);
        assert_ne!(mixed[1], x.to_vec2::<f32>()?[1]);
        let below = f(&[0.001]).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(below.contains("t = 0.001 lies below eps = 0.002"), "{below}");
    }
    // Eq. 3: the network alone above eps.
    let network = Parameterization::Piecewise
        .apply(0.5, 0.002, &x, &[0.5], |xs, _| Ok(xs.ones_like()?.to_dtype(DType::F32)?))?;
    assert_eq!(network.to_vec2::<f32>()?, vec![vec![1.0; 2]; 2]);
    Ok(())
}

/// An average of one number that starts at 0, after one step towards 1 at step `k`.
fn followed(rate: f64, k: u64) -> Result<f64> {
    let mut params = Params::new(DType::F64, &Device::Cpu);
    params.init(&Key::new(0), |scope| scope.tensor("w", &[1], Init::Constant(0.0)))?;
    let average = Ema::new(&params)?;
    params.assign_tensors(&[("w".to_string(), Tensor::new(&[1.0f64], &Device::Cpu)?)].into())?;
    average.follow(&params, rate, k)?;
    Ok(values(&average.params().tensors()["w"])?[0])
}

#[test]
fn averages_warm_up() -> Result<()> {
    // 1 - min(rate, (1 + k) / (10 + k)), and whether k counts: from k = 8990 on the rate is 0.999.
    for (rate, k, want, counts) in [
        (0.999, 0, 9.0 / 10.0, true),
        (0.999, 1, 9.0 / 11.0, true),
        (0.999, 89, 1.0 / 11.0, true),
        (0.999, 8_990, 0.001, false),
        (0.999, 100_000, 0.001, false),
        (0.5, 7, 9.0 / 17.0, true),
        (0.5, 8, 0.5, false),
        (0.0, 0, 1.0, false),
    ] {
        close(&format!("rate {rate} at step {k}"), followed(rate, k)?, want, 1e-12);
        let next = (followed(rate, k + 1)? - want).abs();
        assert_eq!(next > 1e-6, counts, "rate {rate} at step {k}: the next is {next} from it");
    }
    Ok(())
}
