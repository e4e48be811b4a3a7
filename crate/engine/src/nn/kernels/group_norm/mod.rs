//! Group normalisation with scale and shift, an optional modulation per sample and an optional
//! SiLU, and its analytic gradient.

mod moved;

use super::pointwise::{silu, silu_slope};
use super::simd::{self, Kernel, Vector, mul_add};
use super::{Real, Shared, each, filled};

/// Rows that are summed before they are added to the total: long chains of f32 sums lose
/// digits.
const BLOCK: usize = 64;

/// z = n (weight) (1 + scale) + ..., where n is the input normalised over its group; then
/// SiLU of z where it is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct GroupNorm {
    pub batch: usize,
    pub positions: usize,
    pub channels: usize,
    pub groups: usize,
    pub eps: f64,
    pub silu: bool,
}

/// Weight and bias (C), and scale and shift of each sample (B, 2C).
#[derive(Clone, Copy)]
pub(crate) struct Affine<'a, T> {
    pub weight: &'a [T],
    pub bias: &'a [T],
    pub modulation: Option<&'a [T]>,
}

/// The gradients; `modulation` is empty where there was none.
pub(crate) struct Gradients<T> {
    pub input: Vec<T>,
    pub weight: Vec<T>,
    pub bias: Vec<T>,
    pub modulation: Vec<T>,
}

impl GroupNorm {
    fn each_group(&self) -> usize {
        self.channels / self.groups
    }

    // Channels of one task: all of them, or whole groups if there are few images.
    fn block(&self) -> usize {
        if self.batch >= 16 {
            return self.channels;
        }
        let groups = 32usize.div_ceil(self.each_group()).min(self.groups);
        groups * self.each_group()
    }

    fn tasks(&self) -> impl Fn(usize) -> (usize, usize, usize) + Sync + Send + use<> {
        let (block, channels) = (self.block(), self.channels);
        let blocks = channels.div_ceil(block.max(1));
        move |task| {
            let c = task % blocks * block;
            (task / blocks, c, (c + block).min(channels))
        }
    }

    fn count(&self) -> usize {
        self.batch * self.channels.div_ceil(self.block().max(1))
    }

    /// The output, and the mean and 1 / standard deviation of each sample and group (B, G, 2).
    pub fn forward<T: Real>(&self, xs: &[T], affine: Affine<T>) -> (Vec<T>, Vec<T>) {
        assert!(xs.len() == self.batch * self.positions * self.channels);
        let mut moments = vec![T::zero(); self.batch * self.groups * 2];
        let at = Shared::new(moments.as_mut_ptr());
        let task = self.tasks();
        let compute = |ys: Shared<T>| {
            each(self.count(), xs.len(), |i| {
                simd::dispatch(Forward { of: self, part: task(i), xs, affine, moments: at, ys });
            });
        };
        // SAFETY: the tasks cover all channels of all samples.
        (unsafe { filled(xs.len(), compute) }, moments)
    }

    /// The gradients, from that with respect to the output.
    pub fn backward<T: Real>(
        &self,
        xs: &[T],
        dys: &[T],
        moments: &[T],
        affine: Affine<T>,
    ) -> Gradients<T> {
        assert!(xs.len() == self.batch * self.positions * self.channels && xs.len() == dys.len());
        // Over the positions of each sample: the sums of dz and of dz n.
        let mut sums = vec![T::zero(); self.batch * 2 * self.channels];
        let at = Shared::new(sums.as_mut_ptr());
        let task = self.tasks();
        let compute = |dxs: Shared<T>| {
            each(self.count(), xs.len(), |i| {
                simd::dispatch(Backward {
                    of: self,
                    part: task(i),
                    xs,
                    dys,
                    affine,
                    moments,
                    sums: at,
                    dxs,
                });
            });
        };
        // SAFETY: the tasks cover all channels of all samples.
        let input = unsafe { filled(xs.len(), compute) };
        let channels = self.channels;
        let (mut weight, mut bias) = (vec![T::zero(); channels], vec![T::zero(); channels]);
        let mut modulation = Vec::new();
        for (b, sums) in sums.chunks_exact(2 * channels.max(1)).enumerate() {
            let (shift, scale) = sums.split_at(channels);
            for c in 0..channels {
                let factor = affine.factor(b, c);
                weight[c] += factor * scale[c];
                bias[c] += factor * shift[c];
            }
            if affine.modulation.is_some() {
                let with = |c: usize| affine.weight[c] * scale[c] + affine.bias[c] * shift[c];
                modulation.extend((0..channels).map(with));
                modulation.extend_from_slice(shift);
            }
        }
        Gradients { input, weight, bias, modulation }
    }
}

