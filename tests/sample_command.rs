//! `cargo lab export` and `cargo lab sample`: what they write, their messages; `--weights` of
//! `cargo lab reproduce`.

#[path = "reproduce/released.rs"]
mod released;
#[allow(dead_code)] // what the Hub's tests spoil is not spoilt here
#[path = "hub/server.rs"]
mod server;

use consistency::candle_core::{DType, Device, Tensor, safetensors};
use consistency::experiment::{Experiment, Monitor, train};
use consistency::model::Pretrained;
use consistency::record::write_tensors;
use consistency::rng::Key;
use consistency::sample::{Multistep, grid_steps};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const TEXT: &str = r#"
name = "tiny"
data = { name = "digits" }
network = { kind = "unet", block_out_channels = [8, 16], layers_per_block = 1, norm_num_groups = 4, attention_head_dim = 8 }
method = { kind = "consistency-training", schedule = { s0 = 2, s1 = 20, mu0 = 0.9 } }
training = { iterations = 4, batch = 8, checkpoint_every = 4 }
"#;

impl Folder {
    /// A folder, with a space in its name, in which `model` is an export of the program's.
    fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("sample {name} {}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        let folder = Self(path);
        let trained = train(&Experiment::parse(TEXT)?, &folder.0, &Monitor::default(), 1)?;
        let (good, said) = folder.lab(&["export", "--run", &trained.folder(), "--out", "model"])?;
        assert!(good && said == "model\n", "{said}");
        Ok(folder)
    }

    /// Whether the program ended well in this folder, and what it said.
    fn lab(&self, arguments: &[&str]) -> Result<(bool, String)> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_consistency-cli"));
        command.args(arguments).current_dir(&self.0);
        // The Hub is what lies in its cache.
        command.env("HF_HUB_OFFLINE", "1").env("HF_HUB_CACHE", self.0.join("hub"));
        let output = command.output()?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8(said)?))
    }

    fn sample(&self, arguments: &[&str]) -> Result<(bool, String)> {
        self.lab(&[&["sample", "--model", "model"], arguments].concat())
    }

    fn samples(&self, name: &str) -> Result<Tensor> {
        let mut tensors = safetensors::load(self.0.join(name), &Device::Cpu)?;
        Ok(tensors.remove("samples").ok_or("no samples")?)
    }
}

fn same(a: &Tensor, b: &Tensor) -> Result<bool> {
    Ok(a.dims() == b.dims() && (a - b)?.abs()?.max_all()?.to_scalar::<f32>()? == 0.0)
}

#[test]
fn pictures_and_tensors() -> Result {
    let folder = Folder::new("files")?;
    let (good, said) =
        folder.sample(&["--steps", "2", "--count", "70", "--out", "a.png", "--tensors", "a"])?;
    assert!(good && said.contains("a consistency model") && said.contains("NFE 2,"), "{said}");
    assert!(said.contains("70 samples"), "{said}");
    assert!(std::fs::read(folder.0.join("a.png"))?.starts_with(b"\x89PNG"));
    let all = folder.samples("a")?;
    assert_eq!(all.dims(), [70, 1, 8, 8]);
    // A sample depends on its index, not on how many there are or the batch it lies in.
    let (good, said) = folder.sample(&["--steps", "2", "--count", "3", "--tensors", "b"])?;
    assert!(good, "{said}");
    let few = folder.samples("b")?;
    let gap = (few - all.narrow(0, 0, 3)?)?.abs()?.max_all()?.to_scalar::<f32>()?;
    assert!(gap < 1e-6, "{gap}");
    let (_, said) = folder.sample(&["--count", "3", "--seed", "1", "--tensors", "c"])?;
    assert!(said.contains("NFE 1,"), "{said}");
    assert!(!same(&folder.samples("c")?, &folder.samples("b")?)?);
    Ok(())
}

