//! The kernel's library: each build in a folder of its own, so that a live kernel keeps the build
//! it started with.

use super::build::{self, Build};
use super::headers;
use super::kind::Kind;
use super::link;
use super::no_async;
use super::rust_src;
use super::toolchain::Toolchain;
use crate::Result;
use crate::files::{self, Hash};
use crate::place::{Place, Turn};
use crate::say;
use serde_json::json;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// The program of the commands that need the library, which is also its package. A pack brings it
/// in the library's folder.
pub const PROGRAM: &str = "consistency-cli";

/// evcxr's settings: how cells are compiled.
const EVCXR: &str = "[evcxr]\nopt_level = \"1\"\n";

/// A build of the library that kernels can start with.
pub struct Library {
    /// Its name: a hash of all that is in it.
    pub id: String,
    /// Its folder.
    pub folder: PathBuf,
}

impl Library {
    /// A shared lock on the library: as long as it is held, the library is not removed.
    ///
    /// # Errors
    /// It was removed at this very moment.
    pub fn hold(&self) -> Result<File> {
        let path = self.folder.join("lock");
        let lock = File::open(&path).and_then(|lock| lock.lock_shared().map(|()| lock));
        let lock = lock.map_err(|e| format!("the lock {}: {e}", path.display()))?;
        if path.is_file() {
            Ok(lock)
        } else {
            Err(format!("the library {} was replaced just now; try again", self.id))
        }
    }
}

/// Build the library as the project stands and make it current. Builds without a live
/// kernel are removed.
///
/// # Errors
/// The crate does not compile: the last good build stays current, and the message says so.
pub fn ensure(place: &Place, turn: &Turn, toolchain: &Toolchain, kind: Kind) -> Result<Library> {
    let build = build::run(place, turn, toolchain, kind).map_err(|error| {
        let kept = match current_of(place, kind) {
            Some(library) => format!(
                "The last good library ({}) stays in place: notebooks go on with it.",
                library.id
            ),
            None => "There is no earlier library: notebooks cannot run yet.".to_string(),
        };
        format!("{error}\n{kept}")
    })?;
    let library = keep(place, toolchain, &build)?;
    make_current(place, kind, &library.id)?;
    Ok(library)
}

/// Let new kernels start with the library `id`; builds that no kernel uses are removed.
pub fn make_current(place: &Place, kind: Kind, id: &str) -> Result<()> {
    files::write_if_changed(&place.libraries().join(kind.current()), id.as_bytes())?;
    let both = [Kind::Cpu, Kind::Cuda].map(|kind| current_of(place, kind));
    let keep: Vec<String> = both.into_iter().flatten().map(|library| library.id).collect();
    sweep(place, &keep);
    Ok(())
}

/// The build that new kernels of the CPU start with.
pub fn current(place: &Place) -> Option<Library> {
    current_of(place, Kind::Cpu)
}

fn current_of(place: &Place, kind: Kind) -> Option<Library> {
    let id = fs::read_to_string(place.libraries().join(kind.current())).ok()?;
    let folder = place.libraries().join(&id);
    folder.join("launch.json").is_file().then_some(Library { id, folder })
}

/// Whether this compiler built the library: only then can it compile cells for it.
pub fn built_by(library: &Library, toolchain: &Toolchain) -> bool {
    let launch = fs::read_to_string(library.folder.join("launch.json")).unwrap_or_default();
    let launch: serde_json::Value = serde_json::from_str(&launch).unwrap_or_default();
    launch["rustc_version"] == toolchain.version.as_str()
}

fn keep(place: &Place, toolchain: &Toolchain, build: &Build) -> Result<Library> {
    let all = headers::find(place, toolchain)?;
    let mut hash = Hash::default();
    hash.add(env!("CARGO_PKG_VERSION")).add(&toolchain.version).add(&build.bytes);
    for file in &build.metadata {
        hash.add(file.to_string_lossy().as_bytes());
    }
    headers::hash(&all, &mut hash)?;
    // How a kernel is started is part of the build, and so is where it lies.
    let folder_of = |id: &str| place.libraries().join(id);
    hash.add(no_async::SOURCE);
    let target = build.library.parent().and_then(Path::parent).unwrap_or(&place.project);
    Start::of(place, toolchain, target, &folder_of("ID"))?.hash(&mut hash);
    let id = hash.end();
    let folder = folder_of(&id);
    if folder.join("launch.json").is_file() {
        return Ok(Library { id, folder });
    }

    // In a folder beside it, renamed when it is whole.
    let making = place.libraries().join(format!(".{id}.making"));
    files::remove(&making)?;
    files::write(&making.join(file()), &build.bytes)?;
    let deps = making.join("deps");
    fs::create_dir_all(&deps).map_err(|e| format!("making {}: {e}", deps.display()))?;
    for file in &build.metadata {
        let to = deps.join(file_name(file));
        // Cargo never writes into a finished file: a link is as good as a copy.
        fs::hard_link(file, &to)
            .or_else(|_| fs::copy(file, &to).map(|_| ()))
            .map_err(|e| format!("keeping {}: {e}", file.display()))?;
    }
    link::make(&making, &build.bytes)?;
    headers::write(&all, &making.join("headers"))?;
    no_async::write(&making.join("headers"))?;
    Start::of(place, toolchain, target, &folder)?.write(&making)?;
    fs::rename(&making, &folder).map_err(|e| format!("making {}: {e}", folder.display()))?;
    Ok(Library { id, folder })
}

