//! Networks and losses against finite differences; accumulation and checkpointing.

use super::{ROADS, check, gradients, noise, shaken, var, weigh};
use candle_core::{DType, Device, Tensor, Var};
use consistency::loss::{
    Distance, Metric, Reduction, Weighting, consistency_loss, cross_entropy, score_matching_loss,
    training_pair,
};
use consistency::model::{
    Condition, ConsistencyModel, ConvNetConfig, EdmDenoiser, MlpConfig, NcsnppConfig,
    NetworkConfig, SizeChange, TimeScaleShift, UNetConfig,
};
use consistency::nn::{Params, Settings};
use consistency::process::{NoiseRange, Parameterization};
use consistency::rng::Key;
use consistency::{Error, Result};

pub fn tiny_unets() -> Vec<(&'static str, NetworkConfig)> {
    let small = UNetConfig { norm_num_groups: 2, ..UNetConfig::small(&[4, 8], 1) };
    let convs = UNetConfig {
        downsample_type: SizeChange::Conv,
        upsample_type: SizeChange::Conv,
        down_block_types: None,
        up_block_types: None,
        ..small.clone()
    };
    let modulated = UNetConfig {
        resnet_time_scale_shift: TimeScaleShift::ScaleShift,
        downsample_padding: 0,
        ..convs.clone()
    };
    let patched = UNetConfig { patch: 2, ..UNetConfig::small(&[4], 1) };
    let ncsnpp = NcsnppConfig {
        nf: 4,
        ch_mult: vec![1, 2],
        num_res_blocks: 1,
        attn_resolutions: vec![2],
        fourier_scale: 1.0,
        ..NcsnppConfig::default()
    };
    vec![
        ("U-Net", NetworkConfig::Unet(small)),
        ("U-Net with convolutions", NetworkConfig::Unet(convs)),
        ("modulated U-Net", NetworkConfig::Unet(modulated)),
        ("U-Net of patches", NetworkConfig::Unet(patched)),
        ("NCSN++", NetworkConfig::Ncsnpp(ncsnpp)),
    ]
}

#[test]
fn networks() -> Result<()> {
    let mlp = NetworkConfig::Mlp(MlpConfig { width: 8, blocks: 2, time_features: 4 });
    for (what, network) in tiny_unets().into_iter().chain([("MLP", mlp)]) {
        for settings in [ROADS[0].1, ROADS[1].1, Settings { checkpoint: true, ..ROADS[0].1 }] {
            let mut params = Params::new(DType::F64, &Device::Cpu).with(settings);
            let network = params.init(&Key::new(0), |s| network.build(s, &[1, 4, 4]))?;
            shaken(&params)?;
            let x = var("x", &[2, 1, 4, 4])?;
            let noise = [-1.2, 0.7].as_slice();
            let run = |x: &Tensor| network.forward(x, Condition::from(noise));
            check(&format!("{what}, {settings:?}"), &params, Some(&x), || {
                weigh(&run(x.as_tensor())?)
            })?;
        }
    }
    Ok(())
}

/// The classifier's network under its loss. Its many ReLUs leave no room for the steps of `check`,
/// so each tensor is moved once, along a random direction and by little.
#[test]
fn a_classifier() -> Result<()> {
    let step = 1e-6;
    for (road, settings) in ROADS {
        let mut params = Params::new(DType::F64, &Device::Cpu).with(settings);
        let network =
            params.init(&Key::new(0), |s| ConvNetConfig { classes: 3 }.build(s, &[2, 5, 4]))?;
        shaken(&params)?;
        let x = var("x", &[2, 2, 5, 4])?;
        let loss =
            || cross_entropy(&network.forward(x.as_tensor(), Condition::default())?, &[2, 0]);
        let found = gradients(&params, Some(&x), loss)?;
        assert_eq!(found.len(), 11, "five layers of two tensors, and the images");
        for (name, var) in params.trained().chain([("x", &x)]) {
            let along = noise(&format!("along {name}"), var.dims())?;
            let value = var.as_detached_tensor().copy()?;
            let at = |sign: f64| -> Result<f64> {
                var.set(&(&value + (&along * (sign * step))?)?)?;
                Ok(loss()?.to_scalar()?)
            };
            let slope = (at(1.0)? - at(-1.0)?) / (2.0 * step);
            var.set(&value)?;
            let ours = (&found[name] * &along)?.sum_all()?.to_scalar::<f64>()?;
            let gap = (ours - slope).abs();
            assert!(ours.abs() > 1e-6, "{road}: nothing is tested in {name}: {ours}");
            assert!(gap <= 1e-6 * ours.abs().max(1e-2), "{road}: {name}: {ours}, but {slope}");
        }
    }
    Ok(())
}

