//! Derivatives that go forward: every network and what is around it by x, by t and by the second noise
//! level, against differences, against the way back, and against dual numbers.

use super::{ROADS, gap, networks::tiny_unets, noise, shaken};
use candle_core::{D, DType, Device, Tensor};
use consistency::model::{
    Condition, ConsistencyModel, ConvNetConfig, EdmDenoiser, MlpConfig, Network, NetworkConfig,
    Times, TwoTimeModel,
};
use consistency::nn::{Params, Settings, push_forward};
use consistency::process::{NoiseRange, Parameterization, Scaling};
use consistency::rng::Key;
use consistency::seam::{ConsistencyFunction, Denoiser, MapTangent, Tangent, TwoTimeMap};
use consistency::theory::{Dual, Number, TanhModel};
use consistency::{Error, Result};

/// As in the tests of gradients, for the tangent as a whole.
const STEP: f64 = 2e-4;
const TOLERANCE: f64 = 1e-7;

/// `tangent` against the derivative of `at` at 0 by differences over four points.
pub fn check(what: &str, tangent: &Tensor, at: impl Fn(f64) -> Result<Tensor>) -> Result<()> {
    check_by(what, tangent, STEP, TOLERANCE, at)
}

fn check_by(
    what: &str,
    tangent: &Tensor,
    step: f64,
    tolerance: f64,
    at: impl Fn(f64) -> Result<Tensor>,
) -> Result<()> {
    let near = (at(step)? - at(-step)?)?;
    let far = (at(2.0 * step)? - at(-2.0 * step)?)?;
    let slope = (((near * 8.0)? - far)? / (12.0 * step))?;
    let size = slope.abs()?.max_all()?.to_scalar::<f64>()?.max(1.0);
    let apart = gap(tangent, &slope)?;
    assert!(apart <= tolerance * size, "{what}: the tangent is off by {apart:.1e} of {size:.1e}");
    Ok(())
}

/// (w, J v) = (J' w, v): the way back has been tested by itself. Exact but for rounding.
pub fn beside_the_way_back(
    what: &str,
    tangent: &Tensor,
    along: &Tensor,
    gradient: &Tensor,
) -> Result<()> {
    let forward = super::weigh(tangent)?.to_scalar::<f64>()?;
    let back = (gradient * along)?.sum_all()?.to_scalar::<f64>()?;
    let size = (gradient * along)?.abs()?.sum_all()?.to_scalar::<f64>()?.max(1.0);
    let apart = (forward - back).abs();
    assert!(apart <= 1e-11 * size, "{what}: forward {forward}, back {back}");
    Ok(())
}

#[test]
fn networks() -> Result<()> {
    let mlp = NetworkConfig::Mlp(MlpConfig { width: 8, blocks: 2, time_features: 4 });
    for (what, network) in tiny_unets().into_iter().chain([("MLP", mlp)]) {
        let mut roads = Vec::new();
        for settings in [ROADS[0].1, ROADS[1].1, Settings { checkpoint: true, ..ROADS[0].1 }] {
            let mut params = Params::new(DType::F64, &Device::Cpu).with(settings);
            let network = params.init(&Key::new(0), |s| network.build(s, &[1, 4, 4]))?;
            shaken(&params)?;
            let (x, v) = (noise("x", &[2, 1, 4, 4])?, noise("along", &[2, 1, 4, 4])?);
            let (c, rate) = ([-1.2, 0.7], [0.9, -0.4]);
            let moved = |h: f64| [c[0] + h * rate[0], c[1] + h * rate[1]];
            let masks = Some(Key::new(3).into());
            let on = Condition { dropout: masks, ..Condition::from(c.as_slice()) };
            let moving = Condition { noise_rate: Some(&rate), ..on };
            let value = |x: &Tensor, c: &[f64]| {
                network.forward(x, Condition { dropout: masks, ..Condition::from(c) })
            };
            let by_x = network.push_forward(&x, Some(&v), on)?.1;
            check(&format!("{what} by x"), &by_x, |h| value(&(&x + (&v * h)?)?, &c))?;
            let by_c = network.push_forward(&x, None, moving)?.1;
            // A U-Net multiplies c_noise by hundreds: the steps are small.
            let what_c = format!("{what} by c_noise");
            check_by(&what_c, &by_c, 1e-6, TOLERANCE, |h| value(&x, &moved(h)))?;
            let (ys, by_both) = network.push_forward(&x, Some(&v), moving)?;
            let size = by_both.abs()?.max_all()?.to_scalar::<f64>()?.max(1.0);
            let apart = gap(&by_both, &(&by_x + &by_c)?)?;
            assert!(apart < 1e-12 * size, "{what}: the parts are not the whole: {apart:.1e}");
            assert_eq!(gap(&ys, &value(&x, &c)?)?, 0.0, "{what}: a tangent changes the answer");
            // Nothing moves: nothing changes.
            let still = network.push_forward(&x, None, on)?.1;
            assert_eq!(still.abs()?.max_all()?.to_scalar::<f64>()?, 0.0, "{what}");
            roads.push(by_both);
        }
        let size = roads[0].abs()?.max_all()?.to_scalar::<f64>()?.max(1.0);
        assert!(gap(&roads[0], &roads[1])? < 1e-11 * size, "{what}: the roads differ");
        assert_eq!(gap(&roads[0], &roads[2])?, 0.0, "{what}: checkpoints change the tangent");
    }
    Ok(())
}

