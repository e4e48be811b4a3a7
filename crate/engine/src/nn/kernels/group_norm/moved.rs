//! What the output of a group norm moves along where its input and its modulation move.

use super::{Affine, GroupNorm, add_rows};
use crate::nn::kernels::pointwise::silu_slope;
use crate::nn::kernels::simd::{self, Kernel, Vector, mul_add};
use crate::nn::kernels::{Real, Shared, each, filled};

impl GroupNorm {
    /// What the output moves along, where the input and the modulation move along `dxs` and
    /// `d_modulation`.
    pub fn tangent<T: Real>(
        &self,
        (xs, dxs): (&[T], &[T]),
        moments: &[T],
        affine: Affine<T>,
        d_modulation: Option<&[T]>,
    ) -> Vec<T> {
        assert!(xs.len() == self.batch * self.positions * self.channels && xs.len() == dxs.len());
        let task = self.tasks();
        let compute = |dys: Shared<T>| {
            each(self.count(), xs.len(), |i| {
                let (of, part) = (self, task(i));
                simd::dispatch(Moved { of, part, xs, dxs, affine, moments, d_modulation, dys });
            });
        };
        // SAFETY: the tasks cover all channels of all samples.
        unsafe { filled(xs.len(), compute) }
    }
}

struct Moved<'a, T> {
    of: &'a GroupNorm,
    part: (usize, usize, usize),
    xs: &'a [T],
    dxs: &'a [T],
    affine: Affine<'a, T>,
    moments: &'a [T],
    d_modulation: Option<&'a [T]>,
    dys: Shared<T>,
}

impl<T: Real> Kernel<T> for Moved<'_, T> {
    // With n = (x - mean) / s: dn = (dx - mean(dx) - n mean(n dx)) / s, the means over the group;
    // dz = weight (1 + scale) dn + dscale (weight n + bias) + dshift.
    #[inline(always)]
    unsafe fn run<V: Vector<T>>(self) {
        let GroupNorm { positions, channels, groups, .. } = *self.of;
        let (sample, from, to) = self.part;
        let (each, across) = (self.of.each_group(), to - from);
        let count = T::from_f64((positions * each) as f64);
        let first = sample * positions * channels + from;
        let mut means = vec![T::zero(); across];
        for (c, mean) in means.iter_mut().enumerate() {
            *mean = self.moments[(sample * groups + (from + c) / each) * 2];
        }
        // The sums of dx and of dx (x - mean).
        let (mut both, mut part) = (vec![T::zero(); 2 * across], vec![T::zero(); 2 * across]);
        add_rows(positions, &mut both, &mut part, |p, part| {
            let at = first + p * channels;
            let (x, dx) = (&self.xs[at..][..across], &self.dxs[at..][..across]);
            let (sums, dots) = part.split_at_mut(across);
            sums.iter_mut().zip(dx).for_each(|(sum, dx)| *sum += *dx);
            for (((sum, dx), x), mean) in dots.iter_mut().zip(dx).zip(x).zip(&means) {
                *sum += *dx * (*x - *mean);
            }
        });
        let (sums, dots) = both.split_at(across);
        // z = scale x + shift and dz = scale dx + b x + c.
        let (scale, shift) = part.split_at_mut(across);
        let (mut b, mut c0) = (vec![T::zero(); across], vec![T::zero(); across]);
        for g in 0..across / each {
            let range = g * each..(g + 1) * each;
            let inverse = self.moments[(sample * groups + from / each + g) * 2 + 1];
            let mean = means[g * each];
            let sum = sums[range.clone()].iter().copied().sum::<T>() / count;
            let dot = dots[range.clone()].iter().copied().sum::<T>() * inverse / count;
            for c in range {
                let (weight, bias) = self.affine.line(sample, from + c);
                scale[c] = weight * inverse;
                shift[c] = bias - mean * scale[c];
                b[c] = -(scale[c] * inverse * dot);
                c0[c] = -(scale[c] * sum) - mean * b[c];
                if let Some(moved) = self.d_modulation {
                    let at = sample * 2 * channels + from + c;
                    let (d_scale, d_shift) = (moved[at], moved[at + channels]);
                    let own = self.affine.weight[from + c] * inverse;
                    b[c] += d_scale * own;
                    c0[c] += d_scale * (self.affine.bias[from + c] - mean * own) + d_shift;
                }
            }
        }
        for p in 0..positions {
            let at = first + p * channels;
            let (x, dx, to) =
                (&self.xs[at..][..across], &self.dxs[at..][..across], self.dys.at(at));
            let lines = x.iter().zip(dx).zip(&*scale).zip(&b).zip(&c0).enumerate();
            // SAFETY: these channels of this row are the task's own.
            unsafe {
                if self.of.silu {
                    for ((c, ((((x, dx), a), b), c0)), shift) in lines.zip(&*shift) {
                        let dz = mul_add(*a, *dx, mul_add(*b, *x, *c0, V::FUSED), V::FUSED);
                        let z = mul_add(*x, *a, *shift, V::FUSED);
                        to.add(c).write(dz * silu_slope(z, V::FUSED));
                    }
                } else {
                    for (c, ((((x, dx), a), b), c0)) in lines {
                        let dz = mul_add(*a, *dx, mul_add(*b, *x, *c0, V::FUSED), V::FUSED);
                        to.add(c).write(dz);
                    }
                }
            }
        }
    }
}
