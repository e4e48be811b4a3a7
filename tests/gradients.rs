//! Promise: gradients are right. Every layer, network and loss against central finite
//! differences in f64, inputs that are used twice included.

use candle_core::{DType, Device, Tensor, Var};
use consistency::loss::{
    Distance, Metric, Reduction, Weighting, consistency_loss, score_matching_loss, training_pair,
};
use consistency::model::{
    Condition, ConsistencyModel, EdmDenoiser, MlpConfig, NcsnppConfig, NetworkConfig, SizeChange,
    TimeScaleShift, UNetConfig,
};
use consistency::nn::{
    Act, Attention, ClassEmbedding, Conv2d, Dropout, GroupNorm, Linear, Padding, Params, Plus,
    Scope, Settings, Tape, Value, average_pool2, concatenate, fir_blur, fir_down2, fir_up2,
    on_tape, silu, upsample_nearest2,
};
use consistency::process::{NoiseRange, Parameterization};
use consistency::rng::Key;
use consistency::{Error, Result};
use std::collections::BTreeMap;

/// How far an element is moved. With four points the error of a difference is of the fourth
/// order, so that it can be far enough to leave many digits.
const STEP: f64 = 2e-4;
/// The difference allowed, as a part of the larger of the two slopes or of 1.
const TOLERANCE: f64 = 1e-7;
/// Elements of each tensor that are moved; fewer where there are many tensors.
const PROBES: usize = 12;
const FEW: usize = 2;

fn noise(name: &str, shape: &[usize]) -> Result<Tensor> {
    let key = Key::new(7).stream(name);
    let count: usize = shape.iter().product();
    Ok(key.normal(0..1, &[count], DType::F64, &Device::Cpu)?.reshape(shape)?)
}

fn var(name: &str, shape: &[usize]) -> Result<Var> {
    Ok(Var::from_tensor(&noise(name, shape)?)?)
}

/// The gradients of the scalar `f` by the parameters and by `x`, by name.
fn gradients(
    params: &Params,
    x: Option<&Var>,
    f: impl Fn() -> Result<Tensor>,
) -> Result<BTreeMap<String, Tensor>> {
    let mut all: BTreeMap<String, Tensor> = BTreeMap::new();
    if params.trained().next().is_some() {
        let found = params.gradients(&f()?)?;
        all.extend(found.iter().map(|(name, tensor)| (name.to_string(), tensor.clone())));
    }
    if let Some(x) = x {
        let store = f()?.backward()?;
        let found = store.get(x.as_tensor()).ok_or_else(|| Error::new("x has no gradient"))?;
        all.insert("x".to_string(), found.clone());
    }
    Ok(all)
}

