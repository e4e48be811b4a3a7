//! What a pack depends on: the machine, its compiler and its Python.

use crate::Result;
use crate::files;
use crate::place::Place;
use crate::process::answer;
use crate::setup::{Toolchain, system_python};
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

/// This machine as a pack names it.
pub struct Machine {
    /// Operating system and architecture: `linux x86_64`.
    pub system: String,
    /// The C library and its version: `glibc 2.36`.
    libc: String,
    /// The processor's name, to show it.
    processor: String,
    /// Instructions that programs compiled here take for granted.
    needs: Vec<&'static str>,
    /// Those of the known ones that the processor has.
    has: Vec<&'static str>,
    /// `rustc -vV`.
    rustc: String,
    /// `3.11.7`
    python: String,
    /// What compiled Python packages are for: `cpython-311-x86_64-linux-gnu`.
    abi: String,
    /// A hash of what the Python environment is made from.
    requirements: String,
}

// Names of instruction sets: what this program was compiled with, as the library is by the
// same cargo with the same flags; and what the processor has.
macro_rules! instructions {
    ($detected:path; $($name:tt)*) => {
        [$(($name, cfg!(target_feature = $name), { use $detected as detected; detected!($name) })),*]
    };
}

#[cfg(target_arch = "x86_64")]
fn instructions() -> Vec<(&'static str, bool, bool)> {
    instructions!(std::is_x86_feature_detected;
        "sse" "sse2" "sse3" "ssse3" "sse4.1" "sse4.2" "sse4a" "popcnt" "avx" "avx2" "fma" "f16c"
        "bmi1" "bmi2" "lzcnt" "movbe" "adx" "aes" "pclmulqdq" "sha" "vaes" "vpclmulqdq" "gfni"
        "rdrand" "rdseed" "fxsr" "xsave" "xsaveopt" "xsavec" "xsaves" "cmpxchg16b"
        "avx512f" "avx512bw" "avx512cd" "avx512dq" "avx512vl" "avx512ifma" "avx512vbmi"
        "avx512vbmi2" "avx512vnni" "avx512bitalg" "avx512vpopcntdq" "avx512bf16" "avx512fp16")
    .to_vec()
}

