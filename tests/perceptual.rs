//! Promise: LPIPS is a distance that trains: its gradient is right, through resizing too, and an
//! experiment can have it as d.

#[path = "support/formula.rs"]
mod formula;
#[path = "support/judges.rs"]
mod judges;

use candle_core::{D, DType, Device, Tensor, Var};
use consistency::experiment::{Experiment, Monitor, train};
use consistency::hub::{Hub, HubSettings};
use consistency::loss::{Compare, Lpips, LpipsConfig, Pooling};
use consistency::nn::Settings;
use consistency::rng::Key;
use consistency::{Error, Result};
use formula::{Folder, formula};
use judges::write_weights;
use std::path::Path;

const CPU: Device = Device::Cpu;

fn message<T>(result: Result<T>) -> Result<String> {
    match result {
        Ok(_) => Err(Error::new("this should have been refused")),
        Err(error) => Ok(error.to_string()),
    }
}

fn near(what: &str, value: f64, want: f64, tolerance: f64) {
    assert!((value - want).abs() <= tolerance, "{what} is {value}, finite differences say {want}");
}

#[test]
fn gradients_of_lpips() -> Result<()> {
    let folder = Folder::new("lpips")?;
    let file = write_weights(&folder, &Lpips::shapes()?)?;
    let image = |name: &str| -> Result<Tensor> {
        Ok(formula(name, &[2, 3, 16, 16], 0.9, 0.0)?.to_dtype(DType::F64)?)
    };
    let (x, y) = (image("x")?, image("y")?);
    for (pooling, tensors, side) in [
        (Pooling::Max, false, None),
        (Pooling::Average, false, Some(32)),
        (Pooling::Max, true, None),
    ] {
        let settings = Settings { tensors, ..Settings::default() };
        let lpips = Lpips::load(&file, DType::F64, &CPU)?.with_pooling(pooling).with(settings);
        let lpips = match side {
            Some(side) => lpips.resizing_to(side),
            None => lpips,
        };
        assert_eq!(lpips.distance(&x, &x)?.to_vec1::<f64>()?, [0.0, 0.0]);
        let (a, b) = (Var::from_tensor(&x)?, Var::from_tensor(&y)?);
        let there = lpips.distance(&x, &y)?.to_vec1::<f64>()?;
        let back = lpips.distance(&y, &x)?.to_vec1::<f64>()?;
        near("the other way round", back[0], there[0], 1e-12);
        // Weights of one a sample: a gradient that mixes samples would show.
        let weights = Tensor::new(&[1.0, -0.7], &CPU)?;
        let loss = |a: &Tensor, b: &Tensor| -> Result<Tensor> {
            Ok((lpips.distance(a, b)? * &weights)?.sum_all()?)
        };
        let both = loss(a.as_tensor(), b.as_tensor())?;
        near("its value", both.to_scalar()?, there[0] - 0.7 * there[1], 1e-12);
        let store = both.backward()?;
        for (which, var, value) in [("a", &a, &x), ("b", &b, &y)] {
            let gradient = store
                .get(var.as_tensor())
                .ok_or_else(|| Error::new(format!("no gradient by {which}")))?;
            // Along random directions, small enough to stay within the ReLUs' pieces.
            for trial in 0..if tensors { 1 } else { 2 } {
                let name = format!("{which}{trial}");
                let along =
                    Key::new(4).stream(&name).normal(0..2, &[3, 16, 16], DType::F64, &CPU)?;
                let step = 1e-7;
                let moved = |sign: f64| -> Result<f64> {
                    let at = (value + (&along * (sign * step))?)?;
                    let value = if which == "a" { loss(&at, &y)? } else { loss(&x, &at)? };
                    Ok(value.to_scalar()?)
                };
                let slope = (moved(1.0)? - moved(-1.0)?) / (2.0 * step);
                let ours = (gradient * &along)?.sum_all()?.to_scalar::<f64>()?;
                let scale = gradient.sqr()?.sum_all()?.sqrt()?.to_scalar::<f64>()?;
                near(&format!("{pooling:?} by {which}"), ours, slope, 1e-4 * scale);
            }
        }
    }
    let lpips = Lpips::load(&file, DType::F64, &CPU)?;
    let small = x.narrow(D::Minus1, 0, 8)?.contiguous()?;
    assert!(message(lpips.distance(&small, &small))?.contains("at least 16 x 16"));
    let mixed = x.to_dtype(DType::F32)?;
    assert!(message(lpips.distance(&mixed, &mixed))?.contains("for an LPIPS in F64"));
    Ok(())
}

// Eight colour images of 8 x 8, as PNG.
fn colours(folder: &Folder) -> Result<()> {
    for k in 0..8u8 {
        let failed = |e: png::EncodingError| Error::new(e.to_string());
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 8, 8);
        encoder.set_color(png::ColorType::Rgb);
        let mut writer = encoder.write_header().map_err(failed)?;
        let pixels: Vec<u8> = (0..192u32).map(|i| (i * (u32::from(k) + 3) % 251) as u8).collect();
        writer.write_image_data(&pixels).map_err(failed)?;
        writer.finish().map_err(failed)?;
        folder.write(&format!("images/train/{k}.png"), &bytes)?;
    }
    Ok(())
}