impl<T: Real> Affine<'_, T> {
    // 1 + scale
    #[inline(always)]
    fn factor(&self, sample: usize, c: usize) -> T {
        let channels = self.weight.len();
        self.modulation.map_or(T::one(), |m| T::one() + m[sample * 2 * channels + c])
    }

    // weight (1 + scale) and bias (1 + scale) + shift
    #[inline(always)]
    fn line(&self, sample: usize, c: usize) -> (T, T) {
        let channels = self.weight.len();
        let factor = self.factor(sample, c);
        let shift = self.modulation.map_or(T::zero(), |m| m[sample * 2 * channels + channels + c]);
        (self.weight[c] * factor, self.bias[c] * factor + shift)
    }
}

struct Forward<'a, T> {
    of: &'a GroupNorm,
    /// A sample and its channels from and to.
    part: (usize, usize, usize),
    xs: &'a [T],
    affine: Affine<'a, T>,
    moments: Shared<T>,
    ys: Shared<T>,
}

impl<T: Real> Kernel<T> for Forward<'_, T> {
    #[inline(always)]
    unsafe fn run<V: Vector<T>>(self) {
        let GroupNorm { positions, channels, groups, eps, .. } = *self.of;
        let (sample, from, to) = self.part;
        let (each, across) = (self.of.each_group(), to - from);
        let count = T::from_f64((positions * each) as f64);
        let first = sample * positions * channels + from;
        let row = |p: usize| &self.xs[first + p * channels..][..across];
        // The mean, then the variance around it: a difference of squares would lose the
        // digits where the mean is large.
        let mut sums = vec![T::zero(); across];
        let mut part = vec![T::zero(); across];
        add_rows(positions, &mut sums, &mut part, |p, part| {
            part.iter_mut().zip(row(p)).for_each(|(sum, x)| *sum += *x);
        });
        let mut means = vec![T::zero(); across];
        for (means, sums) in means.chunks_mut(each).zip(sums.chunks(each)) {
            means.fill(sums.iter().copied().sum::<T>() / count);
        }
        sums.fill(T::zero());
        add_rows(positions, &mut sums, &mut part, |p, part| {
            for ((sum, x), mean) in part.iter_mut().zip(row(p)).zip(&means) {
                *sum += (*x - *mean) * (*x - *mean);
            }
        });
        let (mut scale, mut shift) = (part, sums.clone());
        for (g, sums) in sums.chunks(each).enumerate() {
            let mean = means[g * each];
            let variance = sums.iter().copied().sum::<T>() / count;
            let inverse = T::one() / (variance + T::from_f64(eps)).sqrt();
            let at = (sample * groups + from / each + g) * 2;
            // SAFETY: the moments of this sample's group are this task's own.
            unsafe {
                self.moments.at(at).write(mean);
                self.moments.at(at + 1).write(inverse);
            }
            for c in g * each..(g + 1) * each {
                let (weight, bias) = self.affine.line(sample, from + c);
                scale[c] = weight * inverse;
                shift[c] = bias - mean * scale[c];
            }
        }
        for p in 0..positions {
            let to = self.ys.at(first + p * channels);
            let lines = row(p).iter().zip(&scale).zip(&shift).enumerate();
            // SAFETY: these channels of this row are the task's own.
            unsafe {
                if self.of.silu {
                    lines.for_each(|(c, ((x, a), b))| {
                        to.add(c).write(silu(mul_add(*x, *a, *b, V::FUSED), V::FUSED))
                    });
                } else {
                    lines.for_each(|(c, ((x, a), b))| {
                        to.add(c).write(mul_add(*x, *a, *b, V::FUSED))
                    });
                }
            }
        }
    }
}

// Sums of rows, by blocks.
#[inline(always)]
fn add_rows<T: Real>(
    rows: usize,
    sums: &mut [T],
    part: &mut [T],
    mut add: impl FnMut(usize, &mut [T]),
) {
    let mut from = 0;
    while from < rows {
        let to = (from + BLOCK).min(rows);
        part.fill(T::zero());
        for p in from..to {
            add(p, part);
        }
        sums.iter_mut().zip(part.iter()).for_each(|(sum, part)| *sum += *part);
        from = to;
    }
}

