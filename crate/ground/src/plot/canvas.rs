//! What a figure is drawn on: pixels at a finer resolution than the page's, and the font.

use crate::Error;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};
use std::sync::Once;

/// Subpixels per pixel, in each direction.
pub(super) const FINE: usize = 2;
/// Text height in pixels.
pub(super) const TEXT: usize = 19;

static FONT: &[u8] = include_bytes!("../../assets/DejaVuSans-subset.ttf");
static REGISTER: Once = Once::new();

/// A part of the figure that is drawn.
pub(super) type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

/// Let plotters find the font; once is enough.
pub(super) fn register_fonts() {
    REGISTER.call_once(|| {
        // The font is part of this file, so reading it does not fail.
        let _ = register_font("sans-serif", FontStyle::Normal, FONT);
    });
}

/// The font at this height in pixels.
pub(super) fn font(height: usize) -> FontDesc<'static> {
    FontDesc::new(FontFamily::SansSerif, (height * FINE) as f64, FontStyle::Normal)
}

/// The pixels of the page: each the mean of its subpixels.
pub(super) fn average(fine: &[u8], width: usize, height: usize) -> Vec<u8> {
    let mut rgb = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            for c in 0..3 {
                let mut sum = 0usize;
                for dy in 0..FINE {
                    for dx in 0..FINE {
                        let at = ((y * FINE + dy) * width * FINE + x * FINE + dx) * 3 + c;
                        sum += usize::from(fine[at]);
                    }
                }
                rgb.push((sum / (FINE * FINE)) as u8);
            }
        }
    }
    rgb
}

/// An error of plotters as one of ours.
pub(super) fn failed(error: impl std::fmt::Display) -> Error {
    Error::new(error.to_string())
}
