//! What the program says, and how far a long step is.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// A failure, on standard error.
pub fn error(message: &str) {
    eprintln!("error: {message}");
}

/// Something worth knowing that does not stop anything.
pub fn note(message: &str) {
    println!("note: {message}");
}

/// A line of its own.
pub fn line(message: &str) {
    println!("{message}");
}

/// A step under way: one line when it starts, one with the time it took when it ends, and in
/// between how far it has come.
pub struct Step {
    what: String,
    start: Instant,
    shown: Instant,
    width: usize,
    terminal: bool,
}

impl Step {
    pub fn start(what: impl Into<String>) -> Self {
        let what = what.into();
        println!("==> {what}");
        let now = Instant::now();
        let terminal = std::io::stdout().is_terminal();
        Self { what, start: now, shown: now, width: 0, terminal }
    }

    /// Where the step is: one line rewritten in place on a terminal, a line every half
    /// minute elsewhere.
    pub fn progress(&mut self, at: &str) {
        let every = if self.terminal { 200 } else { 30_000 };
        if self.shown.elapsed() < Duration::from_millis(every) {
            return;
        }
        self.shown = Instant::now();
        let line = format!("    {} ({})", at, seconds(self.start.elapsed()));
        if self.terminal {
            let cut: String = line.chars().take(78).collect();
            let pad = self.width.saturating_sub(cut.chars().count());
            print!("\r{cut}{}", " ".repeat(pad));
            self.width = cut.chars().count();
            let _ = std::io::stdout().flush();
        } else {
            println!("{line}");
        }
    }

    fn clear(&mut self) {
        if self.width > 0 {
            print!("\r{}\r", " ".repeat(self.width));
            self.width = 0;
        }
    }

    /// The step is done.
    pub fn done(mut self, result: &str) -> Duration {
        self.clear();
        let took = self.start.elapsed();
        let result = if result.is_empty() { "done" } else { result };
        println!("    {result} in {}", seconds(took));
        took
    }

    /// The step had nothing to do or could not be done, and it does not matter.
    pub fn end(mut self, result: &str) {
        self.clear();
        println!("    {result}");
    }

    /// The step failed.
    pub fn failed(mut self) {
        self.clear();
        println!("    {} failed after {}", self.what, seconds(self.start.elapsed()));
    }
}

/// A time as a person reads it.
pub fn seconds(time: Duration) -> String {
    let s = time.as_secs_f64();
    if s < 10.0 {
        format!("{s:.1} s")
    } else if s < 120.0 {
        format!("{s:.0} s")
    } else {
        format!("{:.0} min {:02.0} s", (s / 60.0).floor(), s % 60.0)
    }
}

/// A table with columns as wide as their longest cell; numbers are right-aligned.
pub fn table(head: &[&str], rows: &[Vec<String>]) {
    let width = |c: usize| {
        rows.iter()
            .map(|row| row[c].chars().count())
            .chain([head[c].chars().count()])
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let show = |cells: Vec<&str>| {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(&widths) {
            let pad = " ".repeat(width - cell.chars().count());
            let number = cell.starts_with(|c: char| c.is_ascii_digit() || c == '-')
                && cell.chars().all(|c| c.is_ascii_digit() || "+-.e".contains(c));
            let text = if number { format!("{pad}{cell}") } else { format!("{cell}{pad}") };
            line.push_str(&text);
            line.push_str("  ");
        }
        println!("{}", line.trim_end());
    };
    show(head.to_vec());
    show(
        widths
            .iter()
            .map(|w| "-".repeat(*w))
            .collect::<Vec<_>>()
            .iter()
            .map(String::as_str)
            .collect(),
    );
    for row in rows {
        show(row.iter().map(String::as_str).collect());
    }
}
