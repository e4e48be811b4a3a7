//! Measuring the environment from a real client, the engine beside PyTorch, the exact
//! denoiser, and the reader of datasets.

use crate::Result;
use crate::place::{Place, Turn};
use crate::python::{jupyter, script};
use crate::say;
use crate::{setup, shell};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

static KERNEL: &str = include_str!("python/bench_kernel.py");

/// Time the kernel: ready, first cell, ten warm cells, memory. With the option `--stock`, also stock
/// evcxr with the same library through `:dep`; with `--profile` alone where a warm cell's time goes.
pub fn kernel(place: &Place, options: &[&str]) -> Result<ExitCode> {
    setup::all(place, &Turn::to_set_up(place)?)?;
    let turn = Turn::to_run(place)?;
    let script = script(place, "bench_kernel.py", KERNEL)?;
    let mut bench = shell::command(place.python());
    bench
        .current_dir(&place.project)
        .arg("-I")
        .arg(script)
        .arg(&place.project)
        .arg(place.evcxr())
        .args(options)
        .env("LAB_PROJECT", &place.project)
        .envs(jupyter(place))
        .stdin(turn.share());
    say::line("==> kernel: started, used and timed by jupyter_client");
    let status = bench.status().map_err(|e| format!("starting the benchmark: {e}"))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Run the benchmark of the engine (crate/benches/engine/) with these arguments.
///
/// # Errors
/// A GPU is asked for but there is none, or there is no CUDA toolkit to build for it.
pub fn engine(place: &Place, arguments: &[String], cuda: bool) -> Result<ExitCode> {
    let mut bench = cargo_bench(place, "engine")?;
    bench.args(if cuda { &["--features", "cuda"][..] } else { &[] }).arg("--").args(arguments);
    if cuda {
        if !Path::new("/dev/nvidiactl").exists() {
            return Err(
                "device 'cuda': this machine has no NVIDIA GPU (there is no /dev/nvidiactl); \
                        run with --device cpu, or where `nvidia-smi` shows a GPU"
                    .to_string(),
            );
        }
        setup::nvcc()?;
        let target = std::env::var_os("CARGO_TARGET_DIR").filter(|folder| !folder.is_empty());
        let target = target.map_or_else(|| place.project.join("target"), PathBuf::from);
        bench.env("CARGO_TARGET_DIR", target.join("cuda"));
    }
    finish("engine", bench)
}

/// Run another benchmark of the library (crate/benches/) with these arguments.
pub fn library(place: &Place, name: &str, arguments: &[String]) -> Result<ExitCode> {
    let mut bench = cargo_bench(place, name)?;
    bench.arg("--").args(arguments);
    finish(name, bench)
}

fn cargo_bench(place: &Place, name: &str) -> Result<Command> {
    let mut bench = shell::command(setup::Toolchain::find()?.cargo);
    bench.current_dir(&place.project).args([
        "bench",
        "--quiet",
        "--package",
        "consistency",
        "--bench",
        name,
    ]);
    Ok(bench)
}

fn finish(name: &str, mut bench: Command) -> Result<ExitCode> {
    say::line(&format!("==> {name}: built, then timed; nothing else should run beside it"));
    let status = bench.status().map_err(|e| format!("starting the benchmark: {e}"))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
