//! The sizes that a network may have, checked before anything is built: a configuration comes from
//! a file, and a file may be damaged. All are far above what anyone trains, and low enough that no
//! count of parameters overflows and no loop over them runs forever.

use crate::Result;
use crate::bounds::within;
use std::ops::RangeInclusive;

/// Levels of a U-Net: 65536 pixels, halved to 2.
pub(super) const LEVELS: usize = 16;
/// Blocks of a level.
pub(super) const BLOCKS: usize = 64;
/// Blocks of an MLP.
pub(super) const MLP_BLOCKS: usize = 1024;
/// Channels of a level, features of a layer, groups of a norm.
pub(super) const CHANNELS: usize = 65_536;
/// Features of the noise level's embedding, which has four times the first channels.
pub(super) const EMBEDDING: usize = 4 * CHANNELS;
/// Classes of a table.
pub(super) const CLASSES: usize = 1_000_000;
/// Height or width of an image.
pub(super) const SIDE: usize = 16_384;
/// [`within`] for what may be left out.
///
/// # Errors
/// As [`within`].
pub(super) fn within_if_given(
    key: &str,
    value: Option<usize>,
    range: RangeInclusive<usize>,
) -> Result<()> {
    value.map_or(Ok(()), |value| within(key, value, range))
}
