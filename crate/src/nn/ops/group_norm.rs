//! Group normalisation with scale and shift, and its analytic gradient.

use super::layer::{Layer, apply};
use super::{PARALLEL, Real};
use candle_core::{Result, Shape, Tensor};
use rayon::prelude::*;

/// `xs` (B, C, ..) normalised over each of `groups` groups of channels, times `weight`
/// (C) plus `bias` (C).
pub(crate) fn group_norm(
    xs: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    groups: usize,
    eps: f64,
) -> Result<Tensor> {
    apply(GroupNorm { groups, eps }, xs, weight, bias)
}

struct GroupNorm {
    groups: usize,
    eps: f64,
}

// How one sample splits: `groups` groups of `channels` channels of `space` positions.
#[derive(Clone, Copy)]
struct Split {
    groups: usize,
    channels: usize,
    space: usize,
}

impl Split {
    fn new(dims: &[usize], groups: usize) -> Self {
        Self { groups, channels: dims[1] / groups, space: dims[2..].iter().product() }
    }

    fn group(&self) -> usize {
        self.channels * self.space
    }
}

impl Layer for GroupNorm {
    const NAME: &'static str = "group-norm";

    fn shape(&self, xs: &Shape, _weight: &Shape) -> Result<Shape> {
        Ok(xs.clone())
    }

    fn forward<T: Real>(
        &self,
        [xs, weight, bias]: [&[T]; 3],
        [shape, _]: [&Shape; 2],
    ) -> Result<Vec<T>> {
        let split = Split::new(shape.dims(), self.groups);
        let mut ys = vec![T::zero(); xs.len()];
        each_group(&mut ys, split, |index, ys| {
            let xs = &xs[index * split.group()..][..split.group()];
            let (mean, inverse) = moments(xs, self.eps);
            let first = index % split.groups * split.channels;
            for (c, (ys, xs)) in ys.chunks_mut(split.space).zip(xs.chunks(split.space)).enumerate()
            {
                let scale = weight[first + c] * inverse;
                let shift = bias[first + c] - mean * scale;
                ys.iter_mut().zip(xs).for_each(|(y, x)| *y = *x * scale + shift);
            }
        });
        Ok(ys)
    }

    // With n = (x - mean) / s: dweight = sum dy n, dbias = sum dy, and for g = dy weight:
    // dx = (g - mean(g) - n mean(g n)) / s, the means over the group.
    fn backward<T: Real>(
        &self,
        [x, weight, dy]: [&[T]; 3],
        [shape, _]: [&Shape; 2],
    ) -> Result<[Vec<T>; 3]> {
        let split = Split::new(shape.dims(), self.groups);
        let (batch, channels) = (shape.dims()[0], shape.dims()[1]);
        let mut dx = vec![T::zero(); x.len()];
        // Each sample's (dweight, dbias), added up in the samples' order afterwards.
        let mut each = vec![T::zero(); batch * 2 * channels];
        let count = T::from_f64(split.group() as f64);
        let work = |index: usize, dx: &mut [T], each: &mut [T]| {
            let range = index * split.group()..(index + 1) * split.group();
            let (x, dy) = (&x[range.clone()], &dy[range]);
            let (mean, inverse) = moments(x, self.eps);
            let first = index % split.groups * split.channels;
            let (mut sum_g, mut sum_gn) = (T::zero(), T::zero());
            for c in 0..split.channels {
                let place = c * split.space..(c + 1) * split.space;
                let (mut dot, mut sum) = (T::zero(), T::zero());
                for (x, dy) in x[place.clone()].iter().zip(&dy[place]) {
                    dot += *dy * (*x - mean);
                    sum += *dy;
                }
                let dot = dot * inverse;
                each[2 * c] = dot;
                each[2 * c + 1] = sum;
                sum_g += sum * weight[first + c];
                sum_gn += dot * weight[first + c];
            }
            let (mean_g, mean_gn) = (sum_g / count, sum_gn / count);
            for c in 0..split.channels {
                let place = c * split.space..(c + 1) * split.space;
                let w = weight[first + c];
                for ((dx, x), dy) in
                    dx[place.clone()].iter_mut().zip(&x[place.clone()]).zip(&dy[place])
                {
                    let normal = (*x - mean) * inverse;
                    *dx = (*dy * w - mean_g - normal * mean_gn) * inverse;
                }
            }
        };
        let pairs = 2 * split.channels;
        if dx.len() < PARALLEL {
            let rows = dx.chunks_mut(split.group()).zip(each.chunks_mut(pairs));
            rows.enumerate().for_each(|(i, (dx, each))| work(i, dx, each));
        } else {
            let rows = dx.par_chunks_mut(split.group()).zip(each.par_chunks_mut(pairs));
            rows.enumerate().for_each(|(i, (dx, each))| work(i, dx, each));
        }
        let (mut dweight, mut dbias) = (vec![T::zero(); channels], vec![T::zero(); channels]);
        for sample in each.chunks(2 * channels) {
            for (c, pair) in sample.chunks(2).enumerate() {
                dweight[c] += pair[0];
                dbias[c] += pair[1];
            }
        }
        Ok([dx, dweight, dbias])
    }
}

fn each_group<T: Real>(ys: &mut [T], split: Split, f: impl Fn(usize, &mut [T]) + Sync + Send) {
    if ys.len() < PARALLEL {
        ys.chunks_mut(split.group()).enumerate().for_each(|(i, ys)| f(i, ys));
    } else {
        ys.par_chunks_mut(split.group()).enumerate().for_each(|(i, ys)| f(i, ys));
    }
}

// The mean and 1 / sqrt(variance + eps), in two passes: a difference of squares would
// lose f32's digits where the mean is large.
fn moments<T: Real>(xs: &[T], eps: f64) -> (T, T) {
    let count = T::from_f64(xs.len() as f64);
    let mean = sum(xs, |x| x) / count;
    let variance = sum(xs, |x| (x - mean) * (x - mean)) / count;
    (mean, T::one() / (variance + T::from_f64(eps)).sqrt())
}

// Eight running sums, which the compiler keeps in one vector register.
fn sum<T: Real>(xs: &[T], f: impl Fn(T) -> T) -> T {
    let mut lanes = [T::zero(); 8];
    let chunks = xs.chunks_exact(8);
    let rest: T = chunks.remainder().iter().map(|x| f(*x)).sum();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += f(*x);
        }
    }
    lanes.into_iter().sum::<T>() + rest
}
