//! Resampling by fixed filters.

use super::{computed, tensors};
use crate::nn::kernels::resample::{Taps, resample};
use crate::nn::tape::{Slots, Tape, Value};
use candle_core::{Result, Tensor, bail};

/// FIR \[1, 3, 3, 1\] (Karras et al. 2019), and the other ways to change an image's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resampling {
    /// Each pixel four times.
    NearestUp,
    /// The mean of each four pixels.
    MeanDown,
    /// The mean of the part of each 3x3 window that lies within the image.
    Mean3,
    /// Zeros between the pixels, then the filter with gain 4.
    FirUp,
    /// The filter, then every second pixel.
    FirDown,
    /// The filter alone, before a 3x3 convolution at stride 2 without padding: of n pixels it makes
    /// n + 1.
    FirBlur,
}

impl Resampling {
    fn taps(self, size: usize) -> Taps {
        let fir = |gain: f64| [1.0, 3.0, 3.0, 1.0].map(|tap: f64| tap / 8.0 * gain);
        match self {
            Self::NearestUp => Taps::nearest_up(size),
            Self::MeanDown => Taps::mean_down(size),
            Self::Mean3 => Taps::mean3(size),
            Self::FirUp => Taps::fir(size, &fir(2.0), 2, 1, (2, 1)),
            Self::FirDown => Taps::fir(size, &fir(1.0), 1, 2, (1, 1)),
            Self::FirBlur => Taps::fir(size, &fir(1.0), 1, 1, (2, 2)),
        }
    }
}

impl Tape {
    /// (B, H, W, C) to (B, H', W', C).
    pub(crate) fn resample(&mut self, xs: &Value, how: Resampling) -> Result<Value> {
        let (_, height, width, _) = xs.tensor().dims4()?;
        let halves = matches!(how, Resampling::MeanDown | Resampling::FirDown);
        if halves && !(height.is_multiple_of(2) && width.is_multiple_of(2)) {
            bail!("halving an image needs an even size, got {height}x{width}");
        }
        self.by_taps(xs, how.taps(height), how.taps(width))
    }

    /// (B, H, W, C) to (B, H', W', C), interpolated at the centres of pixels.
    pub(crate) fn resize_bilinear(
        &mut self,
        xs: &Value,
        (rows, columns): (usize, usize),
    ) -> Result<Value> {
        let (_, height, width, _) = xs.tensor().dims4()?;
        self.by_taps(xs, Taps::linear(height, rows), Taps::linear(width, columns))
    }

    fn by_taps(&mut self, xs: &Value, down: Taps, across: Taps) -> Result<Value> {
        let on_kernels = self.on_kernels(xs.tensor());
        let sized = |t: &Tensor| run(t, &down, &across, on_kernels);
        let out = (sized(xs.tensor())?, xs.moved(sized)?);
        let saved = xs.clone();
        let backward = move |dys: Tensor, slots: &mut Slots| {
            slots.give(&saved, run(&dys, &down.transposed(), &across.transposed(), on_kernels)?)
        };
        Ok(self.push(out, &[xs], &[], backward))
    }
}

fn run(xs: &Tensor, down: &Taps, across: &Taps, on_kernels: bool) -> Result<Tensor> {
    let (batch, _, _, channels) = xs.dims4()?;
    if on_kernels {
        let dims = (batch, down.outputs(), across.outputs(), channels);
        computed!(dims, [xs], |[x]| resample(x, channels, down, across))
    } else {
        tensors::resample(xs, down, across)
    }
}
