//! The engine against PyTorch, in the same run: one training step and one-step sampling of
//! whole networks, and single layers forward and backward.
//!
//! `cargo lab bench train` and `cargo lab bench sample` run it. Each case is a process of its
//! own, so that its memory is its own; with `--python` a PyTorch beside it is given the same
//! weights, must give the same output, and is timed in turn with ours, on as many threads.

use candle_core::{DType, Device, Tensor, Var};
use consistency::model::{Condition, MlpConfig, NcsnppConfig, Network, NetworkConfig, UNetConfig};
use consistency::nn::{
    Act, Attention, Conv2d, Ema, GroupNorm, Link, Optimizer, OptimizerConfig, Params, Settings,
    Tape, Value, on_tape, pull_back, vectors,
};
use consistency::rng::Key;
use consistency::{Context, Error, Result, bail, ensure};
use serde_json::{Value as Json, json};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// Timed calls of each side.
const CALLS: usize = 9;

#[derive(Clone)]
enum What {
    Network(Box<NetworkConfig>),
    /// A layer over (H, W, C): a convolution, a group norm with SiLU, an attention.
    Convolution,
    GroupNorm,
    Attention,
}

#[derive(Clone)]
struct Case {
    name: &'static str,
    what: What,
    /// (B, C, H, W)
    shape: [usize; 4],
}

fn cases(cuda: bool) -> Vec<Case> {
    let network = |name, config, shape| Case { name, what: What::Network(Box::new(config)), shape };
    let layer = |name, what, shape| Case { name, what, shape };
    let ncsnpp = NetworkConfig::Ncsnpp(NcsnppConfig::default());
    let mlp = NetworkConfig::Mlp(MlpConfig::default());
    vec![
        network("digits MLP", mlp, [128, 1, 8, 8]),
        network(
            "digits U-Net",
            NetworkConfig::Unet(UNetConfig::small(&[32, 64], 1)),
            [128, 1, 8, 8],
        ),
        network(
            "32x32 U-Net",
            NetworkConfig::Unet(UNetConfig::small(&[64, 128, 128], 2)),
            [32, 3, 32, 32],
        ),
        network("NCSN++", ncsnpp, [if cuda { 512 } else { 8 }, 3, 32, 32]),
        layer("attention 128x16x16", What::Attention, [32, 128, 16, 16]),
        layer("3x3 convolution 64x32x32", What::Convolution, [32, 64, 32, 32]),
        layer("3x3 convolution 128x16x16", What::Convolution, [64, 128, 16, 16]),
        layer("group norm + SiLU 64x32x32", What::GroupNorm, [32, 64, 32, 32]),
        layer("group norm + SiLU 128x16x16", What::GroupNorm, [64, 128, 16, 16]),
    ]
}

const GROUPS: usize = 32;
const HEADS: usize = 2;

impl Case {
    fn json(&self, training: bool) -> Result<Json> {
        let mode = if training { "train" } else { "sample" };
        Ok(match &self.what {
            What::Network(config) => {
                let config = serde_json::to_value(config).map_err(|e| Error::new(e.to_string()))?;
                json!({ "mode": mode, "network": config })
            }
            What::Convolution => json!({ "mode": mode, "layer": "convolution" }),
            What::GroupNorm => json!({ "mode": mode, "layer": "group-norm", "groups": GROUPS }),
            What::Attention => {
                json!({ "mode": mode, "layer": "attention", "groups": GROUPS, "heads": HEADS })
            }
        })
    }
}

type Layer = Box<dyn Fn(&mut Tape, &Value) -> Result<Value>>;

enum Model {
    Network(Box<dyn Network>),
    Layer(Layer, Option<Link>),
}

/// Our side of a case.
struct Work {
    case: Case,
    training: bool,
    params: Params,
    model: Model,
    x: Var,
    y: Tensor,
    c: Vec<f64>,
    optimizer: Optimizer,
    average: Ema,
}

