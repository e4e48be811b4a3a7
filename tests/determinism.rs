//! Promise: same seed, same numbers: for any batch split and any number of threads, and for
//! a run that is killed and resumed.

use candle_core::{DType, Device};
use consistency::data::{batch_rows, digits};
use consistency::experiment::{Experiment, Monitor, Rates, Trained, train};
use consistency::model::{NetworkConfig, UNetConfig};
use consistency::rng::Key;
use consistency::seam::Denoiser;
use consistency::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

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

fn experiment(method: &str, iterations: u64) -> Result<Experiment> {
    Experiment::parse(&format!(
        r#"
        name = "test"
        seed = 3
        data = {{ name = "digits" }}
        network = {{ kind = "mlp", width = 32, blocks = 2 }}
        method = {method}
        training = {{ iterations = {iterations}, batch = 24, record_every = 7, checkpoint_every = 10 }}
        "#
    ))
}

const TEACHER: &str = r#"{ kind = "score-matching" }"#;
const CT: &str = r#"{ kind = "consistency-training", schedule = { s0 = 2, s1 = 20, mu0 = 0.9 } }"#;

/// Every byte of the last checkpoint: parameters, averages, optimizer, record.
fn last_checkpoint(runs: &Path, experiment: &Experiment) -> Result<Vec<u8>> {
    let step = experiment.training.iterations;
    let path = runs.join(experiment.folder()?).join(format!("checkpoint-{step:09}.safetensors"));
    Ok(std::fs::read(path)?)
}

#[test]
fn noise_does_not_depend_on_the_batch() -> Result<()> {
    let key = Key::new(5).stream("noise").step(9);
    let whole = key.normal(0..100, &[3, 2], DType::F32, &Device::Cpu)?;
    let whole = whole.flatten_all()?.to_vec1::<f32>()?;
    let mut split = Vec::new();
    for (from, to) in [(0, 1), (1, 40), (40, 41), (41, 100)] {
        let part = key.normal(from..to, &[3, 2], DType::F32, &Device::Cpu)?;
        split.extend(part.flatten_all()?.to_vec1::<f32>()?);
    }
    assert_eq!(whole, split);
    Ok(())
}

#[test]
fn keys_name_different_noise() -> Result<()> {
    let root = Key::new(5);
    let keys = [
        root,
        Key::new(6),
        root.stream("a"),
        root.stream("b"),
        root.step(0),
        root.step(1),
        root.stream("a").step(0),
        root.stream("a").stream("b"),
        root.stream("ab"),
    ];
    let mut drawn: Vec<u64> = keys.iter().map(|k| k.normals(0..1)[0].to_bits()).collect();
    drawn.sort_unstable();
    drawn.dedup();
    assert_eq!(drawn.len(), keys.len());
    // And it is normal: mean 0, variance 1, fourth moment 3.
    let z = root.normals(0..40_000);
    let moment = |p: i32| z.iter().map(|z| z.powi(p)).sum::<f64>() / z.len() as f64;
    assert!(
        moment(1).abs() < 0.02 && (moment(2) - 1.0).abs() < 0.03 && (moment(4) - 3.0).abs() < 0.2
    );
    Ok(())
}

#[test]
fn an_epoch_visits_every_row_once() {
    let key = Key::new(1);
    let rows: Vec<u32> = (0..20).flat_map(|step| batch_rows(30, 12, step, &key)).collect();
    for epoch in rows.chunks(30) {
        let mut epoch = epoch.to_vec();
        epoch.sort_unstable();
        assert_eq!(epoch, (0..30).collect::<Vec<_>>());
    }
    assert_ne!(rows[..30], rows[30..60]);
}

#[test]
fn the_digits_never_change() -> Result<()> {
    let digits = digits(DType::F32, &Device::Cpu)?;
    assert_eq!(digits.revision, "62866a47ebcb8d05");
    assert_eq!(digits.train_labels[..5], [1, 2, 3, 5, 6]);
    assert_eq!(digits.held_out_labels[..5], [0, 4, 8, 2, 6]);
    Ok(())
}

