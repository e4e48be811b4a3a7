//! Where a number came from.

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// What must be known about a recorded number to reproduce it.
///
/// ```
/// use consistency::prelude::*;
/// let provenance = Provenance {
///     experiment: "digits-ct".to_string(),
///     configuration: "0123456789abcdef".to_string(),
///     seed: 1,
///     device: "cpu".to_string(),
///     dtype: "f32".to_string(),
///     commit: "unknown".to_string(),
///     data: "made".to_string(),
/// };
/// let mut table = Table::new();
/// table.push(&[("loss", 0.5)])?;
/// assert_eq!(column(&table.frame_with(&provenance)?, "seed")?, [1.0]);
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The experiment's name.
    pub experiment: String,
    /// A hash of its configuration.
    pub configuration: String,
    /// The root of its random numbers.
    pub seed: u64,
    /// `cpu`, or the accelerator's name.
    pub device: String,
    /// The floating-point type of its parameters.
    pub dtype: String,
    /// The project's commit, with `+` where files differed from it; `unknown` outside a
    /// repository.
    pub commit: String,
    /// The revision of the data.
    pub data: String,
}

impl Provenance {
    /// The fields in order, as columns' names and values.
    pub fn columns(&self) -> [(&'static str, String); 7] {
        [
            ("experiment", self.experiment.clone()),
            ("configuration", self.configuration.clone()),
            ("seed", self.seed.to_string()),
            ("device", self.device.clone()),
            ("dtype", self.dtype.clone()),
            ("commit", self.commit.clone()),
            ("data", self.data.clone()),
        ]
    }

    /// Whether files of the library differed from the commit, which then does not say what computed
    /// the number.
    ///
    /// ```
    /// use consistency::prelude::*;
    /// let of = |commit: &str| Provenance {
    ///     experiment: "digits-ct".to_string(),
    ///     configuration: "0123456789abcdef".to_string(),
    ///     seed: 1,
    ///     device: "cpu".to_string(),
    ///     dtype: "f32".to_string(),
    ///     commit: commit.to_string(),
    ///     data: "made".to_string(),
    /// };
    /// assert!(of("0123456789ab+").has_uncommitted_changes());
    /// assert!(!of("0123456789ab").has_uncommitted_changes());
    /// ```
    pub fn has_uncommitted_changes(&self) -> bool {
        self.commit.ends_with('+')
    }
}

/// The commit of the project that is running, as in [`Provenance::commit`].
///
/// It is that of the first call: what a process has loaded stays as it is while the project
/// changes.
pub fn commit() -> String {
    static COMMIT: OnceLock<String> = OnceLock::new();
    COMMIT.get_or_init(at_work).clone()
}

fn at_work() -> String {
    let git = |arguments: &[&str]| {
        let answer = Command::new("git").arg("-C").arg(project()).args(arguments).output().ok()?;
        answer.status.success().then(|| String::from_utf8_lossy(&answer.stdout).trim().to_string())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return "unknown".to_string();
    };
    // What a run writes (outputs of notebooks) does not change what it computes.
    match git(&["status", "--porcelain", "--untracked-files=no", "--", "crate", "Cargo.lock"]) {
        Some(changes) if changes.is_empty() => commit,
        _ => format!("{commit}+"),
    }
}

// LAB_PROJECT in a notebook and under `cargo lab`; otherwise where this library was built.
fn project() -> PathBuf {
    match std::env::var_os("LAB_PROJECT") {
        Some(path) => path.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."),
    }
}
