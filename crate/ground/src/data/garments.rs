//! The embedded garments: the 10 000 test images of Fashion-MNIST, grey or tinted (MIT; see
//! `datasets/README.md`).

use super::catalog::{Encoding, Entry};
use super::decode::Picture;
use super::embedded::{Bytes, Part};
use super::reduce;
use crate::rng::Key;
use crate::{Context, Result, ensure};
use rayon::prelude::*;
use std::io::Read;
use xxhash_rust::xxh3::Xxh3Default;

/// The published test split of Fashion-MNIST in its own format: gzipped IDX.
static GARMENTS: [&[u8]; 2] = [
    include_bytes!("../../../../datasets/fashion_10k.images.idx3.gz"),
    include_bytes!("../../../../datasets/fashion_10k.labels.idx1.gz"),
];
const GARMENT: usize = 28;
/// Every tenth garment is held out, from the first on.
const HELD_OUT: usize = 10;

/// The garments in the size that `entry` asks for, `tinted` each in a colour of its own.
///
/// # Errors
/// A size that they do not have.
pub(super) fn bytes(entry: &Entry, tinted: bool) -> Result<Bytes> {
    ensure!(
        entry.resize.is_none_or(|side| (1..=GARMENT).contains(&side)),
        "{}: size = {}: its images are {GARMENT}x{GARMENT}; give 1 to {GARMENT}, or leave it out",
        entry.name,
        entry.resize.unwrap_or_default()
    );
    let [images, labels] = GARMENTS;
    let pixels = idx(images, 0x803, 16).context("the embedded fashion_10k.images.idx3.gz")?;
    let labels = idx(labels, 0x801, 8).context("the embedded fashion_10k.labels.idx1.gz")?;
    ensure!(
        pixels.len() == labels.len() * GARMENT * GARMENT,
        "fashion_10k: {} pixels and {} labels",
        pixels.len(),
        labels.len()
    );
    let all: Vec<Vec<u8>> = pixels
        .par_chunks(GARMENT * GARMENT)
        .enumerate()
        .map(|(row, grey)| image(entry, row, grey, tinted))
        .collect::<Result<_>>()?;
    let (mut train, mut held_out) = (Part::default(), Part::default());
    for (row, (image, label)) in all.iter().zip(labels).enumerate() {
        let part = if row % HELD_OUT == 0 { &mut held_out } else { &mut train };
        part.0.extend(image);
        part.1.push(u32::from(label));
    }
    let mut hash = Xxh3Default::new();
    GARMENTS.iter().for_each(|file| hash.update(file));
    let [channels, height, width] = entry.shape;
    let size = match entry.resize {
        Some(_) => format!(" at {height}x{width}x{channels}"),
        None => String::new(),
    };
    let revision = format!("{}: {:016x}{size}", entry.name, hash.digest());
    Ok(Bytes { train, held_out, revision })
}

// The image of a row as the entry wants it.
fn image(entry: &Entry, row: usize, grey: &[u8], tinted: bool) -> Result<Vec<u8>> {
    let (channels, bytes) = match tinted {
        true => (3, tint(row, grey)),
        false => (1, grey.to_vec()),
    };
    let encoding = Encoding::Png;
    let mut picture = Picture { width: GARMENT, height: GARMENT, channels, bytes, encoding };
    if let Some(side) = entry.resize {
        picture = reduce::square(picture, side);
    }
    let mut to = vec![0; entry.shape.iter().product()];
    picture.write(entry.shape, &mut to)?;
    Ok(to)
}

// The garment of a row in a colour of its own, (H, W, 3): hue uniform, saturation from 0.35 to 1; the
// largest of a pixel's channels is its grey value.
fn tint(row: usize, grey: &[u8]) -> Vec<u8> {
    let of = Key::new(0).stream("tint").uniforms(2 * row as u64..2 * row as u64 + 2);
    let (hue, saturation) = (6.0 * of[0], 0.35 + 0.65 * of[1]);
    let colour = [0.0, 2.0, 4.0].map(|centre: f64| {
        let apart = (hue - centre).abs();
        let full = (2.0 - apart.min(6.0 - apart)).clamp(0.0, 1.0);
        1.0 - saturation * (1.0 - full)
    });
    let shades = |grey: &u8| colour.map(|part| (f64::from(*grey) * part).round() as u8);
    grey.iter().flat_map(shades).collect()
}

// What a gzipped IDX file holds after its header, which says the kind and the sizes.
fn idx(file: &[u8], kind: u32, header: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(file).read_to_end(&mut bytes)?;
    ensure!(
        bytes.len() > header && bytes[..4] == kind.to_be_bytes(),
        "not an IDX file of kind {kind:#x}"
    );
    let sizes = bytes[4..header].chunks_exact(4);
    let count: usize =
        sizes.map(|s| u32::from_be_bytes([s[0], s[1], s[2], s[3]]) as usize).product();
    ensure!(bytes.len() == header + count, "{} bytes for {count} numbers", bytes.len() - header);
    bytes.drain(..header);
    Ok(bytes)
}
