//! What is asked for: a file of a repository at a revision.

use crate::{Result, ensure};

/// The kind of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Model,
    Dataset,
}

/// A file of a repository at a revision.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'a> {
    pub kind: Kind,
    pub id: &'a str,
    pub revision: &'a str,
    pub file: &'a str,
}

impl Kind {
    /// What comes before the id in an address.
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Self::Model => "",
            Self::Dataset => "datasets/",
        }
    }

    /// The name in the Hub's own interface.
    pub(super) fn plural(self) -> &'static str {
        match self {
            Self::Model => "models",
            Self::Dataset => "datasets",
        }
    }

    pub(super) fn repo(self, id: &str, revision: &str) -> hf_hub::Repo {
        let kind = match self {
            Self::Model => hf_hub::RepoType::Model,
            Self::Dataset => hf_hub::RepoType::Dataset,
        };
        hf_hub::Repo::with_revision(id.into(), kind, revision.into())
    }
}

impl Target<'_> {
    /// The address of the file.
    pub(super) fn url(&self, endpoint: &str) -> String {
        let file = self.file.split('/').map(encode).collect::<Vec<_>>().join("/");
        let (prefix, revision) = (self.kind.prefix(), encode(self.revision));
        format!("{endpoint}/{prefix}{}/resolve/{revision}/{file}", self.id)
    }

    /// The page of the repository.
    pub(super) fn page(&self, endpoint: &str) -> String {
        format!("{endpoint}/{}{}", self.kind.prefix(), self.id)
    }
}

/// `text` as one segment of an address's path: all but the unreserved (RFC 3986) as %XX.
pub(super) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'~' | b'-' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Whether this is a full commit, whose meaning never changes.
pub(super) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && is_hex(revision)
}

/// Whether these are lower-case hexadecimal digits.
pub(super) fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// The names that the Hub gives: `NAME` or `OWNER/NAME`.
pub(super) fn check_id(id: &str) -> Result<()> {
    let fine = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
            && !part.starts_with(['-', '.'])
            && !part.ends_with(['-', '.'])
            && !part.contains("--")
            && !part.contains("..")
    };
    ensure!(
        id.len() <= 96 && id.split('/').count() <= 2 && id.split('/').all(fine),
        "{id:?} is not the name of a repository of the Hub: give OWNER/NAME of \
         letters, digits and single - _ ."
    );
    Ok(())
}

/// A revision becomes a file's name below `refs`, so it must stay below it.
pub(super) fn check_revision(revision: &str) -> Result<()> {
    let fine = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.+@".contains(&b))
            && !part.starts_with(['-', '.'])
            && !part.contains("..")
    };
    ensure!(
        revision.len() <= 200 && revision.split('/').all(fine),
        "{revision:?} is not a revision: give a branch, a tag or a commit, as main"
    );
    Ok(())
}

/// A file's name becomes a path below the snapshot, so it must stay below it.
pub(super) fn check_name(name: &str) -> Result<()> {
    let fine = |part: &str| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && !part.contains(|c: char| c.is_control() || c == '\\')
    };
    ensure!(
        name.len() <= 1024 && name.split('/').all(fine),
        "{name:?} is not a file of a repository: give its path in it, as unet/config.json"
    );
    Ok(())
}
