//! A clone and a lab in it with stand-ins for what takes minutes to make: everything that
//! `cargo lab pack` looks at, and nothing that starts a kernel.

use crate::files::Hash;
use crate::sources::Sources;
use crate::support::{Folder, Result, lab, project, told};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The clone that is packed, one that it is unpacked into, and the pack.
pub struct World {
    pub folder: Folder,
    pub from: PathBuf,
    pub to: PathBuf,
    pub pack: PathBuf,
}

impl World {
    pub fn new(name: &str) -> Result<Self> {
        let folder = Folder::new(name)?;
        let root = fs::canonicalize(&folder.0)?;
        let (from, to) = (root.join("here"), root.join("another clone, \"there\""));
        sources(&from)?;
        sources(&to)?;
        set_up(&from)?;
        let pack = root.join("class.tar");
        let (good, text) = run(&from, &["pack", &pack.to_string_lossy()])?;
        assert!(good, "{text}");
        assert!(text.contains("==> library: from a pack"), "{text}");
        Ok(Self { folder, from, to, pack })
    }

    /// `cargo lab unpack` of this file in the second clone.
    pub fn unpack(&self, file: &Path) -> Result<(bool, String)> {
        run(&self.to, &["unpack", &file.to_string_lossy()])
    }

    /// The pack under another name, with another manifest, and with `more` members at the end
    /// of its payload (see `edit.py`); whole by its own sums.
    pub fn edited(&self, change: impl FnOnce(&mut Value), more: &Value) -> Result<PathBuf> {
        let text = python(&[EDIT, "manifest", &self.pack.to_string_lossy()])?;
        let mut manifest: Value = serde_json::from_str(&text)?;
        change(&mut manifest);
        let to = self.folder.0.join("edited.tar");
        let (pack, manifest, more) =
            (self.pack.to_string_lossy(), manifest.to_string(), more.to_string());
        python(&[EDIT, "edit", &pack, &to.to_string_lossy(), &manifest, &more])?;
        Ok(to)
    }

    /// What the second clone's state holds, with the content of its files.
    pub fn state(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        let mut open = vec![self.to.join(".lab")];
        while let Some(path) = open.pop() {
            match fs::read_dir(&path) {
                Ok(entries) => open.extend(entries.flatten().map(|entry| entry.path())),
                Err(_) => found.push((path.clone(), fs::read(&path).unwrap_or_default())),
            }
        }
        found.sort();
        found
    }
}

const EDIT: &str = include_str!("edit.py");

/// The output of the system's Python for a program and its arguments.
pub fn python(arguments: &[&str]) -> Result<String> {
    let program = std::env::var_os("LAB_PYTHON").unwrap_or_else(|| "python3".into());
    let output = Command::new(program).args(["-I", "-c"]).args(arguments).output()?;
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout)?.trim().to_string()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned().into()),
    }
}

/// `cargo lab` in a clone whose state lies in it.
pub fn run(clone: &Path, arguments: &[&str]) -> Result<(bool, String)> {
    told(lab(arguments).current_dir(clone).env_remove("LAB_HOME").env_remove("CARGO_TARGET_DIR"))
}

fn write(path: &Path, text: &str) -> Result {
    fs::create_dir_all(path.parent().unwrap_or(path))?;
    Ok(fs::write(path, text)?)
}

pub fn program(path: &Path, text: &str) -> Result {
    write(path, text)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

// Files of a clone, of which nothing can be compiled.
fn sources(clone: &Path) -> Result {
    for name in [".cargo/config.toml", "Cargo.lock", "Cargo.toml", "datasets/points.toml"] {
        write(&clone.join(name), "# a stand-in\n")?;
    }
    write(&clone.join("crate/kernel/Cargo.toml"), "# a stand-in\n")?;
    write(&clone.join("crate/src/lib.rs"), "pub fn stand_in() {}\n")?;
    write(&clone.join("notebooks/requirements.txt"), "# nothing\n")
}

fn set_up(clone: &Path) -> Result {
    let state = clone.join(".lab");
    let evcxr = fs::read_to_string(project().join("crate/lab/src/setup/evcxr.rs"))?;
    let version = evcxr.split("VERSION: &str = \"").nth(1).and_then(|rest| rest.split('"').next());
    write(&state.join("evcxr/version"), version.ok_or("evcxr.rs names no version")?)?;
    program(&state.join("evcxr/bin/evcxr_jupyter"), "#!/bin/sh\necho a stand-in\n")?;

    let rustc = Command::new("rustc").arg("-vV").current_dir(clone).output()?;
    let rustc = String::from_utf8(rustc.stdout)?.trim().to_string();
    write(&state.join("kernel/cargo/fetched-for"), &rustc)?;
    write(&state.join("kernel/cargo/registry/src/a/lib.rs"), "// a stand-in\n")?;

    let venv = state.join("venv");
    let make = "import sys, venv; venv.EnvBuilder(symlinks=True).create(sys.argv[1]); \
                print(sys.version)";
    let version = python(&[make, &venv.to_string_lossy()])?;
    let stamp = Hash::default().add("# nothing\n").add(&version).end();
    write(&venv.join("lab-stamp"), &stamp)?;
    let lib = fs::read_dir(venv.join("lib"))?.flatten().next().ok_or("the venv has no lib")?;
    write(&lib.path().join("site-packages/stand_in.py"), "where = __file__\n")?;
    write(&venv.join("share/jupyter/kernels/python3/kernel.json"), "{}")?;
    let shebang = format!("#!{}", venv.join("bin/python").display());
    program(&venv.join("bin/stand-in"), &format!("{shebang}\n{SAYS_WHERE}"))?;
    // As pip writes it where the path has a space.
    let long =
        format!("#!/bin/sh\n'''exec' \"{}\" \"$0\" \"$@\"\n' '''\n{SAYS_WHERE}", &shebang[2..]);
    program(&venv.join("bin/stand-in-2"), &long)?;

    let library = state.join("lib/0123456789abcdef");
    let (prefix, suffix) = (std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    write(&library.join(format!("{prefix}consistency_kernel{suffix}")), "a library")?;
    write(&library.join("deps/liba-0123.rmeta"), "metadata")?;
    write(&library.join("headers/consistency/src/lib.rs"), "// a header\n")?;
    write(&library.join("lock"), "")?;
    write(&library.join("evcxr/init.evcxr"), &format!(":dep {}\n", library.display()))?;
    program(&library.join("consistency-cli"), "#!/bin/sh\necho the program of the pack: $*\n")?;
    let launch = json!({ "rustc_version": rustc, "set": { "LAB_PROJECT": clone } });
    write(&library.join("launch.json"), &launch.to_string())?;
    let origin = json!({ "commit": "0123", "sources": Sources::of(clone)?.json() });
    write(&library.join("origin.json"), &origin.to_string())?;
    write(&state.join("lib/current"), "0123456789abcdef")
}

const SAYS_WHERE: &str = "import stand_in, sys\nprint(sys.executable, stand_in.where)\n";
