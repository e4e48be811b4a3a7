//! Images of all formats that are read, as bytes (C, H, W).

mod bmp;
mod format;
mod others;

pub(super) use format::{ENDINGS, READ, refuse_pointer};

use super::catalog::Encoding;
use crate::{Error, Result, bail, ensure, guard};
use format::Format;
use std::io::Cursor;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

/// No image of a dataset is wider or higher: a damaged header must not make us allocate more.
const LONGEST: usize = 1 << 15;
/// And none has more pixels.
const LARGEST: usize = 1 << 27;

/// An image with its channels last, as the files have it.
pub(super) struct Picture {
    pub width: usize,
    pub height: usize,
    /// 1 or 3.
    pub channels: usize,
    /// (H, W, C).
    pub bytes: Vec<u8>,
    /// What its coding did to the pixels.
    pub encoding: Encoding,
}

/// The image in `bytes`: grey or RGB, 8 bits; an alpha channel is left out, 16 bits are rounded
/// down to 8, palettes are looked up. Pixels are read as they are stored in the file: an
/// orientation that EXIF asks for is not applied.
///
/// # Errors
/// Bytes that are damaged or not an image.
pub(super) fn decode(bytes: &[u8]) -> Result<Picture> {
    let format = format::of(bytes)?;
    guard(format.name(), || match format {
        Format::Png => png(bytes),
        Format::Jpeg => jpeg(bytes),
        Format::Webp => others::webp(bytes),
        Format::Bmp => bmp::decode(bytes),
        Format::Tiff => others::tiff(bytes),
        Format::Gif => others::gif(bytes),
    })
}

/// Check that an image can have this size.
fn check_size(width: usize, height: usize) -> Result<()> {
    ensure!(
        (1..=LONGEST).contains(&width)
            && (1..=LONGEST).contains(&height)
            && width * height <= LARGEST,
        "an image of {width}x{height} pixels (width x height): at most {LARGEST} pixels are read, \
         and {LONGEST} a side"
    );
    Ok(())
}

fn png(bytes: &[u8]) -> Result<Picture> {
    let failed = |error: png::DecodingError| Error::new(format!("a damaged PNG: {error}"));
    let mut decoder = png::Decoder::new(Cursor::new(bytes));
    decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::STRIP_16);
    let mut reader = decoder.read_info().map_err(failed)?;
    let (width, height) = (reader.info().width as usize, reader.info().height as usize);
    check_size(width, height)?;
    let Some(size) = reader.output_buffer_size() else {
        bail!("a PNG of {width}x{height} pixels");
    };
    let mut all = vec![0; size];
    let frame = reader.next_frame(&mut all).map_err(failed)?;
    all.truncate(frame.buffer_size());
    let (channels, stride) = match frame.color_type {
        png::ColorType::Grayscale => (1, 1),
        png::ColorType::GrayscaleAlpha => (1, 2),
        png::ColorType::Rgb => (3, 3),
        png::ColorType::Rgba => (3, 4),
        png::ColorType::Indexed => bail!("a PNG whose palette was not looked up"),
    };
    let bytes = match stride == channels {
        true => all,
        false => all.chunks_exact(stride).flat_map(|p| p[..channels].iter().copied()).collect(),
    };
    Ok(Picture { width, height, channels, bytes, encoding: Encoding::Png })
}

fn jpeg(bytes: &[u8]) -> Result<Picture> {
    let failed = |error: zune_jpeg::errors::DecodeErrors| {
        Error::new(format!("a damaged JPEG: {}", error.to_string().trim_end()))
    };
    let options = DecoderOptions::default()
        .set_max_width(LONGEST)
        .set_max_height(LONGEST)
        .set_strict_mode(true)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(failed)?;
    let (width, height) = decoder.dimensions().unwrap_or_default();
    check_size(width, height)?;
    let grey = decoder.input_colorspace() == Some(ColorSpace::Luma);
    if grey {
        decoder.set_options(options.jpeg_set_out_colorspace(ColorSpace::Luma));
    }
    let bytes = decoder.decode().map_err(failed)?;
    let channels = if grey { 1 } else { 3 };
    ensure!(bytes.len() == width * height * channels, "a damaged JPEG: {} bytes", bytes.len());
    Ok(Picture { width, height, channels, bytes, encoding: Encoding::Jpeg })
}

impl Picture {
    /// Write the image as (C, H, W) with `channels` channels: grey to RGB by repetition.
    ///
    /// # Errors
    /// Colours where grey is asked for, or another size.
    pub fn write(&self, shape: [usize; 3], to: &mut [u8]) -> Result<()> {
        let [channels, height, width] = shape;
        ensure!(
            (self.height, self.width) == (height, width),
            "it has {}x{} pixels (height x width), the dataset {height}x{width}: give a size to \
             which all are reduced",
            self.height,
            self.width
        );
        ensure!(
            channels >= self.channels,
            "it has colours, the dataset {channels} channel: its shape is wrong"
        );
        let plane = height * width;
        for (c, out) in to.chunks_exact_mut(plane).enumerate() {
            let from = self.bytes.iter().skip(c.min(self.channels - 1)).step_by(self.channels);
            out.iter_mut().zip(from).for_each(|(out, value)| *out = *value);
        }
        Ok(())
    }
}
