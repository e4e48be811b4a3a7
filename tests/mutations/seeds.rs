//! What is mutated: for each reader its files as they should be, and how they are read and used.

use crate::formula::Folder;
use crate::mutate::Format;
use crate::{published, tables, texts};
use candle_core::{DType, Device};
use consistency::data::Dataset;
use consistency::evaluate::{Classifier, Statistics};
use consistency::experiment::{Card, Experiment, Monitor, RunFolder, train};
use consistency::method::ClassifierConfig;
use consistency::rng::Key;
use consistency::{Error, Result, ensure, reproduce};
use std::path::{Path, PathBuf};

/// A reader of files.
pub struct Reader {
    pub name: &'static str,
    pub format: Format,
    /// Each reading is so dear that a third of the mutations must do.
    pub slow: bool,
    /// Write whole files into a folder, and say which of them are mutated.
    pub setup: fn(&Folder) -> Result<Vec<PathBuf>>,
    /// Read the file (of the folder). An error of this is the reader's.
    pub read: fn(&Path, &Path) -> Result<()>,
}

/// All of them.
pub fn readers() -> Vec<Reader> {
    let reader = |name, format, setup, read| Reader { name, format, slow: false, setup, read };
    let slow = |name, format, setup, read| Reader { name, format, slow: true, setup, read };
    use Format::{Binary, Png, Safetensors, Text};
    vec![
        reader("mixture", Text, texts::mixtures, texts::mixture),
        reader("experiment", Text, texts::experiments, texts::experiment),
        reader("reproduction", Text, texts::reproductions, texts::reproduction),
        reader("entry", Text, texts::entries, texts::entry),
        reader(
            "config",
            Text,
            |to| published::pipeline(to, "unet/config.json"),
            published::pretrained,
        ),
        reader("scheduler", Text, published::schedulers, published::pretrained),
        reader(
            "weights",
            Safetensors,
            |to| published::pipeline(to, "unet/diffusion_pytorch_model.safetensors"),
            published::pretrained,
        ),
        reader("pickle", Binary, published::pickles, published::pickle),
        reader("flax", Binary, published::flaxes, published::flax),
        reader("parquet", Binary, tables::parquets, dataset),
        reader("png", Png, tables::pngs, pictures),
        reader("jpeg", Binary, tables::jpegs, pictures),
        reader("others", Binary, tables::others, |folder, file| {
            picture(folder, file.parent().unwrap_or(folder))
        }),
        reader("decoded", Safetensors, tables::decoded, pictures),
        reader(
            "checkpoint",
            Safetensors,
            |to| run(to, "checkpoint-000000006.safetensors"),
            trained,
        ),
        slow("machine", Text, |to| run(to, "machine.csv"), trained),
        slow("metrics", Text, |to| run(to, "metrics.csv"), exported),
        reader("results", Binary, tables::results, |folder, _| {
            reproduce::read_results(folder).map(drop)
        }),
        reader("published", Text, tables::published, |folder, _| {
            reproduce::published(folder, "cifar10").map(drop)
        }),
        reader("statistics", Safetensors, statistics, |_, file| Statistics::load(file).map(drop)),
        reader("classifier", Safetensors, classifiers, classifier),
    ]
}

// ---- datasets

fn dataset(folder: &Path, file: &Path) -> Result<()> {
    images(&Dataset::find(&file.display().to_string())?.with_cache(folder.join("cache")))
}

/// The images of the folder `pictures`.
pub fn pictures(folder: &Path, _: &Path) -> Result<()> {
    picture(folder, &folder.join("pictures"))
}

fn picture(folder: &Path, pictures: &Path) -> Result<()> {
    let found = Dataset::find(&pictures.display().to_string())?;
    images(&found.with_cache(folder.join("cache")))
}

fn images(of: &Dataset) -> Result<()> {
    let images = of.split("train")?;
    let rows: Vec<u32> = (0..images.len() as u32).collect();
    let batch = images.batch(&rows, DType::F32)?;
    ensure!(batch.dims()[0] == images.len(), "a batch of {:?}", batch.dims());
    let labels = images.labels().unwrap_or_default();
    assert!(labels.is_empty() || labels.len() == images.len(), "{} labels", labels.len());
    assert!(labels.iter().all(|label| (*label as usize) < images.classes().count()));
    Ok(())
}

// ---- runs

const RUN: &str = r#"
name = "tiny"
data = { name = "digits" }
network = { kind = "unet", block_out_channels = [4], layers_per_block = 1, norm_num_groups = 2 }
method = { kind = "consistency-training", schedule = { s0 = 2, s1 = 20, mu0 = 0.9 } }
training = { iterations = 6, batch = 2, checkpoint_every = 6, record_every = 2 }
"#;

fn run(to: &Folder, file: &str) -> Result<Vec<PathBuf>> {
    let experiment = Experiment::parse(RUN)?;
    train(&experiment, &to.0, &Monitor::default(), 1)?;
    Ok(vec![to.0.join(experiment.folder()?).join(file)])
}

fn trained(folder: &Path, file: &Path) -> Result<()> {
    let place = file.parent().ok_or_else(|| Error::new("no folder"))?;
    RunFolder::open(place)?.trained()?.consistency_model()?;
    // It is read once more to be gone on with.
    train(&Experiment::parse(RUN)?, folder, &Monitor::default(), 1)?;
    Ok(())
}

fn exported(folder: &Path, file: &Path) -> Result<()> {
    let place = file.parent().ok_or_else(|| Error::new("no folder"))?;
    let out = folder.join("out");
    let _ = std::fs::remove_dir_all(&out);
    RunFolder::open(place)?.trained()?.export(&out, &Card::default())
}

fn statistics(to: &Folder) -> Result<Vec<PathBuf>> {
    let file = to.0.join("statistics.safetensors");
    let rows = Key::new(0).normal(0..20, &[4], DType::F64, &Device::Cpu)?;
    Statistics::of(&rows)?.save(&file)?;
    Ok(vec![file])
}

fn classifiers(to: &Folder) -> Result<Vec<PathBuf>> {
    let file = to.0.join("classifier.safetensors");
    let images = Key::new(0).normal(0..4, &[1, 6, 5], DType::F32, &Device::Cpu)?;
    let config = ClassifierConfig { steps: 1, ..ClassifierConfig::default() };
    Classifier::train(&images, &[0, 1, 2, 0], 3, config, &Key::new(0))?.save(&file)?;
    Ok(vec![file])
}

fn classifier(_: &Path, file: &Path) -> Result<()> {
    Classifier::load(file, &Device::Cpu).map(drop)
}