#[cfg(target_arch = "aarch64")]
fn instructions() -> Vec<(&'static str, bool, bool)> {
    instructions!(std::arch::is_aarch64_feature_detected;
        "neon" "aes" "sha2" "sha3" "crc" "lse" "lse2" "rdm" "rcpc" "rcpc2" "dotprod" "fp16" "fhm"
        "i8mm" "bf16" "sve" "sve2" "jsconv" "fcma" "flagm" "paca" "pacg" "dit" "sb" "ssbs")
    .to_vec()
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn instructions() -> Vec<(&'static str, bool, bool)> {
    Vec::new()
}

impl Machine {
    /// This one.
    ///
    /// # Errors
    /// There is no Python, it is too old, or the requirements cannot be read.
    pub fn here(place: &Place, toolchain: &Toolchain) -> Result<Self> {
        let script = "import platform, sysconfig; print(platform.python_version()); \
                      print(sysconfig.get_config_var('SOABI'))";
        let python = answer(system_python(), &["-I", "-c", script]).map_err(|e| {
            format!("no Python 3: {e}; install it (Debian: apt install python3 python3-venv)")
        })?;
        let (python, abi) = python.split_once('\n').unwrap_or((python.as_str(), "unknown"));
        let minor = python.strip_prefix("3.").and_then(|rest| rest.split('.').next()?.parse().ok());
        if minor.is_none_or(|minor: u32| minor < 10) {
            return Err(format!(
                "the Python here is {python}, and 3.10 or newer is needed: install one (Debian: apt \
                 install python3 python3-venv), or name another with LAB_PYTHON"
            ));
        }
        let requirements = files::read(&place.project.join("notebooks/requirements.txt"))?;
        let known = instructions();
        let chosen = |which: fn(&(&'static str, bool, bool)) -> bool| {
            known.iter().filter(|one| which(one)).map(|one| one.0).collect::<Vec<_>>()
        };
        Ok(Self {
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            libc: libc(),
            processor: processor(),
            needs: chosen(|one| one.1),
            has: chosen(|one| one.2),
            rustc: toolchain.version.clone(),
            python: python.to_string(),
            abi: abi.to_string(),
            requirements: format!("{:016x}", xxh3_64(requirements.as_bytes())),
        })
    }

    /// For a manifest.
    pub fn json(&self) -> Value {
        json!({
            "system": self.system,
            "libc": self.libc,
            "processor": { "needs": self.needs, "packed_on": self.processor },
            "rustc": self.rustc,
            "python": { "version": self.python, "abi": self.abi },
            "requirements": self.requirements,
        })
    }

    /// Why programs from the machine `packed` do not run on this one, each reason with its remedy.
    pub fn refusals(&self, packed: &Value) -> Vec<String> {
        let text = |value: &Value| value.as_str().unwrap_or("unknown").to_string();
        let mut found = Vec::new();
        let system = text(&packed["system"]);
        if system != self.system {
            found.push(format!(
                "it was made on {system} and this is {}: make one on a machine of this kind",
                self.system
            ));
        }
        let libc = text(&packed["libc"]);
        if !serves(&self.libc, &libc) {
            found.push(format!(
                "its programs need {libc} or newer and this machine has {}: make it on the \
                 machine of the oldest system, or compile here: cargo lab",
                self.libc
            ));
        }
        let needs = packed["processor"]["needs"].as_array().cloned().unwrap_or_default();
        let missing: Vec<String> =
            needs.iter().map(&text).filter(|name| !self.has.contains(&name.as_str())).collect();
        if !missing.is_empty() {
            found.push(format!(
                "it was compiled for {} with {}, which the processor here ({}) lacks: make it \
                 without RUSTFLAGS, or compile here: cargo lab",
                text(&packed["processor"]["packed_on"]),
                missing.join(", "),
                self.processor
            ));
        }
        let rustc = text(&packed["rustc"]);
        if rustc != self.rustc {
            let release = rustc.lines().find_map(|line| line.strip_prefix("release: "));
            let release = release.unwrap_or("unknown");
            let (theirs, ours) = difference(&rustc, &self.rustc);
            found.push(format!(
                "its library was built by '{theirs}' and the compiler here is '{ours}', which \
                 cannot compile cells for it: rustup toolchain install {release}, then rustup \
                 override set {release}; or compile here: cargo lab"
            ));
        }
        let abi = text(&packed["python"]["abi"]);
        if abi != self.abi {
            found.push(format!(
                "its Python environment is of Python {} ({abi}) and the Python here is {} ({}): \
                 install that one and name it with LAB_PYTHON, or compile here: cargo lab",
                text(&packed["python"]["version"]),
                self.python,
                self.abi
            ));
        }
        let requirements = text(&packed["requirements"]);
        if requirements != self.requirements {
            found.push(format!(
                "its Python environment was made from another notebooks/requirements.txt (hash \
                 {requirements}, here {}): check out the commit it was made from, or make it anew",
                self.requirements
            ));
        }
        found
    }
}

// The first line in which two answers of `rustc -vV` differ.
fn difference(theirs: &str, ours: &str) -> (String, String) {
    let mut theirs = theirs.lines();
    let mut ours = ours.lines();
    loop {
        match (theirs.next(), ours.next()) {
            (a, b) if a == b && a.is_some() => {}
            (a, b) => return (a.unwrap_or_default().into(), b.unwrap_or_default().into()),
        }
    }
}

// Whether programs that were linked with `needed` start with the library `here`: glibc and
// macOS keep what older programs use.
fn serves(here: &str, needed: &str) -> bool {
    let parts = |text: &str| {
        let (name, version) = text.split_once(' ')?;
        let numbers: Option<Vec<u32>> = version.split('.').map(|n| n.parse().ok()).collect();
        Some((name.to_string(), numbers?))
    };
    match (parts(here), parts(needed)) {
        (Some(here), Some(needed)) => here.0 == needed.0 && here.1 >= needed.1,
        _ => here == needed,
    }
}

fn libc() -> String {
    // `glibc 2.36`
    let glibc = || answer("getconf", &["GNU_LIBC_VERSION"]).ok();
    let apple = || answer("sw_vers", &["-productVersion"]).ok().map(|v| format!("macOS {v}"));
    glibc().or_else(apple).unwrap_or_else(|| "an unknown C library".to_string())
}

fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name"));
    let name = name.and_then(|rest| rest.split_once(": ")).map(|(_, name)| name.to_string());
    name.or_else(|| answer("sysctl", &["-n", "machdep.cpu.brand_string"]).ok())
        .unwrap_or_else(|| format!("an {} processor", std::env::consts::ARCH))
}
