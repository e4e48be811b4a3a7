//! Promise: the networks and the metrics of others. Every fixture is inputs and what the
//! reference implementation answers; weights are made from their names by one formula.
//!
//! `CONSISTENCY_FIXTURES` names another folder to search. Each tensor is a line of the
//! output: `fixture <file stem> <tensor> max_abs_error=<x>`.

#[path = "support/formula.rs"]
mod formula;
#[path = "support/judges.rs"]
mod judges;
#[path = "support/metrics.rs"]
mod metrics;
#[path = "support/networks.rs"]
mod networks;

use candle_core::{DType, Device, Tensor};
use consistency::model::pretrained::Source;
use consistency::model::{
    Condition, LoadOptions, NcsnppConfig, Network, NetworkConfig, Pretrained,
};
use consistency::nn::{Params, Scope, Shapes};
use consistency::{Context, Error, Result, bail, ensure};
use formula::{Folder, formula};
use networks::{DDPM, get, labels, load, numbers, unet, weights};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    std::env::var_os("CONSISTENCY_FIXTURES").map_or(own, PathBuf::from)
}

/// All files below `folder` whose name ends in `end`, in the order of their names.
fn files(folder: &Path, ends: impl Fn(&str) -> bool + Copy) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path, ends)?);
        } else if path.file_name().is_some_and(|name| ends(&name.to_string_lossy())) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

struct Built {
    network: Box<dyn Network>,
    count: usize,
}

/// The network of a configuration, with the formula's weights. A U-Net is written as others
/// publish it and read as theirs.
fn build(config: &Path) -> Result<(Built, bool)> {
    let text = std::fs::read_to_string(config)?;
    let value: serde_json::Value =
        serde_json::from_str(&text).map_err(|e| Error::new(e.to_string()))?;
    match value["_class_name"].as_str() {
        Some("UNet2DModel") => {
            let folder = Folder::new(&format!("fixture-{}", name_of(config)))?;
            folder.pipeline(&text, DDPM, &weights(&unet(&text)?)?)?;
            let read = Pretrained::load(&Source::folder(&folder.0)?, LoadOptions::default())?;
            let built = Built { network: read.network()?, count: read.params().count() };
            Ok((built, true))
        }
        Some("NCSNpp") => {
            let config = NcsnppConfig::from_json(&text)?;
            let size = config.image_size.unwrap_or(32);
            let config = NetworkConfig::Ncsnpp(config);
            let build = |scope: &mut Scope| config.build(scope, &[3, size, size]);
            let tensors = weights(&Shapes::of(build)?)?;
            let params = Params::given(build, tensors, DType::F32, &Device::Cpu)?;
            Ok((Built { network: params.frozen(build)?, count: params.count() }, false))
        }
        other => bail!("{}: a network of class {other:?}", config.display()),
    }
}

/// Print how far two tensors are apart, and whether that is too far.
fn report(stem: &str, tensor: &str, ours: &Tensor, theirs: &Tensor, limit: f64) -> Result<bool> {
    ensure!(
        ours.dims() == theirs.dims(),
        "{stem} {tensor}: {:?}, {:?}",
        ours.dims(),
        theirs.dims()
    );
    let gap = (ours - theirs)?.abs()?.max_all()?.to_scalar::<f32>()?;
    println!("fixture {stem} {tensor} max_abs_error={gap:.3e}");
    // A NaN is too far as well.
    Ok(!(f64::from(gap) < limit))
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn stem<'a>(name: &'a str, end: &str) -> &'a str {
    name.strip_suffix(end).unwrap_or(name)
}

/// Each network at each of its noise levels.
fn outputs(config: &Path) -> Result<Vec<String>> {
    let name = name_of(config);
    let stem = stem(&name, ".config.json");
    let (built, is_unet) = build(config)?;
    let (tensors, metadata) = load(&config.with_file_name(format!("{stem}.safetensors")))?;
    let stated: Option<usize> = metadata.get("parameters").and_then(|count| count.parse().ok());
    ensure!(
        stated.is_none_or(|count| count == built.count),
        "{stem}: {} parameters, the reference has {stated:?}",
        built.count
    );
    let (levels, limit) = if is_unet { ("timesteps", 1e-4) } else { ("conditions", 3e-4) };
    let sample = get(&tensors, "sample")?;
    let labels = labels(&tensors)?;
    let mut failed = Vec::new();
    for (i, level) in numbers(get(&tensors, levels)?)?.into_iter().enumerate() {
        let tensor = format!("output.{i}");
        let level = [level];
        let condition =
            Condition { noise: &level, labels: labels.as_deref(), ..Condition::default() };
        let ours = built.network.forward(sample, condition)?;
        if report(stem, &tensor, &ours, get(&tensors, &tensor)?, limit)? {
            failed.push(format!("{stem} {tensor}"));
        }
    }
    Ok(failed)
}

