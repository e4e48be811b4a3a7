//! BMP: pixels without compression, 1 to 32 bits each.

use super::{Picture, check_size};
use crate::data::Encoding;
use crate::{Error, Result, bail, ensure};

const FILE_HEADER: usize = 14;

/// Where the bits of a colour lie in a pixel.
#[derive(Clone, Copy)]
struct Mask(u32);

impl Mask {
    // The colour in 8 bits.
    fn of(self, pixel: u32) -> u8 {
        let most = self.0 >> self.0.trailing_zeros().min(31);
        match most {
            0 => 0,
            _ => {
                let value = (pixel & self.0) >> self.0.trailing_zeros();
                (u64::from(value) * 255 / u64::from(most)) as u8
            }
        }
    }
}

struct Header {
    width: usize,
    height: usize,
    /// Whether the first row is the upper one.
    downwards: bool,
    bits: usize,
    masks: [Mask; 3],
    /// Where the palette lies, how many colours it has, and how many bytes each colour takes.
    palette: (usize, usize, usize),
    pixels: usize,
}

fn cut() -> Error {
    Error::new("a damaged BMP: it is cut off")
}

fn part<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk::<N>());
    found.copied().ok_or_else(cut)
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16> {
    Ok(u16::from_le_bytes(part(bytes, at)?))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    Ok(u32::from_le_bytes(part(bytes, at)?))
}

fn header(bytes: &[u8]) -> Result<Header> {
    let pixels = u32_at(bytes, 10)? as usize;
    let size = u32_at(bytes, 14)? as usize;
    // ---- OS/2's short header
    if size == 12 {
        let (width, height) = (u16_at(bytes, 18)?, u16_at(bytes, 20)?);
        let bits = usize::from(u16_at(bytes, 24)?);
        return Ok(Header {
            width: width.into(),
            height: height.into(),
            downwards: false,
            bits,
            masks: plain_masks(bits),
            palette: (FILE_HEADER + size, 1 << bits.min(8), 3),
            pixels,
        });
    }
    // ---- and everybody else's
    let (width, height) = (u32_at(bytes, 18)? as i32, u32_at(bytes, 22)? as i32);
    let bits = usize::from(u16_at(bytes, 28)?);
    let (compression, used) = (u32_at(bytes, 30)?, u32_at(bytes, 46)? as usize);
    let at = FILE_HEADER + 40;
    let masks = match compression {
        0 => plain_masks(bits),
        3 | 6 => {
            [Mask(u32_at(bytes, at)?), Mask(u32_at(bytes, at + 4)?), Mask(u32_at(bytes, at + 8)?)]
        }
        1 | 2 => bail!("a BMP in run-length coding, which is not read"),
        other => bail!("a BMP of compression {other}, which is not read"),
    };
    // After the short form of the header, the masks lie in front of the palette.
    let masks_behind = if size == 40 && compression == 3 { 12 } else { 0 };
    let colours = if used == 0 { 1 << bits.min(8) } else { used.min(256) };
    Ok(Header {
        width: width.unsigned_abs() as usize,
        height: height.unsigned_abs() as usize,
        downwards: height < 0,
        bits,
        masks,
        palette: (FILE_HEADER + size + masks_behind, colours, 4),
        pixels,
    })
}

fn plain_masks(bits: usize) -> [Mask; 3] {
    match bits {
        16 => [Mask(0x7c00), Mask(0x03e0), Mask(0x001f)],
        _ => [Mask(0xff_0000), Mask(0xff00), Mask(0xff)],
    }
}

/// The image in `bytes`: grey if its palette has greys only, RGB otherwise.
pub(super) fn decode(bytes: &[u8]) -> Result<Picture> {
    let Header { width, height, downwards, bits, masks, palette, pixels } = header(bytes)?;
    check_size(width, height)?;
    ensure!(
        matches!(bits, 1 | 4 | 8 | 16 | 24 | 32),
        "a damaged BMP: {bits} bits a pixel, not 1, 4, 8, 16, 24 or 32"
    );
    let (at, colours, each) = palette;
    let palette: Vec<[u8; 3]> = match bits {
        1 | 4 | 8 => {
            let table = bytes.get(at..at + colours * each).ok_or_else(cut)?;
            table.chunks_exact(each).map(|c| [c[2], c[1], c[0]]).collect()
        }
        _ => Vec::new(),
    };
    let grey = !palette.is_empty() && palette.iter().all(|[r, g, b]| r == g && g == b);
    let stride = (width * bits).div_ceil(32) * 4;
    let end = pixels.checked_add(stride * height);
    let rows = end.and_then(|end| bytes.get(pixels..end)).ok_or_else(cut)?;
    let channels = if grey { 1 } else { 3 };
    let mut out = Vec::with_capacity(width * height * channels);
    for y in 0..height {
        let row = if downwards { y } else { height - 1 - y };
        let row = &rows[row * stride..(row + 1) * stride];
        for x in 0..width {
            let colour = match bits {
                1 | 4 | 8 => {
                    let shift = 8 - bits - x * bits % 8;
                    let index = usize::from(row[x * bits / 8] >> shift) & ((1 << bits) - 1);
                    *palette.get(index).ok_or_else(|| {
                        Error::new(format!("a damaged BMP: no colour {index} in its palette"))
                    })?
                }
                24 => [row[3 * x + 2], row[3 * x + 1], row[3 * x]],
                _ => {
                    let pixel = match bits {
                        16 => u32::from(u16_at(row, 2 * x)?),
                        _ => u32_at(row, 4 * x)?,
                    };
                    masks.map(|mask| mask.of(pixel))
                }
            };
            out.extend_from_slice(&colour[..channels]);
        }
    }
    Ok(Picture { width, height, channels, bytes: out, encoding: Encoding::Png })
}
