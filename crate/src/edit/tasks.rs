//! The paper's edits (appendix D), each an operator and a mask for algorithm 4.

use super::algorithm::{Edit, Steps};
use super::operator::Operator;
use crate::rng::Key;
use crate::seam::ConsistencyFunction;
use crate::{Result, ensure};
use candle_core::{DType, Device, Tensor};

/// Fills in `y` where `mask` is 1; pixels where it is 0 stay the same to the bit. What `y` holds
/// in the holes does not matter.
///
/// ```
/// use consistency::edit::{Steps, inpaint};
/// use consistency::prelude::*;
/// let digits = digits(DType::F64, &Device::Cpu)?.train.narrow(0, 0, 20)?;
/// let grid = NoiseRange::default().karras(10)?;
/// let f = FlowMap::new(Empirical::new(&digits)?, Solver::Heun, grid.clone());
/// let y = digits.narrow(0, 0, 2)?;
/// // The lower half is missing, of every image in the batch.
/// let (top, hole) = (y.narrow(2, 0, 4)?, Tensor::ones((1, 1, 4, 8), DType::U8, &Device::Cpu)?);
/// let mask = Tensor::cat(&[&hole.zeros_like()?, &hole], 2)?;
/// let x = inpaint(&f, &y, &mask, &Steps::along(&grid), &Key::new(0))?;
/// let gap = (x.narrow(2, 0, 4)? - top)?.abs()?.max_all()?.to_scalar::<f64>()?;
/// assert_eq!(gap, 0.0);
/// # Ok::<(), consistency::Error>(())
/// ```
///
/// # Errors
/// As [`Edit::run`].
pub fn inpaint(
    f: &dyn ConsistencyFunction,
    y: &Tensor,
    mask: &Tensor,
    steps: &Steps,
    key: &Key,
) -> Result<Tensor> {
    edit(Operator::Identity, mask.clone(), steps).run(f, y, key, 0)
}

/// Colours for grey images, `(B, 1, H, W)` to `(B, 3, H, W)`: [`grey`](super::grey) of the
/// answer is the image, to rounding (1e-5 in f32, 1e-13 in f64).
///
/// ```
/// use consistency::prelude::*;
/// // In place of a model, the exact function of 20 made-up images.
/// let data = Key::new(0).normal(0..20, &[3, 4, 4], DType::F64, &Device::Cpu)?.tanh()?;
/// let grid = NoiseRange::default().karras(10)?;
/// let f = FlowMap::new(Empirical::new(&data)?, Solver::Euler, grid.clone());
/// let grey = edit::grey(&data.narrow(0, 0, 2)?)?; // (2, 1, 4, 4)
/// let x = edit::colorize(&f, &grey, &Steps::along(&grid), &Key::new(1))?;
/// assert_eq!(x.dims(), [2, 3, 4, 4]);
/// assert!(mean_square(&(edit::grey(&x)? - grey)?)? < 1e-24);
/// # Ok::<(), consistency::Error>(())
/// ```
///
/// # Errors
/// Images of more than one channel; as [`Edit::run`].
pub fn colorize(
    f: &dyn ConsistencyFunction,
    grey: &Tensor,
    steps: &Steps,
    key: &Key,
) -> Result<Tensor> {
    ensure!(
        grey.rank() == 4 && grey.dims()[1] == 1,
        "colorization needs grey images (B, 1, H, W), not the shape {:?}; `grey` makes them",
        grey.dims()
    );
    let y = Tensor::cat(&[grey, grey, grey], 1)?;
    let mask = Tensor::new(&[0u8, 1, 1], &Device::Cpu)?.reshape((1, 3, 1, 1))?;
    edit(Operator::Color, mask, steps).run(f, &y, key, 0)
}

