//! Images as they are decoded: room for all of them, filled from the front on all cores.

use super::catalog::{Encoding, Entry};
use super::decoded::{About, Decoded};
use super::{decode, reduce};
use crate::{Context, Result, ensure};
use rayon::prelude::*;

/// The images of a split, as many as are decoded yet.
pub(super) struct Sheet {
    shape: [usize; 3],
    resize: Option<usize>,
    /// How many there are.
    pub rows: usize,
    bytes: Vec<u8>,
    pub labels: Vec<u32>,
    pub classes: Vec<String>,
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
            labels: Vec::new(),
            classes: Vec::new(),
            encoding: Encoding::Png,
        })
    }

    /// Decode `coded` behind what is there, on all cores; `at` names a row in an error.
    pub fn add(&mut self, coded: &[&[u8]], at: &(dyn Fn(usize) -> String + Sync)) -> Result<()> {
        let each: usize = self.shape.iter().product();
        let to = &mut self.bytes[self.rows * each..(self.rows + coded.len()) * each];
        let (shape, resize) = (self.shape, self.resize);
        let one = |(row, (to, bytes)): (usize, (&mut [u8], &&[u8]))| {
            let mut write = || {
                let picture = decode::decode(bytes)?;
                let picture = match resize {
                    Some(side) => reduce::square(picture, side),
                    None => picture,
                };
                picture.write(shape, to)
            };
            write().with_context(|| at(row))
        };
        to.par_chunks_mut(each).zip(coded.par_iter()).enumerate().try_for_each(one)?;
        if coded.iter().any(|bytes| matches!(decode::encoding(bytes), Ok(Encoding::Jpeg))) {
            self.encoding = Encoding::Jpeg;
        }
        self.rows += coded.len();
        Ok(())
    }

    pub fn end(self) -> Result<Decoded> {
        ensure!(self.rows > 0, "a dataset without images");
        let Self { rows, shape, encoding, classes, bytes, labels, .. } = self;
        Ok(Decoded { about: About { rows, shape, encoding, classes }, bytes, labels })
    }
}

// The memory that can be had without swapping; known on Linux.
fn free_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}
