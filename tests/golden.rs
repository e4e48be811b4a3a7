//! Promise: the numbers of the paper. Scalings, grids and schedules against values computed
//! for the public implementations, in both variants where paper and code differ.

use candle_core::{DType, Device, Tensor};
use consistency::Result;
use consistency::process::{
    Convention, NoiseRange, Parameterization, Scaling, Schedule, time_condition,
};

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
    let cifar = |convention| Schedule { s0: 2, s1: 150, mu0: 0.9, convention };
    let imagenet = |convention| Schedule { s0: 2, s1: 200, mu0: 0.95, convention };
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
