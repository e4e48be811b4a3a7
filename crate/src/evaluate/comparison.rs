//! Sampled digits beside real ones, with the floor and the ceiling of each number.

use super::neighbours::Neighbours;
use super::statistics::Statistics;
use crate::data::{Digits, batch_rows, select};
use crate::rng::Key;
use crate::seam::Counted;
use crate::{Result, ensure};
use candle_core::Tensor;
use polars::prelude::{Column, DataFrame};
use std::time::Instant;

/// How many neighbours vote.
const NEIGHBOURS: usize = 10;
/// The share of held-out digits that reach the agreement asked of samples.
const USUAL: f64 = 0.9;
/// How many sets of samples a number averages over, each as large as the held-out part.
const SETS: usize = 4;

/// How good a set of digits is.
///
/// ```
/// use consistency::prelude::*;
/// let comparison = DigitsComparison::new(&digits(DType::F32, &Device::Cpu)?)?;
/// let Score { frechet, assigned } = comparison.real();
/// assert!(frechet > 0.0 && (0.9..=1.0).contains(&assigned));
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// The Frechet distance on pixels to the held-out digits, with equal numbers on both sides: the
    /// mean over the sets.
    pub frechet: f64,
    /// The share that the nearest-neighbour classifier of the real digits assigns with at least the
    /// agreement that 90 % of the held-out digits reach.
    pub assigned: f64,
}

/// Compares samples with the held-out digits, one table row per method.
///
/// ```
/// use consistency::prelude::*;
/// let digits = digits(DType::F32, &Device::Cpu)?;
/// let comparison = DigitsComparison::new(&digits)?;
/// assert_eq!(comparison.samples(), 4 * 450);
/// // No distance is smaller than that of a set from itself.
/// assert!(comparison.score(&digits.held_out)?.frechet.abs() < 1e-6);
/// # Ok::<(), consistency::Error>(())
/// ```
pub struct DigitsComparison {
    held_out: Tensor,
    reference: Statistics,
    neighbours: Neighbours,
    agreement: f64,
    rows: Vec<(String, Option<usize>, Option<f64>, Score)>,
}

impl DigitsComparison {
    /// Compare with these digits. The table starts with what real digits reach: the
    /// digits to train on (the floor of the distance), and the held-out ones themselves.
    pub fn new(digits: &Digits) -> Result<Self> {
        let neighbours = Neighbours::new(&digits.train, &digits.train_labels, NEIGHBOURS)?;
        let mut comparison = Self {
            held_out: digits.held_out.clone(),
            reference: Statistics::of(&digits.held_out)?,
            agreement: neighbours.usual_agreement(&digits.held_out, USUAL)?,
            neighbours,
            rows: Vec::new(),
        };
        // Random sets of the digits to train on, as many in each as are held out.
        let rows = batch_rows(digits.train.dims()[0], comparison.samples(), 0, &Key::new(0));
        let real = select(&digits.train, &rows)?;
        let assigned =
            comparison.neighbours.share_assigned(&digits.held_out, comparison.agreement)?;
        let floor = Score { frechet: comparison.score(&real)?.frechet, assigned };
        comparison.rows.push(("real digits".to_string(), None, None, floor));
        Ok(comparison)
    }

    /// How many samples a method gives: four times the held-out digits.
    pub fn samples(&self) -> usize {
        SETS * self.held_out.dims()[0]
    }

    /// The score of `samples`, (N, 1, 8, 8), clipped to \[-1, 1\].
    ///
    /// # Errors
    /// A number of samples that is not a multiple of the number of held-out digits, or values that
    /// are not finite.
    pub fn score(&self, samples: &Tensor) -> Result<Score> {
        let (rows, each) = (samples.dims()[0], self.held_out.dims()[0]);
        ensure!(
            rows > 0 && rows.is_multiple_of(each),
            "{rows} samples: give a multiple of the {each} held-out digits, so that both sides \
             have equal numbers"
        );
        let samples = samples.clamp(-1.0, 1.0)?;
        let mut frechet = 0.0;
        for set in samples.chunk(rows / each, 0)? {
            frechet += Statistics::of(&set)?.frechet_distance(&self.reference)?;
        }
        Ok(Score {
            frechet: frechet * each as f64 / rows as f64,
            assigned: self.neighbours.share_assigned(&samples, self.agreement)?,
        })
    }

    /// What real digits reach: the floor of the distance and the ceiling of the share.
    pub fn real(&self) -> Score {
        self.rows[0].3
    }

    /// Draw samples with `draw` from `f` and add the method's row: its network evaluations, which
    /// `f` counts, the time and the score. All methods get the same noise.
    pub fn compare<F>(
        &mut self,
        method: &str,
        f: &Counted<F>,
        draw: impl FnOnce(&Counted<F>, &Tensor) -> Result<Tensor>,
    ) -> Result<Score> {
        let count = self.samples();
        let shape = &self.held_out.dims()[1..];
        let (dtype, device) = (self.held_out.dtype(), self.held_out.device());
        let z = Key::new(0).stream("judge").normal(0..count as u64, shape, dtype, device)?;
        let (before, start) = (f.nfe(), Instant::now());
        let samples = draw(f, &z)?;
        let seconds = start.elapsed().as_secs_f64();
        let score = self.score(&samples)?;
        let row = (
            method.to_string(),
            Some(f.nfe() - before),
            Some(seconds * 1000.0 / count as f64),
            score,
        );
        self.rows.push(row);
        Ok(score)
    }

    /// The rows so far.
    pub fn frame(&self) -> Result<DataFrame> {
        let rows = &self.rows;
        let nfe: Vec<Option<u32>> = rows.iter().map(|r| r.1.map(|n| n as u32)).collect();
        let columns = vec![
            Column::new("method".into(), rows.iter().map(|r| r.0.clone()).collect::<Vec<_>>()),
            Column::new("NFE".into(), nfe),
            Column::new(
                "seconds per 1000 samples".into(),
                rows.iter().map(|r| r.2).collect::<Vec<_>>(),
            ),
            Column::new(
                "Frechet distance on pixels".into(),
                rows.iter().map(|r| r.3.frechet).collect::<Vec<_>>(),
            ),
            Column::new(
                "share assigned".into(),
                rows.iter().map(|r| r.3.assigned).collect::<Vec<_>>(),
            ),
        ];
        Ok(DataFrame::new(rows.len(), columns)?)
    }
}
