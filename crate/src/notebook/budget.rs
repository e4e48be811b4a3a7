//! The budget of the notebooks.

use crate::record::Budget;
use crate::{Context, Result};

/// The budget that the environment's `LAB_BUDGET` names; `quick` where it is not set.
///
/// # Errors
/// Another name.
pub fn budget() -> Result<Budget> {
    match std::env::var("LAB_BUDGET") {
        Ok(name) if !name.is_empty() => Budget::named(&name).context("LAB_BUDGET"),
        _ => Ok(Budget::Quick),
    }
}
