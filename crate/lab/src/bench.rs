//! Measuring the environment from a real client.

use crate::Result;
use crate::place::{Place, Turn};
use crate::run::{jupyter, tool};
use crate::say;
use crate::setup;
use std::process::{Command, ExitCode};

static KERNEL: &str = include_str!("python/bench_kernel.py");

/// Time the kernel: ready, first cell, ten warm cells, memory. With `stock`, also stock
/// evcxr with the same library through `:dep`.
pub fn kernel(place: &Place, stock: bool) -> Result<ExitCode> {
    let turn = Turn::take(place)?;
    setup::all(place, &turn)?;
    let script = tool(place, "bench_kernel.py", KERNEL)?;
    let mut bench = Command::new(place.python());
    bench
        .current_dir(&place.project)
        .arg("-I")
        .arg(script)
        .arg(&place.project)
        .arg(place.evcxr())
        .args(stock.then_some("--stock"))
        .env("LAB_PROJECT", &place.project)
        .envs(jupyter(place))
        .stdin(turn.share());
    say::line("==> kernel: started, used and timed by jupyter_client");
    let status = bench.status().map_err(|e| format!("starting the benchmark: {e}"))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
