//! Promise: a notebook is alive. Stop keeps the variables, output comes as it is made and in order,
//! a failure is an error to Jupyter, and a kernel that ends leaves nothing behind. Through a real
//! kernel and a client that watches (`live.py`, whose scenarios these are).

use crate::support::{Folder, Result, chromium, home, project, ready, told};
use std::process::Command;

fn scenario(name: &str) -> Result {
    ready();
    let runs = Folder::new(name)?;
    let mut client = Command::new(home().join("venv/bin/python"));
    client
        .arg("-I")
        .arg(project().join("tests/lab/live.py"))
        .arg(name)
        .arg(&runs.0)
        .current_dir(project().join("notebooks"))
        .env("JUPYTER_PREFER_ENV_PATH", "1");
    let (good, text) = told(&mut client)?;
    assert!(good && text.contains(&format!("{{\"held\": \"{name}\"}}")), "{text}");
    Ok(())
}

#[test]
fn stop_keeps_the_variables() -> Result {
    scenario("stopping")
}

#[test]
fn a_run_outlives_the_cell_that_waits_for_it() -> Result {
    scenario("runs")
}

#[test]
fn all_output_comes_in_order_and_a_failure_is_an_error() -> Result {
    scenario("outputs")
}

#[test]
fn input_asks_and_front_ends_stay_apart() -> Result {
    scenario("asking")
}

#[test]
fn a_kernel_that_waits_is_taken_and_ends_with_its_server() -> Result {
    scenario("waiting")
}

#[test]
fn other_tools_stop_at_a_failing_cell() -> Result {
    scenario("converting")
}

#[test]
fn a_kernel_without_evcxr_says_so_and_ends() -> Result {
    scenario("losing")
}

#[test]
fn no_process_is_left() -> Result {
    scenario("ending")
}

#[test]
#[ignore = "needs a headless Chromium: cargo test --release -- --ignored pages"]
fn pages_of_jupyterlab_move_and_stop() -> Result {
    ready();
    let browser = chromium().ok_or("no Chromium is installed")?;
    let folder = Folder::new("jupyterlab")?;
    let mut client = Command::new(home().join("venv/bin/python"));
    client
        .arg("-I")
        .arg(project().join("tests/lab/browser.py"))
        .arg(browser)
        .arg(&folder.0)
        .env("JUPYTER_PREFER_ENV_PATH", "1")
        .env("LAB_PROJECT", project());
    let (good, text) = told(&mut client)?;
    assert!(good, "{text}");
    Ok(())
}
