//! A split of images from Parquet to bytes in memory: time and memory, beside pyarrow and
//! Pillow in the same run, which must give the same pixels.
//!
//! `cargo lab bench data` runs it. Each reading is a process of its own, so that its memory
//! is its own; it decodes into an empty cache, then reads from the full one.

use consistency::data::Dataset;
use consistency::{Error, Result, bail, ensure};
use serde_json::{Value as Json, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Readings of each kind, in turn.
const CALLS: usize = 5;
/// Datasets of the catalog, where they were fetched.
const NAMES: [&str; 2] = ["fashion_mnist", "cifar10"];

/// In MB.
fn resident(field: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap_or_default();
    let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) * 1024.0 / 1e6
}

/// One reading, in this process: a line of JSON; the bytes are written where that is asked.
fn one(name: &str, cache: &str, bytes: Option<&String>) -> Result<Json> {
    let before = resident("VmRSS");
    let start = Instant::now();
    let images = Dataset::find(name)?.with_cache(cache).split("train")?;
    let seconds = start.elapsed().as_secs_f64();
    let memory = resident("VmHWM") - before;
    if let Some(path) = bytes {
        std::fs::write(path, images.pixels().flatten_all()?.to_vec1::<u8>()?)?;
    }
    let size = images.pixels().elem_count();
    Ok(json!({
        "name": images.name(), "rows": images.len(), "shape": images.shape(),
        "megabytes": size as f64 / 1e6, "seconds": seconds, "memory": memory,
    }))
}

fn answer(command: &mut Command) -> Result<Json> {
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}", said.trim());
    serde_json::from_slice(&output.stdout).map_err(|e| Error::new(format!("{command:?}: {e}")))
}

/// The file that a dataset's training split is in.
fn file(name: &str) -> Result<PathBuf> {
    let dataset = Dataset::find(name)?;
    ensure!(
        dataset.is_here("train"),
        "{name} is not here: cargo lab data fetch {name}, or name a Parquet file"
    );
    let files = dataset.fetch()?.remove("train").unwrap_or_default();
    match (files.into_iter().next(), Path::new(name).is_file()) {
        (_, true) => Ok(PathBuf::from(name)),
        (Some(file), _) => Ok(file),
        (None, _) => bail!("{name} is in no file"),
    }
}

fn median(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |i: usize| values.get(i).copied().unwrap_or(f64::NAN);
    (at(values.len() / 2), at(0), at(values.len().saturating_sub(1)))
}

fn case(name: &str, python: Option<&String>, threads: usize, folder: &Path) -> Result<()> {
    let own = std::env::current_exe()?;
    let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let (cache, bytes, theirs) = (path("cache"), path("ours.bin"), path("theirs.bin"));
    let (mut cold, mut warm, mut other) = (Vec::new(), Vec::new(), Vec::new());
    let (mut memory, mut their_memory, mut about) = (0f64, 0f64, Json::Null);
    for call in 0..CALLS {
        let _ = std::fs::remove_dir_all(&cache);
        let read = |more: &[&str]| {
            let mut command = Command::new(&own);
            command.args(["--one", name, &cache]).args(more);
            answer(command.env("RAYON_NUM_THREADS", threads.to_string()))
        };
        // The first of each kind also says what it read.
        let more = [bytes.as_str()];
        about = read(if call == 0 { &more } else { &[] })?;
        cold.push(about["seconds"].as_f64().unwrap_or(f64::NAN));
        memory = memory.max(about["memory"].as_f64().unwrap_or(f64::NAN));
        warm.push(read(&[])?["seconds"].as_f64().unwrap_or(f64::NAN));
        if let Some(python) = python {
            let script =
                concat!(env!("CARGO_MANIFEST_DIR"), "/../reproductions/bench/peer_data.py");
            let mut command = Command::new(python);
            command.arg(script).arg(file(name)?).arg(threads.to_string());
            let said = answer(command.args((call == 0).then_some(&theirs)))?;
            other.push(said["seconds"].as_f64().unwrap_or(f64::NAN));
            their_memory = their_memory.max(said["memory"].as_f64().unwrap_or(f64::NAN));
        }
    }
    let megabytes = about["megabytes"].as_f64().unwrap_or(f64::NAN);
    let (name, rows) = (about["name"].as_str().unwrap_or_default(), about["rows"].as_u64());
    let show =
        |(middle, low, high): (f64, f64, f64)| format!("{middle:.2} ({low:.2} to {high:.2})");
    let ours = median(cold);
    let shape = about["shape"].to_string();
    print!(
        "| {name}, {} images {shape} | {} | {} |",
        rows.unwrap_or(0),
        show(ours),
        show(median(warm))
    );
    print!(" {memory:.0} MB = {:.2} x {megabytes:.0} MB |", memory / megabytes);
    if python.is_some() {
        let peer = median(other);
        let (a, b) = (std::fs::read(&bytes)?, std::fs::read(&theirs)?);
        ensure!(a.len() == b.len(), "{name}: {} bytes here, {} there", a.len(), b.len());
        let gap = a.iter().zip(&b).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0);
        let off = a.iter().zip(&b).filter(|(a, b)| a != b).count() as f64 / a.len() as f64;
        print!(
            " {} | {:.2} | {their_memory:.0} MB | {gap} ({:.2} %) |",
            show(peer),
            ours.0 / peer.0,
            100.0 * off
        );
    }
    println!();
    Ok(())
}

fn run() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if let [flag, name, cache, bytes @ ..] = arguments.as_slice()
        && flag == "--one"
    {
        println!("{}", one(name, cache, bytes.first())?);
        return Ok(());
    }
    let (mut python, mut names) = (None, Vec::new());
    let mut threads = std::thread::available_parallelism()?.get();
    let mut rest = arguments.into_iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().ok_or_else(|| Error::new(format!("{argument}: of what?")));
        match argument.as_str() {
            "--python" => python = Some(value()?),
            "--threads" => threads = value()?.parse().map_err(|_| Error::new("--threads N"))?,
            _ => names.push(argument),
        }
    }
    if names.is_empty() {
        names = NAMES.map(str::to_string).to_vec();
    }
    for name in &names {
        file(name)?;
    }
    let folder =
        std::env::temp_dir().join(format!("consistency-bench-data-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    println!(
        "Seconds on {threads} threads, median (lowest to highest) of {CALLS}; memory above the program's own.\n"
    );
    print!("| dataset | decoded, s | from the cache, s | most memory, of the bytes |");
    print!(
        "{}",
        if python.is_some() {
            " pyarrow and Pillow, s | ratio | their memory | largest gap of a byte (share) |"
        } else {
            ""
        }
    );
    println!("\n|---|---|---|---|{}", if python.is_some() { "---|---|---|---|" } else { "" });
    let done = names.iter().try_for_each(|name| case(name, python.as_ref(), threads, &folder));
    let _ = std::fs::remove_dir_all(&folder);
    done
}

fn main() -> std::process::ExitCode {
    match run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
