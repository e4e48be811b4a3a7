//! Promise: gradients are right. Every layer, network and loss against central finite
//! differences in f64, inputs that are used twice included.

use candle_core::{DType, Device, Tensor, Var};
use consistency::loss::{
    Distance, Metric, Reduction, Weighting, consistency_loss, score_matching_loss, training_pair,
};
use consistency::model::{ConsistencyModel, EdmDenoiser, MlpConfig, NetworkConfig, UNetConfig};
use consistency::nn::{
    Conv2d, GroupNorm, Linear, Params, Scope, SelfAttention, average_pool2, silu, upsample_nearest2,
};
use consistency::process::{NoiseRange, Parameterization};
use consistency::rng::Key;
use consistency::{Error, Result};

/// How far an element is moved, and the difference allowed, as a part of the larger of the
/// two slopes or of 1.
const SMALL: (f64, f64) = (1e-5, 1e-7);
/// The same for sums of tens of thousands of terms, which leave fewer digits.
const LARGE: (f64, f64) = (1e-3, 1e-5);
/// Elements of each tensor that are moved.
const PROBES: usize = 12;

fn noise(name: &str, shape: &[usize]) -> Result<Tensor> {
    let key = Key::new(7).stream(name);
    let count: usize = shape.iter().product();
    Ok(key.normal(0..1, &[count], DType::F64, &Device::Cpu)?.reshape(shape)?)
}

fn var(name: &str, shape: &[usize]) -> Result<Var> {
    Ok(Var::from_tensor(&noise(name, shape)?)?)
}

/// The gradient of the scalar `f` by every variable against finite differences.
fn check<'a>(
    what: &str,
    vars: impl IntoIterator<Item = (&'a str, &'a Var)>,
    f: impl Fn() -> Result<Tensor>,
) -> Result<()> {
    let grads = f()?.backward()?;
    let vars: Vec<(&str, &Var)> = vars.into_iter().collect();
    let large = vars.iter().any(|(_, var)| var.elem_count() > 10_000);
    let mut tested = 0;
    for (name, var) in vars {
        let Some(grad) = grads.get(var.as_tensor()) else {
            return Err(Error::new(format!("{what}: {name} has no gradient")));
        };
        assert_eq!(grad.dims(), var.dims(), "{what}: the gradient of {name}");
        let grad = grad.flatten_all()?.to_vec1::<f64>()?;
        let value = var.as_detached_tensor().copy()?;
        let flat = value.flatten_all()?.to_vec1::<f64>()?;
        let stride = flat.len().div_ceil(PROBES);
        let (step, tolerance) = if large { LARGE } else { SMALL };
        for i in (0..flat.len()).step_by(stride) {
            let at = |moved: f64| -> Result<f64> {
                let mut flat = flat.clone();
                flat[i] += moved;
                var.set(&Tensor::from_vec(flat, value.shape(), &Device::Cpu)?)?;
                Ok(f()?.to_scalar::<f64>()?)
            };
            let slope = (at(step)? - at(-step)?) / (2.0 * step);
            var.set(&value)?;
            let scale = slope.abs().max(grad[i].abs()).max(1.0);
            assert!(
                (slope - grad[i]).abs() <= tolerance * scale,
                "{what}: d/d{name}[{i}] is {}, finite differences give {slope}",
                grad[i]
            );
            tested += 1;
        }
    }
    assert!(tested > 0, "{what}: nothing was tested");
    Ok(())
}

/// A layer's output against fixed random weights: a scalar that depends on all of it.
fn weigh(ys: &Tensor) -> Result<Tensor> {
    Ok((ys * noise("weights", ys.dims())?)?.sum_all()?)
}

/// Parameters that are all random: zeros and ones would hide terms.
fn shaken(params: &Params) -> Result<()> {
    for (name, var) in params.iter() {
        var.set(&(var.as_detached_tensor() + (noise(name, var.dims())? * 0.3)?)?)?;
    }
    Ok(())
}

