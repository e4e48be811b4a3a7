//! Promise: every linear SDE is the paper's process in other variables, exactly: marginals, scores and
//! trajectories of VE, VP and sub-VP after conversion.

use candle_core::{DType, Device, Tensor};
use consistency::Result;
use consistency::process::{ExactFlow, GaussianMixture, LinearSde, NoiseRange, Spacing};
use consistency::rng::Key;
use consistency::seam::TwoTimeMap;

const SDES: [LinearSde; 4] = [
    LinearSde::Paper,
    LinearSde::VarianceExploding { sigma_min: 0.01, sigma_max: 50.0 },
    LinearSde::VariancePreserving { beta_min: 0.1, beta_max: 20.0 },
    LinearSde::SubVp { beta_min: 0.1, beta_max: 20.0 },
];

fn mixture() -> Result<GaussianMixture> {
    GaussianMixture::new(vec![0.3, 0.7], vec![vec![-0.8, 0.1], vec![0.5, -0.3]], vec![0.2, 0.35])
}

/// f = s'/s and g^2 = s^2 d(sigma^2)/dt, by differences; the inverse of sigma.
#[test]
fn scale_and_noise_are_those_of_drift_and_diffusion() -> Result<()> {
    for sde in SDES {
        sde.check()?;
        for t in [0.05, 0.3, 0.7, 1.0] {
            let h = 1e-4;
            let by_four = |of: &dyn Fn(f64) -> f64| {
                let (near, far) = (of(t + h) - of(t - h), of(t + 2.0 * h) - of(t - 2.0 * h));
                (8.0 * near - far) / (12.0 * h)
            };
            let drift = by_four(&|t| sde.scale(t).ln());
            let growth = by_four(&|t| sde.sigma(t).powi(2));
            let square = sde.scale(t).powi(2) * growth;
            assert!((sde.drift(t) - drift).abs() < 1e-8 * drift.abs().max(1.0), "{sde:?} at {t}");
            let found = sde.diffusion(t).powi(2);
            assert!((found - square).abs() < 1e-7 * square, "{sde:?} at {t}: {found}, {square}");
            assert!((sde.time(sde.sigma(t))? - t).abs() < 1e-12, "{sde:?} at {t}");
        }
        assert!(sde.time(0.0).is_err() && sde.time(f64::NAN).is_err());
    }
    Ok(())
}

/// Given x_0, VP's mean and deviation are e^(-B/2) and sqrt(1 - e^-B), sub-VP's deviation is 1 - e^-B
/// (Song et al. 2021, appendix B).
#[test]
fn marginals_are_the_published_ones() -> Result<()> {
    let b = |t: f64| 0.1 * t + 0.5 * 19.9 * t * t;
    for t in [0.02, 0.4, 1.0] {
        let kept = (-b(t)).exp();
        for (sde, deviation) in [(SDES[2], (1.0 - kept).sqrt()), (SDES[3], 1.0 - kept)] {
            assert!((sde.scale(t) - kept.sqrt()).abs() < 1e-14);
            let found = sde.scale(t) * sde.sigma(t);
            assert!((found - deviation).abs() < 1e-13, "{sde:?}: {found}, not {deviation}");
        }
    }
    let ve = SDES[1];
    assert!((ve.sigma(0.0) - 0.01).abs() < 1e-15 && (ve.sigma(1.0) - 50.0).abs() < 1e-12);
    Ok(())
}

/// The score of one Gaussian N(m, d^2) at time t: (s m - x) / (s^2 (d^2 + sigma^2)).
#[test]
fn scores_of_a_gaussian_are_exact() -> Result<()> {
    let data = GaussianMixture::new(vec![1.0], vec![vec![0.4]], vec![0.3])?;
    let xs = [-1.5, 0.2, 2.0];
    let x = Tensor::from_slice(&xs, (3, 1), &Device::Cpu)?;
    for sde in SDES {
        let t = [0.1, 0.5, 0.9];
        let score = sde.score(&data, &x, &t)?.flatten_all()?.to_vec1::<f64>()?;
        for i in 0..3 {
            let (s, sigma) = (sde.scale(t[i]), sde.sigma(t[i]));
            let want = (s * 0.4 - xs[i]) / (s * s * (0.09 + sigma * sigma));
            assert!((score[i] - want).abs() < 1e-11 * want.abs().max(1.0), "{sde:?}: {score:?}");
        }
    }
    Ok(())
}

