//! Metrics of the fixtures: features, logits and distances as the reference implementations
//! give them.

use crate::formula::Folder;
use crate::judges::write_weights;
use crate::networks::{get, load};
use candle_core::{DType, Device, Tensor, Var};
use consistency::evaluate::{
    Inception, frechet_distance, inception_score, kernel_distance, precision_recall,
};
use consistency::loss::Lpips;
use consistency::{Error, Result, ensure};
use std::path::Path;

/// The metrics' fixtures, by their names.
pub const NAMES: [&str; 3] =
    ["fid_inception.safetensors", "frechet.safetensors", "lpips_vgg.safetensors"];

/// The tensors that are too far from the reference.
pub fn compare(path: &Path) -> Result<Vec<String>> {
    match path.file_name().unwrap_or_default().to_str() {
        Some("fid_inception.safetensors") => inception(path),
        Some("frechet.safetensors") => distances(path),
        Some("lpips_vgg.safetensors") => lpips(path),
        _ => Err(Error::new(format!("{}: no fixture of a metric", path.display()))),
    }
}

/// Whether a tensor is near enough.
#[derive(Clone, Copy)]
enum Limit {
    /// The largest difference.
    Absolute(f64),
    /// The Euclidean norm of the difference by that of the reference.
    Relative(f64),
}

/// Print how far two tensors are apart; the tensor's name if that is too far.
fn report(
    stem: &str,
    tensor: &str,
    ours: &Tensor,
    theirs: &Tensor,
    limit: Limit,
) -> Result<Option<String>> {
    let name = format!("{stem} {tensor}");
    ensure!(ours.dims() == theirs.dims(), "{name}: {:?}, {:?}", ours.dims(), theirs.dims());
    let theirs = theirs.to_dtype(DType::F64)?;
    let gap = (ours.to_dtype(DType::F64)? - &theirs)?;
    let number = |t: Tensor| t.to_scalar::<f64>();
    let most = number(gap.abs()?.max_all()?)?;
    let relative = (number(gap.sqr()?.sum_all()?)? / number(theirs.sqr()?.sum_all()?)?).sqrt();
    println!("fixture {name} max_abs_error={most:.3e} relative_error={relative:.3e}");
    let near = match limit {
        Limit::Absolute(limit) => most < limit,
        Limit::Relative(limit) => relative < limit,
    };
    Ok((!near).then_some(name))
}

fn inception(path: &Path) -> Result<Vec<String>> {
    let (tensors, _) = load(path)?;
    let folder = Folder::new("fixture-inception")?;
    let network = Inception::load(&write_weights(&folder, &Inception::shapes()?)?, &Device::Cpu)?;
    let answer = network.evaluate(get(&tensors, "images")?)?;
    let scores = answer.unbiased_logits().to_dtype(DType::F64)?;
    let powers = scores.broadcast_sub(&scores.max_keepdim(1)?)?.exp()?;
    let probabilities = powers.broadcast_div(&powers.sum_keepdim(1)?)?;
    let compare = |tensor: &str, ours: &Tensor| {
        report("fid_inception", tensor, ours, get(&tensors, tensor)?, Limit::Absolute(1e-4))
    };
    let far = [
        compare("features", answer.pool())?,
        compare("logits", &network.logits(&answer)?)?,
        compare("probabilities_without_bias", &probabilities)?,
    ];
    Ok(far.into_iter().flatten().collect())
}

fn distances(path: &Path) -> Result<Vec<String>> {
    let (tensors, _) = load(path)?;
    let (real, fake) = (get(&tensors, "real")?, get(&tensors, "fake")?);
    let shares = precision_recall(real, fake, 3)?;
    let score = inception_score(get(&tensors, "logits")?, 1)?.mean;
    let rows = [
        ("fid", frechet_distance(real, fake)?, Limit::Relative(1e-6)),
        ("kid", kernel_distance(real, fake)?, Limit::Relative(1e-6)),
        ("precision", shares.precision, Limit::Absolute(1e-9)),
        ("recall", shares.recall, Limit::Absolute(1e-9)),
        ("inception_score", score, Limit::Absolute(1e-9)),
    ];
    let mut far = Vec::new();
    for (tensor, value, limit) in rows {
        let ours = Tensor::new(&[value], &Device::Cpu)?;
        far.extend(report("frechet", tensor, &ours, get(&tensors, tensor)?, limit)?);
    }
    Ok(far)
}

fn lpips(path: &Path) -> Result<Vec<String>> {
    let (tensors, _) = load(path)?;
    let folder = Folder::new("fixture-lpips")?;
    let weights = write_weights(&folder, &Lpips::shapes()?)?;
    let mut far = Vec::new();
    for (dtype, stem, by_distance, by_gradient) in
        [(DType::F64, "lpips_vgg", 1e-6, 1e-6), (DType::F32, "lpips_vgg.f32", 1e-5, 3e-3)]
    {
        let metric = Lpips::load(&weights, dtype, &Device::Cpu)?;
        let a = Var::from_tensor(&get(&tensors, "a")?.to_dtype(dtype)?)?;
        let b = get(&tensors, "b")?.to_dtype(dtype)?;
        let distance = metric.distance(a.as_tensor(), &b)?;
        let store = distance.sum_all()?.backward()?;
        let gradient =
            store.get(a.as_tensor()).ok_or_else(|| Error::new(format!("{stem}: no gradient")))?;
        for (tensor, ours, limit) in
            [("distance", &distance, by_distance), ("gradient_a", gradient, by_gradient)]
        {
            let theirs = get(&tensors, tensor)?;
            far.extend(report(stem, tensor, ours, theirs, Limit::Relative(limit))?);
        }
    }
    Ok(far)
}