#[test]
fn threads_change_no_bit() -> Result<()> {
    let mlp = experiment(CT, 20)?;
    let unet = UNetConfig::small(&[16, 32], 1);
    let unet = Experiment { network: NetworkConfig::Unet(unet), ..experiment(CT, 10)? };
    for experiment in [mlp, unet] {
        let mut all = Vec::new();
        for threads in [1, 2, 3] {
            let folder = Folder::new(&format!("threads-{threads}"))?;
            train(&experiment, &folder.0, &Monitor::default(), threads)?;
            all.push(last_checkpoint(&folder.0, &experiment)?);
        }
        assert!(
            all[0] == all[1] && all[0] == all[2],
            "{:?}: checkpoints differ between numbers of threads",
            experiment.network
        );
    }
    Ok(())
}

/// Columns of the record after each step of a run.
fn losses(experiment: &Experiment) -> Result<(Vec<f64>, Vec<f64>)> {
    let folder = Folder::new(&format!("losses-{}", experiment.training.accumulate))?;
    let trained = train(experiment, &folder.0, &Monitor::default(), 2)?;
    let column = |name: &str| trained.table().column(name).to_vec();
    Ok((column("loss"), column("gradient_norm")))
}

#[test]
fn a_batch_in_parts_is_the_whole_batch() -> Result<()> {
    let unet = UNetConfig { dropout: 0.1, ..UNetConfig::small(&[16, 32], 1) };
    for method in [TEACHER, CT] {
        let mut experiment =
            Experiment { network: NetworkConfig::Unet(unet.clone()), ..experiment(method, 5)? };
        experiment.training.record_every = 1;
        let whole = losses(&experiment)?;
        experiment.training.accumulate = 5;
        let parts = losses(&experiment)?;
        let all = |of: &(Vec<f64>, Vec<f64>)| [of.0.clone(), of.1.clone()].concat();
        for (whole, part) in all(&whole).into_iter().zip(all(&parts)) {
            assert!((whole - part).abs() <= 1e-5 * whole.abs(), "{method}: {whole}, {part}");
        }
    }
    Ok(())
}

#[test]
fn several_averages_at_once() -> Result<()> {
    let folder = Folder::new("averages")?;
    let mut both = experiment(TEACHER, 30)?;
    both.training.ema = Rates::Many(vec![0.5, 0.999]);
    both.training.keep_checkpoints = 3;
    let trained = train(&both, &folder.0, &Monitor::default(), 1)?;
    let of = |trained: &Trained| -> Result<Vec<f32>> {
        let mut all = Vec::new();
        for tensor in trained.params().tensors().values() {
            all.extend(tensor.flatten_all()?.to_vec1::<f32>()?);
        }
        Ok(all)
    };
    let first = of(&trained)?;
    let second = of(&trained.with_average(1)?)?;
    assert_ne!(first, second);
    for (rate, kept) in [(0.5, first), (0.999, second)] {
        let mut one = experiment(TEACHER, 30)?;
        one.training.ema = Rates::One(rate);
        assert!(of(&train(&one, &folder.0, &Monitor::default(), 1)?)? == kept, "rate {rate}");
    }
    let path = folder.0.join(both.folder()?);
    let names = std::fs::read_dir(&path)?.flatten().map(|e| e.file_name());
    let kept = names.filter(|n| n.to_string_lossy().starts_with("checkpoint-")).count();
    assert_eq!(kept, 3, "the last three checkpoints are kept");
    let machine = std::fs::read_to_string(path.join("machine.csv"))?;
    assert!(machine.starts_with("step,seconds,steps_per_second,samples_per_second,resident_gb\n"));
    assert_eq!(machine.lines().count(), 1 + 30 / 7 + 1, "{machine}");
    Ok(())
}

#[test]
fn a_run_at_a_kept_step_is_the_shorter_run_and_in_f64_the_same_network() -> Result<()> {
    let folder = Folder::new("kept")?;
    let mut long = experiment(TEACHER, 30)?;
    long.training.keep_checkpoints = 2;
    let trained = train(&long, &folder.0, &Monitor::default(), 1)?;
    assert_eq!(trained.steps()?, [20, 30]);
    let short = train(&experiment(TEACHER, 20)?, &folder.0, &Monitor::default(), 1)?;
    let x = Key::new(1).normal(0..4, &[1, 8, 8], DType::F32, &Device::Cpu)?;
    let answer = |run: &Trained| -> Result<Vec<f32>> {
        Ok(run.denoiser()?.denoise(&x, &[0.7])?.flatten_all()?.to_vec1()?)
    };
    assert_eq!(answer(&trained.at(20)?)?, answer(&short)?);
    assert_ne!(answer(&trained)?, answer(&short)?);
    let error = trained.at(10).map(|_| String::new()).unwrap_or_else(|e| e.to_string());
    assert!(error.contains("no checkpoint of step 10") && error.contains("[20, 30]"), "{error}");

    let wide = trained.to_f64()?.denoiser()?.denoise(&x.to_dtype(DType::F64)?, &[0.7])?;
    for (wide, narrow) in wide.flatten_all()?.to_vec1::<f64>()?.iter().zip(answer(&trained)?) {
        assert!((wide - f64::from(narrow)).abs() < 1e-5, "{wide} and {narrow}");
    }
    Ok(())
}

