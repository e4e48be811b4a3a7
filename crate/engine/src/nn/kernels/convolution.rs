//! Convolution with any window by gathering rows: each output position is the sum, over the places
//! of its window, of an input row times a matrix. Nothing is unfolded.

use super::epilogue::Epilogue;
use super::panels::{self, Panels};
use super::product::{DEPTH, Start, multiply, outer};
use super::simd::{self, Kernel, Vector};
use super::window::Window;
use super::winograd::{Four, Two};
use super::{Real, Shared, each, filled, winograd};

/// Output rows of one task, and of one pass of a weight's gradient.
const ROWS: usize = 192;
const GRADIENT_ROWS: usize = 96;
/// Input channels of one task of a weight's gradient.
const CHANNELS: usize = 16;

/// A convolution of `batch` images.
#[derive(Clone, Copy)]
pub(crate) struct Convolution {
    pub batch: usize,
    pub window: Window,
    pub inputs: usize,
    pub outputs: usize,
}

impl Convolution {
    /// `xs` (B, H, W, C), `weight` (O, C, k, k): (B, H', W', O).
    pub fn forward<T: Real>(&self, xs: &[T], weight: &[T], epilogue: Epilogue<T>) -> Vec<T> {
        if winograd::pays(Two, self.batch, &self.window, self.inputs, self.outputs) {
            let weights = winograd::weights(Two, weight, self.inputs, self.outputs, false);
            let (batch, inputs) = (self.batch, self.inputs);
            return winograd::convolve(Two, batch, &self.window, inputs, &weights, xs, epilogue);
        }
        let (places, inputs) = (self.window.places(), self.inputs);
        let panels = Panels::new(places * inputs, self.outputs, |k, first, out| {
            let from = &weight[(first * inputs + k % inputs) * places + k / inputs..];
            from.iter().step_by(inputs * places).zip(out).for_each(|(w, out)| *out = *w);
        });
        let positions = (self.window.positions(), self.window.output_positions());
        gather(self.batch, positions, inputs, &self.window.table(), &panels, xs, epilogue)
    }

    /// The gradient with respect to the input, from that with respect to the output.
    pub fn input_gradient<T: Real>(&self, dys: &[T], weight: &[T]) -> Vec<T> {
        if winograd::pays(Four, self.batch, &self.window, self.outputs, self.inputs) {
            let weights = winograd::weights(Four, weight, self.inputs, self.outputs, true);
            let (batch, outputs, none) = (self.batch, self.outputs, Epilogue::none());
            return winograd::convolve(Four, batch, &self.window, outputs, &weights, dys, none);
        }
        let (places, outputs) = (self.window.places(), self.outputs);
        let panels = Panels::new(places * outputs, self.inputs, |k, first, out| {
            let from = &weight[(k % outputs * self.inputs + first) * places + k / outputs..];
            from.iter().step_by(places).zip(out).for_each(|(w, out)| *out = *w);
        });
        let positions = (self.window.output_positions(), self.window.positions());
        let table = self.window.table_back();
        gather(self.batch, positions, outputs, &table, &panels, dys, Epilogue::none())
    }

    /// The gradient with respect to the weight (O, C, k, k).
    pub fn weight_gradient<T: Real>(&self, xs: &[T], dys: &[T]) -> Vec<T> {
        if winograd::pays(Four, self.batch, &self.window, self.inputs, self.outputs) {
            return winograd::weight_gradient(
                Four,
                self.batch,
                &self.window,
                (self.inputs, self.outputs),
                xs,
                dys,
            );
        }
        let (places, inputs) = (self.window.places(), self.inputs);
        let depth = places * inputs;
        let table = self.window.table();
        // Each task packs all gradients for its channels, so it takes many channels as long as
        // there are enough tasks for the threads.
        let tasks =
            |channels: usize| panels::count::<T>(self.outputs) * places * inputs.div_ceil(channels);
        let enough = 4 * rayon::current_num_threads();
        let mut channels = CHANNELS;
        while channels < 4 * CHANNELS && tasks(2 * channels) >= enough {
            channels *= 2;
        }
        let (blocks, tasks) = (inputs.div_ceil(channels), tasks(channels));
        let work = self.batch * self.window.output_positions() * self.outputs;
        // SAFETY: the tasks' rows of the panels follow each other and cover them.
        let sums = unsafe {
            filled(panels::len::<T>(depth, self.outputs), |sums| {
                each(tasks, work, |task| {
                    let (panel, rest) = (task / (places * blocks), task % (places * blocks));
                    let (place, block) = (rest / blocks, rest % blocks);
                    simd::dispatch(Gradient {
                        of: self,
                        seen: &table[place * self.window.output_positions()..]
                            [..self.window.output_positions()],
                        xs,
                        dys,
                        panel,
                        channels: (block * channels, ((block + 1) * channels).min(inputs)),
                        depth,
                        row: place * inputs,
                        sums,
                    });
                });
            })
        };
        let mut dw = vec![T::zero(); self.outputs * depth];
        let to = Shared::new(dw.as_mut_ptr());
        each(self.outputs, self.outputs * depth, |o| {
            let index = o / panels::width::<T>();
            let (vectors, first, _) = panels::place::<T>(self.outputs, index);
            let across = vectors * simd::lanes::<T>();
            let from = &sums[first * depth + o - first..];
            for k in 0..depth {
                let (place, c) = (k / inputs, k % inputs);
                // SAFETY: the rows of `dw` do not overlap, and this index lies in row `o`.
                unsafe { to.at((o * inputs + c) * places + place).write(from[k * across]) };
            }
        });
        dw
    }
}