/// Whole sampling chains: the consistency function of the public scheduler over a network.
fn chains(path: &Path) -> Result<Vec<String>> {
    let name = name_of(path);
    let stem = stem(&name, ".safetensors");
    let Some((network, points)) = stem.rsplit_once(".pipeline") else {
        bail!("{name}: not a chain's name");
    };
    let points: usize = points.parse().map_err(|_| Error::new(format!("{name}: no number")))?;
    let config = path.with_file_name(format!("{network}.config.json"));
    let (built, _) = build(&config)?;
    let (tensors, metadata) = load(path)?;
    let (outputs, _) = load(&path.with_file_name(format!("{network}.safetensors")))?;
    let labels = labels(&outputs)?;
    // The scheduler's grid, noisiest first: rho 7, from 80 down to 0.002.
    let sigma = |i: usize| -> f64 {
        let (low, high) = (0.002f64.powf(1.0 / 7.0), 80f64.powf(1.0 / 7.0));
        (high + i as f64 / (points - 1) as f64 * (low - high)).powi(7)
    };
    let mut cases: Vec<usize> =
        tensors.keys().filter_map(|k| k.strip_suffix(".initial")?.parse().ok()).collect();
    cases.sort_unstable();
    ensure!(!cases.is_empty(), "{name} has no case");
    let mut failed = Vec::new();
    for case in cases {
        let steps = metadata.get(&format!("{case}.steps")).cloned().unwrap_or_default();
        let steps: serde_json::Value =
            serde_json::from_str(&steps).map_err(|e| Error::new(format!("{name}: {e}")))?;
        // Listed the last first; an index counts from the noisy end.
        let indices: Vec<usize> = match &steps {
            serde_json::Value::Array(list) => {
                list.iter().filter_map(|i| Some(i.as_u64()? as usize)).collect()
            }
            count => {
                let count = count.as_u64().unwrap_or(1) as usize;
                (0..count).map(|i| i * (points / count)).rev().collect()
            }
        };
        let sigmas: Vec<f64> = indices.iter().rev().map(|i| sigma(*i)).collect();
        let stated = numbers(get(&tensors, &format!("{case}.sigmas"))?)?;
        for (ours, theirs) in sigmas.iter().zip(&stated) {
            ensure!((ours - theirs).abs() < 1e-3 * theirs, "{name} {case}: {sigmas:?}, {stated:?}");
        }
        let steps = numbers(get(&tensors, &format!("{case}.timesteps"))?)?;
        let mut x = get(&tensors, &format!("{case}.initial"))?.clone();
        for (k, (sigma, step)) in sigmas.iter().zip(&steps).enumerate() {
            let step = [*step];
            let condition =
                Condition { noise: &step, labels: labels.as_deref(), ..Condition::default() };
            let scaling = consistency::process::Scaling::Boundary { sigma_data: 0.5, eps: 0.002 };
            // The network's number comes from the file: the scheduler rounds it to f32.
            let denoised =
                scaling.apply(&x, &[*sigma], |xs, _| built.network.forward(xs, condition))?;
            x = denoised.clamp(-1f32, 1f32)?;
            if let Some(next) = sigmas.get(k + 1) {
                let label = format!("input:{network}.{case}.renoise.{}", k + 1);
                let z = formula(&label, x.dims(), 3f64.sqrt(), 0.0)?;
                x = (x + (z * (next * next - 0.002 * 0.002).sqrt())?)?;
            }
        }
        let tensor = format!("{case}.sample");
        if report(stem, &tensor, &x, get(&tensors, &tensor)?, 1e-4)? {
            failed.push(format!("{stem} {tensor}"));
        }
    }
    Ok(failed)
}

#[test]
fn all() -> Result<()> {
    let folder = folder();
    let networks = files(&folder, |name| name.ends_with(".config.json"))?;
    let pipelines =
        files(&folder, |name| name.ends_with(".safetensors") && name.contains(".pipeline"))?;
    let metrics = files(&folder, |name| metrics::NAMES.contains(&name))?;
    ensure!(
        !networks.is_empty() || !pipelines.is_empty() || !metrics.is_empty(),
        "{} holds no fixture: no *.config.json, no *.pipelineN.safetensors, none of {:?}",
        folder.display(),
        metrics::NAMES
    );
    let mut failed: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in &networks {
        failed.insert(name_of(path), outputs(path).with_context(|| name_of(path))?);
    }
    for path in &pipelines {
        failed.insert(name_of(path), chains(path).with_context(|| name_of(path))?);
    }
    for path in &metrics {
        failed.insert(name_of(path), metrics::compare(path).with_context(|| name_of(path))?);
    }
    let failed: Vec<String> = failed.into_values().flatten().collect();
    assert!(failed.is_empty(), "too far from the reference: {failed:?}");
    Ok(())
}
