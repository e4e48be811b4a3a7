//! Seconds of the metrics' large parts: `cargo bench -p consistency --bench metrics`.

use candle_core::{DType, Device, Tensor};
use consistency::Result;
use consistency::evaluate::{Inception, Statistics, kernel_distance, precision_recall};
use consistency::rng::Key;
use std::collections::BTreeMap;
use std::time::Instant;

fn timed<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    let start = Instant::now();
    let result = work()?;
    let seconds = start.elapsed().as_secs_f64();
    println!("{what}: {seconds:.2} s");
    Ok((result, seconds))
}

fn main() -> Result<()> {
    let set =
        |name: &str| Key::new(0).stream(name).normal(0..5000, &[2048], DType::F32, &Device::Cpu);
    let (a, b) = (set("a")?, set("b")?);
    let (first, _) = timed("statistics of 5000 x 2048", || Statistics::of(&a))?;
    let second = Statistics::of(&b)?;
    timed("Frechet distance at 2048", || first.frechet_distance(&second))?;
    timed("kernel distance of 5000 and 5000", || kernel_distance(&a, &b))?;
    timed("precision and recall of 5000 and 5000", || precision_recall(&a, &b, 3))?;
    let folder = std::env::temp_dir().join(format!("consistency-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let file = folder.join("weights.safetensors");
    let network = write(&file).and_then(|()| Inception::load(&file, &Device::Cpu));
    std::fs::remove_dir_all(&folder)?;
    let network = network?;
    let images = Key::new(1).normal(0..64, &[3, 32, 32], DType::F32, &Device::Cpu)?;
    let images = images.clamp(0f32, 1f32)?;
    network.evaluate(&images.narrow(0, 0, 8)?)?;
    let (_, seconds) = timed("Inception on 64 images", || network.evaluate(&images))?;
    println!("Inception: {:.1} images a second", 64.0 / seconds);
    Ok(())
}

/// Small weights under the right names.
fn write(path: &std::path::Path) -> Result<()> {
    let tensors: BTreeMap<String, Tensor> = Inception::shapes()?
        .iter()
        .map(|(name, dims)| Ok((name.to_string(), Tensor::full(0.01f32, dims, &Device::Cpu)?)))
        .collect::<Result<_>>()?;
    consistency::record::write_tensors(path, &tensors, &[])
}