/// ys (batch, out, O): for each output position the sum, over the table's places, of the input row
/// there times the place's rows of `panels`.
fn gather<T: Real>(
    batch: usize,
    (positions, out): (usize, usize),
    channels: usize,
    table: &[i32],
    panels: &Panels<T>,
    xs: &[T],
    epilogue: Epilogue<T>,
) -> Vec<T> {
    let (rows, outputs) = (batch * out, panels.columns());
    assert!(xs.len() == batch * positions * channels);
    assert!(epilogue.bias.is_none_or(|b| b.len() == outputs));
    assert!(epilogue.residual.is_none_or(|r| r.len() == rows * outputs));
    let outside = vec![T::zero(); channels];
    let chunks = rows.div_ceil(ROWS);
    let work = rows * outputs * (table.len() / out.max(1) * channels / 8).max(1);
    let compute = |ys: Shared<T>| {
        each(chunks * panels.count(), work, |task| {
            let (chunk, panel) = (task / panels.count(), task % panels.count());
            simd::dispatch(Gather {
                rows: (chunk * ROWS, ((chunk + 1) * ROWS).min(rows)),
                positions,
                out,
                channels,
                table,
                panels,
                panel,
                xs,
                outside: &outside,
                epilogue,
                ys,
            });
        });
    };
    // SAFETY: every task writes its rows of its panel's columns; together that is all.
    unsafe { filled(rows * outputs, compute) }
}

struct Gather<'a, T> {
    rows: (usize, usize),
    positions: usize,
    out: usize,
    channels: usize,
    table: &'a [i32],
    panels: &'a Panels<T>,
    panel: usize,
    xs: &'a [T],
    outside: &'a [T],
    epilogue: Epilogue<'a, T>,
    ys: Shared<T>,
}

impl<T: Real> Kernel<T> for Gather<'_, T> {
    #[inline(always)]
    unsafe fn run<V: Vector<T>>(self) {
        let Self { rows: (from, to), positions, out, channels, ys, .. } = self;
        let outputs = self.panels.columns();
        let panel = self.panels.panel(self.panel, 0);
        let mut start = [T::zero(); 64];
        if let Some(bias) = self.epilogue.bias {
            start[..panel.columns].copy_from_slice(&bias[panel.first..][..panel.columns]);
        }
        let mut begin = Start::From(start.as_ptr());
        for (place, seen) in self.table.chunks_exact(out).enumerate() {
            let mut c = 0;
            while c < channels {
                let depth = DEPTH.min(channels - c);
                let panel = self.panels.panel(self.panel, place * channels + c);
                let row = |r: usize| {
                    let (image, position) = ((from + r) / out, (from + r) % out);
                    let input = seen[position];
                    if input < 0 {
                        self.outside[c..].as_ptr()
                    } else {
                        let at = (image * positions + input as usize) * channels + c;
                        // SAFETY: the table's entries are positions of an image.
                        unsafe { self.xs.as_ptr().add(at) }
                    }
                };
                let at = |r: usize| ys.at((from + r) * outputs);
                // SAFETY: a row of the input or of zeros has `channels` elements, and the
                // output rows of this task are its own.
                unsafe { multiply::<T, V>(to - from, depth, row, panel, at, begin) };
                begin = Start::There;
                c += depth;
            }
        }
        if self.epilogue.is_more_than_bias() {
            for r in from..to {
                let first = r * outputs + panel.first;
                // SAFETY: these columns of this row are the task's own, and written above.
                let ys = unsafe { std::slice::from_raw_parts_mut(ys.at(first), panel.columns) };
                if let Some(per_sample) = self.epilogue.per_sample {
                    let image = if per_sample.len() == outputs { 0 } else { r / out };
                    let add = &per_sample[image * outputs + panel.first..][..panel.columns];
                    ys.iter_mut().zip(add).for_each(|(y, add)| *y += *add);
                }
                if let Some(residual) = self.epilogue.residual {
                    let add = &residual[first..][..panel.columns];
                    ys.iter_mut().zip(add).for_each(|(y, add)| *y += *add);
                }
                ys.iter_mut().for_each(|y| *y *= self.epilogue.factor);
            }
        }
    }
}

