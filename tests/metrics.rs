//! Promise: metrics are what their names say. Closed forms, invariants, gradients against
//! finite differences, and names that only the right features bear.

#[path = "support/formula.rs"]
mod formula;
#[path = "support/judges.rs"]
mod judges;

use candle_core::{DType, Device, Tensor};
use consistency::data::digits;
use consistency::evaluate::{
    Features, Inception, Memorization, Statistics, frechet_distance, inception_score,
    kernel_distance, kernel_distance_of_subsets, precision_recall,
};
use consistency::loss::Lpips;
use consistency::rng::Key;
use consistency::{Error, Result};
use formula::Folder;
use judges::write_weights;

const CPU: Device = Device::Cpu;

fn normal(name: &str, rows: usize, dim: usize) -> Result<Tensor> {
    Key::new(11).stream(name).normal(0..rows as u64, &[dim], DType::F64, &CPU)
}

/// Rows whose mean is 0 and whose covariance is 1, to rounding.
fn whitened(name: &str, rows: usize, dim: usize) -> Result<Tensor> {
    let mut columns: Vec<Tensor> = Vec::new();
    let z = normal(name, rows, dim)?;
    for d in 0..dim {
        let mut x = z.narrow(1, d, 1)?;
        // Twice: once leaves what rounding makes of it.
        for _ in 0..2 {
            x = x.broadcast_sub(&x.mean_keepdim(0)?)?;
            for y in &columns {
                let along = ((&x * y)?.sum_keepdim(0)? / (rows - 1) as f64)?;
                x = (&x - y.broadcast_mul(&along)?)?;
            }
            let length = (x.sqr()?.sum_keepdim(0)? / (rows - 1) as f64)?.sqrt()?;
            x = x.broadcast_div(&length)?;
        }
        columns.push(x);
    }
    Ok(Tensor::cat(&columns, 1)?)
}

fn message<T>(result: Result<T>) -> Result<String> {
    match result {
        Ok(_) => Err(Error::new("this should have been refused")),
        Err(error) => Ok(error.to_string()),
    }
}

fn near(what: &str, value: f64, want: f64, tolerance: f64) {
    assert!((value - want).abs() <= tolerance, "{what} is {value}, the formula says {want}");
}

#[test]
fn frechet_distance_of_known_gaussians() -> Result<()> {
    let z = whitened("z", 400, 2)?;
    // S1 = A A' and S2 = B B' for symmetric A, B that do not commute. In two dimensions
    // tr (S1 S2)^1/2 = sqrt(tr S1 S2 + 2 sqrt(det S1 S2)).
    let a = Tensor::new(&[[2f64, 0.6], [0.6, 1.0]], &CPU)?;
    let b = Tensor::new(&[[0.5f64, -0.4], [-0.4, 1.5]], &CPU)?;
    let shift = Tensor::new(&[[3f64, -4.0]], &CPU)?;
    let distance = frechet_distance(&z.matmul(&a)?, &z.matmul(&b)?.broadcast_add(&shift)?)?;
    let (s1, s2) = (a.matmul(&a)?, b.matmul(&b)?);
    let product = s1.matmul(&s2)?.to_vec2::<f64>()?;
    let (s1, s2) = (s1.to_vec2::<f64>()?, s2.to_vec2::<f64>()?);
    let trace = |m: &[Vec<f64>]| m[0][0] + m[1][1];
    let det = product[0][0] * product[1][1] - product[0][1] * product[1][0];
    let root = (trace(&product) + 2.0 * det.sqrt()).sqrt();
    near("the distance", distance, 25.0 + trace(&s1) + trace(&s2) - 2.0 * root, 1e-9);
    Ok(())
}

#[test]
fn frechet_distance_without_full_rank() -> Result<()> {
    // Two lines in 40 dimensions at 60 degrees: tr (S1 S2)^1/2 = s1 s2 |cos|.
    let z = whitened("line", 50, 1)?;
    let along = |direction: [f64; 2], scale: f64| -> Result<Tensor> {
        let mut row = vec![0.0; 40];
        row[3] = direction[0] * scale;
        row[17] = direction[1] * scale;
        Ok(z.matmul(&Tensor::from_vec(row, (1, 40), &CPU)?)?)
    };
    let (a, b) = (along([1.0, 0.0], 2.0)?, along([0.5, 0.75f64.sqrt()], 3.0)?);
    near("two lines", frechet_distance(&a, &b)?, 4.0 + 9.0 - 2.0 * 6.0 * 0.5, 1e-6);
    // Fewer rows than dimensions, as in small experiments with 2048 features.
    let few = normal("few", 30, 200)?;
    near("a set and itself", frechet_distance(&few, &few)?, 0.0, 1e-5);
    near("a set and itself moved", frechet_distance(&few, &(&few + 0.5)?)?, 50.0, 1e-5);
    let one_way = frechet_distance(&few, &normal("other", 25, 200)?)?;
    let other_way = frechet_distance(&normal("other", 25, 200)?, &few)?;
    near("the distance the other way round", other_way, one_way, 1e-6 * one_way);
    Ok(())
}

