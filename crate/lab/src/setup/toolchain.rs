//! The Rust that builds the library and must compile the cells too: libraries and cells
//! of different compilers do not link.

use crate::Result;
use crate::place::Place;
use crate::process::answer;
use crate::shell;
use serde_json::Value;
use std::path::PathBuf;

/// The toolchain under which this program runs.
pub struct Toolchain {
    /// cargo itself, not rustup's proxy.
    pub cargo: PathBuf,
    /// rustc itself.
    pub rustc: PathBuf,
    /// Where both and the standard library are.
    pub sysroot: PathBuf,
    /// `rustc -vV`, by which an update is noticed.
    pub version: String,
}

impl Toolchain {
    /// From `CARGO`, which `cargo run` sets, or from the path.
    pub fn find() -> Result<Self> {
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let sysroot = answer(&rustc, &["--print", "sysroot"])
            .map_err(|e| format!("no Rust compiler: {e}; install Rust from https://rustup.rs"))?;
        let sysroot = PathBuf::from(sysroot);
        let tool = |name: &str| {
            let inside = sysroot.join("bin").join(name);
            if inside.is_file() { inside } else { PathBuf::from(name) }
        };
        let cargo = std::env::var_os("CARGO").map_or_else(|| tool("cargo"), PathBuf::from);
        let rustc = tool("rustc");
        let version = answer(&rustc, &["-vV"])?;
        Ok(Self { cargo, rustc, sysroot, version })
    }

    /// Where cargo builds the project: `target`, `CARGO_TARGET_DIR`, or what the user's own
    /// configuration of cargo says.
    pub fn target_folder(&self, place: &Place) -> Result<PathBuf> {
        let arguments = ["metadata", "--format-version", "1", "--no-deps", "--offline"];
        let mut metadata = shell::command(&self.cargo);
        metadata.current_dir(&place.project).args(arguments);
        let output = metadata.output().map_err(|e| format!("cargo metadata: {e}"))?;
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        answer["target_directory"].as_str().map(PathBuf::from).ok_or_else(|| {
            format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim())
        })
    }

    /// The folder of the standard library's shared object.
    pub fn libdir(&self) -> Result<PathBuf> {
        answer(&self.rustc, &["--print", "target-libdir"]).map(PathBuf::from)
    }

    /// `1.95.0`
    pub fn release(&self) -> &str {
        self.field("release: ").unwrap_or("unknown")
    }

    /// `x86_64-unknown-linux-gnu`
    pub fn host(&self) -> &str {
        self.field("host: ").unwrap_or_default()
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.version.lines().find_map(|line| line.strip_prefix(name))
    }
}

/// NVIDIA's compiler, where candle's build looks for it.
///
/// # Errors
/// It is nowhere; the message says what to install.
pub fn nvcc() -> Result<PathBuf> {
    let named = std::env::var_os("NVCC").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join("nvcc"));
    let homes = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(std::env::var_os);
    let homes = homes.map(PathBuf::from).chain([PathBuf::from("/usr/local/cuda")]);
    let homes = homes.map(|home| home.join("bin").join("nvcc"));
    named.into_iter().chain(found).chain(homes).find(|file| file.is_file()).ok_or_else(|| {
        "there is no CUDA toolkit here: `nvcc` is neither in PATH nor in CUDA_HOME/bin nor in \
         /usr/local/cuda/bin. Install NVIDIA's toolkit (12.8 or later), or set CUDA_HOME to it; the \
         kernel for the CPU (`cargo lab setup`) needs none"
            .to_string()
    })
}
