//! What kind of numbers a distance compares, so that it bears their name.

use crate::{Result, ensure};

const INCEPTION: &str = "inception";
/// SHA-256 of the published weights of pytorch-fid's Inception, as safetensors.
pub(super) const PUBLISHED: &str =
    "b7a528bf4051f62c057bc14657865abf180a23eb1748d00ff0933d84698202ed";

/// What the rows of a set are: pixels, or a network's features of images.
///
/// ```
/// use consistency::prelude::*;
/// let mine = Features::named("mean colour")?;
/// assert_eq!((mine.name(), mine.is_inception()), ("mean colour", false));
/// assert!(Features::named("inception").is_err());
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features(String);

impl Features {
    /// Numbers of no particular kind, pixels for example.
    pub fn values() -> Self {
        Self("values".to_string())
    }

    /// Features of this name, which says which network they are from, and which of its weights.
    ///
    /// # Errors
    /// An empty name, or one that begins with `inception`: those features come from
    /// [`Inception`](super::Inception) alone.
    pub fn named(name: &str) -> Result<Self> {
        ensure!(!name.trim().is_empty(), "features without a name");
        ensure!(
            !name.to_lowercase().starts_with(INCEPTION),
            "features called {name:?}: Inception's come from Inception::features alone, and a \
             distance on others is not FID"
        );
        Ok(Self(name.to_string()))
    }

    pub(super) fn inception(sha256: &str) -> Self {
        Self(format!("{INCEPTION} {sha256}"))
    }

    /// The name that a file gives: an `inception` of any weights is accepted as stated.
    pub(super) fn stored(name: &str) -> Self {
        Self(name.to_string())
    }

    /// Their name.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// Whether distances on them are FID, KID and the like: pytorch-fid's Inception with the
    /// published weights.
    pub fn is_inception(&self) -> bool {
        *self == Self::inception(PUBLISHED)
    }

    /// Refuse features on which a distance must not be called `metric`.
    pub(super) fn must_be_inception(&self, metric: &str) -> Result<()> {
        ensure!(
            self.is_inception(),
            "{metric} is of the published Inception's features; these are {:?}",
            self.0
        );
        Ok(())
    }

    pub(super) fn must_equal(&self, other: &Self) -> Result<()> {
        ensure!(self == other, "a distance between features {:?} and {:?}", self.0, other.0);
        Ok(())
    }
}