#[test]
fn statistics_of_a_stream() -> Result<()> {
    // Far from zero, where a sum of squares would lose its digits.
    let rows = (normal("rows", 5000, 12)? * 0.1)?.broadcast_add(&Tensor::full(1e4, 12, &CPU)?)?;
    let whole = Statistics::of(&rows)?;
    let mut stream = Statistics::new(Features::values(), 12)?;
    for (first, count) in [(0, 1), (1, 999), (1000, 0), (1000, 4000)] {
        stream.add(&rows.narrow(0, first, count)?)?;
    }
    let mut merged = Statistics::of(&rows.narrow(0, 0, 1800)?)?;
    merged.merge(&Statistics::of(&rows.narrow(0, 1800, 3200)?)?)?;
    let centred = rows.broadcast_sub(&rows.mean_keepdim(0)?)?;
    let exact = (centred.t()?.matmul(&centred)? / 4999.0)?.flatten_all()?.to_vec1::<f64>()?;
    for (what, statistics) in [("whole", &whole), ("stream", &stream), ("merged", &merged)] {
        assert_eq!(statistics.count(), 5000, "{what}");
        for (ours, exact) in statistics.covariance()?.iter().zip(&exact) {
            near(what, *ours, *exact, 1e-12);
        }
        for (ours, exact) in statistics.mean().iter().zip(whole.mean()) {
            near(what, *ours, *exact, 1e-10);
        }
    }
    Ok(())
}

#[test]
fn statistics_in_files() -> Result<()> {
    let folder = Folder::new("statistics")?;
    let statistics = Statistics::of(&normal("rows", 40, 5)?)?;
    let path = folder.0.join("a.safetensors");
    statistics.save(&path)?;
    let read = Statistics::load(&path)?;
    assert_eq!((read.count(), read.features()), (40, statistics.features()));
    near("a set and its file", read.frechet_distance(&statistics)?, 0.0, 1e-9);
    // Kept by content: computed once a key.
    let kept = folder.0.join("kept");
    let first = Statistics::kept(&kept, "digits, held out", || Ok(statistics.clone()))?;
    let again = Statistics::kept(&kept, "digits, held out", || Err(Error::new("twice")))?;
    assert_eq!(first.mean(), again.mean());
    assert_eq!(message(Statistics::kept(&kept, "other", || Err(Error::new("asked"))))?, "asked");
    folder.write("b.safetensors", b"no such file")?;
    let bad = message(Statistics::load(&folder.0.join("b.safetensors")))?;
    assert!(bad.contains("b.safetensors"), "{bad}");
    Ok(())
}

#[test]
fn only_inception_has_a_fid() -> Result<()> {
    let pixels = Statistics::of(&normal("rows", 10, 3)?)?;
    assert!(message(pixels.fid(&pixels))?.contains("FID is of the published Inception's"));
    let mut named = Statistics::new(Features::named("digits classifier")?, 3)?;
    named.add(&normal("rows", 10, 3)?)?;
    assert!(message(named.fid(&named))?.contains("digits classifier"));
    assert!(message(pixels.frechet_distance(&named))?.contains("between features"));
    assert!(message(named.merge(&pixels))?.contains("between features"));
    assert!(message(Features::named("Inception of mine"))?.contains("is not FID"));
    // The right network under other weights: features, and no FID.
    let folder = Folder::new("other-inception")?;
    let file = write_weights(&folder, &Inception::shapes()?)?;
    let network = Inception::load(&file, &CPU)?;
    let images = Key::new(1).normal(0..3, &[3, 8, 8], DType::F32, &CPU)?;
    let answer = network.evaluate(&images.clamp(0f32, 1f32)?)?;
    assert_eq!(answer.pool().dims(), [3, 2048]);
    for refused in [
        message(answer.fid(&answer))?,
        message(answer.kid(&answer, &Key::new(0)))?,
        message(answer.inception_score(1))?,
    ] {
        assert!(refused.contains("of the published Inception's features"), "{refused}");
    }
    assert!(message(network.evaluate(&images))?.contains("images in [0, 1]"));
    let gray = message(network.evaluate(&images.narrow(1, 0, 1)?))?;
    assert!(gray.contains("three channels"), "{gray}");
    // One message names what is missing and what is too much; a prefix is no fault.
    let wrong = message(Lpips::load(&file, DType::F32, &CPU))?;
    assert!(wrong.contains("missing [") && wrong.contains("extra ["), "{wrong}");
    let tensors = candle_core::safetensors::load(&file, &CPU)?;
    let prefixed = tensors.into_iter().map(|(name, t)| (format!("inception.{name}"), t));
    let bytes = safetensors::serialize(prefixed.collect::<Vec<_>>(), None)?;
    folder.write("prefixed.safetensors", &bytes)?;
    let again = Inception::load(&folder.0.join("prefixed.safetensors"), &CPU)?;
    let same = again.evaluate(&images.clamp(0f32, 1f32)?)?;
    assert_eq!(same.pool().to_vec2::<f32>()?, answer.pool().to_vec2::<f32>()?);
    Ok(())
}