fn file_name(path: &Path) -> &std::ffi::OsStr {
    path.file_name().unwrap_or_default()
}

/// The name of the shared library's file.
pub fn file() -> String {
    use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
    format!("{DLL_PREFIX}consistency_kernel{DLL_SUFFIX}")
}

/// How a kernel is started with a library: the two files that name paths of this place.
pub struct Start {
    launch: String,
    init: String,
}

impl Start {
    /// For the library that lies, or will lie, in `folder`; `target` is cargo's, whose paths
    /// no kernel must see.
    pub fn of(place: &Place, toolchain: &Toolchain, target: &Path, folder: &Path) -> Result<Self> {
        Ok(Self { launch: launch(place, toolchain, target, folder)?, init: init(folder) })
    }

    /// Add it to `hash`.
    pub fn hash(&self, hash: &mut Hash) {
        hash.add(&self.launch).add(&self.init).add(EVCXR);
    }

    /// Write the files, and the one by which a kernel locks the library, into `folder`.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let evcxr = folder.join("evcxr");
        files::write(&folder.join("lock"), b"")?;
        files::write(&evcxr.join("evcxr.toml"), EVCXR.as_bytes())?;
        files::write(&evcxr.join("init.evcxr"), self.init.as_bytes())?;
        files::write(&folder.join("launch.json"), self.launch.as_bytes())
    }
}

// What evcxr runs when it starts: the library by flag, the headers by path, the prelude. (Nothing sets
// RUSTC_WRAPPER, not even to nothing: cargo then asks rustc for its version six times a cell.) The linker
// is rustc's own: evcxr takes mold wherever it is installed. rustc first names the library under
// --as-needed, and mold keeps to that even where --no-as-needed names it again, and drops it. The static
// is part of every cell: the loader calls it first, even in a process that evcxr has restarted.
fn init(folder: &Path) -> String {
    // Separated by 0x1f, which unlike a space no path contains.
    let flags = link::flags(folder).join("\u{1f}");
    let facade = folder.join("headers").join(headers::FACADE);
    let tokio = folder.join("headers").join(no_async::PACKAGE);
    format!(
        ":build_env CARGO_ENCODED_RUSTFLAGS={flags}\n\
         :linker system\n\
         :dep {name} = {{ path = {facade:?} }}\n\
         :dep tokio = {{ path = {tokio:?}, package = {no_async:?} }}\n\
         use {name}::prelude::*;\n\
         use {name}::notebook::macros::{{eprintln, print, println}};\n\
         #[used]\n\
         #[cfg_attr(target_os = \"macos\", unsafe(link_section = \"__DATA,__mod_init_func\"))]\n\
         #[cfg_attr(not(target_os = \"macos\"), unsafe(link_section = \".init_array\"))]\n\
         static LAB_CELL_LOADED: extern \"C\" fn() = {name}::notebook::cell_loaded;\n\
         {name}::notebook::start()?;\n",
        name = headers::FACADE,
        facade = facade.display().to_string(),
        tokio = tokio.display().to_string(),
        no_async = no_async::PACKAGE,
    )
}

// How the launcher starts a kernel with this build.
fn launch(place: &Place, toolchain: &Toolchain, target: &Path, folder: &Path) -> Result<String> {
    let libdir = toolchain.libdir()?;
    Ok(format!(
        "{:#}\n",
        json!({
            "argv": [place.evcxr(), "--control_file"],
            "rustc": toolchain.rustc,
            "rustc_version": toolchain.version,
            "path": toolchain.sysroot.join("bin"),
            "libraries": [folder, libdir],
            // Library paths that cargo adds for the programs it runs.
            "not_libraries": [target, toolchain.sysroot],
            "set": {
                "LAB_PROJECT": place.project,
                "LAB_RUNS": place.own.join("runs"),
                "RUSTUP_TOOLCHAIN": toolchain.sysroot.file_name().unwrap_or_default().to_string_lossy(),
                "EVCXR_CONFIG_DIR": folder.join("evcxr"),
                "CARGO_HOME": rust_src::cargo_home(place),
            },
        })
    ))
}

/// Remove the builds that no kernel uses, except those to `keep`: each kernel holds a lock in its
/// build's folder.
pub fn sweep(place: &Place, keep: &[String]) {
    let Ok(entries) = fs::read_dir(place.libraries()) else { return };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if !path.is_dir() || keep.contains(&name) {
            continue;
        }
        let free = match File::open(path.join("lock")) {
            Ok(lock) => lock.try_lock().is_ok(),
            Err(_) => true,
        };
        if free && let Err(error) = files::remove(&path) {
            say::note(&error);
        }
    }
}