// One place's rows of the weight's gradient, for a block of input channels and one panel.
struct Gradient<'a, T> {
    of: &'a Convolution,
    seen: &'a [i32],
    xs: &'a [T],
    dys: &'a [T],
    panel: usize,
    channels: (usize, usize),
    depth: usize,
    row: usize,
    sums: Shared<T>,
}

impl<T: Real> Kernel<T> for Gradient<'_, T> {
    #[inline(always)]
    unsafe fn run<V: Vector<T>>(self) {
        let Convolution { batch, window, inputs, outputs } = *self.of;
        let (positions, out) = (window.positions(), window.output_positions());
        let (vectors, first, columns) = panels::place::<T>(outputs, self.panel);
        let across = vectors * V::LANES;
        let (c, end) = self.channels;
        let to = self.sums.at(first * self.depth + (self.row + c) * across);
        let mut rows: Vec<*const T> = Vec::with_capacity(GRADIENT_ROWS);
        let mut grads = vec![T::zero(); GRADIENT_ROWS * across];
        let mut fresh = true;
        let mut flush = |rows: &mut Vec<*const T>, grads: &[T]| {
            // SAFETY: the rows have `inputs` elements from `c` on, and this part of the
            // sums is the task's own.
            unsafe { outer::<T, V>(rows, end - c, grads.as_ptr(), vectors, to, fresh) };
            fresh = false;
            rows.clear();
        };
        for image in 0..batch {
            for (position, input) in self.seen.iter().enumerate() {
                if *input < 0 {
                    continue;
                }
                let at = (image * positions + *input as usize) * inputs + c;
                let dy = &self.dys[(image * out + position) * outputs + first..][..columns];
                let to = &mut grads[rows.len() * across..][..across];
                if columns == across {
                    // A call to memmove would take as long as the copy.
                    for n in 0..vectors {
                        // SAFETY: both have `vectors` registers.
                        unsafe {
                            V::load(dy.as_ptr().add(n * V::LANES))
                                .store(to.as_mut_ptr().add(n * V::LANES));
                        }
                    }
                } else {
                    to[..columns].copy_from_slice(dy);
                }
                rows.push(self.xs[at..].as_ptr());
                if rows.len() == GRADIENT_ROWS {
                    flush(&mut rows, &grads);
                }
            }
        }
        flush(&mut rows, &grads);
    }
}

/// The sums over the positions of each image: (B, positions, C) to (B, C).
pub(crate) fn sum_positions<T: Real>(values: &[T], batch: usize, channels: usize) -> Vec<T> {
    let positions = values.len() / (batch * channels).max(1);
    let mut sums = vec![T::zero(); batch * channels];
    let to = Shared::new(sums.as_mut_ptr());
    each(batch, values.len(), |image| {
        let values = &values[image * positions * channels..][..positions * channels];
        // SAFETY: an image's row of the sums is this task's.
        let sums = unsafe { std::slice::from_raw_parts_mut(to.at(image * channels), channels) };
        simd::dispatch(Sum { values, sums });
    });
    sums
}

/// The sums over rows in blocks of a fixed size, then over the blocks.
pub(crate) fn sum_rows<T: Real>(values: &[T], channels: usize) -> Vec<T> {
    let block = 256 * channels;
    let blocks = values.len().div_ceil(block.max(1));
    let mut parts = vec![T::zero(); blocks * channels];
    let to = Shared::new(parts.as_mut_ptr());
    each(blocks, values.len(), |i| {
        let values = &values[i * block..((i + 1) * block).min(values.len())];
        // SAFETY: each block has a row of its own.
        let sums = unsafe { std::slice::from_raw_parts_mut(to.at(i * channels), channels) };
        simd::dispatch(Sum { values, sums });
    });
    let mut total = vec![T::zero(); channels];
    for part in parts.chunks(channels.max(1)) {
        total.iter_mut().zip(part).for_each(|(sum, part)| *sum += *part);
    }
    total
}

struct Sum<'a, T> {
    values: &'a [T],
    sums: &'a mut [T],
}

impl<T: Real> Kernel<T> for Sum<'_, T> {
    #[inline(always)]
    unsafe fn run<V: Vector<T>>(self) {
        let channels = self.sums.len();
        // By blocks of rows: a long chain of f32 sums would lose digits.
        for rows in self.values.chunks(64 * channels.max(1)) {
            let mut c = 0;
            while c < channels {
                let here = 64.min(channels - c);
                let mut sums = [T::zero(); 64];
                for row in rows.chunks_exact(channels) {
                    let row = &row[c..c + here];
                    if here == 64 {
                        sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += *x);
                    } else {
                        sums[..here].iter_mut().zip(row).for_each(|(sum, x)| *sum += *x);
                    }
                }
                let to = &mut self.sums[c..c + here];
                to.iter_mut().zip(&sums).for_each(|(to, sum)| *to += *sum);
                c += here;
            }
        }
    }
}