/// A layer built from `build`, checked by its input and all its parameters.
fn layer<L>(
    what: &str,
    shape: &[usize],
    build: impl FnOnce(&mut Scope) -> Result<L>,
    forward: impl Fn(&L, &Tensor) -> Result<Tensor>,
) -> Result<()> {
    let mut params = Params::new(DType::F64, &Device::Cpu);
    let layer = params.init(&Key::new(0), build)?;
    shaken(&params)?;
    let x = var("x", shape)?;
    let all = || params.iter().chain([("x", &x)]);
    check(what, all(), || weigh(&forward(&layer, x.as_tensor())?))?;
    // Twice: a backward that overwrites instead of adding would show here.
    check(&format!("{what}, its input used twice"), all(), || {
        let once = weigh(&forward(&layer, x.as_tensor())?)?;
        let again = weigh(&forward(&layer, &(x.as_tensor() * 0.5)?)?)?;
        Ok(((once * again)? + (x.sqr()?.sum_all()? * 5.0)?)?)
    })
}

#[test]
fn linear() -> Result<()> {
    layer("linear", &[3, 5], |s| Linear::new(s, 5, 4, 1.0), |l, x| l.forward(x))?;
    layer("linear on tokens", &[2, 3, 5], |s| Linear::new(s, 5, 4, 1.0), |l, x| l.forward(x))
}

#[test]
fn convolution() -> Result<()> {
    for kernel in [1, 3, 5] {
        let what = format!("convolution {kernel}x{kernel}");
        // Not square, so that height and width cannot be mixed up.
        layer(&what, &[2, 3, 6, 4], |s| Conv2d::new(s, 3, 2, kernel, 1.0), |l, x| l.forward(x))?;
    }
    // More images than one product takes, and a window wider than the image.
    layer("many images", &[70, 1, 4, 4], |s| Conv2d::new(s, 1, 2, 3, 1.0), |l, x| l.forward(x))?;
    layer("one row", &[2, 2, 1, 1], |s| Conv2d::new(s, 2, 3, 5, 1.0), |l, x| l.forward(x))
}

#[test]
fn convolution_is_that_of_candle() -> Result<()> {
    let key = Key::new(8);
    for (shape, kernel) in [([33, 3, 9, 7], 3), ([1, 4, 32, 32], 5), ([2, 5, 3, 20], 1)] {
        let x =
            key.stream("x").normal(0..shape[0] as u64, &shape[1..], DType::F64, &Device::Cpu)?;
        let mut params = Params::new(DType::F64, &Device::Cpu);
        let layer = params.init(&key, |s| Conv2d::new(s, shape[1], 6, kernel, 1.0))?;
        let weight = params.iter().find(|(name, _)| *name == "weight").map(|(_, weight)| weight);
        let weight = weight.ok_or_else(|| Error::new("a convolution without a weight"))?;
        let theirs = x.conv2d(weight, kernel / 2, 1, 1, 1)?;
        let gap = (layer.forward(&x)? - theirs)?.abs()?.max_all()?.to_scalar::<f64>()?;
        assert!(gap < 1e-12, "{shape:?}, kernel {kernel}: {gap:.1e}");
    }
    Ok(())
}

#[test]
fn group_norm() -> Result<()> {
    for (groups, shape) in [(1, vec![3, 6]), (2, vec![2, 6, 3, 4]), (6, vec![2, 6, 5])] {
        let what = format!("group norm of {shape:?} in {groups}");
        layer(&what, &shape, |s| GroupNorm::new(s, groups, 6, 1e-5), |l, x| l.forward(x))?;
    }
    Ok(())
}

#[test]
fn group_norm_of_many_elements_runs_in_pieces() -> Result<()> {
    // Above the size where work is split over threads.
    let shape = [2, 4, 100, 100];
    layer("large group norm", &shape, |s| GroupNorm::new(s, 2, 4, 1e-5), |l, x| l.forward(x))
}

#[test]
fn silu_activation() -> Result<()> {
    layer("silu", &[4, 7], |_| Ok(()), |(), x| silu(x))?;
    layer("large silu", &[3, 30_000], |_| Ok(()), |(), x| silu(x))
}

#[test]
fn attention() -> Result<()> {
    layer("self-attention", &[2, 4, 3, 2], |s| SelfAttention::new(s, 4, 2, 2), |l, x| l.forward(x))
}

#[test]
fn resampling() -> Result<()> {
    layer("nearest upsampling", &[2, 3, 2, 4], |_| Ok(()), |(), x| upsample_nearest2(x))?;
    layer("average pooling", &[2, 3, 4, 6], |_| Ok(()), |(), x| average_pool2(x))
}

