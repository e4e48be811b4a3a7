//! The time points of multistep sampling, one after the other by ternary search (the paper,
//! section 3: greedy, with the FID of the samples as the objective).

use crate::process::TimeGrid;
use crate::{Result, ensure};

/// What [`ternary_search`] found.
#[derive(Clone, Debug, PartialEq)]
pub struct Search {
    /// The noise levels after T, decreasing: the `taus` of [`multistep`](super::multistep).
    pub taus: Vec<f64>,
    /// Their places in the grid, counted from T: 0 is T and N - 1 is eps.
    pub places: Vec<usize>,
    /// The objective at all of them.
    pub value: f64,
    /// How many times the objective was evaluated.
    pub evaluations: usize,
}

/// `count` noise levels of `grid` between T and eps that make `objective` small, chosen greedily:
/// each by ternary search over the points below the one before, with those before it held fixed.
///
/// `objective` gets the noise levels after T, decreasing, and gives what is to be small, such as a
/// distance of samples to data. It is assumed to fall and then to rise along the grid; a search
/// over n points evaluates it about 2 log(n) / log(1.5) times. Both thirds of a bracket are
/// evaluated anew in each round. (The public code keeps a value from the round before, which
/// belongs to another point once the bracket is narrow.)
///
/// ```
/// use consistency::{process::NoiseRange, sample::ternary_search};
/// let grid = NoiseRange::default().karras(40)?;
/// let found = ternary_search(&grid, 1, |taus| Ok((taus[0].ln() - 0.3).abs()))?;
/// assert!((found.taus[0].ln() - 0.3).abs() < 0.2);
/// # Ok::<(), consistency::Error>(())
/// ```
///
/// # Errors
/// More levels than the grid has between its ends, or an objective that is NaN, with where.
pub fn ternary_search(
    grid: &TimeGrid,
    count: usize,
    mut objective: impl FnMut(&[f64]) -> Result<f64>,
) -> Result<Search> {
    let last = grid.points() - 1;
    ensure!(
        (1..last).contains(&count),
        "{count} time points on a grid of {}: needs 1 to {}, those between T and eps",
        grid.points(),
        last - 1
    );
    let level = |place: usize| grid.times()[last - place];
    let mut found = Search { taus: vec![], places: vec![], value: f64::INFINITY, evaluations: 0 };
    for left in (0..count).rev() {
        let (taus, evaluations) = (&found.taus, &mut found.evaluations);
        let mut ask = |place: usize| -> Result<f64> {
            *evaluations += 1;
            let taus = [taus.as_slice(), &[level(place)]].concat();
            let value = objective(&taus)?;
            ensure!(!value.is_nan(), "the objective is NaN at the noise levels {taus:?}");
            Ok(value)
        };
        // Points that are still to come need places below.
        let first = found.places.last().map_or(1, |place| place + 1);
        let (place, value) = lowest(first, last - 1 - left, &mut ask)?;
        found.taus.push(level(place));
        found.places.push(place);
        found.value = value;
    }
    Ok(found)
}

/// The place from `low` to `high` where `ask` is smallest, if it falls and then rises.
fn lowest(
    mut low: usize,
    mut high: usize,
    ask: &mut impl FnMut(usize) -> Result<f64>,
) -> Result<(usize, f64)> {
    while high - low >= 3 {
        let third = (high - low) / 3;
        let (a, b) = (low + third, high - third);
        let (at_a, at_b) = (ask(a)?, ask(b)?);
        if at_a < at_b {
            high = b - 1;
        } else if at_a > at_b {
            low = a + 1;
        } else {
            (low, high) = (a, b);
        }
    }
    let mut best = (low, ask(low)?);
    for place in low + 1..=high {
        let value = ask(place)?;
        if value < best.1 {
            best = (place, value);
        }
    }
    Ok(best)
}
