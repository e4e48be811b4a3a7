//! Promise: a classifier is a network as every other is: built and saved one way, and trained by the
//! step that experiments take.

use candle_core::{DType, Device, Tensor};
use consistency::data::{batch_rows, digits, select};
use consistency::evaluate::Classifier;
use consistency::experiment::Experiment;
use consistency::loss::cross_entropy;
use consistency::method::ClassifierConfig;
use consistency::model::{Condition, ConsistencyModel, ConvNetConfig, EdmDenoiser};
use consistency::nn::{Optimizer, OptimizerConfig, OptimizerKind, Params};
use consistency::process::Parameterization;
use consistency::rng::Key;
use consistency::seam::{ConsistencyFunction, Denoiser};
use consistency::{Error, Result};
use std::collections::HashMap;
use std::path::PathBuf;

const CPU: Device = Device::Cpu;

/// A folder that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("consistency-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn message<T>(result: Result<T>) -> Result<String> {
    match result {
        Ok(_) => Err(Error::new("this should have been refused")),
        Err(error) => Ok(error.to_string()),
    }
}

fn wide(labels: &[u8]) -> Vec<u32> {
    labels.iter().map(|label| u32::from(*label)).collect()
}

fn bits(tensor: &Tensor) -> Result<Vec<u32>> {
    Ok(tensor.flatten_all()?.to_vec1::<f32>()?.iter().map(|x| x.to_bits()).collect())
}

#[test]
fn a_classifier_of_the_digits() -> Result<()> {
    let digits = digits(DType::F32, &CPU)?;
    let labels = wide(&digits.train_labels);
    let train = |seed: u64, steps: u64| {
        let config = ClassifierConfig { steps, ..ClassifierConfig::default() };
        Classifier::train(&digits.train, &labels, 10, config, &Key::new(seed))
    };
    let classifier = train(0, ClassifierConfig::default().steps)?;
    let accuracy = classifier.accuracy(&digits.held_out, &wide(&digits.held_out_labels))?;
    assert!(accuracy > 0.9, "it knows {accuracy} of the held-out digits");
    // Two halves of the real digits, and noise of the same number.
    let order: Vec<u32> = Key::new(5).permutation(1346).iter().map(|i| *i as u32).collect();
    let (one, other) =
        (select(&digits.train, &order[..673])?, select(&digits.train, &order[673..])?);
    let noise = Key::new(6).normal(0..673, &[1, 8, 8], DType::F32, &CPU)?.clamp(-1f32, 1f32)?;
    let halves = classifier.frechet_distance(&one, &other)?;
    let off = classifier.frechet_distance(&one, &noise)?;
    assert!(off > 30.0 * halves, "noise {off}, halves of the digits {halves}");
    assert!(
        message(classifier.statistics(&one)?.fid(&classifier.statistics(&other)?))?
            .contains("classifier")
    );
    // A function of the key, and of nothing else.
    let (first, again, another) = (train(1, 5)?, train(1, 5)?, train(2, 5)?);
    assert_eq!(first.features(), again.features());
    assert_ne!(first.features(), another.features());
    let bad =
        Classifier::train(&digits.train, &labels, 9, ClassifierConfig::default(), &Key::new(0));
    assert!(message(bad)?.contains("label 9 with 9 classes"));
    Ok(())
}

/// A classifier of the digits after 20 steps, and its weights as a file has them.
fn twenty_steps(folder: &Folder) -> Result<(Classifier, HashMap<String, Tensor>)> {
    let digits = digits(DType::F32, &CPU)?;
    let labels = wide(&digits.train_labels);
    let config = ClassifierConfig { steps: 20, ..ClassifierConfig::default() };
    let classifier = Classifier::train(&digits.train, &labels, 10, config, &Key::new(0))?;
    let file = folder.0.join("classifier.safetensors");
    classifier.save(&file)?;
    Ok((classifier, candle_core::safetensors::load(&file, &CPU)?))
}

#[test]
fn it_trains_by_plain_steps_to_the_bit() -> Result<()> {
    let folder = Folder::new("plain")?;
    let (classifier, weights) = twenty_steps(&folder)?;
    // The same, as a loop that shares nothing with the library's.
    let digits = digits(DType::F32, &CPU)?;
    let (labels, key) = (wide(&digits.train_labels), Key::new(0));
    let mut params = Params::new(DType::F32, &CPU);
    let network = params
        .init(&key.stream("classifier"), |s| ConvNetConfig { classes: 10 }.build(s, &[1, 8, 8]))?;
    let adam = OptimizerConfig {
        kind: OptimizerKind::Adam,
        learning_rate: 3e-3,
        ..OptimizerConfig::default()
    };
    let mut optimizer = Optimizer::new(adam, &params)?;
    for k in 0..20 {
        let rows = batch_rows(labels.len(), 64, k, &key.stream("batches"));
        let own: Vec<u32> = rows.iter().map(|row| labels[*row as usize]).collect();
        let logits = network.forward(&select(&digits.train, &rows)?, Condition::default())?;
        let gradients = params.gradients(&cross_entropy(&logits, &own)?)?;
        let half_cosine = 0.5 * (1.0 + (std::f64::consts::PI * (k as f64 / 20.0)).cos());
        optimizer.step(&params, &gradients, half_cosine)?;
    }
    assert_eq!(weights.len(), params.iter().count());
    for (name, var) in params.iter() {
        let kept = weights.get(name).ok_or_else(|| Error::new(format!("{name} is missing")))?;
        assert!(bits(kept)? == bits(&var.as_detached_tensor())?, "{name} differs");
    }
    let said = network.forward(&digits.held_out, Condition::default())?;
    assert!(bits(&said)? == bits(&classifier.logits(&digits.held_out)?)?, "the logits differ");
    Ok(())
}

