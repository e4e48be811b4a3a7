//! Promise: bad input gets one clear error that names the file, the value and the remedy;
//! nothing is lost or half written.

mod errors;

use candle_core::{DType, Device, Tensor};
use consistency::experiment::{Experiment, Monitor, RunFolder, Trained, train};
use consistency::plot::Figure;
use consistency::process::{Empirical, GaussianMixture, NoiseRange};
use consistency::record::write_atomically;
use consistency::seam::Denoiser;
use consistency::{Error, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

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

const GOOD: &str = r#"
name = "test"
data = { name = "digits" }
network = { kind = "mlp", width = 16, blocks = 1 }
method = { kind = "score-matching" }
training = { iterations = 20, batch = 8, checkpoint_every = 10 }
"#;

fn message<T>(result: Result<T>) -> String {
    match result {
        Ok(_) => String::from("no error at all"),
        Err(error) => error.to_string(),
    }
}

fn run(experiment: &Experiment, runs: &Path) -> Result<Trained> {
    train(experiment, runs, &Monitor::default(), 1)
}

#[test]
fn experiments() {
    let with = |from: &str, to: &str| message(Experiment::parse(&GOOD.replace(from, to)));
    assert_eq!(with("", ""), "no error at all");
    for (from, to, want) in [
        ("batch = 8", "batch = 0", "training.batch = 0: give at least 1"),
        ("batch = 8", "batch = 8, ema = 1.0", "training.ema = 1: needs 0 <= ema < 1"),
        ("batch = 8", "batch = 8, ema = [0.9, 1.5]", "training.ema = 1.5: needs 0 <= ema < 1"),
        ("batch = 8", "batch = 8, ema = []", "training.ema = []: give at least one rate"),
        ("batch = 8", "batch = 8, accumulate = 9", "training.accumulate = 9: needs 1 to"),
        ("batch = 8", "batch = 8, keep_checkpoints = 0", "training.keep_checkpoints = 0"),
        ("batch = 8", "batch = 8, precision = \"bf16\"", "training.precision = Bf16: the CPU"),
        ("iterations = 20", "iterations = 0", "training.iterations = 0: give at least 1"),
        ("\"test\"", "\"a/b\"", "name = 'a/b': an experiment's name has letters, digits"),
        ("[nothing]", "", "no error at all"),
    ] {
        let got = with(from, to);
        assert!(got.starts_with(want), "{got}");
    }
    // A field that is misspelt is not silently left out.
    let got = with("batch = 8", "batch = 8, learning_rate = 1.0");
    assert!(got.contains("learning_rate") && got.contains("line 6"), "{got}");
    let got = with("score-matching", "scorematching");
    assert!(got.contains("unknown variant `scorematching`"), "{got}");
    let got = message(Experiment::parse(""));
    assert!(got.contains("missing field `name`"), "{got}");
    let got = message(Experiment::read("no/such/file.toml"));
    assert!(got.starts_with("reading no/such/file.toml: "), "{got}");
}

#[test]
fn checkpoints() -> Result<()> {
    let folder = Folder::new("checkpoints")?;
    let experiment = Experiment::parse(GOOD)?;
    run(&experiment, &folder.0)?;
    let path = folder.0.join(experiment.folder()?);
    let newest = path.join("checkpoint-000000020.safetensors");
    let before = path.join("checkpoint-000000010.safetensors");
    let good = fs::read(&newest)?;
    assert!(before.exists(), "the checkpoint before the last is kept");

    // Empty, cut off at several places, noise, a file of another kind.
    let mut broken = vec![Vec::new(), b"not a checkpoint".to_vec(), vec![0xff; 4096]];
    for part in [7, 9, 1000, good.len() / 2, good.len() - 1] {
        broken.push(good[..part].to_vec());
    }
    for bytes in broken {
        fs::write(&newest, &bytes)?;
        let got = message(run(&experiment, &folder.0));
        assert!(
            got.starts_with(&format!("the checkpoint {}: is damaged or cut off", newest.display())),
            "{got}"
        );
        assert!(
            got.ends_with(&format!(
                "delete it to resume from the one before, {}",
                before.display()
            )),
            "{got}"
        );
        assert!(!got.contains('\n'), "{got}");
        assert_eq!(fs::read(&newest)?, bytes, "a damaged file is left for its owner to see");
    }

    // What the message says works, and gives the bits of the run that was never broken.
    fs::remove_file(&newest)?;
    run(&experiment, &folder.0)?;
    assert_eq!(fs::read(&newest)?, good);

    // The checkpoint of another configuration.
    let other = Experiment { seed: 1, ..experiment.clone() };
    let theirs = folder.0.join(other.folder()?);
    fs::create_dir_all(&theirs)?;
    fs::copy(&newest, theirs.join("checkpoint-000000020.safetensors"))?;
    let got = message(run(&other, &folder.0));
    assert!(got.contains(&format!("belongs to the configuration {}", experiment.hash()?)), "{got}");
    assert!(got.ends_with("delete it to start again"), "{got}");

    // Safetensors that are no checkpoint.
    let tensors = [("x".to_string(), Tensor::zeros(3, DType::F32, &Device::Cpu)?)];
    candle_core::safetensors::save(
        &tensors.into(),
        theirs.join("checkpoint-000000020.safetensors"),
    )?;
    let got = message(run(&other, &folder.0));
    assert!(got.contains("is not a checkpoint of a run"), "{got}");
    Ok(())
}

#[test]
fn a_checkpoint_with_a_wrong_shape() -> Result<()> {
    let folder = Folder::new("shape")?;
    let experiment = Experiment::parse(GOOD)?;
    run(&experiment, &folder.0)?;
    let path = folder.0.join(experiment.folder()?).join("checkpoint-000000020.safetensors");
    let bytes = fs::read(&path)?;
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes)?;
    let mut tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)?;
    let wrong = Tensor::zeros((3, 3), DType::F32, &Device::Cpu)?;
    tensors.insert("ema/input.weight".to_string(), wrong);
    safetensors::serialize_to_file(&tensors, header.metadata().clone(), &path)?;
    let got = message(run(&experiment, &folder.0));
    assert!(
        got.contains("parameter input.weight has shape [3, 3], the network needs [16, 64]"),
        "{got}"
    );
    tensors.remove("ema/input.weight");
    safetensors::serialize_to_file(&tensors, header.metadata().clone(), &path)?;
    let got = message(run(&experiment, &folder.0));
    assert!(got.contains("missing [\"input.weight\"]"), "{got}");
    Ok(())
}

