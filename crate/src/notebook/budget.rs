//! How much a notebook may spend.

use crate::{Result, bail};

/// The size of everything in a notebook, from the environment's `LAB_BUDGET`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Budget {
    /// Minutes on two cores: enough to see the claim hold.
    #[default]
    Quick,
    /// Tens of minutes: a better network or tighter intervals.
    Standard,
    /// As long as it takes to do it properly.
    Full,
}

impl Budget {
    /// The one of three values that goes with this budget.
    pub fn pick<T>(self, quick: T, standard: T, full: T) -> T {
        match self {
            Self::Quick => quick,
            Self::Standard => standard,
            Self::Full => full,
        }
    }

    /// The budget of this name.
    ///
    /// # Errors
    /// Any name but `quick`, `standard` and `full`.
    pub fn named(name: &str) -> Result<Self> {
        match name {
            "quick" => Ok(Self::Quick),
            "standard" => Ok(Self::Standard),
            "full" => Ok(Self::Full),
            other => bail!("LAB_BUDGET = '{other}': choose quick, standard or full"),
        }
    }
}

/// The budget that `LAB_BUDGET` names; `quick` where it is not set.
///
/// # Errors
/// Another name.
pub fn budget() -> Result<Budget> {
    match std::env::var("LAB_BUDGET") {
        Ok(name) if !name.is_empty() => Budget::named(&name),
        _ => Ok(Budget::Quick),
    }
}