#[test]
fn kernel_distance_has_no_bias() -> Result<()> {
    // Sets of 40 from one distribution: the mean over 200 pairs is 0 within its own error; a
    // sum that counts a point's kernel with itself would be off by far more.
    let mut values = Vec::new();
    for i in 0..200 {
        let (a, b) = (normal(&format!("a{i}"), 40, 4)?, normal(&format!("b{i}"), 40, 4)?);
        values.push(kernel_distance(&a, &b)?);
    }
    let mean = values.iter().sum::<f64>() / 200.0;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 199.0;
    let error = (variance / 200.0).sqrt();
    assert!(mean.abs() < 3.0 * error, "{mean} with a standard error of {error}");
    assert!(error < 0.02, "{error}");
    // By its definition, on a set small enough for a loop; and over more than one block.
    let (a, b) = (normal("a", 7, 3)?, (normal("b", 5, 3)? + 0.3)?);
    let kernel = |x: &[f64], y: &[f64]| -> f64 {
        (x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>() / 3.0 + 1.0).powi(3)
    };
    let mean = |x: &[Vec<f64>], y: &[Vec<f64>], same: bool| -> f64 {
        let mut all = Vec::new();
        for (i, p) in x.iter().enumerate() {
            for (j, q) in y.iter().enumerate() {
                if !(same && i == j) {
                    all.push(kernel(p, q));
                }
            }
        }
        all.iter().sum::<f64>() / all.len() as f64
    };
    let (x, y) = (a.to_vec2::<f64>()?, b.to_vec2::<f64>()?);
    let want = mean(&x, &x, true) + mean(&y, &y, true) - 2.0 * mean(&x, &y, false);
    near("KID's formula", kernel_distance(&a, &b)?, want, 1e-12);
    let long = (normal("long", 2500, 3)? * 2.0)?;
    let (x, y) = (long.to_vec2::<f64>()?, b.to_vec2::<f64>()?);
    let want = mean(&x, &x, true) + mean(&y, &y, true) - 2.0 * mean(&x, &y, false);
    near("over two blocks", kernel_distance(&long, &b)?, want, 1e-9 * want.abs());
    let spread = kernel_distance_of_subsets(&long, &long, 10, 200, &Key::new(3))?;
    assert!(spread.mean.abs() < 3.0 * spread.deviation, "{spread:?}");
    Ok(())
}

#[test]
fn precision_and_recall_of_known_sets() -> Result<()> {
    let real = normal("real", 300, 6)?;
    let same = precision_recall(&real, &real, 3)?;
    assert_eq!((same.precision, same.recall), (1.0, 1.0));
    let far = precision_recall(&real, &(&real + 100.0)?, 3)?;
    assert_eq!((far.precision, far.recall), (0.0, 0.0));
    // One mode of two: all samples are good, and half of the real points are missed.
    let two = Tensor::cat(&[&real, &(&real + 100.0)?], 0)?;
    let half = precision_recall(&two, &real, 3)?;
    assert_eq!((half.precision, half.recall), (1.0, 0.5));
    // On a line, where balls can be counted: 0, 1, .., 9 with k = 3 reach 3, 2, 2, .., 2, 3.
    let line = |values: &[f64]| Tensor::from_slice(values, (values.len(), 1), &CPU);
    let real = line(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0])?;
    // The edge of a ball belongs to it.
    let fake = line(&[-3.0, -3.01, 4.5, 12.0])?;
    assert_eq!(precision_recall(&real, &fake, 3)?.precision, 0.75);
    // Points that come many times have balls without size, and lie in them.
    let heap = Tensor::ones((8, 5), DType::F64, &CPU)?;
    assert_eq!(precision_recall(&(heap.clone() * 0.1)?, &(heap * 0.1)?, 3)?.recall, 1.0);
    // Over more than one block, in f32.
    let long = normal("long", 2200, 3)?.to_dtype(DType::F32)?;
    assert_eq!(precision_recall(&long, &long, 3)?.recall, 1.0);
    Ok(())
}

