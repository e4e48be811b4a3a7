//! Published networks: a folder of diffusers' with its configurations, weights and pickle, and a
//! flax file.

use crate::formula::Folder;
use crate::msgpack::{flax_tree, packed, state, tree};
use crate::networks::{DDPM, unet, weights};
use candle_core::{DType, Device};
use consistency::model::pretrained::{FlaxOptions, Source};
use consistency::model::{Condition, LoadOptions, NcsnppConfig, Pretrained};
use consistency::rng::Key;
use consistency::seam::Denoiser;
use consistency::{Result, ensure};
use std::path::{Path, PathBuf};

fn beside(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests").join(name)
}

fn config() -> Result<String> {
    Ok(std::fs::read_to_string(beside("pretrained/pickle/tiny.config.json"))?)
}

pub fn pipeline(to: &Folder, file: &str) -> Result<Vec<PathBuf>> {
    let config = config()?;
    to.pipeline(&config, DDPM, &weights(&unet(&config)?)?)?;
    Ok(vec![to.0.join(file)])
}

pub fn schedulers(to: &Folder) -> Result<Vec<PathBuf>> {
    let consistency = r#"{"_class_name": "CMStochasticIterativeScheduler", "clip_denoised": true,
        "num_train_timesteps": 40, "rho": 7.0, "s_noise": 1.0, "sigma_data": 0.5, "sigma_max": 80.0,
        "sigma_min": 0.002}"#;
    pipeline(to, "")?;
    to.write("consistency/scheduler_config.json", consistency.as_bytes())?;
    for name in ["config.json", "diffusion_pytorch_model.safetensors"] {
        std::fs::copy(to.0.join("unet").join(name), to.0.join("consistency").join(name))?;
    }
    Ok(vec![
        to.0.join("scheduler/scheduler_config.json"),
        to.0.join("consistency/scheduler_config.json"),
    ])
}

pub fn pretrained(folder: &Path, file: &Path) -> Result<()> {
    let inside = file.parent().filter(|place| place.ends_with("consistency"));
    let read = Pretrained::open(&inside.unwrap_or(folder).display().to_string())?;
    // What was read can be used, or says why not.
    let _ = used(&read);
    Ok(())
}

fn used(read: &Pretrained) -> Result<()> {
    let shape = read.shape();
    ensure!(shape.iter().product::<usize>() <= 4096, "too large to try");
    let (range, key) = (read.noise_range(), Key::new(0));
    let x = key.normal(0..1, &shape, DType::F32, &Device::Cpu)?;
    let labels = read.classes().map(|_| vec![0]);
    let noise = [1.0];
    let condition = Condition { noise: &noise, labels: labels.as_deref(), ..Condition::default() };
    read.network()?.forward(&x, condition)?;
    range.karras(18)?;
    match read.teacher() {
        Ok(teacher) => teacher.denoise(&x, &[range.t_max]).map(drop),
        Err(_) => read.consistency_model().map(drop),
    }
}

pub fn pickles(to: &Folder) -> Result<Vec<PathBuf>> {
    pipeline(to, "")?;
    std::fs::remove_file(to.0.join("unet/diffusion_pytorch_model.safetensors"))?;
    let file = to.0.join("unet/diffusion_pytorch_model.bin");
    std::fs::copy(beside("pretrained/pickle/tiny.bin"), &file)?;
    Ok(vec![file])
}

pub fn pickle(folder: &Path, _: &Path) -> Result<()> {
    let read =
        Pretrained::load(&Source::folder(folder)?, LoadOptions { pickle: true, variant: None })?;
    let _ = used(&read);
    Ok(())
}

fn ncsnpp() -> Result<NcsnppConfig> {
    let text = std::fs::read_to_string(beside("fixtures/diffusers/tiny_ncsnpp.config.json"))?;
    NcsnppConfig::from_json(&text)
}

pub fn flaxes(to: &Folder) -> Result<Vec<PathBuf>> {
    let tensors = tree(&flax_tree(&ncsnpp()?)?)?;
    to.write("edm", &packed(&tensors)?)?;
    to.write("cd", &packed(&state(tensors)?)?)?;
    Ok(vec![to.0.join("edm"), to.0.join("cd")])
}

pub fn flax(_: &Path, file: &Path) -> Result<()> {
    let options = FlaxOptions { config: ncsnpp()?, ..FlaxOptions::for_file(file) };
    Pretrained::load_flax(file, &options).map(drop)
}
