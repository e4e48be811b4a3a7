//! Promise: a number without a sense is refused where it is read, by its field, with the value
//! and what the field needs.

use consistency::data::Dataset;
use consistency::experiment::Experiment;
use consistency::process::{GaussianMixture, Schedule, TimeGrid};
use consistency::reproduce::Reproduction;
use consistency::sample::Multistep;
use consistency::{Error, Result};
use std::fs;
use std::path::PathBuf;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("consistency-{}-{name}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn message<T>(result: Result<T>) -> String {
    match result {
        Ok(_) => String::from("no error at all"),
        Err(error) => error.to_string(),
    }
}

/// `text` with one of its values replaced, which must be there.
fn with(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from} is not in {text}");
    text.replacen(from, to, 1)
}

const TEACHER: &str = r#"
name = "test"
sigma_data = 0.5
data = { name = "spirals", count = 100 }
network = { kind = "mlp", width = 16, blocks = 1, time_features = 8 }
noise = { eps = 0.002, t_max = 80.0, rho = 7.0 }
method = { kind = "score-matching", p_mean = -1.2, p_std = 1.2 }
optimizer = { kind = "adamw", learning_rate = 1e-3, betas = [0.9, 0.99], eps = 1e-8, weight_decay = 0.1, clip = 1.0 }
training = { iterations = 20, batch = 8, ema = [0.9, 0.99], decay = 0.5 }
"#;

const CD: &str = r#"{ kind = "distillation", teacher = "nobody", points = 18, mu = 0.5, distance = { metric = { kind = "pseudo-huber", c = 0.03 } } }"#;
const CT: &str = r#"{ kind = "consistency-training", schedule = { s0 = 2, s1 = 20, mu0 = 0.9 } }"#;
const IMAGES: &str = r#"{ name = "images", of = "digits", size = 8, limit = 10 }"#;
const UNET: &str = r#"{ kind = "unet", block_out_channels = [8, 8], layers_per_block = 1, norm_num_groups = 4, dropout = 0.1, norm_eps = 1e-5 }"#;
const NCSNPP: &str = r#"{ kind = "ncsnpp", nf = 8, ch_mult = [1, 2], num_res_blocks = 1, dropout = 0.1, fourier_scale = 16.0 }"#;

