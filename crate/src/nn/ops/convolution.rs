//! y = W * x + b, a convolution at stride 1 with the padding that keeps the size, as one
//! operation.
//!
//! Forward and backward are matrix products with the unfolded images, whose columns hold
//! the window of each position. A few images at a time: enough columns for a fast product,
//! few enough to stay in the cache.

use super::Real;
use super::layer::{Layer, apply};
use super::product::{add_product, rows, turned};
use candle_core::{Result, Shape, Tensor, bail};
use gemm::Parallelism;
use rayon::prelude::*;

/// Columns of one product.
const COLUMNS: usize = 256;
/// Sums of the weight's gradient that are taken at once.
const SPANS: usize = 8;

/// `xs` (B, C_in, H, W), `weight` (C_out, C_in, k, k) with an odd k, `bias` (C_out): (B,
/// C_out, H, W).
pub(crate) fn convolution(xs: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    apply(Convolution, xs, weight, bias)
}

struct Convolution;

impl Layer for Convolution {
    const NAME: &'static str = "convolution";

    fn shape(&self, xs: &Shape, weight: &Shape) -> Result<Shape> {
        let sizes = Sizes::new(xs, weight)?;
        Ok(Shape::from((sizes.batch, sizes.outputs, sizes.height, sizes.width)))
    }

    fn forward<T: Real>(
        &self,
        [x, w, bias]: [&[T]; 3],
        [xs, weight]: [&Shape; 2],
    ) -> Result<Vec<T>> {
        Ok(Sizes::new(xs, weight)?.convolve(x, w, bias))
    }

    fn backward<T: Real>(
        &self,
        [x, w, dy]: [&[T]; 3],
        [xs, weight]: [&Shape; 2],
    ) -> Result<[Vec<T>; 3]> {
        let sizes = Sizes::new(xs, weight)?;
        let (dw, db) = sizes.weight_gradient(x, dy);
        // The input's gradient is a convolution with the turned kernel.
        let back = Sizes { inputs: sizes.outputs, outputs: sizes.inputs, ..sizes };
        let dx = back.convolve(dy, &sizes.turn(w), &vec![T::zero(); sizes.inputs]);
        Ok([dx, dw, db])
    }
}

#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    inputs: usize,
    outputs: usize,
    height: usize,
    width: usize,
    kernel: usize,
}

impl Sizes {
    fn new(xs: &Shape, weight: &Shape) -> Result<Self> {
        let (batch, inputs, height, width) = xs.dims4()?;
        let (outputs, of, kernel, across) = weight.dims4()?;
        if inputs != of {
            bail!("a convolution over {of} channels was given {inputs}");
        }
        if kernel != across || kernel % 2 == 0 {
            bail!("a kernel of {kernel}x{across}: this convolution takes odd square ones");
        }
        if [inputs, outputs, height, width].contains(&0) {
            bail!("a convolution of {:?} by {:?}: nothing to do", xs.dims(), weight.dims());
        }
        Ok(Self { batch, inputs, outputs, height, width, kernel })
    }

    fn positions(&self) -> usize {
        self.height * self.width
    }

    /// The values in a window.
    fn window(&self) -> usize {
        self.inputs * self.kernel * self.kernel
    }

    /// Images a product.
    fn group(&self) -> usize {
        (COLUMNS / self.positions()).max(1)
    }

    // (C_out, C_in, k, k) to (C_in, C_out, k, k), each window from its other end.
    fn turn<T: Real>(&self, weight: &[T]) -> Vec<T> {
        let area = self.kernel * self.kernel;
        let windows = (0..self.inputs)
            .flat_map(|i| (0..self.outputs).map(move |o| (o * self.inputs + i) * area));
        windows.flat_map(|at| weight[at..at + area].iter().rev().copied()).collect()
    }

    fn convolve<T: Real>(&self, xs: &[T], weight: &[T], bias: &[T]) -> Vec<T> {
        let (positions, window, group) = (self.positions(), self.window(), self.group());
        let mut ys = vec![T::zero(); self.batch * self.outputs * positions];
        // A single image is split within its product.
        let on = if self.batch == 1 { Parallelism::Rayon(0) } else { Parallelism::None };
        let buffers = || (Vec::new(), Vec::new());
        ys.par_chunks_mut(group * self.outputs * positions)
            .zip(xs.par_chunks(group * self.inputs * positions))
            .for_each_init(buffers, |(unfolded, product), (ys, xs)| {
                self.unfold(xs, unfolded);
                let columns = unfolded.len() / window;
                product.clear();
                for bias in bias {
                    product.resize(product.len() + columns, *bias);
                }
                let sizes = (self.outputs, window, columns);
                add_product(product, sizes, rows(weight, window), rows(unfolded, columns), on);
                // (C_out, images, positions) to (images, C_out, positions)
                for (i, y) in ys.chunks_exact_mut(positions).enumerate() {
                    let (image, channel) = (i / self.outputs, i % self.outputs);
                    let from = channel * columns + image * positions;
                    y.copy_from_slice(&product[from..from + positions]);
                }
            });
        ys
    }