#[test]
fn checkpointing_activations_changes_no_bit_of_a_run() -> Result<()> {
    let mut experiment = Experiment {
        network: NetworkConfig::Unet(UNetConfig {
            dropout: 0.1,
            ..UNetConfig::small(&[16, 32], 1)
        }),
        ..experiment(CT, 4)?
    };
    let whole = losses(&experiment)?;
    experiment.training.checkpoint_activations = true;
    assert!(losses(&experiment)? == whole);
    Ok(())
}

#[test]
fn seeds_change_everything() -> Result<()> {
    let folder = Folder::new("seeds")?;
    let one = experiment(TEACHER, 10)?;
    let two = Experiment { seed: 4, ..one.clone() };
    assert_ne!(one.folder()?, two.folder()?);
    train(&one, &folder.0, &Monitor::default(), 1)?;
    train(&two, &folder.0, &Monitor::default(), 1)?;
    assert_ne!(last_checkpoint(&folder.0, &one)?, last_checkpoint(&folder.0, &two)?);
    Ok(())
}

#[test]
fn a_run_that_was_stopped_resumes_to_the_same_bits() -> Result<()> {
    for method in [TEACHER, CT] {
        let (whole, parts) = (Folder::new("whole")?, Folder::new("parts")?);
        let experiment = experiment(method, 40)?;
        train(&experiment, &whole.0, &Monitor::default(), 1)?;
        // Stopped after one step, again and again.
        let mut stops = 0;
        loop {
            let monitor = Monitor::default();
            if stops < 12 {
                monitor.stop();
            }
            match train(&experiment, &parts.0, &monitor, 1) {
                Ok(_) => break,
                Err(error) => {
                    assert!(error.to_string().contains("it resumes there"), "{error}");
                    stops += 1;
                }
            }
        }
        assert_eq!(stops, 12);
        let (whole, parts) =
            (last_checkpoint(&whole.0, &experiment)?, last_checkpoint(&parts.0, &experiment)?);
        assert!(whole == parts, "{method}: the resumed run differs");
    }
    Ok(())
}

/// What `killed_and_resumed` runs in a process of its own, and kills.
#[test]
fn trains_to_the_end() -> Result<()> {
    let own = Folder::new("end")?;
    let runs = std::env::var_os("CONSISTENCY_TEST_RUNS").map_or(own.0.clone(), PathBuf::from);
    let experiment = long()?;
    let trained = train(&experiment, &runs, &Monitor::default(), 1)?;
    assert_eq!(trained.table().column("step").last(), Some(&LONG));
    Ok(())
}

/// Kills between the first checkpoint and the end, and steps enough for them.
const KILLS: usize = 20;
const LONG: f64 = 3000.0;

fn long() -> Result<Experiment> {
    experiment(CT, LONG as u64)
}