impl Work {
    fn new(case: &Case, training: bool, device: &Device) -> Result<Self> {
        let key = Key::new(11);
        let [batch, channels, height, width] = case.shape;
        let mut params = Params::new(DType::F32, device);
        let model = params.init(&key, |scope| {
            let link = if training { scope.link() } else { None };
            Ok(match &case.what {
                What::Network(config) => {
                    Model::Network(config.build(scope, &[channels, height, width])?)
                }
                What::Convolution => {
                    let layer = Conv2d::new(scope, channels, channels, 3, 1.0)?;
                    Model::Layer(Box::new(move |t, x| layer.forward(t, x)), link)
                }
                What::GroupNorm => {
                    let layer = GroupNorm::new(scope, GROUPS, channels, 1e-5)?;
                    Model::Layer(Box::new(move |t, x| layer.forward(t, x, Act::Silu)), link)
                }
                What::Attention => {
                    let layer = Attention::new(scope, channels, HEADS, (GROUPS, 1e-5), 1.0)?;
                    Model::Layer(Box::new(move |t, x| layer.forward(t, x)), link)
                }
            })
        })?;
        // Zeros at the start would make every output zero.
        for (name, var) in params.trained() {
            let dims = var.dims();
            let fan_in: usize = dims.iter().skip(1).product();
            let std = if dims.len() > 1 { (1.0 / fan_in as f64).sqrt() } else { 0.1 };
            let noise = key.stream(name).normal(0..1, &[var.elem_count()], DType::F32, device)?;
            let value = (noise.reshape(dims)? * std)?;
            let one = dims.len() == 1 && name.ends_with("weight");
            var.set(&if one { (value + 1.0)? } else { value })?;
        }
        let mut shape = case.shape[1..].to_vec();
        let is_layer = !matches!(case.what, What::Network(_));
        if is_layer {
            shape = vec![height, width, channels];
        }
        let noise =
            |name: &str| key.stream(name).normal(0..batch as u64, &shape, DType::F32, device);
        let model = match model {
            // Sampling takes no gradients.
            Model::Network(_) if !training => {
                Model::Network(params.frozen(|scope| match &case.what {
                    What::Network(config) => config.build(scope, &[channels, height, width]),
                    _ => bail!("a layer is no network"),
                })?)
            }
            model => model,
        };
        let config = OptimizerConfig { learning_rate: 1e-4, ..OptimizerConfig::default() };
        let none = Params::new(DType::F32, device);
        let trained = if training && !is_layer { &params } else { &none };
        Ok(Self {
            optimizer: Optimizer::new(config, trained)?,
            average: Ema::new(trained)?,
            c: key.normals(0..batch as u64).iter().map(|z| 0.3 * z).collect(),
            x: Var::from_tensor(&noise("x")?)?,
            y: noise("y")?,
            case: case.clone(),
            training,
            params,
            model,
        })
    }

    fn output(&self) -> Result<Tensor> {
        match &self.model {
            Model::Network(network) => {
                network.forward(&self.x.as_detached_tensor(), Condition::from(&self.c))
            }
            Model::Layer(layer, link) => {
                let x = if self.training {
                    self.x.as_tensor().clone()
                } else {
                    self.x.as_detached_tensor()
                };
                on_tape(&x, link.as_ref(), Settings::default(), |t, x| layer(t, x))
            }
        }
    }

    fn run(&mut self) -> Result<()> {
        if let (Model::Layer(layer, link), true) = (&self.model, self.training) {
            let settings = Settings::default();
            pull_back(&self.x, &self.y, link.as_ref(), settings, |t, x| layer(t, x))?;
            self.params.device().synchronize()?;
            return Ok(());
        }
        let answer = self.output()?;
        if self.training {
            let batch = self.case.shape[0] as f64;
            let loss = ((answer - &self.y)?.sqr()?.sum_all()? / batch)?;
            let gradients = self.params.gradients(&loss)?;
            self.optimizer.step(&self.params, &gradients, 1.0)?;
            self.average.update(&self.params, 0.999)?;
        } else {
            // Something must wait for the result.
            answer.flatten_all()?.get(0)?.to_scalar::<f32>()?;
        }
        self.params.device().synchronize()?;
        Ok(())
    }

    /// What the other side is given.
    fn save(&self, path: &Path) -> Result<()> {
        let mut tensors: HashMap<String, Tensor> = HashMap::new();
        for (name, tensor) in self.params.tensors() {
            tensors.insert(format!("params/{name}"), tensor.to_device(&Device::Cpu)?);
        }
        let first = |x: &Tensor| -> Result<Tensor> {
            let x = x.to_device(&Device::Cpu)?;
            Ok(match self.model {
                Model::Network(_) => x,
                Model::Layer(..) => x.permute((0, 3, 1, 2))?.contiguous()?,
            })
        };
        tensors.insert("input/x".into(), first(&self.x.as_detached_tensor())?);
        tensors.insert("input/y".into(), first(&self.y)?);
        let c: Vec<f32> = self.c.iter().map(|c| *c as f32).collect();
        tensors.insert("input/c".into(), Tensor::new(c, &Device::Cpu)?);
        Ok(candle_core::safetensors::save(&tensors, path)?)
    }

    /// Our output in the other side's order.
    fn answer(&self) -> Result<Vec<f32>> {
        let ys = self.output()?.detach().to_device(&Device::Cpu)?;
        let ys = match self.model {
            Model::Network(_) => ys,
            Model::Layer(..) => ys.permute((0, 3, 1, 2))?.contiguous()?,
        };
        Ok(ys.flatten_all()?.to_vec1()?)
    }
}