#[test]
fn in_f32_it_is_that_of_f64() -> Result<()> {
    for (what, config) in tiny_unets() {
        let mut tangents = Vec::new();
        for dtype in [DType::F64, DType::F32] {
            let mut params = Params::new(dtype, &Device::Cpu);
            let network = params.init(&Key::new(0), |s| config.build(s, &[1, 8, 8]))?;
            for (name, var) in params.trained() {
                let by = (noise(name, var.dims())? * 0.1)?.to_dtype(dtype)?;
                var.set(&(var.as_detached_tensor() + by)?)?;
            }
            let (x, v) = (noise("x", &[3, 1, 8, 8])?, noise("along", &[3, 1, 8, 8])?);
            let on = Condition { noise_rate: Some(&[0.3]), ..Condition::from([0.3].as_slice()) };
            let (x, v) = (x.to_dtype(dtype)?, v.to_dtype(dtype)?);
            tangents.push(network.push_forward(&x, Some(&v), on)?.1.to_dtype(DType::F64)?);
        }
        let size = tangents[0].abs()?.max_all()?.to_scalar::<f64>()?;
        let apart = gap(&tangents[0], &tangents[1])?;
        assert!(apart < 2e-4 * size, "{what}: {apart:.1e} of {size:.1e}");
    }
    Ok(())
}

/// Many ReLUs and largest numbers: the steps are small.
#[test]
fn a_classifier() -> Result<()> {
    for (road, settings) in ROADS {
        let mut params = Params::new(DType::F64, &Device::Cpu).with(settings);
        let config = ConvNetConfig { classes: 3 };
        let network = params.init(&Key::new(0), |s| config.build(s, &[2, 5, 4]))?;
        shaken(&params)?;
        let (x, v) = (noise("x", &[2, 2, 5, 4])?, noise("along", &[2, 2, 5, 4])?);
        let dys = network.push_forward(&x, Some(&v), Condition::default())?.1;
        check_by(road, &dys, 1e-7, 1e-6, |h| {
            network.forward(&(&x + (&v * h)?)?, Condition::default())
        })?;
    }
    Ok(())
}

fn mlp(times: Times) -> Result<Box<dyn Network>> {
    let config = NetworkConfig::Mlp(MlpConfig { width: 6, blocks: 2, time_features: 4 });
    let mut params = Params::new(DType::F64, &Device::Cpu);
    let network = params.init(&Key::new(0), |s| config.build_for(s, &[3], times))?;
    shaken(&params)?;
    Ok(network)
}

