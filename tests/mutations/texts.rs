//! What people write: mixtures, experiments, reproductions, entries of the catalog.

use crate::formula::Folder;
use candle_core::{DType, Device, Tensor};
use consistency::data::Dataset;
use consistency::experiment::Experiment;
use consistency::process::GaussianMixture;
use consistency::reproduce::Reproduction;
use consistency::seam::Denoiser;
use consistency::{Result, ensure};
use std::path::{Path, PathBuf};

fn written(to: &Folder, files: &[(&str, &str)]) -> Result<Vec<PathBuf>> {
    let write = |(name, text): &(&str, &str)| {
        to.write(name, text.as_bytes())?;
        Ok(to.0.join(name))
    };
    files.iter().map(write).collect()
}

pub fn mixtures(to: &Folder) -> Result<Vec<PathBuf>> {
    let line = "weights = [1, 0.5, 2]\nmeans = [[-0.6], [0.1], [0.7]]\nstd = [0, 0.1, 0]\n";
    let plane = "weights = [1.0, 1e-3]\nmeans = [\n  [-0.6, 2],\n  [0.1, 3e2],\n]\nstd = [1, 0]\n";
    written(to, &[("line.toml", line), ("plane.toml", plane)])
}

pub fn mixture(_: &Path, file: &Path) -> Result<()> {
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

pub fn experiments(to: &Folder) -> Result<Vec<PathBuf>> {
    written(to, &[("teacher.toml", TEACHER), ("student.toml", STUDENT), ("ct.toml", TRAINING)])
}

pub fn experiment(_: &Path, file: &Path) -> Result<()> {
    let read = Experiment::read(file)?;
    // The first that a run does; whether it is a network for these images is another question.
    let _ = read.network.parameters(&[1, 8, 8]);
    ensure!(Experiment::parse(&read.to_toml()?)? == read, "it is not the same when written");
    Ok(())
}

pub fn reproductions(to: &Folder) -> Result<Vec<PathBuf>> {
    let teacher = REPRODUCTION.replace("taus = [[], [0.8, 0.4]]\n", DENOISER).replace(
        r#""consistency-training", schedule = { s0 = 2, s1 = 20, mu0 = 0.9 }"#,
        r#""score-matching""#,
    );
    written(to, &[("test/experiment.toml", REPRODUCTION), ("teacher/experiment.toml", &teacher)])
}

const REPRODUCTION: &str = r#"
title = "A test"
seeds = [0, 1]
dataset = "digits"

[evaluate]
samples = 100
taus = [[], [0.8, 0.4]]
from_data = [1.6]
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

/// How a denoiser is sampled, in place of `taus`.
const DENOISER: &str = r#"points = [18, 9]
again = [0.8]
solvers = [{ sampler = { kind = "predictor-corrector", snr = 0.1, corrections = 1 }, points = 7 }]
"#;

pub fn reproduction(folder: &Path, file: &Path) -> Result<()> {
    let name = file.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    let read = Reproduction::read(folder, &name)?;
    let _ = (read.sweeps(), read.samplings());
    for variant in read.variants() {
        let _ = Reproduction::read(folder, &variant);
        let _ = variant.split_once('.').map(|(_, variant)| read.differences(variant));
    }
    Ok(())
}

pub fn entries(to: &Folder) -> Result<Vec<PathBuf>> {
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

pub fn entry(folder: &Path, file: &Path) -> Result<()> {
    let found = Dataset::find(&file.display().to_string())?.with_cache(folder.join("cache"));
    // Whether it is here is another question; it is asked of the cache alone (HF_HUB_OFFLINE).
    for split in found.entry().splits.keys() {
        let _ = (found.is_here(split), found.split(split).map(|images| images.labels().map(drop)));
    }
    Ok(())
}
