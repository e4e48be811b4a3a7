//! WebP, TIFF and GIF.

use super::{LARGEST, Picture, check_size};
use crate::data::Encoding;
use crate::{Error, Result, bail, ensure};
use std::io::Cursor;
use tiff::ColorType;
use tiff::decoder::{DecodingResult, Limits};

/// The image in `bytes`, RGB; the first one of an animation.
pub(super) fn webp(bytes: &[u8]) -> Result<Picture> {
    let failed = |error| Error::new(format!("a damaged WebP: {error}"));
    let mut decoder = image_webp::WebPDecoder::new(Cursor::new(bytes)).map_err(failed)?;
    let (width, height) = decoder.dimensions();
    let (width, height) = (width as usize, height as usize);
    check_size(width, height)?;
    let stride = if decoder.has_alpha() { 4 } else { 3 };
    let mut all = vec![0; width * height * stride];
    decoder.read_image(&mut all).map_err(failed)?;
    // An animation does not say which of its frames are lossy.
    let lossy = decoder.is_lossy() || decoder.is_animated();
    let encoding = if lossy { Encoding::Webp } else { Encoding::Png };
    Ok(Picture { width, height, channels: 3, bytes: leading(all, stride, 3), encoding })
}

// The first `channels` of each `stride` values.
fn leading(all: Vec<u8>, stride: usize, channels: usize) -> Vec<u8> {
    match stride == channels {
        true => all,
        false => all.chunks_exact(stride).flat_map(|p| p[..channels].iter().copied()).collect(),
    }
}

/// The image in `bytes`, grey or RGB; the first one of several.
pub(super) fn tiff(bytes: &[u8]) -> Result<Picture> {
    let failed = |error| Error::new(format!("a TIFF that is damaged or not read: {error}"));
    let mut limits = Limits::default();
    limits.decoding_buffer_size = 8 * LARGEST;
    let decoder = tiff::decoder::Decoder::new(Cursor::new(bytes)).map_err(failed)?;
    let mut decoder = decoder.with_limits(limits);
    let (width, height) = decoder.dimensions().map_err(failed)?;
    let (width, height) = (width as usize, height as usize);
    check_size(width, height)?;
    let colours = decoder.colortype().map_err(failed)?;
    let (channels, stride, bits) = match colours {
        ColorType::Gray(bits) => (1, 1, bits),
        ColorType::GrayA(bits) => (1, 2, bits),
        ColorType::Multiband { bit_depth, num_samples: 2 } => (1, 2, bit_depth),
        ColorType::RGB(bits) => (3, 3, bits),
        ColorType::RGBA(bits) => (3, 4, bits),
        other => bail!("a TIFF whose pixels are {other:?}: grey and RGB are read"),
    };
    let all = match (decoder.read_image().map_err(failed)?, bits) {
        (DecodingResult::U8(values), 8) => values,
        (DecodingResult::U8(values), 1 | 2 | 4) if stride == 1 => {
            unpacked(&values, width, usize::from(bits))
        }
        // Rounded down to 8 bits, as PNGs are.
        (DecodingResult::U16(values), 16) => {
            values.into_iter().map(|value| (value >> 8) as u8).collect()
        }
        _ => bail!("a TIFF whose pixels are {colours:?}: 8 or 16 bits without a sign are read"),
    };
    ensure!(
        all.len() == width * height * stride,
        "a TIFF whose channels lie in planes of their own, which is not read"
    );
    let bytes = leading(all, stride, channels);
    Ok(Picture { width, height, channels, bytes, encoding: Encoding::Png })
}

// Pixels of 1, 2 or 4 bits, each row beginning at a whole byte, as pixels of 8 bits.
fn unpacked(values: &[u8], width: usize, bits: usize) -> Vec<u8> {
    let most = (1 << bits) - 1;
    let pixel = |row: &[u8], x: usize| {
        let value = usize::from(row[x * bits / 8] >> (8 - bits - x * bits % 8)) & most;
        (value * 255 / most) as u8
    };
    let rows = values.chunks_exact((width * bits).div_ceil(8));
    rows.flat_map(|row| (0..width).map(move |x| pixel(row, x))).collect()
}

/// The first image in `bytes`: grey if its palette has greys only, RGB otherwise. The part of the
/// canvas that it does not cover is black.
pub(super) fn gif(bytes: &[u8]) -> Result<Picture> {
    let failed = |error| Error::new(format!("a damaged GIF: {error}"));
    let mut decoder = gif::Decoder::new(Cursor::new(bytes)).map_err(failed)?;
    let (width, height) = (usize::from(decoder.width()), usize::from(decoder.height()));
    check_size(width, height)?;
    let Some(frame) = decoder.read_next_frame().map_err(failed)? else {
        bail!("a GIF without an image");
    };
    let (left, top) = (usize::from(frame.left), usize::from(frame.top));
    let (across, down) = (usize::from(frame.width), usize::from(frame.height));
    ensure!(
        left + across <= width && top + down <= height,
        "a damaged GIF: its image is larger than its canvas"
    );
    let indices = frame.buffer.to_vec();
    let palette = decoder.palette().map_err(failed)?;
    let grey = palette.chunks_exact(3).all(|c| c[0] == c[1] && c[1] == c[2]);
    let channels = if grey { 1 } else { 3 };
    let mut out = vec![0; width * height * channels];
    for (row, line) in indices.chunks_exact(across.max(1)).enumerate() {
        let start = ((top + row) * width + left) * channels;
        for (to, index) in out[start..].chunks_exact_mut(channels).zip(line) {
            let at = usize::from(*index) * 3;
            let colour = palette.get(at..at + channels).ok_or_else(|| {
                Error::new(format!("a damaged GIF: no colour {index} in its palette"))
            })?;
            to.copy_from_slice(colour);
        }
    }
    Ok(Picture { width, height, channels, bytes: out, encoding: Encoding::Png })
}
