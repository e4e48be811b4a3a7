//! The two hashes by which the Hub names a file's content.

use super::target::is_hex;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The hash that an ETag is, if it is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hash {
    /// SHA-256 of the content: files in git-lfs.
    Sha256,
    /// Git's name of a blob, SHA-1 of `blob LENGTH\0` and the content: all other files.
    GitBlob,
}

impl Hash {
    /// Which hash `etag` is; `None` for an ETag that is neither.
    pub(super) fn of_etag(etag: &str) -> Option<Self> {
        match etag.len() {
            64 if is_hex(etag) => Some(Self::Sha256),
            40 if is_hex(etag) => Some(Self::GitBlob),
            _ => None,
        }
    }

    /// The hash's name in a message.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "SHA-256",
            Self::GitBlob => "git blob hash",
        }
    }

    /// The hash of the file at `path`, in hexadecimal digits.
    pub(super) fn of_file(self, path: &Path) -> io::Result<String> {
        let file = File::open(path)?;
        match self {
            Self::Sha256 => over(file, Sha256::new()),
            Self::GitBlob => {
                let length = file.metadata()?.len();
                over(file, Sha1::new_with_prefix(format!("blob {length}\0")))
            }
        }
    }
}

fn over<D: Digest>(mut file: File, mut digest: D) -> io::Result<String> {
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hex(&digest.finalize())),
            Ok(n) => digest.update(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
