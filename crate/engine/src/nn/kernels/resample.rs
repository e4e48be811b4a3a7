//! Resampling of images by two sparse matrices, one down the rows and one across the
//! columns: nearest-neighbour, pooling and FIR filters are all of this form, and the
//! gradient is the same with both matrices transposed.

use super::simd::{self, Kernel, Lanes, Vector};
use super::{Real, Shared, each, filled};

/// For each output index the inputs it takes and their weights.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Taps {
    inputs: usize,
    rows: Vec<Vec<(usize, f64)>>,
}

impl Taps {
    /// Each input twice.
    pub fn nearest_up(inputs: usize) -> Self {
        Self { inputs, rows: (0..2 * inputs).map(|i| vec![(i / 2, 1.0)]).collect() }
    }

    /// The mean of each pair.
    pub fn mean_down(inputs: usize) -> Self {
        Self {
            inputs,
            rows: (0..inputs / 2).map(|i| vec![(2 * i, 0.5), (2 * i + 1, 0.5)]).collect(),
        }
    }

    /// The mean of each three neighbours, and of two at the ends.
    pub fn mean3(inputs: usize) -> Self {
        let row = |i: usize| {
            let seen = i.saturating_sub(1)..(i + 2).min(inputs);
            let weight = 1.0 / seen.len() as f64;
            seen.map(|at| (at, weight)).collect()
        };
        Self { inputs, rows: (0..inputs).map(row).collect() }
    }

    /// Linear interpolation at the centres of `outputs` pixels.
    pub fn linear(inputs: usize, outputs: usize) -> Self {
        let row = |i: usize| {
            let place = ((i as f64 + 0.5) * inputs as f64 / outputs as f64 - 0.5).max(0.0);
            let left = (place as usize).min(inputs - 1);
            let part = place - left as f64;
            vec![(left, 1.0 - part), ((left + 1).min(inputs - 1), part)]
        };
        Self { inputs, rows: (0..outputs).map(row).collect() }
    }

    /// `kernel` on the inputs with `up - 1` zeros after each and `padding` zeros before and
    /// after all, every `down`-th output: "upfirdn" (Karras et al. 2019).
    pub fn fir(
        inputs: usize,
        kernel: &[f64],
        up: usize,
        down: usize,
        padding: (usize, usize),
    ) -> Self {
        let len = (inputs * up + padding.0 + padding.1 + 1).saturating_sub(kernel.len());
        let row = |i: usize| {
            let taps = kernel.iter().rev().enumerate().filter_map(|(j, weight)| {
                let at = (i + j).checked_sub(padding.0)?;
                (at % up == 0 && at / up < inputs).then_some((at / up, *weight))
            });
            taps.collect()
        };
        Self { inputs, rows: (0..len).step_by(down).map(row).collect() }
    }

    /// How many outputs.
    pub fn outputs(&self) -> usize {
        self.rows.len()
    }

    /// How many inputs.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// The transposed matrix.
    pub fn transposed(&self) -> Self {
        let mut rows = vec![Vec::new(); self.inputs];
        for (output, taps) in self.rows.iter().enumerate() {
            for (input, weight) in taps {
                rows[*input].push((output, *weight));
            }
        }
        Self { inputs: self.rows.len(), rows }
    }

    /// The matrix (outputs, inputs), row by row.
    pub fn dense(&self) -> Vec<f64> {
        let mut matrix = vec![0.0; self.rows.len() * self.inputs];
        for (output, taps) in self.rows.iter().enumerate() {
            for (input, weight) in taps {
                matrix[output * self.inputs + input] += weight;
            }
        }
        matrix
    }
}

/// (B, H, W, C) to (B, H', W', C).
pub(crate) fn resample<T: Real>(xs: &[T], channels: usize, down: &Taps, across: &Taps) -> Vec<T> {
    let image = down.inputs * across.inputs * channels;
    let batch = xs.len() / image.max(1);
    let (rows, columns) = (down.outputs(), across.outputs());
    let line = columns * channels;
    let compute = |ys: Shared<T>| {
        each(batch * rows, batch * rows * line, |row| {
            simd::dispatch(Row {
                xs: &xs[row / rows * image..][..image],
                channels,
                taps: &down.rows[row % rows],
                across,
                ys: ys.at(row * line),
            });
        });
    };
    // SAFETY: each row of the output is written by its task.
    unsafe { filled(batch * rows * line, compute) }
}

struct Row<'a, T> {
    xs: &'a [T],
    channels: usize,
    taps: &'a [(usize, f64)],
    across: &'a Taps,
    ys: *mut T,
}

impl<T: Real> Kernel<T> for Row<'_, T> {
    #[inline(always)]
    unsafe fn run<V: Vector<T>>(self) {
        let Self { xs, channels, across, .. } = self;
        let mut seen: Vec<(*const T, T)> = Vec::with_capacity(16);
        for (x, taps) in across.rows.iter().enumerate() {
            seen.clear();
            for (row, weight) in self.taps {
                for (column, factor) in taps {
                    let at = (row * across.inputs + column) * channels;
                    seen.push((xs[at..][..channels].as_ptr(), T::from_f64(weight * factor)));
                }
            }
            // SAFETY: each of `seen` and the output's position have `channels` elements.
            unsafe {
                let to = self.ys.add(x * channels);
                let whole = weigh::<T, V>(&seen, 0, channels, to);
                weigh::<T, Lanes<T, 1>>(&seen, whole, channels, to);
            }
        }
    }
}

#[inline(always)]
unsafe fn weigh<T: Real, V: Vector<T>>(
    seen: &[(*const T, T)],
    first: usize,
    channels: usize,
    to: *mut T,
) -> usize {
    let mut c = first;
    unsafe {
        while c + V::LANES <= channels {
            let mut sum = V::splat(T::zero());
            for (from, weight) in seen {
                sum = V::load(from.add(c)).mul_add(V::splat(*weight), sum);
            }
            sum.store(to.add(c));
            c += V::LANES;
        }
    }
    c
}