#[test]
fn it_is_kept_in_a_file() -> Result<()> {
    let folder = Folder::new("kept")?;
    let (classifier, weights) = twenty_steps(&folder)?;
    let file = folder.0.join("classifier.safetensors");
    let again = Classifier::load(&file, &CPU)?;
    assert_eq!(again.features(), classifier.features());
    let images = digits(DType::F32, &CPU)?.held_out;
    assert!(bits(&again.evaluate(&images)?)? == bits(&classifier.evaluate(&images)?)?);
    assert!(bits(&again.logits(&images)?)? == bits(&classifier.logits(&images)?)?);
    let second = folder.0.join("second.safetensors");
    again.save(&second)?;
    assert!(std::fs::read(&file)? == std::fs::read(&second)?, "saved twice, and not the same");

    // What is no such file, or no longer what was saved.
    let refused = |name: &str, bytes: &[u8], why: &str| -> Result<()> {
        let path = folder.0.join(name);
        std::fs::write(&path, bytes)?;
        let got = message(Classifier::load(&path, &CPU))?;
        assert!(got.contains(name) && got.contains(why), "{got}");
        Ok(())
    };
    refused("text", b"no weights", "the classifier")?;
    let plain = safetensors::serialize(&weights, None)?;
    refused("plain", &plain, "not a file of Classifier::save")?;
    let whole = std::fs::read(&file)?;
    let mut spoiled = whole.clone();
    let last = spoiled.len() - 1;
    spoiled[last] ^= 1;
    refused("spoiled", &spoiled, "the file is damaged")?;
    refused("cut", &whole[..last], "the classifier")?;
    // The header is JSON in JSON.
    let (from, to) = (br#"classes\":10"#, br#"classes\":11"#);
    let place = whole.windows(from.len()).position(|bytes| bytes == from);
    let place = place.ok_or_else(|| Error::new("the header has no classes"))?;
    let mut other = whole.clone();
    other[place..place + from.len()].copy_from_slice(to);
    refused("other", &other, "classes.weight")?;
    Ok(())
}

#[test]
fn a_training_that_diverges_is_an_error() -> Result<()> {
    let digits = digits(DType::F32, &CPU)?;
    let labels = wide(&digits.train_labels);
    let config = ClassifierConfig { steps: 20, learning_rate: 1e30 };
    let Err(error) = Classifier::train(&digits.train, &labels, 10, config, &Key::new(0)) else {
        return Err(Error::new("a rate of 1e30 went well"));
    };
    let got = error.to_string();
    assert!(error.is_diverged(), "{got}");
    assert!(got.contains("the training of a classifier: at step 1 (learning rate 9"), "{got}");
    Ok(())
}

#[test]
fn cross_entropy_by_hand() -> Result<()> {
    // Large logits, whose exponentials are not numbers.
    let logits = Tensor::new(&[[1000f64, 1001.0, 999.0], [-3.0, 0.5, 2.0]], &CPU)?;
    let sum = |own: f64, others: [f64; 2]| {
        others.iter().map(|other| (other - own).exp()).sum::<f64>().ln_1p()
    };
    let want = 0.5 * (sum(1000.0, [1001.0, 999.0]) + sum(2.0, [-3.0, 0.5]));
    let got = cross_entropy(&logits, &[0, 2])?.to_scalar::<f64>()?;
    assert!((got - want).abs() < 1e-12, "{got} and {want}");
    assert!(message(cross_entropy(&logits, &[0]))?.contains("1 labels for 2 rows"));
    assert!(message(cross_entropy(&logits, &[0, 3]))?.contains("label 3 with 3 classes"));
    Ok(())
}

#[test]
fn logits_are_not_a_denoisers_answer() -> Result<()> {
    let build = || {
        let config = ConvNetConfig { classes: 1 };
        Params::new(DType::F32, &CPU).init(&Key::new(0), |s| config.build(s, &[1, 8, 8]))
    };
    // With one class the answer, (B, 1), could be broadcast to images.
    let x = Key::new(1).normal(0..1, &[1, 8, 8], DType::F32, &CPU)?;
    let denoiser = EdmDenoiser::new(build()?, 0.5);
    let got = message(denoiser.denoise(&x, &[1.0]))?;
    assert!(got.contains("[1, 1, 8, 8]") && got.contains("the samples' own shape"), "{got}");
    let model = ConsistencyModel::new(build()?, Parameterization::Skip, 0.5, 0.002);
    assert!(message(model.origin(&x, &[1.0]))?.contains("the samples' own shape"));
    // An experiment cannot name it.
    let got = message(Experiment::parse(
        "name = 'x'\ndata = { name = 'digits' }\nnetwork = { kind = 'conv-net', classes = 10 }\n\
         method = { kind = 'score-matching' }\ntraining = { iterations = 5, batch = 4 }",
    ))?;
    assert!(got.contains("conv-net") && got.contains("mlp"), "{got}");
    for (classes, shape, why) in [
        (0, vec![1, 8, 8], "classes = 0"),
        (2, vec![4], "it takes images"),
        (2, vec![1, 0, 8], "height = 0"),
    ] {
        let mut params = Params::new(DType::F32, &CPU);
        let built = params.init(&Key::new(0), |s| ConvNetConfig { classes }.build(s, &shape));
        let got = message(built)?;
        assert!(got.contains(why), "{got}");
    }
    Ok(())
}
