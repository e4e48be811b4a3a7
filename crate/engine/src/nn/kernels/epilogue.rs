//! What a convolution does to its sums before it stores them.

use super::Real;

/// What is added to a convolution before it is stored: (y + per_sample + residual) factor.
#[derive(Clone, Copy)]
pub(crate) struct Epilogue<'a, T> {
    /// (O)
    pub bias: Option<&'a [T]>,
    /// (B, O) or (1, O)
    pub per_sample: Option<&'a [T]>,
    /// The shape of the output.
    pub residual: Option<&'a [T]>,
    pub factor: T,
}

impl<T: Real> Epilogue<'_, T> {
    pub fn none() -> Self {
        Self { bias: None, per_sample: None, residual: None, factor: T::one() }
    }

    pub fn is_more_than_bias(&self) -> bool {
        self.per_sample.is_some() || self.residual.is_some() || self.factor != T::one()
    }
}
