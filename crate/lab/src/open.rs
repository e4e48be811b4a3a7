//! JupyterLab on this machine alone.

use crate::Result;
use crate::place::{Place, Turn};
use crate::python::jupyter;
use crate::setup::Kind;
use crate::{say, setup, shell};
use std::os::unix::process::CommandExt;
use std::process::{ExitCode, Stdio};

/// Set up what is missing and become JupyterLab, on 127.0.0.1 with its token. With `pool` a kernel
/// is kept ready for the next notebook.
pub fn open(place: &Place, port: u16, browser: bool, pool: bool) -> Result<ExitCode> {
    {
        let turn = Turn::to_set_up(place)?;
        if let Err(error) = setup::all(place, &turn) {
            // A crate in the middle of a change must not keep its notebooks from opening.
            if setup::current(place).is_none() || !place.python().is_file() {
                return Err(error);
            }
            say::error(&error);
        }
    }
    let mut command = shell::command(place.python());
    command
        .current_dir(&place.project)
        .args(["-I", "-m", "jupyterlab", "--ServerApp.ip=127.0.0.1", "--ServerApp.allow_root=True"])
        .arg(format!("--ServerApp.port={port}"))
        .arg(format!("--ServerApp.root_dir={}", place.project.display()))
        .arg("--LabApp.default_url=/lab/tree/notebooks")
        .env("LAB_PROJECT", &place.project)
        .envs(jupyter(place));
    if !browser {
        command.arg("--no-browser");
    }
    if pool {
        // This program becomes the server.
        let server = std::process::id().to_string();
        command.env("LAB_POOL", &server);
        let mut first = shell::command(place.python());
        first
            .current_dir(place.project.join("notebooks"))
            .arg("-I")
            .arg(place.shared.join("kernel").join("launch.py"))
            .args([Kind::Cpu.current(), "--wait"])
            .env("LAB_PROJECT", &place.project)
            .envs(jupyter(place))
            .env("LAB_POOL", server)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Err(error) = first.spawn() {
            say::note(&format!("no kernel is started ahead: {error}"));
        }
    }
    say::line("==> JupyterLab; Ctrl-C ends it");
    Err(format!("starting JupyterLab: {}", command.exec()))
}