/// Images p times as large, `(B, C, H, W)` to `(B, C, p H, p W)`: the mean of each p x p patch is
/// the pixel of `low`, to rounding (1e-5 in f32, 1e-13 in f64).
///
/// ```
/// use consistency::prelude::*;
/// let digits = digits(DType::F64, &Device::Cpu)?.train.narrow(0, 0, 20)?;
/// let grid = NoiseRange::default().karras(10)?;
/// let f = FlowMap::new(Empirical::new(&digits)?, Solver::Euler, grid.clone());
/// let low = digits.narrow(0, 0, 2)?.avg_pool2d(2)?; // (2, 1, 4, 4)
/// let x = edit::super_resolve(&f, &low, 2, &Steps::along(&grid), &Key::new(0))?;
/// assert_eq!(x.dims(), [2, 1, 8, 8]);
/// assert!(mean_square(&(x.avg_pool2d(2)? - low)?)? < 1e-24);
/// # Ok::<(), consistency::Error>(())
/// ```
///
/// # Errors
/// A shape that is not four numbers, p = 0; as [`Edit::run`].
pub fn super_resolve(
    f: &dyn ConsistencyFunction,
    low: &Tensor,
    p: usize,
    steps: &Steps,
    key: &Key,
) -> Result<Tensor> {
    ensure!(
        p > 0 && low.rank() == 4,
        "super-resolution by {p} of the shape {:?}: needs 1 or more, and images (B, C, H, W)",
        low.dims()
    );
    let (b, c, h, w) = low.dims4()?;
    let each = low.reshape(&[b, c, h, 1, w, 1][..])?.broadcast_as(&[b, c, h, p, w, p][..])?;
    let y = each.reshape((b, c, h * p, w * p))?;
    let mask: Vec<u8> = (0..p * p).map(|k| u8::from(k > 0)).collect();
    let mask = Tensor::from_vec(mask, (1, 1, p * p, 1, 1), &Device::Cpu)?;
    edit(Operator::Patch(p), mask, steps).run(f, &y, key, 0)
}

/// An image from the strokes of `y`, as in SDEdit (Meng et al. 2021): noise of level t_1 hides the
/// detail of `y`, and f generates it anew. [`Steps::stroke`] has the paper's levels.
///
/// ```
/// use consistency::prelude::*;
/// let digits = digits(DType::F64, &Device::Cpu)?.train.narrow(0, 0, 20)?;
/// let grid = TimeGrid::new(vec![0.002, 2.24, 5.38])?;
/// let f = FlowMap::new(Empirical::new(&digits)?, Solver::Euler, grid);
/// let strokes = digits.narrow(0, 0, 2)?.clamp(-0.5, 0.5)?;
/// let x = edit::stroke_guided(&f, &strokes, &Steps::stroke(), &Key::new(0))?;
/// assert_eq!(x.dims(), strokes.dims());
/// assert!(values(&x)?.iter().all(|pixel| (-1.0..=1.0).contains(pixel))); // clipped
/// # Ok::<(), consistency::Error>(())
/// ```
///
/// # Errors
/// As [`Edit::run`].
pub fn stroke_guided(
    f: &dyn ConsistencyFunction,
    y: &Tensor,
    steps: &Steps,
    key: &Key,
) -> Result<Tensor> {
    let all = Tensor::ones(vec![1; y.rank()], DType::U8, &Device::Cpu)?;
    Edit { guided: true, ..edit(Operator::Identity, all, steps) }.run(f, y, key, 0)
}

/// f(x, t) for images `x` with noise of level `t` in them (one level, or one per sample): any level
/// from eps to T, in one evaluation.
///
/// ```
/// use consistency::prelude::*;
/// let point = GaussianMixture::new(vec![1.0], vec![vec![0.5]], vec![0.0])?; // a point mass at 0.5
/// let f = ExactFlow::new(point, 0.002)?;
/// let x = Tensor::new(&[[2.5f64], [0.75]], &Device::Cpu)?; // (2, 1), at t = 2 and t = 0.25
/// // The share eps / t of the noise is left.
/// let clean = values(&edit::denoise(&f, &x, &[2.0, 0.25])?)?;
/// assert!(clean.iter().all(|x| (x - 0.502).abs() < 1e-9));
/// # Ok::<(), consistency::Error>(())
/// ```
///
/// # Errors
/// A level that is not positive; what f refuses.
pub fn denoise(f: &dyn ConsistencyFunction, x: &Tensor, t: &[f64]) -> Result<Tensor> {
    ensure!(
        t.iter().all(|t| *t > 0.0 && t.is_finite()),
        "noise levels {t:?}: each must be above 0, and eps or more"
    );
    f.origin(x, t)
}

fn edit(operator: Operator, mask: Tensor, steps: &Steps) -> Edit {
    Edit { operator, mask, steps: steps.clone(), guided: false }
}
