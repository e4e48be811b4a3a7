//! What is mutated: for each reader its files as they should be, and how they are read and used.

use crate::formula::Folder;
use crate::msgpack::{flax_tree, packed, state, tree};
use crate::mutate::Format;
use crate::networks::{DDPM, unet, weights};
use crate::tables;
use candle_core::{DType, Device, Tensor};
use consistency::data::Dataset;
use consistency::evaluate::Statistics;
use consistency::experiment::{Card, Experiment, Monitor, RunFolder, train};
use consistency::model::pretrained::{FlaxOptions, Source};
use consistency::model::{Condition, LoadOptions, NcsnppConfig, Pretrained};
use consistency::process::GaussianMixture;
use consistency::reproduce::{Reproduction, published, read_results};
use consistency::rng::Key;
use consistency::seam::Denoiser;
use consistency::{Error, Result, ensure};
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
        reader("mixture", Text, mixtures, mixture),
        reader("experiment", Text, experiments, experiment),
        reader("reproduction", Text, reproductions, reproduction),
        reader("entry", Text, entries, entry),
        reader("config", Text, |to| pipeline(to, "unet/config.json"), pretrained),
        reader("scheduler", Text, schedulers, pretrained),
        reader(
            "weights",
            Safetensors,
            |to| pipeline(to, "unet/diffusion_pytorch_model.safetensors"),
            pretrained,
        ),
        reader("pickle", Binary, pickles, pickle),
        reader("flax", Binary, flaxes, flax),
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
        reader("results", Binary, tables::results, |folder, _| read_results(folder).map(drop)),
        reader("published", Text, tables::published, |folder, _| {
            published(folder, "cifar10").map(drop)
        }),
        reader("statistics", Safetensors, statistics, |_, file| Statistics::load(file).map(drop)),
    ]
}

fn written(to: &Folder, files: &[(&str, &str)]) -> Result<Vec<PathBuf>> {
    let write = |(name, text): &(&str, &str)| {
        to.write(name, text.as_bytes())?;
        Ok(to.0.join(name))
    };
    files.iter().map(write).collect()
}

fn beside(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests").join(name)
}

// ---- what people write

fn mixtures(to: &Folder) -> Result<Vec<PathBuf>> {
    let line = "weights = [1, 0.5, 2]\nmeans = [[-0.6], [0.1], [0.7]]\nstd = [0, 0.1, 0]\n";
    let plane = "weights = [1.0, 1e-3]\nmeans = [\n  [-0.6, 2],\n  [0.1, 3e2],\n]\nstd = [1, 0]\n";
    written(to, &[("line.toml", line), ("plane.toml", plane)])
}

fn mixture(_: &Path, file: &Path) -> Result<()> {
    let mixture = GaussianMixture::read(file)?;
    let x = Tensor::zeros((2, mixture.dim()), DType::F64, &Device::Cpu)?;
    for t in [0.002, 80.0] {
        let largest = mixture.score(&x, &[t])?.abs()?.max_all()?.to_scalar::<f64>()?;
        assert!(largest.is_finite(), "a score of {largest} was let through");
    }
    Ok(())
}

const TEACHER: &str = r#"
name = "test"
seed = 3
sigma_data = 0.5
data = { name = "spirals", count = 100 }
network = { kind = "mlp", width = 16, blocks = 1, time_features = 8 }
noise = { eps = 0.002, t_max = 80.0, rho = 7.0 }
method = { kind = "score-matching", p_mean = -1.2, p_std = 1.2 }
optimizer = { kind = "adamw", learning_rate = 1e-3, betas = [0.9, 0.99], eps = 1e-8, weight_decay = 0.1, clip = 1.0 }
training = { iterations = 20, batch = 8, ema = [0.9, 0.99], decay = 0.5, record_every = 2, checkpoint_every = 5, keep_checkpoints = 2, accumulate = 2 }
"#;

const STUDENT: &str = r#"
name = "student"
data = { name = "images", of = "digits", split = "train", size = 8, limit = 100, flip = true }

[network]
kind = "unet"
block_out_channels = [8, 16]
layers_per_block = 1
norm_num_groups = 4
attention_head_dim = 8
dropout = 0.1
down_block_types = ["DownBlock2D", "AttnDownBlock2D"]

[method]
kind = "distillation"
teacher = "nobody"
points = 18
solver = "heun"
distance = { metric = { kind = "pseudo-huber", c = 0.03 }, reduction = "sum" }
weighting = { weight = "snr", at = "code" }
mu = 0.95

[training]
iterations = 20
batch = 8
"#;

const TRAINING: &str = r#"
name = "ct"
data = { name = "digits" }
network = { kind = "ncsnpp", nf = 8, ch_mult = [1, 2], num_res_blocks = 1, attn_resolutions = [4], fourier_scale = 16.0 }
method = { kind = "consistency-training", schedule = { s0 = 2, s1 = 20, mu0 = 0.9 }, lpips = { side = 32 } }
training = { iterations = 20, batch = 8, ema = 0.99 }
"#;

fn experiments(to: &Folder) -> Result<Vec<PathBuf>> {
    written(to, &[("teacher.toml", TEACHER), ("student.toml", STUDENT), ("ct.toml", TRAINING)])
}