#[test]
fn teachers() -> Result<()> {
    let folder = Folder::new("teachers")?;
    let student = |teacher: &str, width: usize| {
        Experiment::parse(&GOOD.replace("width = 16", &format!("width = {width}")).replace(
            r#"{ kind = "score-matching" }"#,
            &format!(r#"{{ kind = "distillation", teacher = "{teacher}", points = 8, mu = 0.0 }}"#),
        ))
    };
    let got = message(run(&student("nobody", 16)?, &folder.0));
    assert!(got.contains("nobody holds no run: there is no experiment.toml"), "{got}");
    let teacher = run(&Experiment::parse(GOOD)?, &folder.0)?;
    let got = message(run(&student(&teacher.folder(), 8)?, &folder.0));
    assert!(got.contains("the teacher test has another network or other data than test"), "{got}");
    let trained = run(&student(&teacher.folder(), 16)?, &folder.0)?;
    assert!(message(trained.denoiser()).contains("trained a consistency model, not a denoiser"));
    assert!(message(teacher.consistency_model()).contains("trained a denoiser, not a consistency"));
    // A teacher whose training is not done.
    let unfinished =
        RunFolder::create(&folder.0, &Experiment { seed: 9, ..Experiment::parse(GOOD)? })?;
    assert!(message(unfinished.trained()).ends_with("has no checkpoint: train it first"));
    Ok(())
}

#[test]
fn a_loss_that_runs_away_stops_the_run() -> Result<()> {
    let folder = Folder::new("away")?;
    let wild = Experiment::parse(
        &GOOD.replace("training = {", "optimizer = { learning_rate = 3.0 }\ntraining = {"),
    )?;
    let got = message(run(&wild, &folder.0));
    assert!(got.contains("test: at step ") && got.contains("the training has diverged"), "{got}");
    assert!(got.contains("optimizer.clip") && got.contains("learning rate 3e0"), "{got}");
    Ok(())
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run() -> Result<()> {
    let folder = Folder::new("nan")?;
    let wild = Experiment::parse(&GOOD.replace(
        "training = {",
        "optimizer = { kind = \"adam\", learning_rate = 1e30 }\ntraining = {",
    ))?;
    let got = message(run(&wild, &folder.0));
    assert!(got.contains("test: at step ") && got.contains("learning rate 1e30"), "{got}");
    assert!(got.contains("the last checkpoint in "), "{got}");
    assert!(got.contains("is not finite") && got.contains("the gradient of "), "{got}");
    Ok(())
}

#[test]
fn a_run_that_goes_bad_keeps_its_last_good_checkpoint() -> Result<()> {
    // A rate at which it grows past all numbers after the first checkpoints.
    let folder = Folder::new("bad")?;
    let wild = Experiment::parse(&GOOD.replace(
        "training = { iterations = 20, batch = 8, checkpoint_every = 10 }",
        "optimizer = { kind = \"adamw\", learning_rate = 1.0, weight_decay = 10.0 }\n\
         training = { iterations = 60, batch = 8, checkpoint_every = 2 }",
    ))?;
    let got = message(run(&wild, &folder.0));
    assert!(got.contains("test: at step ") && got.contains("learning rate 1e0"), "{got}");
    let path = folder.0.join(wild.folder()?);
    let last = fs::read_dir(&path)?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "safetensors"))
        .max();
    let Some(last) = last else { return Err(Error::new("no checkpoint is left")) };
    let tensors = candle_core::safetensors::load(&last, &Device::Cpu)?;
    for (name, tensor) in tensors.iter().filter(|(name, _)| name.starts_with("params/")) {
        let sum = tensor.sqr()?.sum_all()?.to_scalar::<f32>()?;
        assert!(sum.is_finite(), "{name} in {}", last.display());
    }
    Ok(())
}

