//! `sample --model ID_OR_FOLDER ..`: samples of a published network, as a picture or tensors.

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use consistency::candle_core::{DType, Device, Tensor, safetensors};
use consistency::model::pretrained::{Kind, Source};
use consistency::model::{LoadOptions, Pretrained};
use consistency::plot::Figure;
use consistency::process::{Solver, TimeGrid};
use consistency::record::{write_atomically, write_tensors};
use consistency::rng::Key;
use consistency::sample::{Classes, Draws, Multistep, grid_steps, pf_ode};
use consistency::{Context, Result, bail, ensure};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Points of a teacher's time grid unless the command line says otherwise.
const POINTS: usize = 18;
/// Images of up to 32x32 pixels that the network computes at once.
const AT_ONCE: usize = 64;

/// The command line of `sample`.
pub fn command() -> Command {
    let option = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let count = || value_parser!(u64).range(1..=1_000_000);
    Command::new("sample")
        .about("Draw samples from a published network")
        .arg(
            option("model", "ID_OR_FOLDER", "A repository of the Hub, a folder in diffusers' layout, or a flax file")
                .required(true),
        )
        .arg(option("revision", "R", "A branch, tag or commit of the repository [default: main]"))
        .arg(
            option("steps", "N", "Steps of a consistency model [default: 1]; points of a teacher's grid [default: 18]")
                .value_parser(count()),
        )
        .arg(
            option("sigmas", "S,..", "The noise levels themselves, decreasing: 80,0.661")
                .value_delimiter(',')
                .allow_hyphen_values(true)
                .value_parser(value_parser!(f64))
                .conflicts_with("steps"),
        )
        .arg(
            option("class", "C", "The class of every sample, for a class-conditional model")
                .value_parser(value_parser!(u32)),
        )
        .arg(
            option("seed", "SEED", "The root of the random numbers")
                .value_parser(value_parser!(u64))
                .default_value("0"),
        )
        .arg(option("count", "N", "How many samples [default: 16]").value_parser(count()))
        .arg(
            Arg::new("pickle")
                .long("pickle")
                .action(ArgAction::SetTrue)
                .help("Read a PyTorch pickle where there is no safetensors file"),
        )
        .arg(option("variant", "NAME", "The weights of a variant: diffusion_pytorch_model.NAME.safetensors, as fp16"))
        .arg(option("device", "DEVICE", "cpu, cuda or cuda:N").default_value("cpu"))
        .arg(option(
            "latents",
            "FILE",
            "Noise to start from: safetensors with `latents` (N, C, H, W) of standard deviation 1 \
             and, for renoising k, `noise.k` (else drawn by the seed)",
        ))
        .arg(option("tensors", "OUT", "Write the samples there: safetensors, `samples`, f32"))
        .arg(
            option("out", "PNG", "Write a picture of all samples there")
                .required_unless_present("tensors"),
        )
        .after_help("Example:\n  cargo lab sample --model openai/diffusers-cd_imagenet64_l2 --class 0 --count 4 --out grid.png")
}

/// Draw what the command line asks for.
pub fn run(matches: &ArgMatches) -> Result<()> {
    let text = |name: &str| matches.get_one::<String>(name).map(String::as_str);
    // Before the work starts: a file that cannot be written is reported at once.
    let out = text("out").map(|path| writable("--out", path)).transpose()?;
    let tensors = text("tensors").map(|path| writable("--tensors", path)).transpose()?;
    let device = consistency::device(text("device").unwrap_or("cpu"))?;
    let source = Source::find(text("model").unwrap_or_default(), text("revision"))?;
    let variant = text("variant").map(String::from);
    let options = LoadOptions { pickle: matches.get_flag("pickle"), variant };
    let mut model = Pretrained::load(&source, options)?;
    println!("{source}: {}, images {:?}", model.kind(), model.shape());
    let shown = matches!(model.shape()[0], 1 | 3);
    ensure!(
        shown || out.is_none(),
        "images of {} channels: --out shows 1 or 3; write them with --tensors alone",
        model.shape()[0]
    );

    let plan = Plan::new(matches, &model, &device)?;
    if !device.is_cpu() {
        model = model.to_device(&device)?;
    }
    let begun = Instant::now();
    let (samples, nfe) = plan.draw(&model)?;
    let seconds = begun.elapsed().as_secs_f64();
    if let Some(path) = &out {
        let columns = (plan.count as f64).sqrt().ceil() as usize;
        write_atomically(path, &Figure::images("", &samples, columns)?.png()?)?;
        println!("{}", path.display());
    }
    if let Some(path) = &tensors {
        write_tensors(path, &BTreeMap::from([("samples".to_string(), samples)]), &[])?;
        println!("{}", path.display());
    }
    println!("{} samples, NFE {nfe}, {seconds:.1} s", plan.count);
    Ok(())
}

/// What is drawn.
struct Plan {
    count: usize,
    levels: Levels,
    draws: Draws,
}

enum Levels {
    Multistep { sigmas: Vec<f64>, eps: f64, clip: bool, s_noise: f64 },
    Ode(TimeGrid),
}

