//! Promise: what is exported is the network that was trained, whole, with the numbers that
//! were recorded and no others; or one error says why not.

use candle_core::{DType, Device};
use consistency::Result;
use consistency::experiment::{Card, Experiment, Monitor, Trained, train};
use consistency::model::pretrained::Kind;
use consistency::model::{LoadOptions, Pretrained, pretrained::Source};
use consistency::record::Provenance;
use consistency::rng::Key;
use consistency::seam::ConsistencyFunction;
use std::fs;
use std::path::{Path, PathBuf};

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("export-{}-{name}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    fn names(&self) -> Result<Vec<String>> {
        let entries = fs::read_dir(&self.0)?;
        let names = entries.map(|e| Ok(e?.file_name().to_string_lossy().into_owned()));
        let mut names = names.collect::<Result<Vec<String>>>()?;
        names.sort();
        Ok(names)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const UNET: &str = r#"{ kind = "unet", block_out_channels = [8, 16], layers_per_block = 1, norm_num_groups = 4, attention_head_dim = 8 }"#;
const CT: &str = r#"{ kind = "consistency-training", schedule = { s0 = 2, s1 = 20, mu0 = 0.9 } }"#;

fn trained(runs: &Path, network: &str, method: &str) -> Result<Trained> {
    let experiment = Experiment::parse(&format!(
        r#"
        name = "tiny"
        sigma_data = 0.4
        noise = {{ eps = 0.01, t_max = 50.0, rho = 6.0 }}
        data = {{ name = "digits" }}
        network = {network}
        method = {method}
        training = {{ iterations = 6, batch = 8, record_every = 3, checkpoint_every = 6 }}
        "#
    ))?;
    train(&experiment, runs, &Monitor::default(), 1)
}

fn message<T>(result: Result<T>) -> String {
    match result {
        Ok(_) => String::from("no error at all"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn an_export_is_the_network_that_was_trained() -> Result<()> {
    let folder = Folder::new("whole")?;
    let trained = trained(&folder.0.join("runs"), UNET, CT)?;
    let out = folder.0.join("out");
    trained.export(&out, &Card::default())?;
    assert_eq!(folder.names()?, ["out", "runs"]);

    let read = Pretrained::load(&Source::folder(&out)?, LoadOptions::default())?;
    assert_eq!(read.shape(), [1, 8, 8]);
    let Kind::Consistency(schedule) = read.kind() else {
        return Err(consistency::Error::new(read.kind().to_string()));
    };
    assert_eq!((schedule.sigma_min, schedule.sigma_max), (0.01, 50.0));
    assert_eq!((schedule.rho, schedule.sigma_data, schedule.s_noise), (6.0, 0.4, 1.0));
    // N(K) of the schedule: s_1 + 1.
    assert_eq!((schedule.num_train_timesteps, schedule.clip_denoised), (21, true));
    let x = Key::new(4).normal(0..3, &[1, 8, 8], DType::F32, &Device::Cpu)?;
    let x = (x * 10.0)?;
    let (ours, theirs) = (trained.consistency_model()?, read.consistency_model()?);
    for t in [0.01, 0.3, 10.0, 50.0] {
        let same = (ours.origin(&x, &[t])? - theirs.origin(&x, &[t])?)?;
        assert_eq!(same.abs()?.max_all()?.to_scalar::<f32>()?, 0.0, "t = {t}");
    }
    // Trained away from its start, at which the network answers 0.
    let skipped = (ours.origin(&x, &[1.0])? - (&x * (0.16 / (0.99 * 0.99 + 0.16)))?)?;
    assert!(skipped.abs()?.max_all()?.to_scalar::<f32>()? > 1e-4);
    Ok(())
}

/// Where the experiment leaves the heads' width out it means one head, and the file says so: left
/// out there it would be diffusers' 8.
#[test]
fn one_head_is_one_head_in_the_file() -> Result<()> {
    let folder = Folder::new("heads")?;
    let network = UNET.replace(", attention_head_dim = 8", "");
    let trained = trained(&folder.0.join("runs"), &network, CT)?;
    let out = folder.0.join("out");
    trained.export(&out, &Card::default())?;
    let text = fs::read_to_string(out.join("unet/config.json"))?;
    assert!(text.contains("\"attention_head_dim\": null"), "{text}");
    let x = Key::new(4).normal(0..3, &[1, 8, 8], DType::F32, &Device::Cpu)?;
    let largest = || -> Result<f32> {
        let read = Pretrained::load(&Source::folder(&out)?, LoadOptions::default())?;
        let (ours, theirs) = (trained.consistency_model()?, read.consistency_model()?);
        let gap = (ours.origin(&x, &[10.0])? - theirs.origin(&x, &[10.0])?)?;
        Ok(gap.abs()?.max_all()?.to_scalar::<f32>()?)
    };
    assert_eq!(largest()?, 0.0);
    let without = text.replace("\"attention_head_dim\": null,", "");
    fs::write(out.join("unet/config.json"), without)?;
    assert!(largest()? > 0.0);
    Ok(())
}

#[test]
fn a_card_says_what_was_recorded() -> Result<()> {
    let folder = Folder::new("card")?;
    let trained = trained(&folder.0.join("runs"), UNET, CT)?;
    let out = folder.0.join("out");
    trained.export(&out, &Card::default())?;
    let read = |name: &str| Ok::<_, consistency::Error>(fs::read_to_string(out.join(name))?);
    let card = read("README.md")?;
    let last = trained.table().column("loss").last().copied().unwrap_or(f64::NAN);
    assert!(card.contains(&format!("| loss | {last:.6} |")), "{card}");
    assert!(card.contains("| step | 6 |"), "{card}");
    let hash = trained.experiment().hash()?;
    for part in [format!("| configuration | {hash} |"), "| seed | 0 |".into()] {
        assert!(card.contains(&part), "{card}");
    }
    assert!(card.starts_with("---\nlibrary_name: diffusers\n") && !card.contains("license"));
    // The embedded digits are from no repository.
    assert!(!card.contains("datasets"), "{card}");
    assert_eq!(Experiment::parse(&read("experiment.toml")?)?, *trained.experiment());

    // The commit is the one that is recorded with the run, and an earlier export is replaced.
    let run = folder.0.join("runs").join(trained.folder());
    let other = Provenance { commit: "0123456789ab".into(), ..trained.provenance()? };
    trained.table().write(&run, "metrics", &other)?;
    let given = Card { license: Some("mit".into()) };
    trained.export(&out, &given)?;
    let card = read("README.md")?;
    assert!(card.contains("\nlicense: mit\n---\n"), "{card}");
    assert!(card.contains("| commit | 0123456789ab |"), "{card}");
    assert_eq!(folder.names()?, ["out", "runs"]);
    let odd = Card { license: Some("mit\nx: y".into()) };
    let got = message(trained.export(&out, &odd));
    assert!(got.contains("license = 'mit\nx: y': letters, digits"), "{got}");
    for name in ["metrics.csv", "metrics.parquet"] {
        fs::remove_file(run.join(name))?;
    }
    let got = message(trained.export(&out, &Card::default()));
    assert!(got.contains("metrics."), "{got}");
    assert_eq!(read("README.md")?, card);
    Ok(())
}

#[test]
fn what_cannot_be_exported() -> Result<()> {
    let folder = Folder::new("refused")?;
    let (runs, out) = (folder.0.join("runs"), folder.0.join("out"));
    let mlp = r#"{ kind = "mlp", width = 16, blocks = 1 }"#;
    let piecewise = CT.replace("schedule", "parameterization = \"piecewise\", schedule");
    let wide = UNET.replace("attention_head_dim = 8", "attention_head_dim = 32");
    for (network, method, want) in [
        (mlp, CT, "its network is an MLP; diffusers' is a U-Net"),
        (UNET, r#"{ kind = "score-matching" }"#, "it is a denoiser, not a consistency model"),
        (UNET, piecewise.as_str(), "its parameterization is Piecewise; diffusers computes Skip"),
        (wide.as_str(), CT, "attention_head_dim = 32 and an attention over 16 channels"),
    ] {
        let got = message(trained(&runs, network, method)?.export(&out, &Card::default()));
        assert!(
            got.contains("tiny cannot be exported to diffusers: ") && got.contains(want),
            "{got}"
        );
        assert!(!out.exists());
    }
    let good = trained(&runs, UNET, CT)?;
    let got = message(good.export(&folder.0.join("no/out"), &Card::default()));
    assert!(got.contains("there is no folder"), "{got}");
    fs::write(&out, "a file")?;
    let got = message(good.export(&out, &Card::default()));
    assert!(got.contains("there is a file of this name"), "{got}");
    let own = folder.0.join("own");
    fs::create_dir(&own)?;
    fs::write(own.join("thesis.tex"), "years")?;
    let got = message(good.export(&own, &Card::default()));
    assert!(got.contains("this folder is not an earlier export"), "{got}");
    assert_eq!(fs::read_to_string(own.join("thesis.tex"))?, "years");
    assert_eq!(folder.names()?, ["out", "own", "runs"]);
    Ok(())
}
