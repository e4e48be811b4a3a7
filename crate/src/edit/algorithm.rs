//! Zero-shot editing (the paper, algorithm 4): multistep sampling with known coefficients.

use super::operator::Operator;
use crate::process::{TimeGrid, perturb};
use crate::rng::Key;
use crate::sample::Multistep;
use crate::seam::ConsistencyFunction;
use crate::{Result, ensure};
use candle_core::{DType, Tensor};

/// The noise levels of an edit, and what is done with each output of f.
///
/// ```
/// use consistency::prelude::*;
/// let steps = Steps::along(&NoiseRange::default().karras(40)?);
/// assert_eq!((steps.times.len(), steps.times[0], steps.eps), (39, 80.0, 0.002));
/// assert_eq!(Steps::stroke().times, [5.38, 2.24]);
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Steps {
    /// t_1 > t_2 > .. > t_N, where f is evaluated, once each.
    pub times: Vec<f64>,
    /// eps, where f is the identity.
    pub eps: f64,
    /// Clip each output of f to \[-1, 1\] before the known part is put in, as the public code
    /// does with images.
    pub clip: bool,
}

impl Steps {
    /// All points of `grid` from T down, except eps, where f is the identity. With 40 points this
    /// is the paper's choice for everything that starts from noise. Clips.
    pub fn along(grid: &TimeGrid) -> Self {
        let times = grid.descending().map(|(t, _)| t).collect();
        Self { times, eps: grid.first(), clip: true }
    }

    /// The paper's two levels for stroke-guided generation, 5.38 and 2.24. Clips.
    pub fn stroke() -> Self {
        Self { times: vec![5.38, 2.24], eps: 0.002, clip: true }
    }
}

/// Algorithm 4: multistep sampling in which the known coefficients of A y are put back after
/// each step.
///
/// ```
/// use consistency::edit::{Edit, Operator, Steps};
/// use consistency::prelude::*;
/// let line = GaussianMixture::new(vec![1.0], vec![vec![0.1, -0.1]], vec![0.3])?;
/// let grid = NoiseRange::default().karras(10)?;
/// let edit = Edit {
///     operator: Operator::Identity,
///     mask: Tensor::new(&[[0u8, 1]], &Device::Cpu)?, // the first number is known
///     steps: Steps::along(&grid),
///     guided: false,
/// };
/// let y = Tensor::new(&[[0.7, 0.0]], &Device::Cpu)?;
/// let f = FlowMap::new(line, Solver::Heun, grid);
/// assert_eq!(edit.run(&f, &y, &Key::new(0), 0)?.to_vec2::<f64>()?[0][0], 0.7);
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Edit {
    /// A.
    pub operator: Operator,
    /// Omega, over the coefficients A y: 1 where free, 0 where known. Each dimension is that
    /// of A y or 1.
    pub mask: Tensor,
    /// The noise levels.
    pub steps: Steps,
    /// Start from all of y, not only from its known part. Stroke-guided generation needs this:
    /// nothing is known there, and the first line of algorithm 4 would set y to 0.
    pub guided: bool,
}

impl Edit {
    /// The edited `y`, of the same shape. Where the mask is 0, the coefficients are those of A y:
    /// to the bit where A is the identity, otherwise to rounding (1e-5 in f32, 1e-13 in f64, for
    /// images in \[-1, 1\]).
    ///
    /// The noise of the start is under `key.stream("start")`, that of renoising n (from 0)
    /// under `key.step(n)`; the batch's first sample is number `first`.
    ///
    /// # Errors
    /// A shape that A does not fit; a mask that does not fit A y or holds numbers other than 0 and
    /// 1; noise levels that do not decrease to eps or above.
    pub fn run(
        &self,
        f: &dyn ConsistencyFunction,
        y: &Tensor,
        key: &Key,
        first: u64,
    ) -> Result<Tensor> {
        let Steps { times, eps, clip } = &self.steps;
        let multistep = Multistep { sigmas: times, eps: *eps, clip: *clip, s_noise: 1.0 };
        multistep.check()?;
        let known = self.operator.apply(y)?;
        let free = self.free(&known)?;
        // A^-1[(A y) (1 - Omega) + c Omega], by selection and not by products: known values stay
        // exactly as they are, and a hole may hold anything.
        let mix =
            |c: &Tensor| -> Result<Tensor> { self.operator.invert(&free.where_cond(c, &known)?) };
        let start = if self.guided { y.clone() } else { mix(&known.zeros_like()?)? };
        let z = key.stream("start").normal_like(y, first)?;
        multistep.sample_from(
            f,
            &perturb(&start, &[times[0]], &z)?,
            |n, x| key.step(n as u64).normal_like(x, first),
            |x| mix(&self.operator.apply(&x)?),
        )
    }

    /// The mask over all of A y, as u8.
    fn free(&self, known: &Tensor) -> Result<Tensor> {
        let (mask, dims) = (self.mask.dims(), known.dims());
        ensure!(
            mask.len() == dims.len() && mask.iter().zip(dims).all(|(m, d)| m == d || *m == 1),
            "a mask of shape {mask:?} for coefficients of shape {dims:?}: each of its \
             dimensions must be theirs or 1"
        );
        let values = self.mask.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
        if let Some(value) = values.iter().find(|v| **v != 0.0 && **v != 1.0) {
            crate::bail!("{value} in a mask: it holds 1 where the image is free, 0 where known");
        }
        let mask = self.mask.to_dtype(DType::U8)?.to_device(known.device())?;
        Ok(mask.broadcast_as(dims)?.contiguous()?)
    }
}
