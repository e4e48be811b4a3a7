//! The other side: PyTorch in a process of its own, asked line by line.

use consistency::{Context, Error, Result, bail};
use serde_json::Value as Json;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// PyTorch in a process of its own.
pub struct Peer {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    pub version: String,
}

impl Peer {
    pub fn start(
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

    pub fn ask(&mut self, word: &str, layout: &str) -> Result<Json> {
        writeln!(self.to, "{word} {layout}")?;
        self.to.flush()?;
        self.answer()
    }

    pub fn answer(&mut self) -> Result<Json> {
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
