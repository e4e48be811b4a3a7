//! Second derivatives by a central difference of two recorded passes: the gradients of penalties.

use super::{noise, shaken};
use candle_core::{DType, Device, Tensor, Var};
use consistency::loss::along;
use consistency::model::{Condition, MlpConfig, NetworkConfig};
use consistency::nn::Params;
use consistency::rng::Key;
use consistency::{Error, Result};

const GAMMA: f64 = 0.7;

/// What is between a network's gradient by x and R1: for each sample g, |g|.
fn by_input(d: impl Fn(&Tensor) -> Result<Tensor>, x: &Tensor) -> Result<(Tensor, Tensor)> {
    let x = Var::from_tensor(x)?;
    let all = d(x.as_tensor())?.sum_all()?.backward()?;
    let g = all.get(x.as_tensor()).ok_or_else(|| Error::new("x has no gradient"))?.detach();
    let norm = g.sqr()?.sum_keepdim(1)?.sqrt()?; // (B, 1)
    Ok((g, norm))
}

/// gamma / 2 E |g|^2
fn penalty(d: impl Fn(&Tensor) -> Result<Tensor>, x: &Tensor) -> Result<f64> {
    let (_, norm) = by_input(d, x)?;
    Ok((norm.sqr()?.mean_all()? * (0.5 * GAMMA))?.to_scalar()?)
}

/// The loss whose gradient is the penalty's.
fn surrogate(d: impl Fn(&Tensor) -> Result<Tensor>, x: &Tensor, h: f64) -> Result<Tensor> {
    let (g, norm) = by_input(&d, x)?;
    let v = g.broadcast_div(&norm)?;
    let s = along(|sign| d(&(x + (&v * (sign * h))?)?), &(norm * GAMMA)?, &[h])?;
    Ok(s.mean_all()?)
}

#[test]
fn the_gradient_of_r1_is_that_of_finite_differences() -> Result<()> {
    let config = NetworkConfig::Mlp(MlpConfig { width: 8, blocks: 1, time_features: 4 });
    let mut params = Params::new(DType::F64, &Device::Cpu);
    let network = params.init(&Key::new(0), |s| config.build(s, &[3]))?;
    shaken(&params)?;
    let x = noise("x", &[4, 3])?;
    let critic = |x: &Tensor| -> Result<Tensor> {
        let on = Condition::from([0.2].as_slice());
        Ok(network.forward(x, on)?.sum_keepdim(1)?) // (B, 1)
    };
    let errors = [1e-2, 1e-3].map(|h| -> Result<f64> {
        let found = params.gradients(&surrogate(critic, &x, h)?)?;
        let mut worst = 0f64;
        for (name, var) in params.trained() {
            let along = noise(&format!("along {name}"), var.dims())?;
            let value = var.as_detached_tensor().copy()?;
            let at = |step: f64| -> Result<f64> {
                var.set(&(&value + (&along * step)?)?)?;
                penalty(critic, &x)
            };
            let (near, far) = (at(1e-4)? - at(-1e-4)?, at(2e-4)? - at(-2e-4)?);
            let slope = (8.0 * near - far) / 12e-4;
            var.set(&value)?;
            let ours = found.get(name).ok_or_else(|| Error::new(name))?;
            let ours = (ours * &along)?.sum_all()?.to_scalar::<f64>()?;
            worst = worst.max((ours - slope).abs() / slope.abs().max(1e-2));
        }
        Ok(worst)
    });
    let [coarse, fine] = errors;
    let (coarse, fine) = (coarse?, fine?);
    assert!(fine < 3e-5, "off by {fine:.1e}");
    // Of second order in the step.
    assert!(coarse < 3e-3 && coarse > 50.0 * fine, "{coarse:.1e} and {fine:.1e}");
    Ok(())
}

/// D(x) = a'x: |grad D| = |a| everywhere, and R1's gradient is gamma a, whatever the step.
#[test]
fn a_linear_critic_is_exact() -> Result<()> {
    let a = Var::from_tensor(&noise("a", &[3, 1])?)?;
    let critic = |x: &Tensor| -> Result<Tensor> { Ok(x.matmul(a.as_tensor())?) };
    let x = noise("x", &[5, 3])?;
    for h in [1e-3, 0.5] {
        let all = surrogate(critic, &x, h)?.backward()?;
        let found = all.get(a.as_tensor()).ok_or_else(|| Error::new("a has no gradient"))?;
        let want = (a.as_detached_tensor() * GAMMA)?;
        let gap = (found - want)?.abs()?.max_all()?.to_scalar::<f64>()?;
        assert!(gap < 1e-12, "h = {h}: {gap:.1e}");
    }
    // Weights of another shape.
    assert!(along(|_| critic(&x), &noise("w", &[2, 2])?, &[0.1]).is_err());
    Ok(())
}
