//! Linear algebra in f64 on `faer`, whose functions are generic and are compiled where they are
//! called: here once, as one part, and not with every change of the metrics (DESIGN.md, "The
//! first build").

use consistency_base::{Error, Result};
use faer::{Accum, Side};
pub use faer::{Mat, MatRef};

/// a b on all threads.
///
/// # Panics
/// The number of columns of `a` is not the number of rows of `b`.
pub fn multiply(a: MatRef<f64>, b: MatRef<f64>) -> Mat<f64> {
    let mut product = Mat::zeros(a.nrows(), b.ncols());
    let threads = faer::get_global_parallelism();
    faer::linalg::matmul::matmul(&mut product, Accum::Replace, a, b, 1.0, threads);
    product
}

/// Eigenvectors, one per column, and eigenvalues of a symmetric matrix, by its lower half.
///
/// # Errors
/// The iteration does not converge: a value is not finite.
pub fn eigen(of: MatRef<f64>) -> Result<(Mat<f64>, Vec<f64>)> {
    let found = of.self_adjoint_eigen(Side::Lower).map_err(failed)?;
    Ok((found.U().to_owned(), found.S().column_vector().iter().copied().collect()))
}

/// The eigenvalues of a symmetric matrix alone.
///
/// # Errors
/// Those of [`eigen`].
pub fn eigenvalues(of: MatRef<f64>) -> Result<Vec<f64>> {
    of.self_adjoint_eigenvalues(Side::Lower).map_err(failed)
}

fn failed(error: impl std::fmt::Debug) -> Error {
    Error::new(format!("the eigenvalues of a symmetric matrix: {error:?}"))
}

// By this `cargo lab` tells this clone's build from another's in the same target folder.
#[used]
static CLONE: &str = concat!("compiled in the clone of ", env!("CARGO_MANIFEST_DIR"));