#[test]
fn what_is_around_a_network() -> Result<()> {
    let (x, v) = (noise("x", &[4, 3])?, noise("along", &[4, 3])?);
    let (t, w) = ([0.05, 0.4, 2.0, 30.0], [0.02, -0.3, 1.0, 0.5]);
    let at = |h: f64| -> Result<(Tensor, Vec<f64>)> {
        Ok(((&x + (&v * h)?)?, t.iter().zip(&w).map(|(t, w)| t + h * w).collect()))
    };
    for parameterization in [Parameterization::Skip, Parameterization::Piecewise] {
        let f = ConsistencyModel::new(mlp(Times::One)?, parameterization, 0.5, 0.002);
        let (value, moved) = f.push_forward(&x, &t, &v, &w)?;
        assert!(gap(&value, &f.origin(&x, &t)?)? < 1e-14);
        check(&format!("{parameterization:?}"), &moved, |h| {
            let (x, t) = at(h)?;
            f.origin(&x, &t)
        })?;
        assert!(f.push_forward(&x, &[0.001], &v, &[1.0]).is_err(), "below eps");
        // At eps f is the identity, whatever the network.
        let (value, moved) = f.push_forward(&x, &[0.002], &v, &[0.0])?;
        assert_eq!((gap(&value, &x)?, gap(&moved, &v)?), (0.0, 0.0));
    }
    let denoiser = EdmDenoiser::new(mlp(Times::One)?, 0.5);
    let (value, moved) = denoiser.push_forward(&x, &t, &v, &w)?;
    assert!(gap(&value, &denoiser.denoise(&x, &t)?)? < 1e-14);
    check("a denoiser", &moved, |h| {
        let (x, t) = at(h)?;
        denoiser.denoise(&x, &t)
    })?;
    // One rate for all, and a direction of another shape.
    let (_, for_all) = denoiser.push_forward(&x, &t, &v, &[0.5])?;
    assert_eq!(gap(&for_all, &denoiser.push_forward(&x, &t, &v, &[0.5; 4])?.1)?, 0.0);
    assert!(denoiser.push_forward(&x, &t, &v.narrow(0, 0, 2)?, &w).is_err());
    Ok(())
}

#[test]
fn a_map_by_each_of_its_arguments() -> Result<()> {
    let map = TwoTimeModel::new(mlp(Times::Two)?, 0.5);
    let (x, v) = (noise("x", &[4, 3])?, noise("along", &[4, 3])?);
    let (t, s) = ([0.05, 0.4, 2.0, 30.0], [0.01, 0.3, 0.002, 3.0]);
    let zero = (&v * 0.0)?;
    for (what, v, dt, ds) in [
        ("by x", &v, [0.0; 4], [0.0; 4]),
        ("by t", &zero, [0.02, 0.3, 1.0, -0.5], [0.0; 4]),
        ("by s", &zero, [0.0; 4], [0.01, -0.2, 0.0005, 0.7]),
        ("by all", &v, [0.02, 0.3, 1.0, -0.5], [0.01, -0.2, 0.0005, 0.7]),
    ] {
        let (value, moved) = map.push_forward(&x, (&t, &s), v, (&dt, &ds))?;
        assert!(gap(&value, &map.map(&x, &t, &s)?)? < 1e-14, "{what}");
        let along = |a: &[f64], b: &[f64], h: f64| -> Vec<f64> {
            a.iter().zip(b).map(|(a, b)| a + h * b).collect()
        };
        check(&format!("a map {what}"), &moved, |h| {
            map.map(&(&x + (v * h)?)?, &along(&t, &dt, h), &along(&s, &ds, h))
        })?;
    }
    // At s = t it is the identity along both.
    let (_, moved) = map.push_forward(&x, (&t, &t), &v, (&t, &t))?;
    assert!(gap(&moved, &v)? < 1e-12, "the boundary moves by {:.1e}", gap(&moved, &v)?);
    Ok(())
}