#[test]
fn inception_score_of_known_predictions() -> Result<()> {
    let uniform = Tensor::zeros((50, 7), DType::F64, &CPU)?;
    near("uniform", inception_score(&uniform, 1)?.mean, 1.0, 1e-12);
    let one_hot: Vec<f64> =
        (0..70).flat_map(|i| (0..7).map(move |k| f64::from(u8::from(i % 7 == k)) * 1e3)).collect();
    let one_hot = Tensor::from_vec(one_hot, (70, 7), &CPU)?;
    for splits in [1, 5] {
        let score = inception_score(&one_hot, splits)?;
        near("one-hot", score.mean, 7.0, 1e-9);
        near("its spread", score.deviation, 0.0, 1e-9);
    }
    assert!(message(inception_score(&uniform, 51))?.contains("51 splits of 50 samples"));
    Ok(())
}

#[test]
fn bad_sets_are_named() -> Result<()> {
    let good = normal("good", 6, 4)?;
    let mut values = good.flatten_all()?.to_vec1::<f64>()?;
    values[9] = f64::NAN;
    let bad = Tensor::from_vec(values, (6, 4), &CPU)?;
    let at = "number 1 of row 2 is NaN";
    for refused in [
        message(frechet_distance(&good, &bad))?,
        message(kernel_distance(&bad, &good))?,
        message(precision_recall(&good, &bad, 3))?,
        message(inception_score(&bad, 1))?,
    ] {
        assert!(refused.contains(at), "{refused}");
    }
    let few = message(precision_recall(&good, &good.narrow(0, 0, 3)?, 3))?;
    assert!(few.contains("more than 3 points, got 3 fake"), "{few}");
    let one = good.narrow(0, 0, 1)?;
    assert!(message(frechet_distance(&one, &good))?.contains("2 points or more, got 1"));
    assert!(message(kernel_distance(&one, &good))?.contains("2 samples or more"));
    let subset = kernel_distance_of_subsets(&good, &good, 2, 9, &Key::new(0));
    assert!(message(subset)?.contains("subsets of 9 among 6"));
    let narrow = good.narrow(1, 0, 3)?;
    assert!(message(frechet_distance(&narrow, &good))?.contains("dimensions 3 and 4"));
    Ok(())
}

#[test]
fn copies_are_nearer_than_held_out_images() -> Result<()> {
    let line = |places: &[f64]| Tensor::new(places, &Device::Cpu)?.reshape((places.len(), 1));
    let (train, held_out) = (line(&[0.0, 10.0, 20.0])?, line(&[1.0, 12.0, 23.0, 16.0])?);
    let found = Memorization::of(&line(&[10.5, 0.0, 26.0])?, &train, &held_out)?;
    assert_eq!(found.samples, [0.0, 0.5, 6.0]);
    assert_eq!(found.held_out, [1.0, 2.0, 3.0, 4.0]);
    assert_eq!(found.ratio(), 0.5 / 2.5);
    assert_eq!(found.near(), 2.0 / 3.0);
    // Against every pair, over several blocks, root mean square a number.
    let normal = |name: &str, count: u64| {
        Key::new(3).stream(name).normal(0..count, &[3, 2], DType::F64, &Device::Cpu)
    };
    let (train, samples) = (normal("train", 2100)?, normal("samples", 90)?);
    let found = Memorization::of(&samples, &train, &normal("held out", 50)?)?;
    let rows = |of: &Tensor| Ok::<_, Error>(of.flatten_from(1)?.to_vec2::<f64>()?);
    let train = rows(&train)?;
    let nearest = |x: &Vec<f64>| {
        let square = |y: &Vec<f64>| x.iter().zip(y).map(|(x, y)| (x - y).powi(2)).sum::<f64>();
        (train.iter().map(square).fold(f64::INFINITY, f64::min) / 6.0).sqrt()
    };
    let mut want: Vec<f64> = rows(&samples)?.iter().map(nearest).collect();
    want.sort_by(f64::total_cmp);
    for (got, want) in found.samples.iter().zip(&want) {
        assert!((got - want).abs() < 1e-14, "{got} and {want}");
    }
    let digits = digits(DType::F32, &Device::Cpu)?;
    let own = Memorization::of(&digits.train, &digits.train, &digits.held_out)?;
    assert_eq!((own.ratio(), own.near()), (0.0, 1.0));
    assert!(Memorization::of(&samples, &digits.train, &digits.held_out).is_err());
    Ok(())
}
