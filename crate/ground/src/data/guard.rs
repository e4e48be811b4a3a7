//! Decoders of other libraries, fed with damaged files: a panic in one is an error that says of
//! what it is.

use crate::{Context, Result, guard};

/// What `decode` gives; its panic as an error behind `damaged`, which says what it means for what
/// is decoded.
///
/// It must do its work on this thread.
pub(super) fn caught<T>(
    damaged: impl FnOnce() -> String,
    decode: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let mut ended = false;
    let result = guard("its decoder", || {
        let result = decode();
        ended = true;
        result
    });
    if ended { result } else { result.with_context(damaged) }
}
