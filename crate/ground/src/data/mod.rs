//! Datasets: the catalog and what it names, images of the user's own, the embedded ones,
//! and two-dimensional sets made on the spot.

mod catalog;
mod columns;
mod dataset;
mod decode;
mod decoded;
mod digits;
mod embedded;
mod folder;
mod garments;
mod images;
mod labels;
mod load;
mod own;
mod parquet;
mod plane;
mod reduce;
mod sheet;

pub use catalog::{Classes, Encoding, Entry, Split, catalog, entry};
pub use dataset::Dataset;
pub use digits::{Digits, digits};
pub use images::Images;
pub use parquet::read_frame;
pub use plane::{moons, rings_mixture, spirals};

use crate::Result;
use crate::rng::Key;
use candle_core::Tensor;

/// A batch of `rows` of `data` for training step `step`: an epoch is a random order under `key`,
/// and a batch takes the next rows of it, so that each row comes once per epoch.
///
/// The rows depend on the key and the step alone.
///
/// ```
/// use consistency::data::batch_rows;
/// use consistency::rng::Key;
/// let key = Key::new(0).stream("order");
/// // Two batches of 3 are an epoch of 6 rows.
/// let mut epoch = [batch_rows(6, 3, 0, &key), batch_rows(6, 3, 1, &key)].concat();
/// epoch.sort();
/// assert_eq!(epoch, [0, 1, 2, 3, 4, 5]);
/// ```
pub fn batch_rows(rows: usize, batch: usize, step: u64, key: &Key) -> Vec<u32> {
    let mut picked = Vec::with_capacity(batch);
    let mut position = step as u128 * batch as u128;
    let mut epoch = None;
    while picked.len() < batch {
        let (number, offset) =
            ((position / rows as u128) as u64, (position % rows as u128) as usize);
        let order = match &epoch {
            Some((n, order)) if *n == number => order,
            _ => &epoch.insert((number, key.step(number).permutation(rows))).1,
        };
        let take = (rows - offset).min(batch - picked.len());
        picked.extend(order[offset..offset + take].iter().map(|i| *i as u32));
        position += take as u128;
    }
    picked
}

/// `count` of `rows` rows in a random order under `key`, none of them twice: a part of data that
/// may be sorted by class. All rows in their own order if there are no more.
pub fn part_rows(rows: usize, count: usize, key: &Key) -> Vec<u32> {
    if count >= rows {
        return (0..rows as u32).collect();
    }
    key.permutation(rows)[..count].iter().map(|row| *row as u32).collect()
}

/// The rows `rows` of `data`, on its device.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use consistency::data::select;
/// let data = Tensor::new(&[[0.0f32, 1.0], [2.0, 3.0], [4.0, 5.0]], &Device::Cpu)?; // (3, 2)
/// assert_eq!(select(&data, &[2, 0])?.to_vec2::<f32>()?, [[4.0, 5.0], [0.0, 1.0]]);
/// # Ok::<(), consistency::Error>(())
/// ```
pub fn select(data: &Tensor, rows: &[u32]) -> Result<Tensor> {
    let index = Tensor::from_slice(rows, rows.len(), data.device())?;
    Ok(data.index_select(&index, 0)?)
}

/// The name in the revision of data, `NAME: ..`, as provenance has it.
pub fn name_in_revision(revision: &str) -> &str {
    revision.split_once(':').map_or(revision, |(name, _)| name)
}