#[test]
fn noise_that_is_given() -> Result {
    let folder = Folder::new("noise")?;
    let noise = |stream: &str| {
        Key::new(9).stream(stream).normal(0..4, &[1, 8, 8], DType::F32, &Device::Cpu)
    };
    let given = BTreeMap::from([
        ("latents".to_string(), noise("a")?),
        ("noise.1".to_string(), noise("b")?),
    ]);
    write_tensors(&folder.0.join("noise"), &given, &[])?;
    let model = Pretrained::open(&folder.0.join("model").display().to_string())?;
    let f = model.consistency_model()?;
    let grid = model.noise_range().karras(21)?;
    for (option, value, sigmas) in
        [("--steps", "2", grid_steps(&grid, 2)?), ("--sigmas", "80,0.661", vec![80.0, 0.661])]
    {
        let arguments = ["--latents", "noise", option, value, "--tensors", "out"];
        let (good, said) = folder.sample(&arguments)?;
        assert!(good, "{said}");
        let steps = Multistep { sigmas: &sigmas, eps: 0.002, clip: true, s_noise: 1.0 };
        let ours = steps.sample(&f, &given["latents"], |_, _| Ok(given["noise.1"].clone()))?;
        assert!(same(&ours, &folder.samples("out")?)?, "{option}");
    }
    let (good, said) = folder.sample(&["--latents", "noise", "--count", "3", "--tensors", "x"])?;
    assert!(!good && said.contains("--count 3: the file of --latents has 4"), "{said}");
    write_tensors(&folder.0.join("odd"), &BTreeMap::from([("z".into(), noise("a")?)]), &[])?;
    let (good, said) = folder.sample(&["--latents", "odd", "--tensors", "x"])?;
    assert!(!good && said.contains("--latents odd: it has no tensor `latents`"), "{said}");
    let wide = Tensor::zeros((4, 3, 8, 8), DType::F32, &Device::Cpu)?;
    write_tensors(&folder.0.join("wide"), &BTreeMap::from([("latents".into(), wide)]), &[])?;
    let (good, said) = folder.sample(&["--latents", "wide", "--tensors", "x"])?;
    assert!(!good && said.contains("latents has shape [4, 3, 8, 8]"), "{said}");
    let spoiled = (noise("a")? * f64::NAN)?;
    write_tensors(&folder.0.join("nan"), &BTreeMap::from([("latents".into(), spoiled)]), &[])?;
    let (good, said) = folder.sample(&["--latents", "nan", "--tensors", "x"])?;
    assert!(!good && said.contains("--latents nan: latents has numbers that are not"), "{said}");
    Ok(())
}

/// A repository of the Hub, as its cache has it.
#[test]
fn a_repository() -> Result {
    let folder = Folder::new("repository")?;
    let (good, said) = folder.sample(&["--count", "2", "--tensors", "a"])?;
    assert!(good, "{said}");
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let cache = folder.0.join("hub/models--tiny--digits");
    std::fs::create_dir_all(cache.join("snapshots"))?;
    std::fs::create_dir_all(cache.join("refs"))?;
    std::fs::write(cache.join("refs/main"), commit)?;
    let snapshot = cache.join("snapshots").join(commit);
    std::fs::rename(folder.0.join("model"), &snapshot)?;
    for revision in [&[][..], &["--revision", commit]] {
        let arguments = ["sample", "--model", "tiny/digits", "--count", "2", "--tensors", "b"];
        let (good, said) = folder.lab(&[&arguments, revision].concat())?;
        assert!(good && said.starts_with("tiny/digits: a consistency model"), "{said}");
        assert!(same(&folder.samples("a")?, &folder.samples("b")?)?);
    }
    let weights = snapshot.join("unet/diffusion_pytorch_model.safetensors");
    std::fs::rename(&weights, weights.with_extension("fp16.safetensors"))?;
    let arguments = ["sample", "--model", "tiny/digits", "--count", "2", "--tensors", "b"];
    let (good, said) = folder.lab(&arguments)?;
    assert!(!good && said.contains("but the variant fp16: pass --variant fp16"), "{said}");
    let (good, said) = folder.lab(&[&arguments[..], &["--variant", "fp16"]].concat())?;
    assert!(good && same(&folder.samples("a")?, &folder.samples("b")?)?, "{said}");
    std::fs::rename(weights.with_extension("fp16.safetensors"), weights.with_extension("bin"))?;
    let (good, said) = folder.lab(&["sample", "--model", "tiny/digits", "--out", "x.png"])?;
    assert!(!good && said.contains("tiny/digits has only a PyTorch pickle"), "{said}");
    let arguments = ["sample", "--model", "tiny/digits", "--out", "x.png", "--pickle"];
    let (good, said) = folder.lab(&arguments)?;
    assert!(!good && said.contains("diffusion_pytorch_model.bin: not a zip file"), "{said}");
    Ok(())
}

