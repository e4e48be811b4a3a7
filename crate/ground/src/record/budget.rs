//! How much is computed.

use crate::{Result, bail};

/// How much of a notebook or a reproduction is computed.
///
/// ```
/// use consistency::record::Budget;
/// let budget = Budget::named("quick")?;
/// assert_eq!(budget.pick(4, 40, 400), 4);
/// assert_eq!((budget.of(1000), Budget::Full.of(1000)), (20, 1000));
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    /// Minutes on two cores, enough to see a claim hold; a fiftieth of a reproduction, enough to
    /// see it run.
    Quick,
    /// Tens of minutes; a quarter of a reproduction.
    Standard,
    /// Everything, as long as it takes.
    Full,
}

impl Budget {
    /// All of them, the smallest first.
    pub const ALL: [Self; 3] = [Self::Quick, Self::Standard, Self::Full];

    /// The budget of this name.
    ///
    /// # Errors
    /// Any name but `quick`, `standard` and `full`.
    pub fn named(name: &str) -> Result<Self> {
        match Self::ALL.into_iter().find(|budget| budget.name() == name) {
            Some(budget) => Ok(budget),
            None => bail!("budget = '{name}': choose quick, standard or full"),
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.pick("quick", "standard", "full")
    }

    /// The one of three values that goes with this budget.
    pub fn pick<T>(self, quick: T, standard: T, full: T) -> T {
        match self {
            Self::Quick => quick,
            Self::Standard => standard,
            Self::Full => full,
        }
    }

    /// How many of a reproduction's `count` steps or samples this budget allows. At least one,
    /// unless it allows all and there are none.
    pub fn of(self, count: u64) -> u64 {
        self.pick((count / 50).max(1), (count / 4).max(1), count)
    }
}
