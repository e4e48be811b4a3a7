//! Pictures side by side in one picture.

use crate::{Context, Result, ensure};
use candle_core::{DType, Tensor};

/// Small images in a grid, as 8-bit RGB with a line between them.
#[derive(Clone, Debug)]
pub(crate) struct Montage {
    /// Rows of RGB, `width * height * 3` bytes.
    pub rgb: Vec<u8>,
    pub width: usize,
    pub height: usize,
    /// One label per row of images; empty if there are none.
    pub labels: Vec<String>,
    /// Images per row, and rows of images.
    pub grid: (usize, usize),
}

/// Pixels between two images, white.
const GAP: usize = 1;

impl Montage {
    /// `images` (N, C, H, W) in rows of `columns`.
    pub fn new(images: &Tensor, columns: usize) -> Result<Self> {
        let (n, channels, h, w) = images.dims4().with_context(|| {
            format!("images must be (N, C, H, W), got the shape {:?}", images.dims())
        })?;
        ensure!(channels == 1 || channels == 3, "images of {channels} channels: 1 or 3 are shown");
        ensure!(n > 0, "a figure of no images");
        let columns = columns.clamp(1, n);
        let rows = n.div_ceil(columns);
        let values = images.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
        ensure!(values.iter().all(|v| v.is_finite()), "images with values that are not finite");
        let (width, height) = (columns * (w + GAP) - GAP, rows * (h + GAP) - GAP);
        let mut rgb = vec![255u8; width * height * 3];
        for (i, image) in values.chunks(channels * h * w).enumerate() {
            let (left, top) = (i % columns * (w + GAP), i / columns * (h + GAP));
            for y in 0..h {
                for x in 0..w {
                    for c in 0..3 {
                        let value = image[(c.min(channels - 1) * h + y) * w + x];
                        let byte = ((value.clamp(-1.0, 1.0) + 1.0) * 127.5).round() as u8;
                        rgb[((top + y) * width + left + x) * 3 + c] = byte;
                    }
                }
            }
        }
        Ok(Self { rgb, width, height, labels: Vec::new(), grid: (columns, rows) })
    }

    /// One labelled row for each batch of images.
    pub fn rows<L: AsRef<str>>(rows: &[(L, Tensor)]) -> Result<Self> {
        let Some((_, first)) = rows.first() else { crate::bail!("a figure of no images") };
        for (label, batch) in rows {
            ensure!(
                batch.dims() == first.dims(),
                "the row '{}' has shape {:?}, the first {:?}",
                label.as_ref(),
                batch.dims(),
                first.dims()
            );
        }
        let columns = first.dims()[0];
        let all = Tensor::cat(&rows.iter().map(|(_, batch)| batch).collect::<Vec<_>>(), 0)?;
        let labels = rows.iter().map(|(label, _)| label.as_ref().to_string()).collect();
        Ok(Self { labels, ..Self::new(&all, columns)? })
    }

    /// Where the label of each row stands: its row's middle, in pixels from the top.
    pub fn label_places(&self) -> Vec<f64> {
        let each = (self.height + GAP) as f64 / self.grid.1.max(1) as f64;
        (0..self.labels.len()).map(|i| (i as f64 + 0.5) * each - GAP as f64 / 2.0).collect()
    }
}
