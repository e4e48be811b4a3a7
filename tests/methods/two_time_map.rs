//! Promise: a two-time map takes a point of a trajectory to any later one. The exact flow is one,
//! in closed form on a Gaussian; its end at eps is the consistency function.

use candle_core::{DType, Device, Tensor};
use consistency::Result;
use consistency::method::Weights;
use consistency::model::{
    Condition, EdmDenoiser, MlpConfig, NcsnppConfig, NetworkConfig, Times, TwoTimeModel, UNetConfig,
};
use consistency::nn::Params;
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

fn networks() -> Vec<NetworkConfig> {
    let unet = UNetConfig {
        block_out_channels: vec![8, 8],
        down_block_types: None,
        up_block_types: None,
        norm_num_groups: 4,
        layers_per_block: 1,
        ..UNetConfig::default()
    };
    let ncsnpp =
        NcsnppConfig { nf: 8, ch_mult: vec![1, 1], num_res_blocks: 1, ..NcsnppConfig::default() };
    vec![
        NetworkConfig::Mlp(MlpConfig { width: 16, blocks: 2, time_features: 8 }),
        NetworkConfig::Unet(unet),
        NetworkConfig::Ncsnpp(ncsnpp),
    ]
}

#[test]
fn a_network_of_two_noise_levels_begins_as_the_teacher() -> Result<()> {
    let (device, shape) = (Device::Cpu, [1, 8, 8]);
    let x = Key::new(1).normal(0..3, &shape, DType::F32, &device)?;
    let (t, s) = ([0.3, -0.4, 0.1], [0.2, -0.9, -1.0]);
    for config in networks() {
        let mut of_teacher = Params::new(DType::F32, &device);
        let teacher = of_teacher.init(&Key::new(2), |scope| config.build(scope, &shape))?;
        // A teacher that has been trained: nothing is at its start.
        for (name, var) in of_teacher.trained() {
            let noise = Key::new(3).stream(name).normal_like(&var.as_detached_tensor(), 0)?;
            var.set(&(var.as_detached_tensor() + (noise * 0.1)?)?)?;
        }
        let mut params = Params::new(DType::F32, &device);
        let student =
            params.init(&Key::new(4), |scope| config.build_for(scope, &shape, Times::Two))?;
        let on = |second| Condition { noise: &t, second, ..Condition::default() };
        let of_student = |second| student.forward(&x, on(second));
        assert!(Weights(of_teacher.clone()).start(&params)?, "{config:?}: other names");
        let begun = of_student(Some(&s[..]))?;
        let gap =
            (&begun - teacher.forward(&x, on(None))?)?.abs()?.max_all()?.to_scalar::<f32>()?;
        assert_eq!(gap, 0.0, "{config:?}");
        // It learns from s: the last layer of the second embedding has a gradient, and once it has
        // moved the answer depends on s.
        let gradients = params.gradients(&begun.sqr()?.sum_all()?)?;
        let name = "second_time.linear_2.weight";
        let slope = gradients.get(name).map(|g| g.abs()?.max_all()?.to_scalar::<f32>());
        assert!(slope.transpose()?.is_some_and(|slope| slope > 0.0), "{config:?}");
        for (_, var) in params.trained().filter(|(known, _)| *known == name) {
            var.set(&Key::new(5).normal_like(&var.as_detached_tensor(), 0)?)?;
        }
        let moved = (of_student(Some(&s[..]))? - of_student(Some(&[0.5]))?)?;
        assert!(moved.abs()?.max_all()?.to_scalar::<f32>()? > 1e-3, "{config:?}");

        let message = |of: Result<Tensor>| of.err().map(|e| e.to_string()).unwrap_or_default();
        assert!(message(of_student(None)).contains("takes two noise levels"));
        assert!(message(teacher.forward(&x, on(Some(&s)))).contains("takes one noise level"));
        assert!(message(of_student(Some(&[f64::NAN]))).contains("c_noise = NaN"));
    }
    Ok(())
}

#[test]
fn the_model_of_two_noise_levels_is_the_identity_and_edms_denoiser_at_its_ends() -> Result<()> {
    let (device, shape) = (Device::Cpu, [2]);
    let config = NetworkConfig::Mlp(MlpConfig { width: 16, blocks: 1, time_features: 8 });
    let mut params = Params::new(DType::F64, &device);
    let student = params.init(&Key::new(0), |scope| config.build_for(scope, &shape, Times::Two))?;
    for (name, var) in params.trained().filter(|(name, _)| !name.starts_with("second_time")) {
        var.set(&Key::new(1).stream(name).normal_like(&var.as_detached_tensor(), 0)?)?;
    }
    let mut one = Params::new(DType::F64, &device);
    let teacher = one.init(&Key::new(0), |scope| config.build(scope, &shape))?;
    let own = params.tensors().into_iter().filter(|(name, _)| !name.starts_with("second_time"));
    let own: Result<_> = own.map(|(name, tensor)| Ok((name, tensor.copy()?))).collect();
    one.assign_tensors(&own?)?;
    let (map, denoiser) = (TwoTimeModel::new(student, 0.5), EdmDenoiser::new(teacher, 0.5));

    let x = Key::new(2).normal(0..3, &shape, DType::F64, &device)?;
    let t = [0.5, 3.0, 80.0];
    assert_eq!(gap(&map.map(&x, &t, &t)?, &x)?, 0.0);
    // Before the second embedding has learned, g is the denoiser D, and the map is Euler's step:
    // x + (s - t) (x - D) / t.
    let s = [0.002, 1.0, 79.0];
    let d = denoiser.denoise(&x, &t)?;
    let ratio = Tensor::new(&[[0.002 / 0.5], [1.0 / 3.0], [79.0 / 80.0]], &device)?;
    let euler = (x.broadcast_mul(&ratio)? + d.broadcast_mul(&ratio.affine(-1.0, 1.0)?)?)?;
    assert!(gap(&map.map(&x, &t, &s)?, &euler)? < 1e-12 * 100.0);
    let later = map.map(&x, &t, &[0.6]);
    assert!(later.is_err_and(|e| e.to_string().contains("from noise level t = 0.5 to s = 0.6")));
    let none = map.map(&x, &t, &[0.0]);
    assert!(none.is_err_and(|e| e.to_string().contains("needs 0 < s <= t")));
    Ok(())
}
