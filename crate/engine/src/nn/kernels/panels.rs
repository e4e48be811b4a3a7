//! A matrix cut into panels of columns, as the inner products read it: for each row of the matrix,
//! the columns of one panel in whole registers, with zeros after the last column.

use super::{Real, Shared, each, filled, simd};

/// Registers across a full panel.
pub(crate) fn vectors() -> usize {
    if simd::wide() { 4 } else { 2 }
}

/// A matrix (depth, columns) in panels.
pub(crate) struct Panels<T> {
    values: Vec<T>,
    depth: usize,
    columns: usize,
}

/// One panel.
#[derive(Clone, Copy)]
pub(crate) struct Panel<T> {
    /// (depth, vectors x lanes)
    pub values: *const T,
    /// Registers across.
    pub vectors: usize,
    /// The first of its columns.
    pub first: usize,
    /// Its columns without the padding.
    pub columns: usize,
}

// SAFETY: a panel is only read.
unsafe impl<T> Send for Panel<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Panel<T> {}

/// Columns of a full panel.
pub(crate) fn width<T: Real>() -> usize {
    vectors() * simd::lanes::<T>()
}

/// How many panels hold `columns`.
pub(crate) fn count<T: Real>(columns: usize) -> usize {
    columns.div_ceil(width::<T>())
}

/// Registers, first column and columns of panel `index` of a matrix of `columns`.
pub(crate) fn place<T: Real>(columns: usize, index: usize) -> (usize, usize, usize) {
    let first = index * width::<T>();
    let here = (columns - first).min(width::<T>());
    (here.div_ceil(simd::lanes::<T>()), first, here)
}

/// The number of elements in the panels of a matrix, padding included.
pub(crate) fn len<T: Real>(depth: usize, columns: usize) -> usize {
    depth * columns.div_ceil(simd::lanes::<T>()) * simd::lanes::<T>()
}

impl<T: Real> Panels<T> {
    /// The matrix whose row `k` is written by `row(k, first, out)`: columns from `first` on, as
    /// many as `out` has.
    pub fn new(
        depth: usize,
        columns: usize,
        row: impl Fn(usize, usize, &mut [T]) + Sync + Send,
    ) -> Self {
        let rows = depth.div_ceil(64);
        let write = |to: Shared<T>| {
            each(count::<T>(columns) * rows, depth * columns, |task| {
                let (vectors, first, here) = place::<T>(columns, task / rows);
                let across = vectors * simd::lanes::<T>();
                let from = task % rows * 64;
                for k in from..(from + 64).min(depth) {
                    // SAFETY: each task has rows of a panel of its own, within `len`.
                    unsafe {
                        let at = to.at(first * depth + k * across);
                        for column in 0..across {
                            at.add(column).write(T::zero());
                        }
                        row(k, first, std::slice::from_raw_parts_mut(at, here));
                    }
                }
            });
        };
        // SAFETY: the panels follow each other and every row of each is written.
        let values = unsafe { filled(len::<T>(depth, columns), write) };
        Self { values, depth, columns }
    }

    /// The panels of values that are already laid out.
    pub fn from_values(values: Vec<T>, depth: usize, columns: usize) -> Self {
        assert_eq!(values.len(), len::<T>(depth, columns));
        Self { values, depth, columns }
    }

    /// How many panels there are.
    pub fn count(&self) -> usize {
        count::<T>(self.columns)
    }

    /// The columns of the matrix.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Panel `index` from row `row` of the matrix on.
    pub fn panel(&self, index: usize, row: usize) -> Panel<T> {
        let (vectors, first, columns) = place::<T>(self.columns, index);
        let offset = first * self.depth + row * vectors * simd::lanes::<T>();
        assert!(row <= self.depth && offset <= self.values.len());
        Panel { values: self.values[offset..].as_ptr(), vectors, first, columns }
    }
}
