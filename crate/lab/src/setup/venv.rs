//! A Python environment with JupyterLab, at pinned versions with hashes.

use crate::Result;
use crate::files::{self, Hash};
use crate::place::{Place, Turn};
use crate::process::{Logged, answer};
use crate::say::Step;
use std::path::PathBuf;

/// The Python that makes the environment: `LAB_PYTHON`, or `python3`.
pub fn system_python() -> PathBuf {
    std::env::var_os("LAB_PYTHON").map_or_else(|| "python3".into(), PathBuf::from)
}

/// The file in it that says what it was made from.
pub const STAMP: &str = "lab-stamp";

/// What that file says of one that is made now: a hash of the requirements and this Python.
pub fn stamp(place: &Place) -> Result<String> {
    let requirements = place.project.join("notebooks").join("requirements.txt");
    let python = system_python();
    let version = answer(&python, &["-c", "import sys; print(sys.version)"]).map_err(|e| {
        format!("no Python 3: {e}; install it (Debian: apt install python3 python3-venv)")
    })?;
    let mut hash = Hash::default();
    hash.add(files::read(&requirements)?).add(&version);
    Ok(hash.end())
}

/// Whether it is there, made from what this stamp stands for.
pub fn is_made(place: &Place, stamp: &str) -> bool {
    files::stamped(&place.venv().join(STAMP), stamp) && place.python().is_file()
}

/// Make the environment, unless it is there for these requirements and this Python.
pub fn ensure(place: &Place, turn: &Turn) -> Result<()> {
    let stamp = stamp(place)?;
    if is_made(place, &stamp) {
        return Ok(());
    }
    let requirements = place.project.join("notebooks").join("requirements.txt");
    let venv = place.venv();
    let mut step = Step::start("venv: JupyterLab, nbclient, nbconvert and plotly's renderer");
    let made = (|| {
        // A half-made environment is of no use: always start from scratch.
        files::remove(&venv)?;
        let mut make = Logged::new(place, "venv", system_python());
        make.command().args(["-m", "venv"]).arg(&venv);
        make.run(turn, |_| {}).map_err(|e| {
            format!("{e}\nPython's venv may be missing (Debian: apt install python3-venv)")
        })?;
        let mut install = Logged::new(place, "pip", place.python());
        install
            .command()
            .args(["-m", "pip", "install", "--require-hashes", "--no-input"])
            .args(["--disable-pip-version-check", "--progress-bar", "off", "-r"])
            .arg(&requirements);
        install.run(turn, |line| step.progress(line)).map(|_| ())
    })();
    if let Err(error) = made {
        step.failed();
        return Err(error);
    }
    files::write(&venv.join(STAMP), stamp.as_bytes())?;
    step.done("venv made");
    Ok(())
}