#[test]
fn networks() -> Result<()> {
    let mlp = NetworkConfig::Mlp(MlpConfig { width: 8, blocks: 2, time_features: 4 });
    let unet =
        NetworkConfig::Unet(UNetConfig { channels: vec![4, 8], blocks: 1, groups: 2, heads: 2 });
    for (what, network) in [("MLP", mlp), ("U-Net", unet)] {
        layer(
            what,
            &[2, 1, 4, 4],
            |s| network.build(s, &[1, 4, 4]),
            |n, x| n.forward(x, &[-1.2, 0.7]),
        )?;
    }
    Ok(())
}

fn small() -> NetworkConfig {
    NetworkConfig::Mlp(MlpConfig { width: 6, blocks: 1, time_features: 4 })
}

#[test]
fn score_matching() -> Result<()> {
    let mut params = Params::new(DType::F64, &Device::Cpu);
    let network = params.init(&Key::new(0), |s| small().build(s, &[3]))?;
    shaken(&params)?;
    let denoiser = EdmDenoiser::new(network, 0.5);
    let (x0, z) = (noise("x0", &[4, 3])?, noise("z", &[4, 3])?);
    check("score matching", params.iter(), || {
        score_matching_loss(&denoiser, &x0, &z, &[0.01, 0.3, 1.0, 20.0], 0.5)
    })
}

#[test]
fn consistency_losses() -> Result<()> {
    let grid = NoiseRange::default().karras(5)?;
    for metric in [Metric::L1, Metric::L2Squared, Metric::L2, Metric::PseudoHuber { c: 0.03 }] {
        for reduction in [Reduction::Sum, Reduction::CodeMean] {
            for parameterization in [Parameterization::Skip, Parameterization::Piecewise] {
                let mut params = Params::new(DType::F64, &Device::Cpu);
                let network = params.init(&Key::new(0), |s| small().build(s, &[3]))?;
                shaken(&params)?;
                let target = params.duplicate()?.frozen(|s| small().build(s, &[3]))?;
                let student = ConsistencyModel::new(network, parameterization, 0.5, 0.002);
                let target = ConsistencyModel::new(target, parameterization, 0.5, 0.002);
                let (x0, z) = (noise("x0", &[4, 3])?, noise("z", &[4, 3])?);
                let pair = training_pair(&x0, &z, &[1, 2, 3, 4], &grid)?;
                let distance = Distance { metric, reduction };
                check(&format!("{metric:?}, {reduction:?}"), params.iter(), || {
                    consistency_loss(&student, &target, &pair, &distance, &Weighting::default())
                })?;
            }
        }
    }
    Ok(())
}

#[test]
fn no_gradient_reaches_the_target() -> Result<()> {
    let grid = NoiseRange::default().karras(5)?;
    let mut params = Params::new(DType::F64, &Device::Cpu);
    let wrap = |network| ConsistencyModel::new(network, Parameterization::Skip, 0.5, 0.002);
    let student = wrap(params.init(&Key::new(0), |s| small().build(s, &[3]))?);
    let mut theirs = Params::new(DType::F64, &Device::Cpu);
    // A target whose parameters could take gradients: the loss itself must stop them.
    let target = wrap(theirs.init(&Key::new(1), |s| small().build(s, &[3]))?);
    let pair = training_pair(&noise("x0", &[2, 3])?, &noise("z", &[2, 3])?, &[2, 3], &grid)?;
    let distance = Distance::default();
    let loss = consistency_loss(&student, &target, &pair, &distance, &Weighting::default())?;
    let grads = loss.backward()?;
    assert!(params.iter().all(|(_, var)| grads.get(var.as_tensor()).is_some()));
    assert!(theirs.iter().all(|(_, var)| grads.get(var.as_tensor()).is_none()));
    Ok(())
}

#[test]
fn distances_have_no_nan_where_both_sides_agree() -> Result<()> {
    for metric in [Metric::L1, Metric::L2Squared, Metric::L2, Metric::PseudoHuber { c: 0.03 }] {
        let x = var("x", &[2, 3])?;
        let loss = Distance::new(metric).per_sample(x.as_tensor(), &x.as_detached_tensor())?;
        assert_eq!(loss.to_vec1::<f64>()?, [0.0, 0.0], "{metric:?}");
        let grads = loss.sum_all()?.backward()?;
        let Some(grad) = grads.get(x.as_tensor()) else {
            return Err(Error::new(format!("{metric:?}: no gradient")));
        };
        assert_eq!(grad.flatten_all()?.to_vec1::<f64>()?, [0.0; 6], "{metric:?}");
    }
    Ok(())
}
