//! How much of a reproduction is run.

use crate::{Result, bail};

/// How much of a reproduction is run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Effort {
    /// A fiftieth of the steps: whether it runs.
    Quick,
    /// A quarter.
    Standard,
    /// All of it.
    #[default]
    Full,
}

impl Effort {
    /// All of them, the largest first.
    pub const ALL: [Self; 3] = [Self::Full, Self::Standard, Self::Quick];

    /// By name.
    ///
    /// # Errors
    /// Another name.
    pub fn named(name: &str) -> Result<Self> {
        match name {
            "quick" => Ok(Self::Quick),
            "standard" => Ok(Self::Standard),
            "full" => Ok(Self::Full),
            other => bail!("the budget '{other}': choose quick, standard or full"),
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Standard => "standard",
            Self::Full => "full",
        }
    }

    /// `count` steps or samples of the whole, reduced to this effort.
    pub(super) fn of(self, count: u64) -> u64 {
        match self {
            Self::Quick => (count / 50).max(1),
            Self::Standard => (count / 4).max(1),
            Self::Full => count,
        }
    }
}