    // dW[o, (i, u, v)] = the sum over images and positions of dy[o, p] x[i, p + (u, v)], and
    // db[o] that of dy[o, p]. In spans that do not depend on the number of threads.
    fn weight_gradient<T: Real>(&self, xs: &[T], dys: &[T]) -> (Vec<T>, Vec<T>) {
        let (positions, window, group) = (self.positions(), self.window(), self.group());
        let span = self.batch.div_ceil(group).div_ceil(SPANS) * group;
        let sums: Vec<(Vec<T>, Vec<T>)> = xs
            .par_chunks((span * self.inputs * positions).max(1))
            .zip(dys.par_chunks((span * self.outputs * positions).max(1)))
            .map(|(xs, dys)| {
                let mut dw = vec![T::zero(); self.outputs * window];
                let mut db = vec![T::zero(); self.outputs];
                let (mut unfolded, mut gathered) = (Vec::new(), Vec::new());
                let xs = xs.chunks(group * self.inputs * positions);
                for (xs, dys) in xs.zip(dys.chunks(group * self.outputs * positions)) {
                    self.unfold(xs, &mut unfolded);
                    let columns = unfolded.len() / window;
                    // (images, C_out, positions) to (C_out, images, positions)
                    gathered.clear();
                    for (channel, db) in db.iter_mut().enumerate() {
                        for image in dys.chunks_exact(self.outputs * positions) {
                            let dy = &image[channel * positions..(channel + 1) * positions];
                            gathered.extend_from_slice(dy);
                            *db += dy.iter().copied().sum();
                        }
                    }
                    let sizes = (self.outputs, columns, window);
                    let (a, b) = (rows(&gathered, columns), turned(&unfolded, columns));
                    add_product(&mut dw, sizes, a, b, Parallelism::None);
                }
                (dw, db)
            })
            .collect();
        let mut total = (vec![T::zero(); self.outputs * window], vec![T::zero(); self.outputs]);
        for (dw, db) in sums {
            total.0.iter_mut().zip(dw).for_each(|(sum, dw)| *sum += dw);
            total.1.iter_mut().zip(db).for_each(|(sum, db)| *sum += db);
        }
        total
    }

    // Images (n, C_in, H, W) as a matrix (C_in k k, n H W): a row for each place in the
    // window, zero where it lies outside the image. `unfolded` may hold what it held before.
    fn unfold<T: Real>(&self, xs: &[T], unfolded: &mut Vec<T>) {
        let Self { inputs, kernel, .. } = *self;
        let positions = self.positions();
        let images = xs.len() / (inputs * positions);
        unfolded.resize(self.window() * images * positions, T::zero());
        if kernel == 1 && images == 1 {
            unfolded.copy_from_slice(xs);
            return;
        }
        let rows = unfolded.chunks_exact_mut(images * positions);
        for (row, place) in rows.zip(0..) {
            let (channel, u, v) =
                (place / (kernel * kernel), place / kernel % kernel, place % kernel);
            for (image, out) in row.chunks_exact_mut(positions).enumerate() {
                let plane = &xs[(image * inputs + channel) * positions..][..positions];
                self.shift(plane, u, v, out);
            }
        }
    }

    // `plane` as the place (u, v) of the window sees it. One copy of all that overlaps; what
    // it takes from the other end of a neighbouring line is put to zero.
    fn shift<T: Real>(&self, plane: &[T], u: usize, v: usize, out: &mut [T]) {
        let (width, pad) = (self.width, self.kernel / 2);
        let ahead = (u * width + v).saturating_sub(pad * width + pad).min(plane.len());
        let behind = (pad * width + pad).saturating_sub(u * width + v).min(plane.len());
        let overlap = plane.len() - ahead - behind;
        out[..behind].fill(T::zero());
        out[behind..behind + overlap].copy_from_slice(&plane[ahead..ahead + overlap]);
        out[behind + overlap..].fill(T::zero());
        if v != pad {
            let left = pad.saturating_sub(v).min(width);
            let right = width - v.saturating_sub(pad).min(width);
            for column in (0..left).chain(right..width) {
                out[column..].iter_mut().step_by(width).for_each(|x| *x = T::zero());
            }
        }
    }
}