/// Whole networks at the sizes they are trained at, in f32: the kernels' gradients against
/// those of candle's operations.
#[test]
fn networks_at_full_size() -> Result<()> {
    for (what, config) in [
        ("MLP", NetworkConfig::Mlp(MlpConfig::default())),
        ("U-Net", NetworkConfig::Unet(UNetConfig::small(&[32, 64], 1))),
    ] {
        let mut answers = Vec::new();
        for (_, settings) in ROADS {
            let mut params = Params::new(DType::F32, &Device::Cpu).with(settings);
            let network = params.init(&Key::new(0), |s| config.build(s, &[1, 8, 8]))?;
            for (name, var) in params.trained() {
                let shaken = (noise(name, var.dims())?.to_dtype(DType::F32)? * 0.05)?;
                var.set(&(var.as_detached_tensor() + shaken)?)?;
            }
            let x = noise("x", &[128, 1, 8, 8])?.to_dtype(DType::F32)?;
            let levels: Vec<f64> = (0..128).map(|i| f64::from(i) / 50.0 - 1.5).collect();
            let ys = network.forward(&x, Condition::from(&levels))?;
            answers.push(params.gradients(&(ys - &x)?.sqr()?.sum_all()?)?);
        }
        // Some gradients are zero but for rounding: that of a key's bias, for one.
        let norm = answers[1].norm()? as f32;
        for (name, mine) in answers[0].iter() {
            let theirs = answers[1].get(name).ok_or_else(|| Error::new(name))?;
            let gap = (mine - theirs)?.sqr()?.sum_all()?.to_scalar::<f32>()?.sqrt();
            let size = theirs.sqr()?.sum_all()?.to_scalar::<f32>()?.sqrt();
            let size = size.max(1e-3 * norm);
            assert!(gap <= 1e-4 * size, "{what}: the roads differ by {gap} of {size} in {name}");
        }
    }
    Ok(())
}

#[test]
fn activation_checkpointing_changes_no_bit() -> Result<()> {
    for (what, config) in tiny_unets() {
        let mut answers = Vec::new();
        for checkpoint in [false, true] {
            let settings = Settings { checkpoint, ..Settings::default() };
            let mut params = Params::new(DType::F32, &Device::Cpu).with(settings);
            let network = params.init(&Key::new(0), |s| config.build(s, &[1, 8, 8]))?;
            for (name, var) in params.trained() {
                let shaken = (noise(name, var.dims())?.to_dtype(DType::F32)? * 0.3)?;
                var.set(&(var.as_detached_tensor() + shaken)?)?;
            }
            let x = Var::from_tensor(&noise("x", &[3, 1, 8, 8])?.to_dtype(DType::F32)?)?;
            let noise = [0.3].as_slice();
            let condition =
                Condition { dropout: Some(Key::new(1).into()), ..Condition::from(noise) };
            let ys = network.forward(x.as_tensor(), condition)?;
            let loss = ys.sqr()?.sum_all()?;
            let mut bits: Vec<u32> = Vec::new();
            for (_, gradient) in params.gradients(&loss)?.iter() {
                bits.extend(gradient.flatten_all()?.to_vec1::<f32>()?.iter().map(|x| x.to_bits()));
            }
            answers.push(bits);
        }
        assert!(answers[0] == answers[1], "{what}: gradients differ with checkpointing");
    }
    Ok(())
}

#[test]
fn a_second_way_back_is_refused() -> Result<()> {
    let mut params = Params::new(DType::F64, &Device::Cpu);
    let network = params.init(&Key::new(0), |s| small().build(s, &[3]))?;
    let noise = [0.1].as_slice();
    let x = var("x", &[2, 3])?;
    let loss = network.forward(x.as_tensor(), Condition::from(noise))?.sum_all()?;
    params.gradients(&loss)?;
    let error = params.gradients(&loss).map(|_| ()).map_err(|e| e.to_string());
    assert!(error.as_ref().is_err_and(|e| e.contains("evaluate it again")), "{error:?}");
    Ok(())
}

#[test]
fn accumulated_gradients_are_those_of_the_whole_batch() -> Result<()> {
    let config = NetworkConfig::Unet(UNetConfig::small(&[16, 32], 1));
    let mut params = Params::new(DType::F32, &Device::Cpu);
    let network = params.init(&Key::new(0), |s| config.build(s, &[1, 8, 8]))?;
    let x = noise("x", &[24, 1, 8, 8])?.to_dtype(DType::F32)?;
    let noise = [0.3].as_slice();
    let loss = |x: &Tensor| -> Result<Tensor> {
        Ok((network.forward(x, Condition::from(noise))? - x)?.sqr()?.sum_all()?)
    };
    let whole = params.gradients(&loss(&x)?)?;
    let mut parts = params.gradients(&loss(&x.narrow(0, 0, 8)?)?)?;
    for from in [8, 16] {
        parts.add(params.gradients(&loss(&x.narrow(0, from, 8)?)?)?)?;
    }
    for (name, whole) in whole.iter() {
        let part = parts.get(name).ok_or_else(|| Error::new(format!("{name} is missing")))?;
        let gap = (whole - part)?.abs()?.max_all()?.to_scalar::<f32>()?;
        let size = whole.abs()?.max_all()?.to_scalar::<f32>()?;
        assert!(gap <= 1e-5 * size.max(1e-3), "{name}: {gap} of {size}");
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
    check("score matching", &params, None, || {
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
                check(&format!("{metric:?}, {reduction:?}"), &params, None, || {
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
    assert_eq!(params.gradients(&loss)?.iter().count(), params.iter().count());
    let loss = consistency_loss(&student, &target, &pair, &distance, &Weighting::default())?;
    let error = theirs.gradients(&loss).map(|_| ()).map_err(|e| e.to_string());
    assert!(error.as_ref().is_err_and(|e| e.contains("has no gradient")), "{error:?}");
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