/// The gradients of the scalar `f` by the parameters and by `x` against finite differences.
fn check(
    what: &str,
    params: &Params,
    x: Option<&Var>,
    f: impl Fn() -> Result<Tensor>,
) -> Result<()> {
    let grads = gradients(params, x, &f)?;
    let vars: Vec<(&str, &Var)> = params.trained().chain(x.map(|x| ("x", x))).collect();
    let mut tested = 0;
    let probes = if vars.len() > 10 { FEW } else { PROBES };
    // What rounding of f itself leaves in a difference.
    let rounding = 1e-15 * f()?.to_scalar::<f64>()?.abs() / STEP;
    for (name, var) in vars {
        let Some(grad) = grads.get(name) else {
            return Err(Error::new(format!("{what}: {name} has no gradient")));
        };
        assert_eq!(grad.dims(), var.dims(), "{what}: the gradient of {name}");
        let grad = grad.flatten_all()?.to_vec1::<f64>()?;
        let value = var.as_detached_tensor().copy()?;
        let flat = value.flatten_all()?.to_vec1::<f64>()?;
        let stride = flat.len().div_ceil(probes);
        for i in (0..flat.len()).step_by(stride) {
            let at = |moved: f64| -> Result<f64> {
                let mut flat = flat.clone();
                flat[i] += moved;
                var.set(&Tensor::from_vec(flat, value.shape(), &Device::Cpu)?)?;
                Ok(f()?.to_scalar::<f64>()?)
            };
            let near = at(STEP)? - at(-STEP)?;
            let far = at(2.0 * STEP)? - at(-2.0 * STEP)?;
            let slope = (8.0 * near - far) / (12.0 * STEP);
            var.set(&value)?;
            let scale = slope.abs().max(grad[i].abs()).max(1.0);
            assert!(
                (slope - grad[i]).abs() <= TOLERANCE * scale + rounding,
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
    for (name, var) in params.trained() {
        var.set(&(var.as_detached_tensor() + (noise(name, var.dims())? * 0.3)?)?)?;
    }
    Ok(())
}

/// The two roads that a layer has: the CPU's kernels, and candle's operations, which other
/// devices take.
const ROADS: [(&str, Settings); 2] = {
    let kernels =
        Settings { checkpoint: false, precision: consistency::nn::Precision::F32, tensors: false };
    [("kernels", kernels), ("tensors", Settings { tensors: true, ..kernels })]
};

/// A layer built from `build`, checked by its input and all its parameters, on both roads;
/// and the two against each other.
fn layer<L>(
    what: &str,
    shape: &[usize],
    build: impl Fn(&mut Scope) -> Result<L>,
    forward: impl Fn(&L, &mut Tape, &Value) -> Result<Value>,
) -> Result<()> {
    let mut answers = Vec::new();
    for (road, settings) in ROADS {
        let what = format!("{what} on {road}");
        let mut params = Params::new(DType::F64, &Device::Cpu).with(settings);
        let mut link = None;
        let layer = params.init(&Key::new(0), |scope| {
            link = scope.link();
            build(scope)
        })?;
        shaken(&params)?;
        let x = var("x", shape)?;
        let run = |x: &Tensor| on_tape(x, link.as_ref(), settings, |t, x| forward(&layer, t, x));
        let once = || weigh(&run(x.as_tensor())?);
        check(&what, &params, Some(&x), once)?;
        // Twice: a backward that overwrites instead of adding would show here.
        check(&format!("{what}, its input used twice"), &params, Some(&x), || {
            let again = weigh(&run(&(x.as_tensor() * 0.5)?)?)?;
            Ok(((once()? * again)? + (x.sqr()?.sum_all()? * 5.0)?)?)
        })?;
        let mut answer = gradients(&params, Some(&x), once)?;
        answer.insert("the output".to_string(), run(x.as_tensor())?);
        answers.push(answer);
    }
    for (name, mine) in &answers[0] {
        let gap = (mine - &answers[1][name])?.abs()?.max_all()?.to_scalar::<f64>()?;
        let size = mine.abs()?.max_all()?.to_scalar::<f64>()?.max(1.0);
        assert!(gap <= 1e-11 * size, "{what}: the roads differ by {gap:.1e} in {name}");
    }
    Ok(())
}

#[test]
fn linear() -> Result<()> {
    layer("linear", &[3, 5], |s| Linear::new(s, 5, 4, 1.0), |l, t, x| l.forward(t, x))?;
    layer(
        "linear on tokens",
        &[2, 3, 5],
        |s| Linear::new(s, 5, 4, 1.0),
        |l, t, x| l.forward(t, x),
    )?;
    layer("wide linear", &[7, 70], |s| Linear::new(s, 70, 77, 1.0), |l, t, x| l.forward(t, x))?;
    layer("NIN", &[2, 3, 5], |s| Linear::nin(s, 5, 6, 1.0), |l, t, x| l.forward(t, x))
}

#[test]
fn convolution() -> Result<()> {
    for kernel in [1, 3, 5] {
        let what = format!("convolution {kernel}x{kernel}");
        // Not square, so that height and width cannot be mixed up.
        let build = |s: &mut Scope| Conv2d::new(s, 3, 2, kernel, 1.0);
        layer(&what, &[2, 6, 4, 3], build, |l, t, x| l.forward(t, x))?;
    }
    // A window wider than the image, and panels that are not full.
    layer("one row", &[2, 1, 1, 2], |s| Conv2d::new(s, 2, 3, 5, 1.0), |l, t, x| l.forward(t, x))?;
    layer("wide", &[2, 3, 4, 19], |s| Conv2d::new(s, 19, 43, 3, 1.0), |l, t, x| l.forward(t, x))
}

#[test]
fn convolution_by_winograd() -> Result<()> {
    // Enough tiles and channels for it, forward (2x2) and back (4x4); odd sizes leave tiles
    // half empty, and in the last there are enough tiles for the way forward alone.
    for (shape, outputs) in
        [([25, 8, 8, 16], 16), ([11, 11, 13, 18], 21), ([7, 16, 14, 40], 35), ([6, 8, 8, 17], 16)]
    {
        let build = |s: &mut Scope| Conv2d::new(s, shape[3], outputs, 3, 1.0);
        let what = format!("Winograd {shape:?} to {outputs}");
        layer(&what, &shape, build, |l, t, x| l.forward(t, x))?;
    }
    Ok(())
}

#[test]
fn convolution_with_strides() -> Result<()> {
    for (stride, kernel, padding) in [
        (2, 3, Padding::Each(1)),
        (2, 3, Padding::Sides([0, 0, 1, 1])),
        (2, 3, Padding::Each(0)),
        (3, 2, Padding::Sides([2, 1, 0, 1])),
        (1, 2, Padding::Each(1)),
        (1, 4, Padding::Sides([1, 2, 2, 1])),
    ] {
        let what = format!("kernel {kernel}, stride {stride}, {padding:?}");
        let build = |s: &mut Scope| Conv2d::strided(s, (3, 2), kernel, 1.0, stride, padding);
        layer(&what, &[2, 7, 6, 3], build, |l, t, x| l.forward(t, x))?;
    }
    Ok(())
}

#[test]
fn convolution_with_what_is_added() -> Result<()> {
    for (shape, outputs) in [([2, 4, 6, 3], 5), ([7, 8, 8, 17], 18)] {
        let build = |s: &mut Scope| {
            let conv = Conv2d::new(&mut s.at("conv"), shape[3], outputs, 3, 1.0)?;
            let side = Conv2d::new(&mut s.at("side"), shape[3], outputs, 1, 1.0)?;
            Ok((conv, side, Linear::new(&mut s.at("time"), 2, outputs, 1.0)?))
        };
        layer(&format!("plus {shape:?}"), &shape, build, |(conv, side, time), t, x| {
            let told = t.constant(noise("told", &[shape[0], 2])?);
            let told = time.forward(t, &told)?;
            let residual = side.forward(t, x)?;
            let plus = Plus { per_sample: Some(&told), residual: Some(&residual), factor: 0.7 };
            conv.plus(t, x, plus)
        })?;
    }
    Ok(())
}

#[test]
fn convolution_is_that_of_candle() -> Result<()> {
    let key = Key::new(8);
    for (shape, kernel) in
        [([33, 3, 9, 7], 3), ([1, 4, 32, 32], 5), ([2, 5, 3, 20], 1), ([2, 16, 16, 16], 3)]
    {
        let x =
            key.stream("x").normal(0..shape[0] as u64, &shape[1..], DType::F64, &Device::Cpu)?;
        let mut params = Params::new(DType::F64, &Device::Cpu);
        let layer = params.init(&key, |s| Conv2d::new(s, shape[1], 17, kernel, 1.0))?;
        let weight = params.iter().find(|(name, _)| *name == "weight").map(|(_, weight)| weight);
        let weight = weight.ok_or_else(|| Error::new("a convolution without a weight"))?;
        let theirs = x.conv2d(weight, kernel / 2, 1, 1, 1)?.permute((0, 2, 3, 1))?;
        let last = x.permute((0, 2, 3, 1))?;
        let ours = on_tape(&last, None, Settings::default(), |t, x| layer.forward(t, x))?;
        let gap = (ours - theirs)?.abs()?.max_all()?.to_scalar::<f64>()?;
        assert!(gap < 1e-12, "{shape:?}, kernel {kernel}: {gap:.1e}");
    }
    Ok(())
}

#[test]
fn group_norm() -> Result<()> {
    for act in [Act::None, Act::Silu] {
        for (groups, shape) in [(1, vec![3, 6]), (2, vec![2, 3, 4, 6]), (6, vec![2, 5, 6])] {
            let what = format!("group norm of {shape:?} in {groups}, then {act:?}");
            let build = |s: &mut Scope| GroupNorm::new(s, groups, 6, 1e-5);
            layer(&what, &shape, build, |l, t, x| l.forward(t, x, act))?;
        }
    }
    Ok(())
}

#[test]
fn group_norm_of_many_elements_runs_in_pieces() -> Result<()> {
    // Above the size where work is split over threads, by images and by channels.
    for (shape, groups) in [([2, 50, 20, 40], 10), ([17, 10, 10, 20], 5)] {
        let build = |s: &mut Scope| GroupNorm::new(s, groups, shape[3], 1e-5);
        layer("large group norm", &shape, build, |l, t, x| l.forward(t, x, Act::Silu))?;
    }
    Ok(())
}

#[test]
fn group_norm_with_modulation() -> Result<()> {
    for act in [Act::None, Act::Silu] {
        let build = |s: &mut Scope| {
            let norm = GroupNorm::new(&mut s.at("norm"), 2, 6, 1e-5)?;
            Ok((norm, Linear::new(&mut s.at("time"), 3, 12, 1.0)?))
        };
        layer(&format!("modulated, then {act:?}"), &[2, 3, 4, 6], build, |(norm, time), t, x| {
            let told = t.constant(noise("told", &[2, 3])?);
            let told = time.forward(t, &told)?;
            norm.modulated(t, x, &told, act)
        })?;
    }
    Ok(())
}

#[test]
fn silu_activation() -> Result<()> {
    layer("silu", &[4, 7], |_| Ok(()), |(), t, x| silu(t, x))?;
    layer("large silu", &[3, 30_000], |_| Ok(()), |(), t, x| silu(t, x))
}

#[test]
fn attention() -> Result<()> {
    for (heads, groups) in [(1, 2), (2, 2), (4, 0)] {
        let build = |s: &mut Scope| Attention::new(s, 4, heads, (groups, 1e-5), 0.8);
        layer(&format!("attention in {heads}"), &[2, 3, 2, 4], build, |l, t, x| l.forward(t, x))?;
    }
    // More positions than one task has queries.
    let build = |s: &mut Scope| Attention::new(s, 4, 2, (2, 1e-5), 1.0);
    layer("many positions", &[1, 15, 14, 4], build, |l, t, x| l.forward(t, x))?;
    layer("NIN", &[2, 3, 2, 4], |s| Attention::nin(s, 4, (2, 1e-6), 0.7), |l, t, x| l.forward(t, x))
}

#[test]
fn resampling() -> Result<()> {
    layer("nearest upsampling", &[2, 2, 4, 3], |_| Ok(()), |(), t, x| upsample_nearest2(t, x))?;
    layer("average pooling", &[2, 4, 6, 3], |_| Ok(()), |(), t, x| average_pool2(t, x))?;
    layer("FIR up", &[2, 3, 4, 19], |_| Ok(()), |(), t, x| fir_up2(t, x))?;
    layer("FIR down", &[2, 4, 6, 19], |_| Ok(()), |(), t, x| fir_down2(t, x))?;
    layer("FIR alone", &[2, 3, 4, 3], |_| Ok(()), |(), t, x| fir_blur(t, x))
}

#[test]
fn side_by_side() -> Result<()> {
    layer(
        "concatenation",
        &[2, 3, 5],
        |s| Linear::new(s, 5, 4, 1.0),
        |l, t, x| {
            let ys = l.forward(t, x)?;
            concatenate(t, &ys, x)
        },
    )
}

#[test]
fn dropout() -> Result<()> {
    let key = Key::new(4);
    layer(
        "dropout",
        &[5, 40],
        |s| Dropout::new(s, 0.3),
        |l, t, x| l.forward(t, x, Some(key.into())),
    )?;
    let mut params = Params::new(DType::F64, &Device::Cpu);
    let layer = params.init(&key, |s| Dropout::new(s, 0.3))?;
    let ones = Tensor::ones((50, 400), DType::F64, &Device::Cpu)?;
    let run = |x: &Tensor, key: Option<&Key>| -> Result<Vec<Vec<f64>>> {
        Ok(on_tape(x, None, Settings::default(), |t, x| {
            layer.forward(t, x, key.map(|key| (*key).into()))
        })?
        .to_vec2()?)
    };
    let kept = run(&ones, Some(&key))?;
    let zeros = kept.iter().flatten().filter(|x| **x == 0.0).count() as f64 / 20_000.0;
    assert!((zeros - 0.3).abs() < 0.02, "{zeros} of the numbers are dropped");
    let mean = kept.iter().flatten().sum::<f64>() / 20_000.0;
    assert!((mean - 1.0).abs() < 0.03, "the mean becomes {mean}");
    // The mask of a sample is its own, in any batch; another key is another mask.
    assert_eq!(kept[..20], run(&ones.narrow(0, 0, 20)?, Some(&key))?);
    assert_ne!(kept, run(&ones, Some(&Key::new(5)))?);
    assert_eq!(run(&ones, None)?, ones.to_vec2::<f64>()?);
    Ok(())
}

#[test]
fn classes() -> Result<()> {
    layer(
        "classes",
        &[3, 4],
        |s| ClassEmbedding::new(s, 5, 4),
        |l, t, x| {
            // A class twice: its gradients add up; and classes that nobody has.
            let told = l.forward(t, &[1, 4, 1])?;
            concatenate(t, x, &told)
        },
    )
}

fn tiny_unets() -> Vec<(&'static str, NetworkConfig)> {
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