/// Runge and Kutta's method of order 4 along the SDE's own PF ODE, in its own variables.
fn solve(sde: LinearSde, x: &Tensor, from: f64, to: f64, steps: usize) -> Result<Tensor> {
    let (data, h) = (mixture()?, (to - from) / steps as f64);
    let slope = |x: &Tensor, t: f64| sde.pf_ode_slope(&data, x, &[t]);
    let mut x = x.clone();
    for n in 0..steps {
        let t = from + h * n as f64;
        let k1 = slope(&x, t)?;
        let k2 = slope(&(&x + (&k1 * (0.5 * h))?)?, t + 0.5 * h)?;
        let k3 = slope(&(&x + (&k2 * (0.5 * h))?)?, t + 0.5 * h)?;
        let k4 = slope(&(&x + (&k3 * h)?)?, t + h)?;
        let sum = (((k1 + k4)? + (k2 * 2.0)?)? + (k3 * 2.0)?)?;
        x = (x + (sum * (h / 6.0))?)?;
    }
    Ok(x)
}

#[test]
fn trajectories_are_the_papers() -> Result<()> {
    let flow = ExactFlow::new(mixture()?, 1e-3)?;
    let x0 = mixture()?.sample(6, &Key::new(1), DType::F64, &Device::Cpu)?;
    let z = Key::new(2).normal(0..6, &[2], DType::F64, &Device::Cpu)?;
    for sde in SDES {
        let (from, to) = (0.8, 0.25);
        let x = sde.perturb(&x0, &[from], &z)?;
        let (inner, sigma) = sde.to_paper(&x, &[from])?;
        assert!(
            (sde.from_paper(&inner, &[from])? - &x)?.abs()?.max_all()?.to_scalar::<f64>()? < 1e-14
        );
        let there = flow.map(&inner, &sigma, &[sde.sigma(to)])?;
        let by_flow = sde.from_paper(&there, &[to])?;
        let own = solve(sde, &x, from, to, 3000)?;
        let gap = (&own - &by_flow)?.abs()?.max_all()?.to_scalar::<f64>()?;
        assert!(gap < 1e-10, "{sde:?}: {gap:.1e}");
        // The noise level of another process is another place.
        let wrong = match sde {
            LinearSde::VariancePreserving { .. } => SDES[3].sigma(to),
            LinearSde::SubVp { .. } => SDES[2].sigma(to),
            _ => 1.01 * sde.sigma(to),
        };
        let there = flow.map(&inner, &sigma, &[wrong])?;
        let gap = (own - sde.from_paper(&there, &[to])?)?.abs()?.max_all()?.to_scalar::<f64>()?;
        assert!(gap > 1e-4, "{sde:?}: the wrong process is as good, {gap:.1e}");
    }
    Ok(())
}

#[test]
fn constants_that_make_no_sense_are_refused() {
    for (sde, word) in [
        (LinearSde::VarianceExploding { sigma_min: 2.0, sigma_max: 1.0 }, "sigma_min = 2"),
        (LinearSde::VariancePreserving { beta_min: 0.0, beta_max: 1.0 }, "beta_min = 0"),
        (LinearSde::SubVp { beta_min: 0.1, beta_max: f64::INFINITY }, "beta_max = inf"),
    ] {
        let said = sde.check().err().map(|e| e.to_string()).unwrap_or_default();
        assert!(said.contains(word), "{said}");
    }
}

/// Each grid has equal steps in its own variable, and the same ends.
#[test]
fn grids_are_uniform_where_they_say() -> Result<()> {
    let noise = NoiseRange::default();
    let steps = |of: &dyn Fn(f64) -> f64, spacing| -> Result<f64> {
        let grid = noise.spaced(spacing, 9)?;
        assert_eq!((grid.first(), grid.last()), (noise.eps, noise.t_max));
        let each: Vec<f64> = grid.times().windows(2).map(|t| of(t[1]) - of(t[0])).collect();
        let mean = each.iter().sum::<f64>() / 8.0;
        Ok(each.iter().map(|step| (step / mean - 1.0).abs()).fold(0.0, f64::max))
    };
    let vp = |t: f64| SDES[2].time(t).unwrap_or(f64::NAN);
    let root = |t: f64| t.powf(1.0 / 7.0);
    let own: [(&dyn Fn(f64) -> f64, Spacing); 3] =
        [(&root, Spacing::Karras), (&f64::ln, Spacing::LogSnr), (&vp, Spacing::VpTime)];
    for (i, (of, spacing)) in own.iter().enumerate() {
        assert!(steps(of, *spacing)? < 1e-9, "{spacing:?}");
        let other = own[(i + 1) % 3].1;
        assert!(steps(of, other)? > 0.1, "{spacing:?} and {other:?} are one grid");
    }
    Ok(())
}
