//! Images as they are decoded: room for all of them, filled from the front on all cores.

use super::catalog::{Encoding, Entry};
use super::decoded::{About, Decoded};
use super::{decode, reduce};
use crate::{Context, Result, ensure};
use rayon::prelude::*;

/// The images of a split, as many as have been decoded so far.
pub(super) struct Sheet {
    shape: [usize; 3],
    resize: Option<usize>,
    /// How many there are.
    rows: usize,
    bytes: Vec<u8>,
    encoding: Encoding,
}

impl Sheet {
    pub fn new(entry: &Entry, wanted: usize) -> Result<Self> {
        let sizes = entry.shape.iter().copied().chain([wanted]);
        let need = sizes.fold(1u64, |need, size| need.saturating_mul(size as u64));
        if let Some(free) = free_memory() {
            ensure!(
                need < free,
                "{}: {wanted} images of {:?} are {:.1} GB of bytes, and {:.1} GB of memory are free: \
                 take a part of them (limit) or a smaller size",
                entry.name,
                entry.shape,
                need as f64 / 1e9,
                free as f64 / 1e9
            );
        }
        Ok(Self {
            shape: entry.shape,
            resize: entry.resize,
            rows: 0,
            bytes: vec![0; need as usize],
            encoding: Encoding::Png,
        })
    }

    /// Decode `coded` after what is there, on all cores; `at` names a row in an error.
    pub fn add(&mut self, coded: &[&[u8]], at: &(dyn Fn(usize) -> String + Sync)) -> Result<()> {
        let each: usize = self.shape.iter().product();
        let to = &mut self.bytes[self.rows * each..(self.rows + coded.len()) * each];
        let (shape, resize) = (self.shape, self.resize);
        let one = |(row, (to, bytes)): (usize, (&mut [u8], &&[u8]))| {
            let mut write = || -> Result<Encoding> {
                let picture = decode::decode(bytes)?;
                let picture = match resize {
                    Some(side) => reduce::square(picture, side),
                    None => picture,
                };
                picture.write(shape, to)?;
                Ok(picture.encoding)
            };
            write().with_context(|| at(row))
        };
        let encoding = to
            .par_chunks_mut(each)
            .zip(coded.par_iter())
            .enumerate()
            .map(one)
            .try_reduce(|| Encoding::Png, |a, b| Ok(a.with(b)))?;
        self.encoding = self.encoding.with(encoding);
        self.rows += coded.len();
        Ok(())
    }

    /// All images, with their labels and the names of their classes.
    pub fn end(self, labels: Vec<u32>, classes: Vec<String>) -> Result<Decoded> {
        ensure!(self.rows > 0, "a dataset without images");
        ensure!(
            labels.is_empty() || labels.len() == self.rows,
            "{} labels for {} images",
            labels.len(),
            self.rows
        );
        let Self { rows, shape, encoding, bytes, .. } = self;
        Ok(Decoded { about: About { rows, shape, encoding, classes }, bytes, labels })
    }
}

// The memory that can be had without swapping; known on Linux.
fn free_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}