impl Plan {
    fn new(matches: &ArgMatches, model: &Pretrained, device: &Device) -> Result<Self> {
        let given = match matches.get_one::<String>("latents") {
            Some(path) => latents(Path::new(path), model)?,
            None => HashMap::new(),
        };
        let asked = matches.get_one::<u64>("count").map(|count| *count as usize);
        let count = match given.get("latents").map(|latents| latents.dims()[0]) {
            Some(there) => {
                ensure!(
                    asked.is_none_or(|asked| asked == there),
                    "--count {}: the file of --latents has {there}",
                    asked.unwrap_or_default()
                );
                there
            }
            None => asked.unwrap_or(16),
        };
        let class = class(matches.get_one::<u32>("class").copied(), model)?;
        let levels = levels(matches, model)?;
        let key = Key::new(matches.get_one::<u64>("seed").copied().unwrap_or_default());
        let draws = Draws {
            shape: model.shape().to_vec(),
            device: device.clone(),
            start: key.stream("latents"),
            renoise: key.stream("renoise"),
            classes: class.map_or(Classes::None, Classes::All),
            given,
            at_once: AT_ONCE,
        };
        Ok(Self { count, levels, draws })
    }

    /// The samples on the CPU, and the evaluations of the network that each took.
    fn draw(&self, model: &Pretrained) -> Result<(Tensor, usize)> {
        let (samples, to) = (0..self.count as u64, &Device::Cpu);
        match &self.levels {
            Levels::Multistep { sigmas, eps, clip, s_noise } => {
                let steps = Multistep { sigmas, eps: *eps, clip: *clip, s_noise: *s_noise };
                let model = model.consistency_model()?;
                self.draws.of(&model, samples, to, |f, batch| {
                    steps.sample(f, &batch.start()?, |n, _| batch.renoise(n))
                })
            }
            Levels::Ode(grid) => {
                self.draws.of(&model.teacher()?, samples, to, |denoiser, batch| {
                    pf_ode(denoiser, Solver::Heun, &batch.start()?, grid)
                })
            }
        }
    }
}

fn levels(matches: &ArgMatches, model: &Pretrained) -> Result<Levels> {
    let sigmas = matches.get_many::<f64>("sigmas").map(|s| s.copied().collect::<Vec<f64>>());
    let steps = matches.get_one::<u64>("steps").map(|steps| *steps as usize);
    let Kind::Consistency(schedule) = model.kind() else {
        let grid = match sigmas {
            Some(sigmas) => TimeGrid::new(sigmas.into_iter().rev().collect())
                .context("--sigmas, from the last to the first")?,
            None => model.noise_range().karras(steps.unwrap_or(POINTS)).context("--steps")?,
        };
        return Ok(Levels::Ode(grid));
    };
    let sigmas = match sigmas {
        Some(sigmas) => sigmas,
        None => grid_steps(&schedule.grid()?, steps.unwrap_or(1)).context("--steps")?,
    };
    let (eps, clip, s_noise) = (schedule.sigma_min, schedule.clip_denoised, schedule.s_noise);
    Multistep { sigmas: &sigmas, eps, clip, s_noise }.check().context("--sigmas")?;
    Ok(Levels::Multistep { sigmas, eps, clip, s_noise })
}

fn class(class: Option<u32>, model: &Pretrained) -> Result<Option<u32>> {
    match (class, model.classes()) {
        (None, Some(count)) => {
            bail!("this model knows {count} classes: give --class, 0 to {}", count - 1)
        }
        (Some(class), None) => bail!("--class {class}: this model knows no classes"),
        (Some(class), Some(count)) if class as usize >= count => {
            bail!("--class {class}: this model knows {count} classes, 0 to {}", count - 1)
        }
        _ => Ok(class),
    }
}

/// The tensors of a file of noise, each (N, C, H, W) of the model's images.
fn latents(path: &Path, model: &Pretrained) -> Result<HashMap<String, Tensor>> {
    let context = || format!("--latents {}", path.display());
    let mut tensors = safetensors::load(path, &Device::Cpu).with_context(context)?;
    let Some(count) = tensors.get("latents").and_then(|latents| latents.dims().first().copied())
    else {
        bail!("{}: it has no tensor `latents`", context());
    };
    let [channels, height, width] = model.shape();
    let shape = [count, channels, height, width];
    for (name, tensor) in &mut tensors {
        ensure!(
            tensor.dims() == shape && count > 0,
            "{}: {name} has shape {:?}, this model needs {shape:?}",
            context(),
            tensor.dims()
        );
        *tensor = tensor.to_dtype(DType::F32)?;
        // 0 times a number is 0, unless it is infinite or NaN.
        let spoiled = (&*tensor * 0.0)?.sum_all()?.to_scalar::<f32>()?;
        ensure!(spoiled == 0.0, "{}: {name} has numbers that are not finite", context());
    }
    Ok(tensors)
}

/// Where `path` lies, once a file can be written there.
fn writable(option: &str, path: &str) -> Result<PathBuf> {
    let context = || format!("{option} {path}");
    let path = std::path::absolute(path).with_context(context)?;
    ensure!(!path.is_dir(), "{}: that is a folder", context());
    let Some((folder, name)) = path.parent().zip(path.file_name()) else {
        bail!("{}: not the path of a file", context());
    };
    ensure!(folder.is_dir(), "{}: there is no folder {}", context(), folder.display());
    let trial = folder.join(format!(".{}.{}.trial", name.display(), std::process::id()));
    std::fs::write(&trial, b"")
        .and_then(|()| std::fs::remove_file(&trial))
        .with_context(context)?;
    Ok(path)
}