/// What `a_full_disk` runs in a process that may write small files alone.
#[test]
fn trains_in_a_given_folder() -> Result<()> {
    let own = Folder::new("given")?;
    let runs = std::env::var_os("CONSISTENCY_TEST_RUNS").map_or(own.0.clone(), PathBuf::from);
    let width = std::env::var("CONSISTENCY_TEST_WIDTH").unwrap_or_else(|_| "16".to_string());
    let experiment = Experiment::parse(&GOOD.replace("width = 16", &format!("width = {width}")))?;
    run(&experiment, &runs)?;
    Ok(())
}

#[cfg(unix)]
#[test]
fn a_full_disk() -> Result<()> {
    let folder = Folder::new("full")?;
    let program = std::env::current_exe()?;
    let start = |blocks: &str| {
        // A limit on the size of files, whose signal is ignored: a write over it fails as one
        // to a full disk does. 512 bytes a block.
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
        Command::new("sh")
            .args(["-c", &script])
            .arg(&program)
            .args(["trains_in_a_given_folder", "--exact", "--nocapture"])
            .env("CONSISTENCY_TEST_RUNS", &folder.0)
            .output()
    };
    let output = start("8")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "{said}");
    let experiment = Experiment::parse(GOOD)?;
    let path = folder.0.join(experiment.folder()?);
    let checkpoint = path.join("checkpoint-000000010.safetensors");
    assert!(said.contains(&format!("writing {}", checkpoint.display())), "{said}");
    let left = |end: &str| -> Result<usize> {
        let names = fs::read_dir(&path)?.flatten();
        Ok(names.filter(|e| e.file_name().to_string_lossy().ends_with(end)).count())
    };
    assert_eq!((left(".safetensors")?, left(".tmp")?), (0, 0), "{said}");
    // With a checkpoint there, it stays whole and the run goes on from it.
    let stopped = Monitor::default();
    stopped.stop();
    let _ = train(&experiment, &folder.0, &stopped, 1);
    let before = fs::read(path.join("checkpoint-000000001.safetensors"))?;
    assert!(!start("8")?.status.success());
    assert_eq!(fs::read(path.join("checkpoint-000000001.safetensors"))?, before);
    assert!(start("unlimited")?.status.success());
    Ok(())
}

