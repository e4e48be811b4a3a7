//! What a dataset that is part of the library gives: both its splits, and what it is.

/// One split: pixels image by image, (C, H, W) each; and labels.
pub(super) type Part = (Vec<u8>, Vec<u32>);

/// An embedded dataset as it is in its file.
pub(super) struct Bytes {
    pub train: Part,
    pub held_out: Part,
    pub revision: String,
}
