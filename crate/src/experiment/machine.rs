//! What a run cost: time and memory, in a file beside its metrics. It is not part of the
//! checkpoint, whose bits do not depend on how fast the machine was.

use crate::record::write_atomically;
use crate::{Context, Result, bail, ensure};
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

const HEADER: &str = "step,seconds,steps_per_second,samples_per_second,resident_gb";

/// The file `machine.csv` of a run: a row with each row of the metrics.
pub(super) struct Machine {
    path: PathBuf,
    start: Instant,
    /// The last row: its step, and when it was added.
    last: (u64, Instant),
    /// Seconds of the earlier runs, up to where this one resumed.
    before: f64,
}

impl Machine {
    /// Continue in `folder` from `step`: rows of steps that are done again are removed, and so is a
    /// row that a killed process did not finish.
    ///
    /// # Errors
    /// A file that is something else, by name and line.
    pub fn open(folder: &Path, step: u64) -> Result<Self> {
        let path = folder.join("machine.csv");
        let (rows, before) = match fs::read_to_string(&path) {
            Ok(text) => rows(&text, step),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok((Vec::new(), 0.0)),
            Err(error) => Err(error.into()),
        }
        .with_context(|| {
            format!("reading {} (delete it to continue without the earlier times)", path.display())
        })?;
        let kept = std::iter::once(HEADER).chain(rows.iter().map(String::as_str));
        let kept: String = kept.flat_map(|line| [line, "\n"]).collect();
        write_atomically(&path, kept.as_bytes())?;
        let now = Instant::now();
        Ok(Self { path, start: now, last: (step, now), before })
    }

    /// Add a row for the steps since the last.
    pub fn add(&mut self, step: u64, batch: usize) -> Result<()> {
        let now = Instant::now();
        let rate = (step - self.last.0) as f64 / (now - self.last.1).as_secs_f64().max(1e-9);
        let row = format!(
            "{step},{:.3},{rate:.4},{:.2},{:.3}\n",
            self.before + self.start.elapsed().as_secs_f64(),
            rate * batch as f64,
            resident().unwrap_or(f64::NAN) / 1e9
        );
        self.last = (step, now);
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&self.path)
            .with_context(|| format!("opening {}", self.path.display()))?;
        file.write_all(row.as_bytes()).with_context(|| format!("writing {}", self.path.display()))
    }
}

/// How long the run in `folder` took in all.
///
/// # Errors
/// No record of it, or a damaged one, by name.
pub(super) fn seconds(folder: &Path) -> Result<f64> {
    let path = folder.join("machine.csv");
    let text = fs::read_to_string(&path).map_err(crate::Error::from);
    let (_, seconds) = text
        .and_then(|text| rows(&text, u64::MAX))
        .with_context(|| format!("reading {}", path.display()))?;
    Ok(seconds)
}

// The rows up to `step`, and the seconds until the last of them.
fn rows(text: &str, step: u64) -> Result<(Vec<String>, f64)> {
    // A row that a killed process did not finish has no end of line.
    let mut lines = text.rsplit_once('\n').map_or("", |(whole, _)| whole).lines();
    let header = lines.next().unwrap_or(HEADER);
    ensure!(header == HEADER, "its first line is '{header:.80}', not '{HEADER}'");
    let (mut kept, mut before) = (Vec::new(), 0.0);
    for (number, line) in (2..).zip(lines) {
        let numbers: Vec<f64> = line.split(',').map_while(|field| field.parse().ok()).collect();
        let [at, seconds, _, _, _] = numbers.as_slice() else {
            bail!("line {number} is '{line:.80}', not '{HEADER}'");
        };
        if *at <= step as f64 {
            kept.push(line.to_string());
            before = *seconds;
        }
    }
    Ok((kept, before))
}

/// Bytes of this process in memory, where the system says so.
fn resident() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS"))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? * 1024.0)
}