/// PyTorch in a process of its own.
struct Peer {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    version: String,
}

impl Peer {
    fn start(
        python: &str,
        case: &Path,
        weights: &Path,
        threads: usize,
        cuda: bool,
    ) -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../reproductions/bench/peer.py");
        let mut child = Command::new(python)
            .arg(script)
            .args([case, weights])
            .arg(threads.to_string())
            .arg(if cuda { "cuda" } else { "cpu" })
            .env("OMP_NUM_THREADS", threads.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {python}"))?;
        let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("{python} has no standard input or output");
        };
        let mut peer = Self { child, to, from: BufReader::new(from), version: String::new() };
        peer.version = peer.answer()?["torch"].as_str().unwrap_or_default().to_string();
        Ok(peer)
    }

    fn ask(&mut self, word: &str, layout: &str) -> Result<Json> {
        writeln!(self.to, "{word} {layout}")?;
        self.to.flush()?;
        self.answer()
    }

    fn answer(&mut self) -> Result<Json> {
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        serde_json::from_str(&line).map_err(|_| Error::new("PyTorch's process ended; see above"))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Spread {
    median: f64,
    low: f64,
    high: f64,
}

fn spread(mut seconds: Vec<f64>) -> Spread {
    seconds.sort_by(f64::total_cmp);
    let at = |i: usize| seconds.get(i).copied().unwrap_or(f64::NAN);
    Spread { median: at(seconds.len() / 2), low: at(0), high: at(seconds.len().max(1) - 1) }
}

/// Bytes that are resident, now or at the most since the mark was reset.
fn resident(field: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with(field)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(f64::NAN)
        * 1024.0
}

struct Options {
    training: bool,
    python: Option<String>,
    threads: usize,
    cuda: bool,
    only: Option<String>,
}

/// One case, in this process: a line of JSON.
fn one(case: &Case, options: &Options) -> Result<Json> {
    let device = if options.cuda { consistency::device("cuda")? } else { Device::Cpu };
    let before = resident("VmRSS");
    // The mark starts again where the system allows it.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let mut work = Work::new(case, options.training, &device)?;
    let count = work.params.count();
    for _ in 0..2 {
        work.run()?;
    }
    let memory = resident("VmHWM") - before;
    // The check needs the weights as they were.
    let work_again = Work::new(case, options.training, &device)?;
    let folder = std::env::temp_dir().join(format!("consistency-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let (file, weights) = (folder.join("case.json"), folder.join("weights.safetensors"));
    std::fs::write(&file, case.json(options.training)?.to_string())?;
    work_again.save(&weights)?;
    let answer = work_again.answer()?;
    drop(work_again);
    let layouts = if options.cuda { ["first", "compiled"] } else { ["first", "last"] };
    let mut peer = match &options.python {
        Some(python) => Some(Peer::start(python, &file, &weights, options.threads, options.cuda)?),
        None => None,
    };
    let (mut ours, mut theirs) = (Vec::new(), [Vec::new(), Vec::new()]);
    let (mut gap, mut their_memory) = (None, f64::NAN);
    if let Some(peer) = &mut peer {
        for (i, layout) in layouts.iter().enumerate() {
            let path = peer.ask("check", layout)?;
            let bytes = std::fs::read(path["answer"].as_str().unwrap_or_default())?;
            let other: Vec<f32> = bytes
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect();
            ensure!(other.len() == answer.len(), "{}: outputs of two sizes", case.name);
            let size = answer.iter().fold(1f32, |m, x| m.max(x.abs()));
            let most = answer.iter().zip(&other).fold(0f32, |m, (a, b)| {
                let gap = (a - b).abs();
                if gap > m || gap.is_nan() { gap } else { m }
            });
            ensure!(
                most <= 2e-3 * size,
                "{}: the two programs' outputs differ by {most} where the largest is {size}",
                case.name
            );
            gap = Some(f64::from(most / size));
            for _ in 0..2 {
                peer.ask("run", layout)?;
            }
            // Before the other layout adds its own.
            if i == 0 {
                their_memory = peer.ask("memory", layout)?["bytes"].as_f64().unwrap_or(f64::NAN);
            }
        }
    }
    // A call that is not timed goes before each that is: threads fall asleep while the other
    // side computes.
    let brief = |seconds: &Vec<f64>| seconds.last().is_none_or(|s| *s < 0.2);
    for _ in 0..CALLS {
        if brief(&ours) {
            work.run()?;
        }
        let start = Instant::now();
        work.run()?;
        ours.push(start.elapsed().as_secs_f64());
        std::thread::sleep(Duration::from_millis(20));
        if let Some(peer) = &mut peer {
            for (layout, seconds) in layouts.iter().zip(&mut theirs) {
                if brief(seconds) {
                    peer.ask("run", layout)?;
                }
                let answer = peer.ask("run", layout)?;
                seconds.push(answer["seconds"].as_f64().unwrap_or(f64::NAN));
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
    std::fs::remove_dir_all(&folder)?;
    let ours = spread(ours);
    let [first, second] = theirs.map(spread);
    let (best, layout) =
        if second.median < first.median { (second, layouts[1]) } else { (first, layouts[0]) };
    Ok(json!({
        "parameters": count,
        "ours": [ours.median, ours.low, ours.high],
        "theirs": [best.median, best.low, best.high],
        "layout": layout,
        "memory": [memory, their_memory],
        "gap": gap,
        "torch": peer.as_ref().map(|peer| peer.version.clone()),
    }))
}

fn options(arguments: &[String]) -> Result<(Options, Option<String>)> {
    let mut options = Options { training: true, python: None, threads: 0, cuda: false, only: None };
    let mut one = None;
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value =
            || rest.next().cloned().ok_or_else(|| Error::new(format!("{argument}: of what?")));
        match argument.as_str() {
            "train" => options.training = true,
            "sample" => options.training = false,
            "--python" => options.python = Some(value()?),
            "--threads" => {
                options.threads = value()?.parse().map_err(|_| Error::new("--threads N"))?
            }
            "--device" => options.cuda = value()? == "cuda",
            "--only" => options.only = Some(value()?),
            "--one" => one = Some(value()?),
            // `cargo bench` says so to every benchmark.
            "--bench" => {}
            other => bail!("what is {other}?"),
        }
    }
    if options.threads == 0 {
        options.threads = std::thread::available_parallelism()?.get();
    }
    Ok((options, one))
}

fn run() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (options, name) = options(&arguments)?;
    let threads = options.threads;
    if let Some(name) = name {
        let all = cases(options.cuda);
        let case = all.iter().find(|c| c.name == name).ok_or_else(|| Error::new("no such case"))?;
        // As in training: the work begins on a thread of the pool.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = pool.map_err(|e| Error::new(e.to_string()))?;
        println!("{}", pool.install(|| one(case, &options))?);
        return Ok(());
    }
    let what = if options.training {
        "One training step (networks: forward, backward, RAdam, EMA; layers: forward and backward)"
    } else {
        "One-step sampling (networks), forward (layers)"
    };
    println!(
        "{what}; {threads} threads, {} vectors, medians of {CALLS} (lowest to highest), ms\n",
        vectors()
    );
    println!(
        "| case | batch | parameters | ours | PyTorch | layout | ratio | memory, ours | PyTorch | ratio |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let program = std::env::current_exe()?;
    let mut version = None;
    for case in cases(options.cuda) {
        if options.only.as_ref().is_some_and(|only| !case.name.contains(only.as_str())) {
            continue;
        }
        let output = Command::new(&program)
            .args(&arguments)
            .args(["--one", case.name])
            .env("RAYON_NUM_THREADS", threads.to_string())
            .env("CANDLE_NUM_THREADS", "1")
            .stderr(Stdio::inherit())
            .output()?;
        ensure!(output.status.success(), "{}: failed, see above", case.name);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let found: Json =
            serde_json::from_str(text.trim()).map_err(|e| Error::new(e.to_string()))?;
        let number = |key: &str, i: usize| found[key][i].as_f64().unwrap_or(f64::NAN);
        let time = |key: &str| match number(key, 0) {
            median if median.is_nan() => "-".to_string(),
            median => format!(
                "{:.2} ({:.2} to {:.2})",
                1e3 * median,
                1e3 * number(key, 1),
                1e3 * number(key, 2)
            ),
        };
        let bytes = |i: usize| match number("memory", i) {
            bytes if bytes.is_nan() => "-".to_string(),
            bytes => format!("{:.0} MB", bytes / 1e6),
        };
        let ratio =
            |a: f64, b: f64| if b.is_nan() { "-".to_string() } else { format!("{:.2}", a / b) };
        println!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            case.name,
            case.shape[0],
            found["parameters"],
            time("ours"),
            time("theirs"),
            found["layout"].as_str().unwrap_or("-"),
            ratio(number("ours", 0), number("theirs", 0)),
            bytes(0),
            bytes(1),
            ratio(number("memory", 0), number("memory", 1)),
        );
        version = found["torch"].as_str().map(str::to_string).or(version);
    }
    match version {
        Some(version) => {
            println!("\nPyTorch {version}, the faster of its two layouts; outputs agree.")
        }
        None => println!("\nWithout PyTorch: give `--python PATH` to an interpreter that has it."),
    }
    Ok(())
}

fn main() {
    if let Err(error) = run() {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}
