//! Interpolation between samples through their noise (the paper, appendix D; the talk, slide 23).

use crate::sample::one_step;
use crate::seam::ConsistencyFunction;
use crate::{Result, ensure};
use candle_core::{DType, Device, Tensor};

/// The samples between those of the noises `z1` and `z2`, `(B, ..)` of standard deviation 1: f(T z, T)
/// for z on the arc between them, at each of `shares` (0 is `z1`, 1 is `z2`).
///
/// The result is `(B S, ..)` for S shares, with all samples of the first pair first: in a grid of S
/// columns each row is a pair.
///
/// ```
/// use consistency::prelude::*;
/// let normal = GaussianMixture::new(vec![1.0], vec![vec![0.0; 2]], vec![1.0])?; // N(0, I)
/// let f = FlowMap::new(normal, Solver::Heun, NoiseRange::default().karras(10)?);
/// let noise = |seed| Key::new(seed).normal(0..3, &[2], DType::F64, &Device::Cpu);
/// let x = edit::interpolate(&f, &noise(0)?, &noise(1)?, &[0.0, 0.5, 1.0], 80.0)?;
/// assert_eq!(x.dims(), [9, 2]); // a pair is three rows
/// let first = sample::one_step(&f, &noise(0)?, 80.0)?;
/// assert!(mean_square(&(x.get(0)? - first.get(0)?)?)? < 1e-24);
/// # Ok::<(), consistency::Error>(())
/// ```
///
/// # Errors
/// As [`slerp`]; no shares.
pub fn interpolate(
    f: &dyn ConsistencyFunction,
    z1: &Tensor,
    z2: &Tensor,
    shares: &[f64],
    t_max: f64,
) -> Result<Tensor> {
    ensure!(!shares.is_empty(), "no share to interpolate at: give some from 0 to 1");
    let between = shares.iter().map(|share| slerp(z1, z2, *share)).collect::<Result<Vec<_>>>()?;
    one_step(f, &Tensor::stack(&between, 1)?.flatten(0, 1)?, t_max)
}

/// Spherical interpolation, each sample by its own angle psi between the two:
/// sin((1 - a) psi) / sin(psi) z1 + sin(a psi) / sin(psi) z2, with a = `share`.
///
/// Its ends are `z1` and `z2`. Samples that point the same way are interpolated linearly.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use consistency::edit::slerp;
/// let z1 = Tensor::new(&[[1.0f64, 0.0]], &Device::Cpu)?; // (1, 2)
/// let z2 = Tensor::new(&[[0.0f64, 1.0]], &Device::Cpu)?;
/// // Halfway along a quarter of a circle: 45 degrees, and still of length 1.
/// let between = slerp(&z1, &z2, 0.5)?.to_vec2::<f64>()?;
/// assert!(between[0].iter().all(|z| (z - 0.5f64.sqrt()).abs() < 1e-12));
/// # Ok::<(), consistency::Error>(())
/// ```
///
/// # Errors
/// A share outside 0 to 1, shapes that differ, a sample that is 0 in one of them, or two that
/// point opposite ways, where no arc is the shortest.
pub fn slerp(z1: &Tensor, z2: &Tensor, share: f64) -> Result<Tensor> {
    ensure!((0.0..=1.0).contains(&share), "a share of {share}: needs 0 to 1");
    ensure!(
        z1.dims() == z2.dims() && z1.rank() >= 2,
        "between the shapes {:?} and {:?}: needs one shape, (B, ..)",
        z1.dims(),
        z2.dims()
    );
    let (a, b) = (rows(z1)?, rows(z2)?);
    let (mut first, mut second) = (Vec::with_capacity(a.len()), Vec::with_capacity(a.len()));
    for (i, (a, b)) in a.iter().zip(&b).enumerate() {
        let (from, to) = parts(a, b, share).map_err(|e| e.context(format!("sample {i}")))?;
        first.push(from);
        second.push(to);
    }
    let factor = |values: Vec<f64>, z: &Tensor| -> Result<Tensor> {
        let mut dims = vec![1; z.rank()];
        dims[0] = values.len();
        let values = Tensor::from_vec(values, dims, &Device::Cpu)?;
        Ok(z.broadcast_mul(&values.to_dtype(z.dtype())?.to_device(z.device())?)?)
    };
    Ok((factor(first, z1)? + factor(second, z2)?)?)
}

fn rows(z: &Tensor) -> Result<Vec<Vec<f64>>> {
    Ok(z.to_dtype(DType::F64)?.to_device(&Device::Cpu)?.flatten_from(1)?.to_vec2::<f64>()?)
}

/// The factors of the two ends.
fn parts(a: &[f64], b: &[f64], share: f64) -> Result<(f64, f64)> {
    let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    let lengths = dot(a, a).sqrt() * dot(b, b).sqrt();
    ensure!(lengths > 0.0 && lengths.is_finite(), "noise that is 0 or not finite has no direction");
    let cosine = (dot(a, b) / lengths).clamp(-1.0, 1.0);
    // Within 1e-8 of 1 the cosine has too few digits left for the angle, and the arc is a line.
    if cosine > 1.0 - 1e-8 {
        return Ok((1.0 - share, share));
    }
    ensure!(
        cosine > -1.0 + 1e-8,
        "the two point opposite ways: no arc between them is the shortest"
    );
    let angle = cosine.acos();
    Ok((((1.0 - share) * angle).sin() / angle.sin(), (share * angle).sin() / angle.sin()))
}
