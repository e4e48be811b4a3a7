//! Bounds on the numbers that people write in files and on command lines. A value outside them is
//! refused where it is read, with an error that names its field.

use crate::{Error, Result};
use std::ops::{Bound, RangeBounds};

/// The smallest noise level or standard deviation that is accepted. Below it the score, a
/// difference divided by the square of the noise level, has lost most of the digits of an f64.
pub const SMALLEST: f64 = 1e-6;

/// The largest noise level, deviation or coordinate that is accepted: data and noise of such sizes
/// still differ by more digits than are lost, and no square or product of them overflows.
pub const LARGEST: f64 = 1e6;

/// The most points that a time grid may have. A grid that long takes 8 MB.
pub const POINTS: usize = 1_000_000;

/// A number that can be compared with a bound and shown in a message.
pub trait Number: PartialOrd + Copy {
    /// The number as a person would write it.
    fn shown(self) -> String;
}

impl Number for f64 {
    fn shown(self) -> String {
        let plain = self == 0.0 || !self.is_finite() || (1e-3..1e5).contains(&self.abs());
        if plain { self.to_string() } else { format!("{self:e}") }
    }
}

impl Number for u32 {
    fn shown(self) -> String {
        self.to_string()
    }
}

impl Number for u64 {
    fn shown(self) -> String {
        self.to_string()
    }
}

impl Number for usize {
    fn shown(self) -> String {
        self.to_string()
    }
}

/// Check that `value` lies in `range`, which no NaN does. `field` is its full name, such as
/// `training.ema`.
///
/// ```
/// use consistency::bounds::within;
/// assert!(within("training.ema", 0.999, 0.0..1.0).is_ok());
/// let error = within("training.ema", f64::NAN, 0.0..1.0).unwrap_err();
/// assert_eq!(error.to_string(), "training.ema = NaN: needs 0 <= ema < 1");
/// ```
///
/// # Errors
/// A value outside the range; the message gives the field, the value and the range.
pub fn within<T: Number>(field: &str, value: T, range: impl RangeBounds<T>) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    let low = match range.start_bound() {
        Bound::Included(low) => format!("{} <= ", low.shown()),
        Bound::Excluded(low) => format!("{} < ", low.shown()),
        Bound::Unbounded => String::new(),
    };
    let high = match range.end_bound() {
        Bound::Included(high) => format!(" <= {}", high.shown()),
        Bound::Excluded(high) => format!(" < {}", high.shown()),
        Bound::Unbounded => String::new(),
    };
    let name = field.rsplit('.').next().unwrap_or(field);
    Err(Error::new(format!("{field} = {}: needs {low}{name}{high}", value.shown())))
}

/// The numbers above 0 and up to `most`, as a range for [`within`].
pub fn positive(most: f64) -> (Bound<f64>, Bound<f64>) {
    (Bound::Excluded(0.0), Bound::Included(most))
}

/// Check that `value` can be a noise level, or the standard deviation of data.
///
/// # Errors
/// A value that is not between [`SMALLEST`] and [`LARGEST`]; the message names the field.
pub fn level(field: &str, value: f64) -> Result<()> {
    within(field, value, SMALLEST..=LARGEST)
}
