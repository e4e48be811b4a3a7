//! The engine against PyTorch, in the same run: one training step and one-step sampling of
//! whole networks, and single layers forward and backward.
//!
//! `cargo lab bench train` and `cargo lab bench sample` run it. Each case is a process of its
//! own, so that its memory is its own; with `--python` a PyTorch beside it is given the same
//! weights, must give the same output, and is timed in turn with ours, on as many threads.

mod case;
mod peer;

use candle_core::Device;
use case::{Case, Work, cases};
use consistency::nn::vectors;
use consistency::{Error, Result, bail, ensure};
use peer::Peer;
use serde_json::{Value as Json, json};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Timed calls of each side.
const CALLS: usize = 9;
/// How long a side works before a brief call is timed.
const WARM: Duration = Duration::from_millis(30);

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

/// Resident bytes, now or at their peak since the mark was reset.
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
    // Untimed calls go before each timed one: threads fall asleep while the other side computes,
    // and the system takes some milliseconds to give each its core again.
    let brief = |seconds: &Vec<f64>| seconds.last().is_none_or(|s| *s < 0.2);
    for _ in 0..CALLS {
        let begun = Instant::now();
        while brief(&ours) && begun.elapsed() < WARM {
            work.run()?;
        }
        let start = Instant::now();
        work.run()?;
        ours.push(start.elapsed().as_secs_f64());
        std::thread::sleep(Duration::from_millis(20));
        if let Some(peer) = &mut peer {
            for (layout, seconds) in layouts.iter().zip(&mut theirs) {
                let begun = Instant::now();
                while brief(seconds) && begun.elapsed() < WARM {
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
            // `cargo bench` passes this to every benchmark.
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
        if case.checkpoint && !options.training {
            // Sampling keeps no activations.
            continue;
        }
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
