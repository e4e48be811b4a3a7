//! How far a transfer has come, on stderr, once it takes longer than a moment.

use super::client::Client;
use crate::Result;
use crate::bar::Bar;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// How far a transfer has come.
pub(super) struct Progress<'a> {
    client: &'a Client,
    name: &'a str,
    total: Option<u64>,
    from: u64,
    began: Instant,
    last: Option<Instant>,
    terminal: bool,
    bar: Bar,
}

impl<'a> Progress<'a> {
    /// For `name`: of `total` bytes, `from` are there already.
    pub(super) fn new(client: &'a Client, name: &'a str, total: Option<u64>, from: u64) -> Self {
        let (began, terminal) = (Instant::now(), std::io::stderr().is_terminal());
        let bar =
            Bar::new(format!("{name} (kB)"), total.unwrap_or(0) / 1000).starting_at(from / 1000);
        Self { client, name, total, from, began, last: None, terminal, bar }
    }

    /// `done` bytes are there.
    ///
    /// # Errors
    /// The cell that waits for them was stopped.
    pub(super) fn at(&mut self, done: u64) -> Result<()> {
        self.bar.at(done / 1000)?;
        // In a notebook it is a bar below the cell.
        if self.bar.is_seen() {
            return Ok(());
        }
        // One line that is overwritten on a terminal; elsewhere a line now and then.
        let (first, next) = match self.terminal {
            true => (Duration::from_secs(1), Duration::from_millis(100)),
            false => (Duration::from_secs(10), Duration::from_secs(10)),
        };
        let due = match self.last {
            None => self.began.elapsed() > first,
            Some(last) => last.elapsed() > next,
        };
        if due && !self.client.settings.quiet {
            self.last = Some(Instant::now());
            self.say(done);
        }
        Ok(())
    }

    fn say(&self, done: u64) {
        let line = self.client.clean(&self.line(done, self.began.elapsed()));
        let mut stderr = std::io::stderr().lock();
        // A closed stderr must not end a transfer.
        let _ = match self.terminal {
            true => write!(stderr, "\r\x1b[K{line}").and_then(|()| stderr.flush()),
            false => writeln!(stderr, "{line}"),
        };
    }

    fn line(&self, done: u64, elapsed: Duration) -> String {
        const MB: f64 = 1e6;
        let rate = done.saturating_sub(self.from) as f64 / elapsed.as_secs_f64().max(1e-3);
        let (name, at, speed) = (self.name, done as f64 / MB, rate / MB);
        let Some(total) = self.total else {
            return format!("{name}: {at:.1} MB, {speed:.1} MB/s");
        };
        let left = total.saturating_sub(done) as f64 / rate.max(1.0);
        let total = total as f64 / MB;
        format!("{name}: {at:.1} of {total:.1} MB, {speed:.1} MB/s, {left:.0} s left")
    }
}

// However the transfer ends, what comes next begins on its own line.
impl Drop for Progress<'_> {
    fn drop(&mut self) {
        if self.terminal && self.last.is_some() {
            let _ = writeln!(std::io::stderr());
        }
    }
}
