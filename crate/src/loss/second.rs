//! Losses whose gradient needs a second derivative.

use crate::Result;
use crate::seam::per_sample;
use candle_core::Tensor;

/// The derivative of f along a direction v, against `w`: <w, f(x + h v) - f(x - h v)> / 2h, one number
/// per sample. `at(s)` is f(x + s h v); `w` has the shape of f(x), and `h` holds one step or one per
/// sample.
///
/// Its gradient by the parameters of f is that of <w, J v> with w and v held (detach what v is made
/// of), with an error of the order of h^2: two passes forward and back in place of a second derivative. With g the gradient of a
/// penalty's f by x and psi(|g|) the penalty of a sample, the gradient of the penalty is that of
/// psi'(|g|) <1, J g / |g|>: of R1, for example, with v = g / |g| and w = gamma |g|. The value is not
/// the penalty's.
///
/// In f32 a step of about a hundredth of |x| loses the fewest digits. A ReLU between the two points
/// spoils the gradient of its unit.
///
/// ```
/// use consistency::loss::along;
/// use consistency::prelude::*;
/// // d/da of <w, d/dx (a x^2)> at x = 3 along v = 1, with w = 1: 2 x = 6.
/// let a = Var::new(&[5f64], &Device::Cpu)?;
/// let f = |s: f64| -> consistency::Result<Tensor> {
///     let x = Tensor::new(&[[3.0 + s * 0.01]], &Device::Cpu)?; // (1, 1)
///     Ok(x.sqr()?.broadcast_mul(a.as_tensor())?)
/// };
/// let s = along(f, &Tensor::ones((1, 1), DType::F64, &Device::Cpu)?, &[0.01])?;
/// let by_a = s.sum_all()?.backward()?;
/// let by_a = values(by_a.get(&a).expect("a has a gradient"))?[0];
/// assert!((by_a - 6.0).abs() < 1e-9);
/// # Ok::<(), consistency::Error>(())
/// ```
///
/// # Errors
/// Errors of f; weights of another shape.
pub fn along(at: impl Fn(f64) -> Result<Tensor>, w: &Tensor, h: &[f64]) -> Result<Tensor> {
    let difference = (at(1.0)? - at(-1.0)?)?;
    let twice: Vec<f64> = h.iter().map(|h| 2.0 * h).collect();
    let slope = difference.broadcast_div(&per_sample(&twice, &difference)?)?;
    Ok((w.detach() * slope)?.flatten_from(1)?.sum(1)?)
}
