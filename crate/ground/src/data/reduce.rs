//! The paper's preprocessing: the middle square of an image, reduced to a side.
//!
//! As in the public code, which uses Pillow: the image is halved by averaging while it is twice as
//! large, then reduced by a cubic filter in two passes, with rounding to bytes after each, then
//! cropped.

use super::decode::Picture;

/// The image as a square of `side` pixels.
pub(super) fn square(mut picture: Picture, side: usize) -> Picture {
    while picture.width.min(picture.height) >= 2 * side {
        let (w, h) = (picture.width / 2, picture.height / 2);
        picture = resample(&picture, w, h, Filter::Box);
    }
    let scale = side as f64 / picture.width.min(picture.height) as f64;
    let scaled = |length: usize| ((length as f64 * scale).round_ties_even() as usize).max(side);
    let (w, h) = (scaled(picture.width), scaled(picture.height));
    if (w, h) != (picture.width, picture.height) {
        picture = resample(&picture, w, h, Filter::Cubic);
    }
    crop(&picture, side)
}

fn crop(picture: &Picture, side: usize) -> Picture {
    let (x, y) = ((picture.width - side) / 2, (picture.height - side) / 2);
    let (row, c) = (picture.width * picture.channels, picture.channels);
    let rows = picture.bytes.chunks_exact(row).skip(y).take(side);
    let bytes = rows.flat_map(|row| row[x * c..(x + side) * c].iter().copied()).collect();
    Picture { width: side, height: side, channels: c, bytes, encoding: picture.encoding }
}

#[derive(Clone, Copy)]
enum Filter {
    Box,
    Cubic,
}

impl Filter {
    fn support(self) -> f64 {
        match self {
            Self::Box => 0.5,
            Self::Cubic => 2.0,
        }
    }

    fn at(self, x: f64) -> f64 {
        match self {
            Self::Box => f64::from(u8::from(x > -0.5 && x <= 0.5)),
            // Keys' kernel with a = -0.5.
            Self::Cubic => {
                let x = x.abs();
                if x < 1.0 {
                    (1.5 * x - 2.5) * x * x + 1.0
                } else if x < 2.0 {
                    ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
                } else {
                    0.0
                }
            }
        }
    }

    // For each of `to` places: the first of the `from` places that it sees, and their weights.
    fn weights(self, from: usize, to: usize) -> Vec<(usize, Vec<f64>)> {
        let scale = from as f64 / to as f64;
        let wide = scale.max(1.0);
        let reach = self.support() * wide;
        let of = |place: usize| {
            let centre = (place as f64 + 0.5) * scale;
            let first = (centre - reach + 0.5).max(0.0) as usize;
            let end = ((centre + reach + 0.5) as usize).min(from);
            let weight = |x: usize| self.at((x as f64 - centre + 0.5) / wide);
            let weights: Vec<f64> = (first..end).map(weight).collect();
            let sum: f64 = weights.iter().sum();
            (first, weights.into_iter().map(|w| w / sum).collect())
        };
        (0..to).map(of).collect()
    }
}

fn resample(picture: &Picture, width: usize, height: usize, filter: Filter) -> Picture {
    let c = picture.channels;
    let byte = |value: f64| (value + 0.5).clamp(0.0, 255.0) as u8;
    // ---- along the rows
    let columns = filter.weights(picture.width, width);
    let mut wide = Vec::with_capacity(picture.height * width * c);
    for row in picture.bytes.chunks_exact(picture.width * c) {
        for (first, weights) in &columns {
            for channel in 0..c {
                let at = |(i, w): (usize, &f64)| w * f64::from(row[(first + i) * c + channel]);
                wide.push(byte(weights.iter().enumerate().map(at).sum()));
            }
        }
    }
    // ---- and along the columns
    let row = width * c;
    let mut bytes = Vec::with_capacity(height * row);
    for (first, weights) in filter.weights(picture.height, height) {
        for x in 0..row {
            let at = |(i, w): (usize, &f64)| w * f64::from(wide[(first + i) * row + x]);
            bytes.push(byte(weights.iter().enumerate().map(at).sum()));
        }
    }
    Picture { width, height, channels: c, bytes, encoding: picture.encoding }
}