#[test]
fn experiments() {
    let other = |field: &str, value: &str| {
        let lines = TEACHER.lines().map(|line| match line.starts_with(&format!("{field} = ")) {
            true => format!("{field} = {value}"),
            false => line.to_string(),
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    let (cd, ct) = (other("method", CD), other("method", CT));
    let images = other("data", IMAGES);
    let (unet, ncsnpp) = (other("network", UNET), other("network", NCSNPP));
    for text in [TEACHER, &cd, &ct, &images, &unet, &ncsnpp] {
        assert_eq!(message(Experiment::parse(text)), "no error at all", "{text}");
    }
    let long = "a".repeat(101);
    for (text, from, to, want) in [
        (TEACHER, "sigma_data = 0.5", "sigma_data = nan", "sigma_data = NaN: needs 1e-6 <="),
        (TEACHER, "sigma_data = 0.5", "sigma_data = inf", "sigma_data = inf: needs"),
        (TEACHER, "sigma_data = 0.5", "sigma_data = -1", "sigma_data = -1: needs"),
        (TEACHER, "count = 100", "count = 0", "data: count = 0: needs 1 <= count"),
        (TEACHER, "count = 100", "count = 99999999999", "data: count = 99999999999: needs"),
        (TEACHER, "width = 16", "width = 0", "network: width = 0: needs 1 <= width"),
        (TEACHER, "width = 16", "width = 99999999999", "network: width = 99999999999: needs"),
        (TEACHER, "blocks = 1", "blocks = 4294967296", "network: blocks = 4294967296: needs"),
        (TEACHER, "time_features = 8", "time_features = 1", "network: time_features = 1: needs"),
        (TEACHER, "eps = 0.002", "eps = nan", "noise: eps = NaN: needs 1e-6 <= eps <= 1e6"),
        (TEACHER, "eps = 0.002", "eps = 1e-300", "noise: eps = 1e-300: needs"),
        (TEACHER, "eps = 0.002", "eps = 80.0", "noise: eps = 80, t_max = 80: needs eps < t_max"),
        (TEACHER, "t_max = 80.0", "t_max = inf", "noise: t_max = inf: needs"),
        (TEACHER, "rho = 7.0", "rho = 1e300", "noise: rho = 1e300: needs 0.1 <= rho <= 1000"),
        (TEACHER, "rho = 7.0", "rho = 0", "noise: rho = 0: needs"),
        (TEACHER, "p_mean = -1.2", "p_mean = nan", "method: p_mean = NaN: needs"),
        (TEACHER, "p_std = 1.2", "p_std = 0", "method: p_std = 0: needs 0 < p_std <= 5"),
        (TEACHER, "p_std = 1.2", "p_std = nan", "method: p_std = NaN: needs"),
        (TEACHER, "1e-3", "nan", "optimizer.learning_rate = NaN: needs 0 < learning_rate"),
        (TEACHER, "1e-3", "0.0", "optimizer.learning_rate = 0: needs"),
        (TEACHER, "1e-3", "1e308", "optimizer.learning_rate = 1e308: needs"),
        (TEACHER, "[0.9, 0.99], eps", "[1.0, 0.99], eps", "optimizer.betas = 1: needs 0 <= betas"),
        (TEACHER, "0.99], eps", "nan], eps", "optimizer.betas = NaN: needs"),
        (TEACHER, "eps = 1e-8", "eps = 0.0", "optimizer.eps = 0: needs 1e-30 <= eps <= 1"),
        (TEACHER, "weight_decay = 0.1", "weight_decay = -1", "optimizer.weight_decay = -1: needs"),
        (TEACHER, "weight_decay = 0.1", "weight_decay = nan", "optimizer.weight_decay = NaN"),
        (TEACHER, "clip = 1.0", "clip = nan", "optimizer.clip = NaN: needs 0 < clip"),
        (TEACHER, "clip = 1.0", "clip = inf", "optimizer.clip = inf: needs"),
        (TEACHER, "= 20", "= 1000000000", "training.iterations = 1000000000: needs"),
        (TEACHER, "batch = 8", "batch = 9223372036854775807", "training.batch = 922"),
        (TEACHER, "ema = [0.9", "ema = [nan", "training.ema = NaN: needs 0 <= ema < 1"),
        (TEACHER, "ema = [0.9", "ema = [-0.1", "training.ema = -0.1: needs"),
        (TEACHER, "decay = 0.5", "decay = nan", "training.decay = NaN: needs 0 <= decay <= 1"),
        (TEACHER, "\"test\"", &format!("\"{long}\""), "name has 101 letters"),
        (&cd, "points = 18", "points = 1", "method.points = 1: a grid needs 2 or more"),
        (&cd, "points = 18", "points = 99999999999", "method.points = 99999999999: needs"),
        (&cd, "mu = 0.5", "mu = nan", "method.mu = NaN: needs 0 <= mu < 1"),
        (&cd, "c = 0.03", "c = 0.0", "method.distance: c = 0: needs 1e-6 <= c <= 1e6"),
        (&cd, "c = 0.03", "c = nan", "method.distance: c = NaN: needs"),
        (&ct, "s1 = 20", "s1 = 4294967295", "method.schedule: s1 = 4294967295: needs s1 < 1"),
        (&ct, "mu0 = 0.9", "mu0 = nan", "method.schedule: schedule mu0 = NaN: needs"),
        (&images, "size = 8", "size = 99999999999", "data: size = 99999999999: needs"),
        (&images, "limit = 10", "limit = 0", "data: limit = 0: give at least 1"),
        (&unet, "[8, 8]", "[0, 8]", "network: block_out_channels = 0: needs"),
        (&unet, "[8, 8]", "[8, 99999999999]", "network: block_out_channels = 99999999999: needs"),
        (&unet, "per_block = 1", "per_block = 4294967296", "network: layers_per_block = 42949"),
        (&unet, "dropout = 0.1", "dropout = 1.0", "network: dropout = 1: needs 0 <= dropout < 1"),
        (&unet, "dropout = 0.1", "dropout = nan", "network: dropout = NaN: needs"),
        (&unet, "norm_eps = 1e-5", "norm_eps = nan", "network: norm_eps = NaN: needs"),
        (&ncsnpp, "nf = 8", "nf = 99999999999", "network: nf = 99999999999: needs"),
        (&ncsnpp, "[1, 2]", "[1, 99999999999]", "network: ch_mult = 99999999999: needs"),
        (&ncsnpp, "res_blocks = 1", "res_blocks = 4294967296", "network: num_res_blocks = 4294"),
        (&ncsnpp, "dropout = 0.1", "dropout = -0.1", "network: dropout = -0.1: needs"),
    ] {
        let got = message(Experiment::parse(&with(text, from, to)));
        assert!(got.starts_with(want), "{to}: {got}");
        assert!(got.len() < 200 && !got.contains('\n'), "{to}: {got}");
    }
}

const REPRODUCTION: &str = r#"
title = "A test"
seeds = [0, 1]

[evaluate]
samples = 100
taus = [[], [0.8, 0.4]]
points = [18]
again = [0.8]
from_data = [1.6]
solvers = [{ sampler = { kind = "predictor-corrector", snr = 0.1, corrections = 1 }, points = 7 }]

[experiment]
data = { name = "digits" }
network = { kind = "mlp", width = 16, blocks = 1 }
method = { kind = "score-matching" }
training = { iterations = 20, batch = 8 }
"#;

#[test]
fn reproductions() -> Result<()> {
    let folder = Folder::new("reproductions")?;
    fs::create_dir_all(folder.0.join("test"))?;
    let file = folder.0.join("test/experiment.toml");
    let read = |text: &str| -> Result<String> {
        fs::write(&file, text)?;
        Ok(message(Reproduction::read(&folder.0, "test")))
    };
    // A denoiser has no taus: they are looked at before what the run gives.
    assert_eq!(read(&REPRODUCTION.replace("taus = [[], [0.8, 0.4]]", ""))?, "no error at all");
    assert!(read(REPRODUCTION)?.contains("evaluate: 'one step' is not for a denoiser"));
    for (from, to, want) in [
        ("samples = 100", "samples = 1", "evaluate.samples = 1: needs 2 <= samples"),
        ("samples = 100", "samples = 99999999999", "evaluate.samples = 99999999999: needs"),
        ("[0.8, 0.4]", "[0.4, 0.8]", "evaluate.taus: multistep noise levels [0.4, 0.8] must"),
        ("[0.8, 0.4]", "[nan]", "evaluate.taus: noise level = NaN: needs"),
        ("[0.8, 0.4]", "[90.0]", "evaluate.taus: multistep noise levels [90.0] must decrease"),
        ("points = [18]", "points = [1]", "evaluate.points = 1: needs 2 <= points"),
        ("points = [18]", "points = [99999999999]", "evaluate.points = 99999999999: needs"),
        ("points = 7", "points = 0", "evaluate.solvers.points = 0: needs"),
        ("again = [0.8]", "again = [nan]", "evaluate.again = NaN: needs 0.002 < again <= 80"),
        ("from_data = [1.6]", "from_data = [1e200]", "evaluate.from_data = 1e200: needs"),
        ("corrections = 1", "corrections = 99999999999", "corrections = 99999999999: needs"),
        ("snr = 0.1", "snr = nan", "evaluate.solvers: snr = NaN: needs 0 < snr < 1"),
        ("batch = 8", "batch = 8, ema = nan", "experiment: training.ema = NaN: needs"),
    ] {
        let got = read(&with(REPRODUCTION, from, to))?;
        assert!(got.starts_with("reading ") && got.contains("experiment.toml: "), "{got}");
        assert!(got.contains(want), "{to}: {got}");
    }
    Ok(())
}

const ENTRY: &str = r#"
name = "test"
title = "A test"
shape = [3, 8, 8]
resize = 8
values = [0, 255]
classes = 10
licence = "none"
size = "small"
citation = ""

[splits.train]
rows = 10
files = ["data/{00..07}.parquet"]
"#;

#[test]
fn entries_of_the_catalog() -> Result<()> {
    let folder = Folder::new("entries")?;
    let file = folder.0.join("mine.toml");
    let read = |text: &str| -> Result<String> {
        fs::write(&file, text)?;
        Ok(message(Dataset::find(&file.display().to_string())))
    };
    assert_eq!(read(ENTRY)?, "no error at all");
    let long = format!("{{{}1..2}}", "0".repeat(70_000));
    for (from, to, want) in [
        ("[3, 8, 8]", "[0, 8, 8]", "shape = [0, 8, 8]: needs [channels, height, width]"),
        ("[3, 8, 8]", "[5, 8, 8]", "shape.channels = 5: needs 1 <= channels <= 4"),
        ("[3, 8, 8]", "[3, 99999999999, 8]", "shape.height = 99999999999: needs"),
        ("[3, 8, 8]", "[3, 8, 99999999999]", "shape.width = 99999999999: needs"),
        ("resize = 8", "resize = 0", "resize = 0: needs 1 <= resize"),
        ("resize = 8", "resize = 99999999999", "resize = 99999999999: needs"),
        ("classes = 10", "classes = 99999999999", "classes = 99999999999: needs"),
        ("[0, 255]", "[1, 255]", "values = [1, 255]: needs [0, the largest value]"),
        ("{00..07}", "{0..4294967295}", "splits.train.files: 'data/{0..4294967295}.parquet': a"),
        ("{00..07}", "{7..0}", "splits.train.files: 'data/{7..0}.parquet': a range goes up"),
        ("{00..07}", &long, "a range goes up, in numbers of 9 digits or fewer"),
    ] {
        let got = read(&with(ENTRY, from, to))?;
        assert!(got.starts_with("reading ") && got.contains("mine.toml: "), "{got}");
        assert!(got.contains(want), "{got}");
    }
    Ok(())
}

#[test]
fn noise_levels() -> Result<()> {
    let grid = |times: &[f64]| message(TimeGrid::new(times.to_vec()));
    assert_eq!(grid(&[0.1, 1.0]), "no error at all");
    assert_eq!(
        grid(&[0.1, 2.0, 2.0]),
        "noise levels must be strictly increasing: point 2 of 3 is 2, the next 2"
    );
    assert_eq!(grid(&[0.1, f64::NAN]), "noise level = NaN: needs 1e-6 <= noise level <= 1e6");
    assert!(grid(&[0.0, 1.0]).starts_with("noise level = 0: needs"));
    assert!(grid(&[0.1, f64::INFINITY]).starts_with("noise level = inf: needs"));
    assert!(grid(&[0.1]).starts_with("a grid of 1 points"));
    let sampled = |sigmas: &[f64]| {
        message(Multistep { sigmas, eps: 0.002, clip: false, s_noise: 1.0 }.check())
    };
    assert_eq!(sampled(&[80.0, 1.0]), "no error at all");
    assert!(sampled(&[f64::INFINITY]).starts_with("noise level = inf"));
    assert!(sampled(&[1e200, 1.0]).starts_with("noise level = 1e200"));
    let schedule = Schedule::growing(2, u32::MAX, 0.9);
    assert!(message(schedule.check()).starts_with("s1 = 4294967295: needs s1 < 1"));
    Ok(())
}

#[test]
fn text_that_is_none() -> Result<()> {
    let folder = Folder::new("text")?;
    let file = folder.0.join("M.toml");
    let read = |bytes: &[u8]| -> Result<String> {
        fs::write(&file, bytes)?;
        let got = message(GaussianMixture::read(&file));
        assert!(got.starts_with(&format!("reading {}: ", file.display())), "{got}");
        assert!(got.len() < 2000, "{} letters", got.len());
        Ok(got)
    };
    assert!(read(b"weights = [1]\nmeans = [[\xff]]")?.contains("byte 24 is not UTF-8"));
    let long = format!("weights = \"{}\"\nmeans = []\nstd = []", "x".repeat(1 << 20));
    assert!(read(long.as_bytes())?.contains("line 1"));
    let deep = format!("weights = {}", "[".repeat(1 << 20));
    assert!(read(deep.as_bytes())?.contains("line 1"));
    let device = std::path::Path::new("/dev/zero");
    if device.exists() {
        let got = message(GaussianMixture::read(device));
        assert_eq!(
            got,
            "reading /dev/zero: it is longer than 16 MiB: a file of text is wanted here"
        );
    }
    let got = message(GaussianMixture::read(&folder.0));
    assert!(got.starts_with(&format!("reading {}: ", folder.0.display())), "{got}");
    Ok(())
}

#[test]
fn a_word_that_no_one_wrote_is_cut_short() {
    let names = "a name, ".repeat(10_000);
    let path = "p".repeat(4000);
    let error = Error::new(format!("'{}' in {path}: {names}", "\u{e4}".repeat(5000)));
    let want = format!("'{}.. (5002 letters) in {path}: {names}", "\u{e4}".repeat(199));
    assert_eq!(error.to_string(), want);
}
