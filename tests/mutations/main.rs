//! Promise: a damaged or hostile file is read, or there is one clear error that names it. No
//! panic, not even one that is caught and printed; no abort, no end that does not come, no more
//! memory than a limit.
//!
//! Each reader's files are mutated by key (`mutate.rs`) and read in a child process with a limit
//! on its memory, which a watchdog ends where one file takes too long. A mutation that a failure
//! names is repeated alone by
//! `CONSISTENCY_MUTATIONS='READER N M' cargo test --release --test mutations child -- --nocapture`
//! for N up to M, and ten thousand of each reader are read by
//! `cargo test --release --test mutations -- --ignored mutations`.

mod child;
#[path = "../support/formula.rs"]
mod formula;
#[path = "../support/msgpack.rs"]
mod msgpack;
mod mutate;
#[allow(dead_code)] // written for the tests of networks, which use all of it
#[path = "../support/networks.rs"]
mod networks;
mod published;
mod seeds;
mod tables;
mod texts;

use child::{ASKED, OUTCOMES, Outcome};
use consistency::{Context, Error, Result};
use seeds::readers;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long one file may take, on a machine that does other work.
const PATIENCE: Duration = Duration::from_secs(30);
/// Memory that a child may ask for, in KiB. It has a tenth of it before it reads; the largest
/// picture that is read takes half.
const MEMORY: u64 = 2 << 20;
/// After so many failures a reader is not asked any more.
const ENOUGH: usize = 20;

/// What came of a reader's mutations.
#[derive(Default)]
struct Tally {
    read: usize,
    refused: usize,
    wrong: Vec<(u64, String)>,
    seconds: f64,
}

#[cfg(unix)]
#[test]
fn some_hundred_of_each_reader() -> Result<()> {
    all(300)
}

#[cfg(unix)]
#[test]
#[ignore = "takes minutes: ten thousand files for each reader"]
fn ten_thousand_mutations() -> Result<()> {
    all(10_000)
}

/// What the children run; without a request it does nothing.
#[test]
fn child() -> Result<()> {
    match std::env::var(ASKED) {
        Ok(asked) => child::work(&asked),
        Err(_) => Ok(()),
    }
}

fn all(count: u64) -> Result<()> {
    let readers = readers();
    let (next, tallies) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(reader) = readers.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let count = if reader.slow { count / 3 } else { count };
                    let tally = mutations(reader.name, count);
                    tallies.lock().map(|mut all| all.push((reader.name, tally))).ok();
                }
            });
        }
    });
    let mut failed = String::new();
    for (name, tally) in tallies.into_inner().map_err(|e| Error::new(e.to_string()))? {
        let tally = match tally {
            Ok(tally) => tally,
            Err(error) => {
                failed.push_str(&format!("{name}: {error}\n"));
                continue;
            }
        };
        let Tally { read, refused, wrong, seconds } = tally;
        println!("{name:<14} {read:>6} read {refused:>6} refused {seconds:>6.1} s");
        // What every mutation leaves readable, or none, is not tested by it.
        assert!(read > 0 && refused > 0, "{name}: {read} read and {refused} refused");
        for (step, why) in wrong {
            let why: String = why.chars().take(600).collect();
            failed.push_str(&format!("{name} {step}: {why}\n"));
        }
    }
    assert!(failed.is_empty(), "{failed}");
    Ok(())
}

// The mutations 0..count of a reader, by as many children as it takes.
fn mutations(name: &str, count: u64) -> Result<Tally> {
    let outcomes = std::env::temp_dir().join(format!("mutations-{}-{name}", std::process::id()));
    let (mut tally, begun, mut first) = (Tally::default(), Instant::now(), 0);
    while first < count && tally.wrong.len() < ENOUGH {
        let child = start(name, first, count, &outcomes)?;
        let ended = watch(child, &outcomes)?;
        let text = std::fs::read_to_string(&outcomes).unwrap_or_default();
        let mut open = None;
        for outcome in text.lines().filter_map(Outcome::of) {
            match outcome {
                Outcome::Begun(step) => {
                    open = Some(step);
                    first = step + 1;
                    continue;
                }
                Outcome::Read(_) => tally.read += 1,
                Outcome::Refused(_) => tally.refused += 1,
                Outcome::Wrong(step, why) => tally.wrong.push((step, why)),
            }
            open = None;
        }
        let _ = std::fs::remove_file(&outcomes);
        match (ended, open) {
            (None, _) => {}
            (Some(why), Some(step)) => tally.wrong.push((step, why)),
            (Some(why), None) => return Err(Error::new(format!("the child: {why}"))),
        }
    }
    tally.seconds = begun.elapsed().as_secs_f64();
    Ok(tally)
}

// This very program, for one reader, with a limit on its memory and no core file.
fn start(name: &str, first: u64, end: u64, outcomes: &Path) -> Result<Child> {
    let script = format!("ulimit -c 0; ulimit -v {MEMORY} 2>/dev/null; exec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &script]).arg(std::env::current_exe()?);
    command.args(["child", "--exact", "--nocapture"]);
    command.env(ASKED, format!("{name} {first} {end}")).env(OUTCOMES, outcomes);
    // Threads and their pools are memory too, and nothing asks the network.
    for (name, value) in [
        ("RAYON_NUM_THREADS", "2"),
        ("POLARS_MAX_THREADS", "2"),
        ("MALLOC_ARENA_MAX", "2"),
        ("RUST_BACKTRACE", "0"),
        ("HF_HUB_OFFLINE", "1"),
        ("HF_HUB_CACHE", "/nonexistent/hub"),
    ] {
        command.env(name, value);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().context("starting the tests once more")
}

// Why the child did not end well, if it did not.
fn watch(mut child: Child, outcomes: &Path) -> Result<Option<String>> {
    // Read as it comes: a full pipe would hold the child up.
    let stderr = child.stderr.take();
    let said = std::thread::spawn(move || stderr.map(std::io::read_to_string));
    let (mut length, mut since) = (0, Instant::now());
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        let now = std::fs::metadata(outcomes).map_or(0, |file| file.len());
        if now != length {
            (length, since) = (now, Instant::now());
        }
        if since.elapsed() > PATIENCE {
            child.kill()?;
            child.wait()?;
            break None;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let said = said.join().ok().flatten().and_then(std::io::Result::ok).unwrap_or_default();
    let last: Vec<&str> = said.lines().rev().take(4).collect();
    let last = last.into_iter().rev().collect::<Vec<_>>().join(" | ");
    Ok(match status {
        Some(status) if status.success() => None,
        Some(status) => Some(format!("the process ended: {status}: {last}")),
        None => Some(format!("no end after {} s: {last}", PATIENCE.as_secs())),
    })
}