#[test]
fn a_proxy_that_is_not_used_is_named() -> Result {
    let folder = Folder(std::env::temp_dir().join(format!("sample proxy {}", std::process::id())));
    std::fs::create_dir_all(&folder.0)?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_consistency-cli"));
    command.args(["sample", "--model", "nobody/nothing", "--out", "x.png"]).current_dir(&folder.0);
    for name in ["HTTP_PROXY", "http_proxy", "all_proxy", "NO_PROXY", "no_proxy", "HF_HUB_OFFLINE"]
    {
        command.env_remove(name);
    }
    command.env("HF_ENDPOINT", "http://hub.invalid").env("HF_HUB_CACHE", folder.0.join("hub"));
    command.env("ALL_PROXY", "socks5://me:secret@127.0.0.1:1080");
    let output = command.output()?;
    let said = String::from_utf8([output.stdout, output.stderr].concat())?;
    assert!(!output.status.success() && !said.contains("secret"), "{said}");
    assert!(said.contains("ALL_PROXY=socks5://127.0.0.1:1080 is a SOCKS proxy"), "{said}");
    Ok(())
}

#[test]
fn messages() -> Result {
    let folder = Folder::new("messages")?;
    for (arguments, want) in [
        (&["--class", "3"][..], "--class 3: this model knows no classes"),
        (&["--sigmas", "80,80"], "--sigmas: multistep noise levels [80.0] must decrease"),
        (&["--sigmas", "80,0.001"], "or above"),
        (&["--sigmas", "80,nan"], "--sigmas: noise level = NaN: needs 1e-6 <="),
        (&["--sigmas", "1e200,1"], "--sigmas: noise level = 1e200: needs"),
        (&["--sigmas", "-80"], "--sigmas: noise level = -80: needs"),
        (&["--sigmas", "0.001"], "sampling starts at a noise level above eps = 0.002"),
        (&["--steps", "22"], "--steps: 22 steps: needs 1 to 21"),
        (&["--revision", "main"], "model is a folder: a revision belongs to a repository"),
        (&["--device", "tpu"], "device 'tpu'"),
    ] {
        let (good, said) = folder.sample(&[arguments, &["--out", "x.png"]].concat())?;
        assert!(!good && said.contains(want), "{said}");
    }
    // Before the model is looked at.
    for (out, want) in [("no/x.png", "there is no folder"), ("model", "that is a folder")] {
        let (good, said) = folder.lab(&["sample", "--model", "./none", "--out", out])?;
        assert!(!good && said.contains("--out ") && said.contains(want), "{said}");
    }
    let (good, said) = folder.lab(&["sample", "--model", "nobody", "--out", "x.png"])?;
    assert!(!good && said.contains("nobody is neither a folder nor a repository"), "{said}");
    let (good, said) = folder.lab(&["export", "--run", "model", "--out", "again"])?;
    assert!(!good && said.contains("has no checkpoint"), "{said}");
    assert!(!folder.0.join("x.png").exists() && !folder.0.join("again").exists());
    Ok(())
}
