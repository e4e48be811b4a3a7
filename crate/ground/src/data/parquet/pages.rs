//! The pages of a column, checked before they are decoded.

use crate::{Error, Result, ensure};
use polars_buffer::Buffer;
use polars_parquet::parquet::page::CompressedPage;
use polars_parquet::read::{ColumnChunkMetadata, PageReader};
use std::io::Cursor;

/// A page may be as large as its column claims to be, and this large in any case.
const LARGE: usize = 1 << 26;

/// The pages of `chunk`, which lie in `bytes`.
///
/// # Errors
/// Pages with more values or bytes than the column has: Polars allocates as much memory as they
/// claim, and if that fails the program ends.
pub(super) fn of(chunk: &ColumnChunkMetadata, bytes: Vec<u8>) -> Result<PageReader> {
    let bytes = Buffer::from_vec(bytes);
    let reader = || PageReader::new(Cursor::new(bytes.clone()), chunk, vec![], usize::MAX);
    let values = usize::try_from(chunk.num_values()).unwrap_or_default();
    let size = usize::try_from(chunk.uncompressed_size()).unwrap_or_default().max(LARGE);
    let mut found = 0usize;
    for page in reader() {
        if let CompressedPage::Data(page) = page.map_err(|e| Error::new(e.to_string()))? {
            found = found.saturating_add(page.num_values());
            ensure!(found <= values, "its pages have more than the {values} values of the column");
            ensure!(page.uncompressed_size() <= size, "a page that is larger than its column");
        }
    }
    ensure!(found == values, "its pages have {found} of {values} values");
    Ok(reader())
}
