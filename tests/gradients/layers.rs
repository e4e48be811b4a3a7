//! Every layer against finite differences, and its two roads against each other.

use super::{layer, noise};
use candle_core::{DType, Device, Tensor};
use consistency::nn::{
    Act, Attention, ClassEmbedding, Conv2d, ConvEpilogue, Dropout, GroupNorm, Linear, Padding,
    Params, Scope, Settings, Tape, Value, average_pool2, average_pool3, concatenate, fir_blur,
    fir_down2, fir_up2, max_pool, on_tape, position_mean, relu, resize_bilinear, silu,
    upsample_nearest2,
};
use consistency::rng::Key;
use consistency::{Error, Result};

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
            let conditioning = t.constant(noise("conditioning", &[shape[0], 2])?);
            let conditioning = time.forward(t, &conditioning)?;
            let residual = side.forward(t, x)?;
            let epilogue = ConvEpilogue {
                per_sample: Some(&conditioning),
                residual: Some(&residual),
                factor: 0.7,
            };
            conv.forward_with(t, x, epilogue)
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
            let conditioning = t.constant(noise("conditioning", &[2, 3])?);
            let conditioning = time.forward(t, &conditioning)?;
            norm.modulated(t, x, &conditioning, act)
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
            let conditioning = l.forward(t, &[1, 4, 1])?;
            concatenate(t, x, &conditioning)
        },
    )
}

#[test]
fn pooling() -> Result<()> {
    layer("ReLU", &[3, 7], |_| Ok(()), |(), t, x| relu(t, x))?;
    for (kernel, stride, padding) in [(2, 2, 0), (3, 2, 0), (3, 1, 1), (3, 2, 1)] {
        let what = format!("max pooling {kernel}, {stride}, {padding}");
        let pool = move |(): &(), t: &mut Tape, x: &Value| max_pool(t, x, kernel, stride, padding);
        layer(&what, &[2, 5, 6, 3], |_| Ok(()), pool)?;
    }
    layer("means of 3x3", &[2, 5, 4, 3], |_| Ok(()), |(), t, x| average_pool3(t, x))?;
    layer("one row of means", &[1, 1, 3, 2], |_| Ok(()), |(), t, x| average_pool3(t, x))?;
    layer("mean of positions", &[2, 3, 4, 5], |_| Ok(()), |(), t, x| position_mean(t, x))?;
    layer("larger", &[2, 3, 4, 2], |_| Ok(()), |(), t, x| resize_bilinear(t, x, (7, 5)))?;
    layer("smaller", &[2, 7, 9, 2], |_| Ok(()), |(), t, x| resize_bilinear(t, x, (3, 4)))
}

#[test]
fn pooling_beside_definitions() -> Result<()> {
    let mut tape = Tape::new(Settings::default(), false);
    let xs = Tensor::new(&[[-1f64, 4.0, -2.0], [-5.0, -3.0, -8.0]], &Device::Cpu)?;
    let xs = tape.constant(xs.reshape((1, 2, 3, 1))?);
    let row = |ys: Value| -> Result<Vec<f64>> { Ok(ys.tensor().flatten_all()?.to_vec1()?) };
    // What padding adds counts neither as a largest number nor in a mean.
    assert_eq!(row(max_pool(&mut tape, &xs, 3, 2, 1)?)?, [4.0, 4.0]);
    let means = row(average_pool3(&mut tape, &xs)?)?;
    assert!((means[0] - -1.25).abs() < 1e-12 && (means[1] - -2.5).abs() < 1e-12, "{means:?}");
    // Centres of 6 pixels over 3: the first lies before the first centre.
    let wide = row(resize_bilinear(&mut tape, &xs, (2, 6))?)?;
    for (ours, want) in wide.iter().zip([-1.0, 0.25, 2.75, 2.5, -0.5, -2.0]) {
        assert!((ours - want).abs() < 1e-12, "{wide:?}");
    }
    let none = max_pool(&mut tape, &xs, 2, 1, 2).err();
    assert!(none.is_some_and(|e| e.to_string().contains("some windows see nothing")));
    Ok(())
}

#[test]
fn patches() -> Result<()> {
    layer("fold", &[2, 6, 4, 3], |_| Ok(()), |(), t, x| Ok(t.fold(x, 2)?))?;
    layer("unfold", &[2, 2, 3, 18], |_| Ok(()), |(), t, x| Ok(t.unfold(x, 3)?))?;
    // One channel of 4x4 in patches of 2x2: each patch's rows in order, and back.
    let pixels: Vec<f64> = (0..16).map(f64::from).collect();
    let image = Tensor::from_vec(pixels.clone(), (1, 4, 4, 1), &Device::Cpu)?;
    let mut tape = Tape::new(Settings::default(), false);
    let folded = {
        let xs = tape.constant(image);
        tape.fold(&xs, 2)?
    };
    assert_eq!(folded.dims(), [1, 2, 2, 4]);
    let first = folded.tensor().flatten_all()?.to_vec1::<f64>()?;
    assert_eq!(first[..8], [0.0, 1.0, 4.0, 5.0, 2.0, 3.0, 6.0, 7.0]);
    let back = tape.unfold(&folded, 2)?;
    assert_eq!(back.tensor().flatten_all()?.to_vec1::<f64>()?, pixels);
    assert!(tape.fold(&back, 3).is_err() && tape.unfold(&back, 2).is_err());
    Ok(())
}