struct Backward<'a, T> {
    of: &'a GroupNorm,
    part: (usize, usize, usize),
    xs: &'a [T],
    dys: &'a [T],
    affine: Affine<'a, T>,
    moments: &'a [T],
    sums: Shared<T>,
    dxs: Shared<T>,
}

impl<T: Real> Kernel<T> for Backward<'_, T> {
    // With n = (x - mean) / s and g = dz weight (1 + scale):
    // dx = (g - mean(g) - n mean(g n)) / s, the means over the group.
    #[inline(always)]
    unsafe fn run<V: Vector<T>>(self) {
        let GroupNorm { positions, channels, groups, .. } = *self.of;
        let (sample, from, to) = self.part;
        let (each, across) = (self.of.each_group(), to - from);
        let count = T::from_f64((positions * each) as f64);
        let first = sample * positions * channels + from;
        let mut lines: Vec<[T; 2]> = Vec::with_capacity(across);
        let (mut scale, mut shift) = (vec![T::zero(); across], vec![T::zero(); across]);
        let (mut mean, mut inverse) = (vec![T::zero(); across], vec![T::zero(); across]);
        for c in 0..across {
            let at = (sample * groups + (from + c) / each) * 2;
            (mean[c], inverse[c]) = (self.moments[at], self.moments[at + 1]);
            let (weight, bias) = self.affine.line(sample, from + c);
            lines.push([weight, bias]);
            scale[c] = weight * inverse[c];
            shift[c] = bias - mean[c] * scale[c];
        }
        // dz, kept where dx will stand, and its sums.
        let (mut by_shift, mut by_scale) = (vec![T::zero(); across], vec![T::zero(); across]);
        let (mut part, mut part_scale) = (vec![T::zero(); across], vec![T::zero(); across]);
        let mut block = 0;
        while block < positions {
            let end = (block + BLOCK).min(positions);
            part.fill(T::zero());
            part_scale.fill(T::zero());
            for p in block..end {
                let at = first + p * channels;
                let (x, dy) = (&self.xs[at..][..across], &self.dys[at..][..across]);
                // SAFETY: these channels of this row are the task's own.
                let dz = unsafe { std::slice::from_raw_parts_mut(self.dxs.at(at), across) };
                if self.of.silu {
                    for ((((dz, x), dy), a), b) in
                        dz.iter_mut().zip(x).zip(dy).zip(&scale).zip(&shift)
                    {
                        *dz = *dy * silu_slope(mul_add(*x, *a, *b, V::FUSED), V::FUSED);
                    }
                } else {
                    dz.copy_from_slice(dy);
                }
                part.iter_mut().zip(dz.iter()).for_each(|(sum, dz)| *sum += *dz);
                for (((sum, dz), x), mean) in part_scale.iter_mut().zip(dz.iter()).zip(x).zip(&mean)
                {
                    *sum += *dz * (*x - *mean);
                }
            }
            by_shift.iter_mut().zip(&part).for_each(|(sum, part)| *sum += *part);
            by_scale.iter_mut().zip(&part_scale).for_each(|(sum, part)| *sum += *part);
            block = end;
        }
        by_scale.iter_mut().zip(&inverse).for_each(|(sum, inverse)| *sum *= *inverse);
        let to = self.sums.at(sample * 2 * channels + from);
        for c in 0..across {
            // SAFETY: the sums of these channels of this sample are the task's own.
            unsafe {
                to.add(c).write(by_shift[c]);
                to.add(channels + c).write(by_scale[c]);
            }
        }
        // dx = a dz + b x + c
        let (mut b, mut c0) = (part, part_scale);
        for g in 0..across / each {
            let range = g * each..(g + 1) * each;
            let (mut sum, mut dot) = (T::zero(), T::zero());
            for c in range.clone() {
                sum += lines[c][0] * by_shift[c];
                dot += lines[c][0] * by_scale[c];
            }
            for c in range {
                let inverse = inverse[c];
                b[c] = -(inverse * inverse * dot / count);
                c0[c] = -(inverse * sum / count) - mean[c] * b[c];
            }
        }
        for p in 0..positions {
            let at = first + p * channels;
            let x = &self.xs[at..][..across];
            // SAFETY: as above.
            let dx = unsafe { std::slice::from_raw_parts_mut(self.dxs.at(at), across) };
            for ((((dx, x), a), b), c) in dx.iter_mut().zip(x).zip(&scale).zip(&b).zip(&c0) {
                *dx = *a * *dx + *x * *b + *c;
            }
        }
    }
}