fn experiment(_: &Path, file: &Path) -> Result<()> {
    let read = Experiment::read(file)?;
    // The first that a run does; whether it is a network for these images is another question.
    let _ = read.network.parameters(&[1, 8, 8]);
    ensure!(Experiment::parse(&read.to_toml()?)? == read, "it is not the same when written");
    Ok(())
}

fn reproductions(to: &Folder) -> Result<Vec<PathBuf>> {
    written(to, &[("test/experiment.toml", REPRODUCTION)])
}

const REPRODUCTION: &str = r#"
title = "A test"
seeds = [0, 1]
dataset = "digits"

[evaluate]
samples = 100
taus = [[], [0.8, 0.4]]
points = [18, 9]
again = [0.8]
from_data = [1.6]
solvers = [{ sampler = { kind = "predictor-corrector", snr = 0.1, corrections = 1 }, points = 7 }]
by = ["pixels", "classifier"]

[experiment]
data = { name = "digits" }
network = { kind = "mlp", width = 16, blocks = 1 }
method = { kind = "consistency-training", schedule = { s0 = 2, s1 = 20, mu0 = 0.9 } }
training = { iterations = 20, batch = 8 }

[variants.longer]
title = "Longer"
experiment.training.iterations = 40

[variants.longest]
experiment.training.iterations = 80
"#;

fn reproduction(folder: &Path, _: &Path) -> Result<()> {
    let read = Reproduction::read(folder, "test")?;
    let _ = (read.sweeps(), read.samplings());
    for variant in read.variants() {
        let _ = Reproduction::read(folder, &variant);
        let _ = variant.split_once('.').map(|(_, variant)| read.differences(variant));
    }
    Ok(())
}

fn entries(to: &Folder) -> Result<Vec<PathBuf>> {
    let embedded = r#"
name = "mine"
title = "A test"
embedded = true
encoding = "png"
shape = [1, 8, 8]
values = [0, 16]
classes = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
licence = "none"
size = "small"
citation = ""

[splits.train]
rows = 1347
"#;
    let hub = r#"
name = "theirs"
title = "A test"
hub = "nobody/nothing"
revision = "0123456789abcdef0123456789abcdef01234567"
image = "img"
label = "label"
shape = [3, 32, 32]
resize = 32
values = [0, 255]
classes = 10
licence = "none"
size = "120 MB"
citation = ""
splits.train = { rows = 50000, files = ["data/train-{00..07}.parquet"] }
splits.test = { rows = 10000, files = ["data/test-*.parquet"] }
"#;
    written(to, &[("embedded.toml", embedded), ("hub.toml", hub)])
}

fn entry(folder: &Path, file: &Path) -> Result<()> {
    let found = Dataset::find(&file.display().to_string())?.with_cache(folder.join("cache"));
    // Whether it is here is another question; it is asked of the cache alone (HF_HUB_OFFLINE).
    for split in found.entry().splits.keys() {
        let _ = (found.is_here(split), found.split(split).map(|images| images.labels().map(drop)));
    }
    Ok(())
}

// ---- published networks

fn config() -> Result<String> {
    Ok(std::fs::read_to_string(beside("pretrained/pickle/tiny.config.json"))?)
}

fn pipeline(to: &Folder, file: &str) -> Result<Vec<PathBuf>> {
    let config = config()?;
    to.pipeline(&config, DDPM, &weights(&unet(&config)?)?)?;
    Ok(vec![to.0.join(file)])
}

fn schedulers(to: &Folder) -> Result<Vec<PathBuf>> {
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

fn pretrained(folder: &Path, file: &Path) -> Result<()> {
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

fn pickles(to: &Folder) -> Result<Vec<PathBuf>> {
    pipeline(to, "")?;
    std::fs::remove_file(to.0.join("unet/diffusion_pytorch_model.safetensors"))?;
    let file = to.0.join("unet/diffusion_pytorch_model.bin");
    std::fs::copy(beside("pretrained/pickle/tiny.bin"), &file)?;
    Ok(vec![file])
}

fn pickle(folder: &Path, _: &Path) -> Result<()> {
    let read =
        Pretrained::load(&Source::folder(folder)?, LoadOptions { pickle: true, variant: None })?;
    let _ = used(&read);
    Ok(())
}

fn ncsnpp() -> Result<NcsnppConfig> {
    let text = std::fs::read_to_string(beside("fixtures/diffusers/tiny_ncsnpp.config.json"))?;
    NcsnppConfig::from_json(&text)
}

fn flaxes(to: &Folder) -> Result<Vec<PathBuf>> {
    let tensors = tree(&flax_tree(&ncsnpp()?)?)?;
    to.write("edm", &packed(&tensors)?)?;
    to.write("cd", &packed(&state(tensors)?)?)?;
    Ok(vec![to.0.join("edm"), to.0.join("cd")])
}

fn flax(_: &Path, file: &Path) -> Result<()> {
    let options = FlaxOptions { config: ncsnpp()?, ..FlaxOptions::for_file(file) };
    Pretrained::load_flax(file, &options).map(drop)
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
