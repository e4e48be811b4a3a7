//! Each requirement, found or not, and the remedy.

use crate::Result;
use crate::place::Place;
use crate::process::answer;
use crate::say;
use crate::setup::{self, Toolchain};
use std::fs;
use std::process::ExitCode;

/// The oldest Rust that builds the project.
const RUST: (u32, u32) = (1, 95);
/// Free disk space that a whole set-up and build need, in GiB.
const DISK: f64 = 8.0;
/// Memory that building and a kernel need, in GiB.
const MEMORY: f64 = 4.0;

enum Finding {
    /// Found: what was found.
    Found(String),
    /// Missing: what, and the remedy.
    Missing(String, String),
    /// Not needed by `cargo lab` and `cargo test`: what is missing, and what it is for.
    Optional(String, String),
}

/// Check everything; fails if something that is needed is missing.
pub fn check() -> Result<ExitCode> {
    let place = Place::find()?;
    let mut findings = vec![
        ("Rust", rust()),
        ("C compiler", c_compiler()),
        ("Python 3 with venv", python()),
        ("disk", disk(&place)),
        ("memory", memory()),
        ("crates.io and PyPI", network(&place)),
    ];
    findings.extend(installed(&place));
    let mut missing = 0;
    for (name, finding) in findings {
        match finding {
            Finding::Found(what) => say::line(&format!("ok       {name}: {what}")),
            Finding::Missing(what, remedy) => {
                missing += 1;
                say::line(&format!("MISSING  {name}: {what}\n         {remedy}"));
            }
            Finding::Optional(what, meaning) => {
                say::line(&format!("-        {name}: {what}\n         {meaning}"));
            }
        }
    }
    Ok(if missing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn rust() -> Finding {
    let remedy = "install it from https://rustup.rs, or update it: rustup update".to_string();
    match Toolchain::find() {
        Err(error) => Finding::Missing(error, remedy),
        Ok(toolchain) => {
            let release = toolchain.release().to_string();
            let mut numbers = release.split('.').map(|n| n.parse().unwrap_or(0));
            let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
            if version >= RUST {
                Finding::Found(release)
            } else {
                Finding::Missing(format!("{release}, needs {}.{} or newer", RUST.0, RUST.1), remedy)
            }
        }
    }
}

fn c_compiler() -> Finding {
    match answer("cc", &["--version"]) {
        Ok(version) => Finding::Found(version.lines().next().unwrap_or_default().to_string()),
        Err(error) => Finding::Missing(
            error,
            "install one (Debian: apt install build-essential; macOS: xcode-select --install)"
                .to_string(),
        ),
    }
}

fn python() -> Finding {
    let remedy = "install it (Debian: apt install python3 python3-venv), or name another with \
                  LAB_PYTHON"
        .to_string();
    let script = "import sys, venv, ensurepip; print('.'.join(map(str, sys.version_info[:3])))";
    match answer(setup::system_python(), &["-c", script]) {
        Err(error) => Finding::Missing(error, remedy),
        Ok(version) => {
            let minor = version.split('.').nth(1).and_then(|m| m.parse::<u32>().ok()).unwrap_or(0);
            if minor >= 10 {
                Finding::Found(version)
            } else {
                Finding::Missing(format!("{version}, needs 3.10 or newer"), remedy)
            }
        }
    }
}

fn disk(place: &Place) -> Finding {
    let path = place.shared.to_string_lossy().into_owned();
    let free = answer("df", &["-Pk", &path]).ok().and_then(|table| {
        let kilobytes = table.lines().nth(1)?.split_whitespace().nth(3)?.parse::<f64>().ok()?;
        Some(kilobytes / 1024.0 / 1024.0)
    });
    match free {
        Some(free) if free >= DISK => Finding::Found(format!("{free:.0} GiB free")),
        Some(free) if setup::current(place).is_some() => {
            Finding::Found(format!("{free:.1} GiB free; the set-up is done and needs no more"))
        }
        Some(free) => Finding::Missing(
            format!("{free:.1} GiB free, a first set-up takes {DISK:.0}"),
            "free some, or move the state with LAB_HOME and the build with CARGO_TARGET_DIR"
                .to_string(),
        ),
        None => Finding::Optional(
            "df gives no answer".to_string(),
            format!("a first set-up takes {DISK:.0} GiB"),
        ),
    }
}

fn memory() -> Finding {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok())
        .or_else(|| {
            answer("sysctl", &["-n", "hw.memsize"]).ok()?.parse::<f64>().ok().map(|b| b / 1024.0)
        })
        .map(|kilobytes| kilobytes / 1024.0 / 1024.0);
    match total {
        Some(total) if total >= MEMORY => Finding::Found(format!("{total:.0} GiB")),
        Some(total) => Finding::Missing(
            format!("{total:.1} GiB, building takes {MEMORY:.0}"),
            "build with CARGO_BUILD_JOBS=1, or on a machine with more".to_string(),
        ),
        None => Finding::Optional(
            "the system gives no answer".to_string(),
            format!("building takes {MEMORY:.0} GiB"),
        ),
    }
}

// What set-up still has to fetch; once it is done, nothing waits for the network.
fn network(place: &Place) -> Finding {
    if setup::current(place).is_some() && place.evcxr().is_file() && place.python().is_file() {
        return Finding::Found("not needed any more, everything is here".to_string());
    }
    let script = "import urllib.request as u; \
                  [u.urlopen(a, timeout=10) for a in ('https://index.crates.io/config.json', \
                  'https://pypi.org/simple/six/')]";
    match answer(setup::system_python(), &["-c", script]) {
        Ok(_) => Finding::Found("reachable".to_string()),
        Err(error) => Finding::Missing(
            error.lines().last().unwrap_or_default().to_string(),
            "the first set-up needs both; behind a proxy set https_proxy".to_string(),
        ),
    }
}

fn installed(place: &Place) -> Vec<(&'static str, Finding)> {
    let later = || "cargo lab setup makes it".to_string();
    let is = |there: bool, what: String| {
        if there {
            Finding::Found(what)
        } else {
            Finding::Optional("not set up".to_string(), later())
        }
    };
    let library = match (setup::current(place), Toolchain::find()) {
        (None, _) => is(false, String::new()),
        (Some(library), Ok(toolchain)) if setup::built_by(&library, &toolchain) => {
            Finding::Found(library.id)
        }
        (Some(_), _) => Finding::Missing(
            "built by a different Rust compiler than the one here".to_string(),
            "run cargo lab setup".to_string(),
        ),
    };
    let source = match Toolchain::find() {
        Ok(toolchain) if setup::rust_src_missing(&toolchain) => Finding::Optional(
            "missing".to_string(),
            "cells then need the types of std values written out: rustup component add rust-src"
                .to_string(),
        ),
        _ => Finding::Found("there".to_string()),
    };
    let chromium = ["chromium", "chromium-browser", "google-chrome"]
        .iter()
        .find_map(|name| answer(name, &["--version"]).ok());
    let browser = match chromium {
        Some(version) => Finding::Found(version),
        None => Finding::Optional(
            "none".to_string(),
            "only for the tests of pages: cargo test --release -- --ignored pages".to_string(),
        ),
    };
    vec![
        ("evcxr_jupyter", is(place.evcxr().is_file(), setup::EVCXR_VERSION.to_string())),
        ("venv", is(place.python().is_file(), place.venv().display().to_string())),
        ("library", library),
        ("rust-src", source),
        ("headless browser", browser),
    ]
}
