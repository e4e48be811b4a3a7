//! What the tests of the environment share: the program, the set-up, a Jupyter client.

#![allow(dead_code)] // each test program uses a part of it

use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

pub type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The clone that the tests belong to.
pub fn project() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::fs::canonicalize(&here).unwrap_or(here)
}

/// Where the state is: `LAB_HOME`, or `.lab` in the project.
pub fn home() -> PathBuf {
    match std::env::var_os("LAB_HOME").filter(|home| !home.is_empty()) {
        Some(home) => home.into(),
        None => project().join(".lab"),
    }
}

/// Where the state of one clone is: with `LAB_HOME`, a folder of its own below it.
pub fn own(project: &Path) -> Option<PathBuf> {
    let of = |folder: &PathBuf| std::fs::read_to_string(folder.join("project")).ok();
    let clones = std::fs::read_dir(home().join("clones")).into_iter().flatten().flatten();
    std::iter::once(home())
        .chain(clones.map(|entry| entry.path()))
        .find(|folder| of(folder).is_some_and(|of| Path::new(&of) == project))
}

/// The program `lab` in the project, with these arguments, started as from a shell.
pub fn lab(arguments: &[&str]) -> Command {
    from_a_shell(env!("CARGO_BIN_EXE_lab"), arguments)
}

/// cargo in the project, started as from a shell.
pub fn cargo(arguments: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    from_a_shell(cargo, arguments)
}

// In the project, without what `cargo test` sets for this program: of cargo's variables a
// shell's own are left.
fn from_a_shell(program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Command {
    const OWN: [&str; 9] = [
        "CARGO_BUILD_",
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_INCREMENTAL",
        "CARGO_NET_",
        "CARGO_PROFILE_",
        "CARGO_REGISTR",
        "CARGO_TARGET_DIR",
        "CARGO_TERM_",
    ];
    let mut command = Command::new(program);
    command.args(arguments).current_dir(project()).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO") && !OWN.iter().any(|own| text.starts_with(own)) {
            command.env_remove(&name);
        }
    }
    command.env_remove("LD_LIBRARY_PATH").env_remove("LAB_BUDGET");
    command
}

/// Run it; standard output and error as one text beside the status.
pub fn told(command: &mut Command) -> Result<(bool, String)> {
    let Output { status, stdout, stderr } = command.output()?;
    let text = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    Ok((status.success(), text))
}

/// Set up once a test program; after `cargo lab` there is nothing to do.
pub fn ready() {
    static READY: OnceLock<()> = OnceLock::new();
    READY.get_or_init(|| {
        let set_up = told(&mut lab(&["setup"]));
        assert!(matches!(&set_up, Ok((true, _))), "cargo lab setup: {set_up:?}");
    });
}

/// A folder that goes away with the test.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("lab-test-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Start the Jupyter client with a request.
pub fn client(request: &Value) -> Result<Child> {
    let mut client = Command::new(home().join("venv/bin/python"))
        .arg("-I")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/lab/cells.py"))
        .current_dir(project().join("notebooks"))
        .env("JUPYTER_PREFER_ENV_PATH", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = client.stdin.take() {
        stdin.write_all(request.to_string().as_bytes())?;
    }
    Ok(client)
}

/// The client's answer: a list of kernels.
pub fn answer(client: Child) -> Result<Vec<Value>> {
    let output = client.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let told = String::from_utf8_lossy(&output.stderr);
    match serde_json::from_str(&text) {
        Ok(Value::Array(kernels)) => Ok(kernels),
        _ => Err(format!("the Jupyter client gave no answer: {text}{told}").into()),
    }
}

/// What a cell printed.
pub fn stdout(cell: &Value) -> &str {
    cell["stdout"].as_str().unwrap_or_default().trim()
}

/// The name under which a Chromium is installed.
pub fn chromium() -> Option<&'static str> {
    ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok())
}
