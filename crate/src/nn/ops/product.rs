//! Matrix products that add to what is there.

use super::Real;
use gemm::Parallelism;

/// A matrix in a slice, with its strides (row, column).
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, T> {
    values: &'a [T],
    strides: (usize, usize),
}

/// The matrix whose rows of `width` follow each other.
pub(crate) fn rows<T>(values: &[T], width: usize) -> Matrix<'_, T> {
    Matrix { values, strides: (width, 1) }
}

/// The transpose of the matrix whose rows of `width` follow each other.
pub(crate) fn turned<T>(values: &[T], width: usize) -> Matrix<'_, T> {
    Matrix { values, strides: (1, width) }
}

/// ys (m, n) += a (m, k) b (k, n), on all threads or on this one. The order of the sums
/// does not depend on the number of threads.
pub(crate) fn add_product<T: Real>(
    ys: &mut [T],
    (m, k, n): (usize, usize, usize),
    a: Matrix<T>,
    b: Matrix<T>,
    on: Parallelism,
) {
    let last = |rows: usize, columns: usize, (row, column): (usize, usize)| {
        rows.saturating_sub(1) * row + columns.saturating_sub(1) * column
    };
    assert!(ys.len() == m * n);
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    assert!(last(m, k, a.strides) < a.values.len() && last(k, n, b.strides) < b.values.len());
    // SAFETY: the last element of each matrix lies within its slice, as checked above.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            ys.as_mut_ptr(),
            1,
            n as isize,
            true,
            a.values.as_ptr(),
            a.strides.1 as isize,
            a.strides.0 as isize,
            b.values.as_ptr(),
            b.strides.1 as isize,
            b.strides.0 as isize,
            T::one(),
            T::one(),
            false,
            false,
            false,
            on,
        );
    }
}