fn experiment(data: &str, method: &str) -> Result<Experiment> {
    Experiment::parse(&format!(
        "name = 'perceptual'\ndata = {data}\nnetwork = {{ kind = 'mlp', width = 8, blocks = 1 }}\n\
         training = {{ iterations = 2, batch = 3 }}\n[method]\nkind = 'consistency-training'\n\
         schedule = {{ s0 = 4, s1 = 8, mu0 = 0.9 }}\n{method}\n"
    ))
}

#[test]
fn an_experiment_trains_with_lpips_as_its_distance() -> Result<()> {
    let folder = Folder::new("perceptual")?;
    colours(&folder)?;
    let file = write_weights(&folder, &Lpips::shapes()?)?;
    let images = folder.0.join("images");
    let data = format!("{{ name = 'images', of = '{}' }}", images.display());
    let lpips = format!("lpips = {{ side = 16, weights = '{}' }}", file.display());
    let run = |name: &str, method: &str| -> Result<Vec<f64>> {
        let experiment = experiment(&data, method)?;
        let trained = train(&experiment, &folder.0.join(name), &Monitor::default(), 1)?;
        Ok(trained.table().column("loss").to_vec())
    };
    let (perceptual, again) = (run("a", &lpips)?, run("b", &lpips)?);
    assert_eq!(perceptual, again);
    // The same pair, compared otherwise.
    let plain = run("c", "")?;
    assert!(perceptual.iter().all(|loss| *loss > 0.0 && loss.is_finite()), "{perceptual:?}");
    assert_ne!(perceptual, plain);
    // What is not asked for does not change an experiment's name.
    assert!(!experiment(&data, "")?.to_toml()?.contains("lpips"));
    Ok(())
}

#[test]
fn what_lpips_does_not_take_is_refused() -> Result<()> {
    let digits = "{ name = 'digits' }";
    let both = "distance = { metric = { kind = 'l1' } }\nlpips = {}";
    let said = message(experiment(digits, both))?;
    assert!(said.contains("method.lpips and method.distance"), "{said}");
    let said = message(experiment(digits, "lpips = { side = 8 }"))?;
    assert!(said.contains("method.lpips: side = 8"), "{said}");
    let folder = Folder::new("perceptual-grey")?;
    let grey = experiment(digits, "lpips = { side = 16, weights = 'nowhere' }")?;
    let said = message(train(&grey, &folder.0, &Monitor::default(), 1))?;
    assert!(said.contains("images of 3 channels"), "{said}");
    let missing = LpipsConfig { weights: Some("nowhere".into()), ..LpipsConfig::default() };
    let said = message(missing.load(&CPU))?;
    assert!(said.contains("LPIPS's weights nowhere"), "{said}");
    assert!(!Path::new("nowhere").exists());
    Ok(())
}

#[test]
fn it_compares_as_it_measures() -> Result<()> {
    let folder = Folder::new("perceptual-compares")?;
    let file = write_weights(&folder, &Lpips::shapes()?)?;
    let config = LpipsConfig { side: Some(32), pooling: Pooling::Average, weights: Some(file) };
    let (x, y) = (formula("x", &[2, 3, 8, 8], 0.9, 0.0)?, formula("y", &[2, 3, 8, 8], 0.9, 0.0)?);
    let lpips = config.load(&CPU)?;
    let (as_loss, as_metric) = (lpips.per_sample(&x, &y)?, lpips.distance(&x, &y)?);
    assert_eq!(as_loss.to_vec1::<f32>()?, as_metric.to_vec1::<f32>()?);
    assert!(as_loss.min_all()?.to_scalar::<f32>()? > 0.0);
    Ok(())
}

#[test]
fn the_published_weights_are_one_file_and_no_other() -> Result<()> {
    let folder = Folder::new("published-lpips")?;
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let cached = folder.0.join("hub/models--nikhilr01--sen-bridge-weights");
    let snapshot = cached.join("snapshots").join(commit);
    std::fs::create_dir_all(&snapshot)?;
    std::fs::create_dir_all(cached.join("refs"))?;
    std::fs::write(cached.join("refs/main"), commit)?;
    // Names and shapes are right: what is refused is the content.
    let file = write_weights(&folder, &Lpips::shapes()?)?;
    std::fs::copy(file, snapshot.join("lpips_vgg.safetensors"))?;
    let settings = HubSettings::new("http://127.0.0.1:9", folder.0.join("hub"));
    let hub = Hub::new(HubSettings { offline: true, ..settings })?;
    let said = message(Lpips::from_hub(&hub, DType::F32, &CPU))?;
    let all = "a96ef46bc0b0a064b67e277c15af82caa42278dd79aba0034815ed355e1aaacb";
    assert!(said.contains(&format!("the published LPIPS {all}: ")), "{said}");
    assert!(said.contains("lpips_vgg.safetensors") && said.contains("lpips.weights"), "{said}");
    Ok(())
}
