//! Points in the plane: sets small enough to see every trajectory.

use crate::Result;
use crate::process::GaussianMixture;
use crate::rng::Key;
use candle_core::{DType, Device, Tensor};
use std::f64::consts::{PI, TAU};

/// Two interleaved spirals within about \[-1, 1\]^2, `count` points under `key`, `(count, 2)`.
pub fn spirals(
    count: usize,
    noise: f64,
    key: &Key,
    dtype: DType,
    device: &Device,
) -> Result<Tensor> {
    curve(count, noise, key, dtype, device, |u, second| {
        let turn = 0.25 + 1.5 * u.sqrt();
        let angle = TAU * turn + if second { PI } else { 0.0 };
        let radius = 0.55 * turn;
        [radius * angle.cos(), radius * angle.sin()]
    })
}

/// Two facing half circles within about \[-1, 1\]^2, `count` points under `key`, `(count, 2)`.
///
/// ```
/// use candle_core::{DType, Device};
/// use consistency::{data::moons, rng::Key};
/// let points = moons(100, 0.05, &Key::new(0), DType::F32, &Device::Cpu)?;
/// assert_eq!(points.dims(), [100, 2]);
/// # Ok::<(), consistency::Error>(())
/// ```
pub fn moons(count: usize, noise: f64, key: &Key, dtype: DType, device: &Device) -> Result<Tensor> {
    curve(count, noise, key, dtype, device, |u, second| {
        let angle = PI * u;
        if second {
            [0.35 - 0.6 * angle.cos(), 0.15 - 0.6 * angle.sin()]
        } else {
            [-0.35 + 0.6 * angle.cos(), -0.15 + 0.6 * angle.sin()]
        }
    })
}

/// `modes` Gaussians of standard deviation `std` on a circle of radius 1: a mixture whose score is
/// exact.
pub fn rings_mixture(modes: usize, std: f64) -> Result<GaussianMixture> {
    let means = (0..modes).map(|k| {
        let angle = TAU * k as f64 / modes as f64;
        vec![angle.cos(), angle.sin()]
    });
    GaussianMixture::new(vec![1.0; modes], means.collect(), vec![std; modes])
}

// A point of one of two curves at a uniform place, with Gaussian noise.
fn curve(
    count: usize,
    noise: f64,
    key: &Key,
    dtype: DType,
    device: &Device,
    at: impl Fn(f64, bool) -> [f64; 2],
) -> Result<Tensor> {
    let samples = 0..count as u64;
    let places = key.stream("place").uniforms(samples.clone());
    let sides = key.stream("side").uniforms(samples.clone());
    let points: Vec<f64> =
        places.iter().zip(&sides).flat_map(|(u, side)| at(*u, *side < 0.5)).collect();
    let points =
        Tensor::from_vec(points, (count, 2), &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?;
    let z = key.stream("noise").normal(samples, &[2], dtype, device)?;
    Ok((points + (z * noise)?)?)
}