/// A network without blocks, written out over dual numbers.
#[test]
fn beside_dual_numbers() -> Result<()> {
    let config = NetworkConfig::Mlp(MlpConfig { width: 5, blocks: 0, time_features: 4 });
    let mut params = Params::new(DType::F64, &Device::Cpu);
    let network = params.init(&Key::new(0), |s| config.build(s, &[3]))?;
    shaken(&params)?;
    let of = |name: &str| -> Result<Vec<f64>> {
        let found = params.iter().find(|(own, _)| *own == name).map(|(_, tensor)| tensor);
        let found = found.ok_or_else(|| Error::new(format!("no parameter {name}")))?;
        Ok(found.flatten_all()?.to_vec1()?)
    };
    let (w1, b1) = (of("input.weight")?, of("input.bias")?);
    let (scale, shift) = (of("norm.weight")?, of("norm.bias")?);
    let (w2, b2) = (of("output.weight")?, of("output.bias")?);
    let (x, v) = ([0.3, -1.1, 0.8], [1.0, 0.4, -2.0]);
    type Moving = Dual<f64>;
    let constant = Moving::constant;
    let linear = |xs: &[Moving], w: &[f64], b: &[f64]| -> Vec<Moving> {
        let row = |o: usize| {
            let products = xs.iter().enumerate().map(|(i, x)| constant(w[o * xs.len() + i]) * *x);
            products.fold(constant(b[o]), |sum, product| sum + product)
        };
        (0..b.len()).map(row).collect()
    };
    let xs: Vec<Moving> = x.iter().zip(&v).map(|(x, v)| Dual { value: *x, tangent: *v }).collect();
    let h = linear(&xs, &w1, &b1);
    let mean = h.iter().fold(constant(0.0), |sum, h| sum + *h) / constant(5.0);
    let square = |h: &Moving| (*h - mean) * (*h - mean);
    let variance = h.iter().map(square).fold(constant(0.0), |sum, s| sum + s) / constant(5.0);
    let deviation = (variance + constant(1e-5)).sqrt();
    let acted: Vec<Moving> = (0..5)
        .map(|i| {
            let z = (h[i] - mean) / deviation * constant(scale[i]) + constant(shift[i]);
            z / (constant(1.0) + (-z).exp())
        })
        .collect();
    let want = linear(&acted, &w2, &b2);
    let input = |of: &[f64]| Tensor::from_slice(of, (1, 3), &Device::Cpu);
    let on = Condition::from([0.2].as_slice());
    let (ys, dys) = network.push_forward(&input(&x)?, Some(&input(&v)?), on)?;
    let (ys, dys) = (ys.flatten_all()?.to_vec1::<f64>()?, dys.flatten_all()?.to_vec1::<f64>()?);
    for (i, want) in want.iter().enumerate() {
        assert!((ys[i] - want.value).abs() < 1e-13, "{} and {}", ys[i], want.value);
        assert!((dys[i] - want.tangent).abs() < 1e-13, "{} and {}", dys[i], want.tangent);
    }
    Ok(())
}

#[test]
fn what_has_no_derivative_says_so() -> Result<()> {
    struct Zero;
    impl Network for Zero {
        fn forward(&self, xs: &Tensor, _: Condition) -> Result<Tensor> {
            Ok(xs.zeros_like()?)
        }
    }
    let f = ConsistencyModel::new(Box::new(Zero), Parameterization::Skip, 0.5, 0.002);
    let x = noise("x", &[2, 3])?;
    let error = f.push_forward(&x, &[1.0], &x, &[0.0]).err().map(|e| e.to_string());
    assert!(error.is_some_and(|e| e.contains("implement `Network::push_forward`")));
    // A direction of another shape or type.
    let square = |t: &mut consistency::nn::Tape, x: &consistency::nn::Value| t.add(x, x, 0.5);
    let settings = Settings::default();
    for along in [noise("v", &[3, 2])?, x.to_dtype(DType::F32)?] {
        let run = push_forward(&x, Some(&along), settings, |t, x| Ok(square(t, x)?));
        assert!(run.is_err_and(|e| e.to_string().contains("that moves along")));
    }
    Ok(())
}

/// EDM's scalings around F = 0 and the model function of the theory, both known in closed form.
#[test]
fn scalings_and_the_theorys_model() -> Result<()> {
    let x = noise("x", &[3, 2])?;
    let (t, w) = ([0.3, 1.0, 9.0], [1.0, -0.5, 2.0]);
    for scaling in
        [Scaling::Edm { sigma_data: 0.5 }, Scaling::Boundary { sigma_data: 0.5, eps: 0.002 }]
    {
        let zeros = |(x, _): (&Tensor, &Tensor), _: (&[f64], &[f64])| {
            Ok((x.zeros_like()?, x.zeros_like()?))
        };
        let (_, moved) = scaling.push_forward((&x, &x.zeros_like()?), (&t, &w), zeros)?;
        for i in 0..3 {
            let want = (x.get(i)? * (scaling.slopes(t[i]).c_skip * w[i]))?;
            assert!(gap(&moved.get(i)?, &want)? < 1e-15);
        }
    }
    let f = TanhModel::new([1.0, 0.2, 0.1], &NoiseRange::default());
    let v = noise("along", &[3, 2])?;
    let (value, moved) = f.push_forward(&x, &t, &v, &w)?;
    assert_eq!(gap(&value, &f.origin(&x, &t)?)?, 0.0);
    assert_eq!(gap(&moved, &f.jvp(&x, &t, &v, &w)?)?, 0.0);
    check("tanh", &moved, |h| {
        let t: Vec<f64> = t.iter().zip(&w).map(|(t, w)| t + h * w).collect();
        f.origin(&(&x + (&v * h)?)?, &t)
    })?;
    assert!(moved.sum(D::Minus1)?.abs()?.max_all()?.to_scalar::<f64>()? > 0.01);
    Ok(())
}