#[test]
fn killed_and_resumed() -> Result<()> {
    let folder = Folder::new("killed")?;
    let program = std::env::current_exe()?;
    let start = || {
        Command::new(&program)
            .args(["trains_to_the_end", "--exact"])
            .env("CONSISTENCY_TEST_RUNS", &folder.0)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
    };
    let experiment = long()?;
    let path = folder.0.join(experiment.folder()?);
    let mut killed_midway = 0;
    // Moments that no step of the run keeps time with, the same in each test.
    let moments = Key::new(20).uniforms(0..200);
    for moment in moments {
        let mut child = start()?;
        std::thread::sleep(Duration::from_secs_f64(0.05 + 0.15 * moment));
        if child.try_wait()?.is_some() {
            break;
        }
        child.kill()?; // SIGKILL
        child.wait()?;
        let written = std::fs::read_dir(&path).map(|entries| {
            entries.flatten().any(|e| e.file_name().to_string_lossy().starts_with("checkpoint-"))
        });
        killed_midway += usize::from(written.unwrap_or(false));
        if killed_midway == KILLS {
            break;
        }
    }
    assert!(killed_midway == KILLS, "only {killed_midway} kills fell between two checkpoints");
    let status = start()?.wait()?;
    if !status.success() {
        return Err(Error::new("the run did not resume after it was killed"));
    }
    let whole = Folder::new("never-killed")?;
    train(&experiment, &whole.0, &Monitor::default(), 1)?;
    assert!(
        last_checkpoint(&folder.0, &experiment)? == last_checkpoint(&whole.0, &experiment)?,
        "the run that was killed {killed_midway} times differs from the one that was not"
    );
    Ok(())
}

/// The steps whose checkpoints are in the folder of `experiment`, and their files.
fn checkpoints(runs: &Path, experiment: &Experiment) -> Result<Vec<(u64, PathBuf)>> {
    let entries = std::fs::read_dir(runs.join(experiment.folder()?))?;
    let files = entries.flatten().map(|entry| entry.path());
    let mut all: Vec<(u64, PathBuf)> = files
        .filter_map(|path| {
            let name = path.file_stem()?.to_str()?.strip_prefix("checkpoint-")?;
            Some((name.parse().ok()?, path.clone()))
        })
        .collect();
    all.sort();
    Ok(all)
}

#[test]
fn a_resumed_run_diverges_at_the_same_step() -> Result<()> {
    let folder = Folder::new("diverges")?;
    let mut wild = experiment(TEACHER, 60)?;
    wild.optimizer.learning_rate = 3.0;
    (wild.training.checkpoint_every, wild.training.keep_checkpoints) = (1, 100);
    let run = || match train(&wild, &folder.0, &Monitor::default(), 1) {
        Ok(_) => "it did not stop".to_string(),
        Err(error) => error.to_string(),
    };
    let whole = run();
    assert!(whole.contains("the training has diverged"), "{whole}");
    // From where it stopped, and from each step before.
    let kept = checkpoints(&folder.0, &wild)?;
    assert!(kept.len() > 1, "{whole}");
    for (step, path) in kept.iter().rev() {
        assert_eq!(run(), whole, "resumed at step {step}");
        std::fs::copy(path, folder.0.join(format!("{step}")))?;
        for (_, later) in checkpoints(&folder.0, &wild)?.iter().filter(|(at, _)| at >= step) {
            std::fs::remove_file(later)?;
        }
    }
    // The last checkpoint as earlier versions wrote it: it loads, and the next loss is the first.
    let Some((step, path)) = kept.last() else { return Err(Error::new("no checkpoint")) };
    let bytes = std::fs::read(folder.0.join(format!("{step}")))?;
    std::fs::write(path, of_an_earlier_version(&bytes)?)?;
    let resumed = run();
    assert!(!resumed.contains(&format!("at step {step} ")), "{resumed}");
    assert!(!resumed.contains("the checkpoint "), "{resumed}");
    Ok(())
}

// A checkpoint as it was written when a run had one player, and no first loss was saved.
fn of_an_earlier_version(bytes: &[u8]) -> Result<Vec<u8>> {
    let said = |e: serde_json::Error| Error::new(e.to_string());
    let data = 8 + bytes[..8].iter().rev().fold(0, |sum, byte| sum * 256 + *byte as usize);
    let mut header: serde_json::Value = serde_json::from_slice(&bytes[8..data]).map_err(said)?;
    let text = header["__metadata__"]["checkpoint"].as_str().unwrap_or_default();
    let mut about: serde_json::Value = serde_json::from_str(text).map_err(said)?;
    let losses = about["losses"][0].clone();
    about["since"] = serde_json::json!([losses[1], losses[2]]);
    let fields = about.as_object_mut().ok_or_else(|| Error::new("no metadata"))?;
    assert!(fields.remove("losses").is_some() && fields.remove("optimizer_steps").is_some());
    header["__metadata__"]["checkpoint"] = about.to_string().into();
    let mut header = header.to_string();
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    let length = (header.len() as u64).to_le_bytes();
    Ok([&length[..], header.as_bytes(), &bytes[data..]].concat())
}
