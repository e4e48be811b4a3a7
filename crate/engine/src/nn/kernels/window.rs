//! What a convolution's window sees: for each position of the output and each place of the window,
//! the position of the input, or none where it lies outside the image.

use candle_core::{Result, bail};

/// The shape of a convolution over one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    /// Rows and columns of the input.
    pub size: (usize, usize),
    /// Rows and columns of the window.
    pub kernel: (usize, usize),
    pub stride: usize,
    /// Zeros above, left of, below and right of the image.
    pub padding: [usize; 4],
}

impl Window {
    /// A window that fits its image.
    pub fn new(
        size: (usize, usize),
        kernel: (usize, usize),
        stride: usize,
        padding: [usize; 4],
    ) -> Result<Self> {
        let [top, left, bottom, right] = padding;
        if kernel.0 == 0
            || kernel.1 == 0
            || stride == 0
            || size.0 + top + bottom < kernel.0
            || size.1 + left + right < kernel.1
        {
            bail!(
                "a convolution with a {}x{} kernel, stride {stride} and padding {padding:?} has no \
                 place in an image of {}x{}",
                kernel.0,
                kernel.1,
                size.0,
                size.1
            );
        }
        Ok(Self { size, kernel, stride, padding })
    }

    /// Rows and columns of the output.
    pub fn output(&self) -> (usize, usize) {
        let [top, left, bottom, right] = self.padding;
        let along = |size: usize, kernel: usize| (size - kernel) / self.stride + 1;
        (
            along(self.size.0 + top + bottom, self.kernel.0),
            along(self.size.1 + left + right, self.kernel.1),
        )
    }

    pub fn positions(&self) -> usize {
        self.size.0 * self.size.1
    }

    pub fn output_positions(&self) -> usize {
        let (h, w) = self.output();
        h * w
    }

    pub fn places(&self) -> usize {
        self.kernel.0 * self.kernel.1
    }

    /// Whether it is 3x3 at stride 1 with the padding that keeps the size.
    pub fn is_same3(&self) -> bool {
        self.kernel == (3, 3) && self.stride == 1 && self.padding == [1; 4]
    }

    /// (place, output position) to the input position, -1 outside.
    pub fn table(&self) -> Vec<i32> {
        let ((height, width), (rows, columns)) = (self.size, self.output());
        let [top, left, ..] = self.padding;
        let mut table = Vec::with_capacity(self.places() * rows * columns);
        for (u, v) in self.each_place() {
            for y in 0..rows {
                for x in 0..columns {
                    let (y, x) = (y * self.stride + u, x * self.stride + v);
                    let inside = y >= top && x >= left && y < top + height && x < left + width;
                    table.push(if inside { ((y - top) * width + x - left) as i32 } else { -1 });
                }
            }
        }
        table
    }

    /// (place, input position) to the output position that sees it at that place, -1 where
    /// none does: the same table read backwards.
    pub fn table_back(&self) -> Vec<i32> {
        let (forward, there) = (self.table(), self.output_positions());
        let mut back = vec![-1; self.places() * self.positions()];
        for (place, seen) in forward.chunks(there.max(1)).enumerate() {
            for (position, input) in seen.iter().enumerate() {
                if *input >= 0 {
                    back[place * self.positions() + *input as usize] = position as i32;
                }
            }
        }
        back
    }

    fn each_place(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (rows, columns) = self.kernel;
        (0..rows).flat_map(move |u| (0..columns).map(move |v| (u, v)))
    }
}