#[test]
fn a_gpu_that_is_not_there() {
    if cfg!(feature = "cuda") {
        return;
    }
    let got = message(consistency::device("cuda"));
    assert!(got.starts_with("device 'cuda': this build runs on the CPU alone"), "{got}");
    assert!(got.contains("cargo lab setup --features cuda"), "{got}");
    let got = message(consistency::device("gpu"));
    assert!(got.contains("choose cpu, cuda or cuda:N"), "{got}");
    let on_gpu = GOOD.replace("batch = 8", "batch = 8, device = \"cuda\"");
    let folder = std::env::temp_dir().join(format!("consistency-{}-gpu", std::process::id()));
    let got = message(Experiment::parse(&on_gpu).and_then(|e| run(&e, &folder)));
    let _ = fs::remove_dir_all(&folder);
    assert!(got.contains("device 'cuda'"), "{got}");
}

#[test]
fn a_folder_that_cannot_be_written() -> Result<()> {
    let folder = Folder::new("file")?;
    let file = folder.0.join("in-the-way");
    fs::write(&file, b"")?;
    let got = message(run(&Experiment::parse(GOOD)?, &file));
    assert!(got.starts_with(&format!("making {}", file.display())), "{got}");
    // A failed write leaves the old file whole and nothing beside it.
    let old = folder.0.join("old");
    write_atomically(&old, b"old")?;
    let got = message(write_atomically(&old.join("below"), b"new"));
    assert!(got.starts_with(&format!("writing {}", old.join("below").display())), "{got}");
    assert_eq!(fs::read(&old)?, b"old");
    assert_eq!(fs::read_dir(&folder.0)?.count(), 2);
    Ok(())
}

#[test]
fn mathematics() -> Result<()> {
    let range = NoiseRange::default();
    assert_eq!(message(range.karras(1)), "a grid of 1 points: it needs 2 or more, eps and T");
    let bad = NoiseRange { eps: 0.0, ..range };
    assert!(message(bad.karras(5)).contains("eps = 0: needs 1e-6 <= eps <= 1e6"));
    let mixture = |weights, means, std| message(GaussianMixture::new(weights, means, std));
    assert!(mixture(vec![1.0], vec![], vec![1.0]).contains("needs as many of each"));
    assert!(
        mixture(vec![-1.0], vec![vec![0.0]], vec![1.0])
            .contains("weights[0] = -1: needs 1e-12 <= weights[0]")
    );
    let one = GaussianMixture::new(vec![1.0], vec![vec![0.0]], vec![1.0])?;
    let x = Tensor::zeros((3, 1), DType::F64, &Device::Cpu)?;
    assert_eq!(
        message(one.denoise(&x, &[1.0, 2.0])),
        "2 noise levels for a batch of 3: give one, or one per sample"
    );
    assert_eq!(
        message(one.denoise(&x, &[f64::NAN])),
        "NaN is not a finite noise level or coefficient"
    );
    let followed = candle_core::Var::from_tensor(&x)?;
    assert!(message(one.denoise(&followed, &[1.0])).contains("carries no gradient"));
    let rows = Empirical::new(&x)?;
    assert!(message(rows.denoise(&followed, &[1.0])).contains("carries no gradient"));
    let point = GaussianMixture::new(vec![1.0], vec![vec![0.0]], vec![0.0])?;
    assert!(message(point.denoise(&x, &[0.0])).contains("no density"));
    Ok(())
}

#[test]
fn figures() -> Result<()> {
    let nan = Figure::new("losses").line("CT", &[0.0, 1.0], &[1.0, f64::NAN]);
    assert_eq!(message(nan.png()), "the figure 'losses': point 1 of 'CT' is (1, NaN)");
    assert_eq!(message(nan.json()), message(nan.png()));
    let zero = Figure::new("losses").log_y().line("CT", &[0.0], &[0.0]);
    assert!(message(zero.png()).contains("has no place on a logarithmic axis"));
    let flat = Tensor::zeros((2, 3), DType::F32, &Device::Cpu)?;
    assert!(
        message(Figure::images("x", &flat, 2))
            .starts_with("images must be (N, C, H, W), got the shape [2, 3]")
    );
    let _ = Error::new("");
    Ok(())
}
