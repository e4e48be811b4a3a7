//! Promise: gradients are right. Every layer, network and loss against central finite
//! differences in f64, inputs that are used twice included; and so are the derivatives that go
//! forward.

mod layers;
mod networks;
mod second;
mod tangents;

use candle_core::{DType, Device, Tensor, Var};
use consistency::nn::{Params, Scope, Settings, Tape, Value, on_tape, push_forward};
use consistency::rng::Key;
use consistency::{Error, Result};
use std::collections::BTreeMap;

/// How far an element is moved. With four points the error of a difference is of the fourth
/// order, so that it can be far enough to leave many digits.
const STEP: f64 = 2e-4;
/// The difference allowed, as a part of the larger of the two slopes or of 1.
const TOLERANCE: f64 = 1e-7;
/// Elements of each tensor that are moved; fewer where there are many tensors.
const PROBES: usize = 12;
const FEW: usize = 2;

fn noise(name: &str, shape: &[usize]) -> Result<Tensor> {
    let key = Key::new(7).stream(name);
    let count: usize = shape.iter().product();
    Ok(key.normal(0..1, &[count], DType::F64, &Device::Cpu)?.reshape(shape)?)
}

fn var(name: &str, shape: &[usize]) -> Result<Var> {
    Ok(Var::from_tensor(&noise(name, shape)?)?)
}

/// The gradients of the scalar `f` by the parameters and by `x`, by name.
fn gradients(
    params: &Params,
    x: Option<&Var>,
    f: impl Fn() -> Result<Tensor>,
) -> Result<BTreeMap<String, Tensor>> {
    let mut all: BTreeMap<String, Tensor> = BTreeMap::new();
    if params.trained().next().is_some() {
        let found = params.gradients(&f()?)?;
        all.extend(found.iter().map(|(name, tensor)| (name.to_string(), tensor.clone())));
    }
    if let Some(x) = x {
        let store = f()?.backward()?;
        let found = store.get(x.as_tensor()).ok_or_else(|| Error::new("x has no gradient"))?;
        all.insert("x".to_string(), found.clone());
    }
    Ok(all)
}

/// The gradients of the scalar `f` by the parameters and by `x` against finite differences.
fn check(
    what: &str,
    params: &Params,
    x: Option<&Var>,
    f: impl Fn() -> Result<Tensor>,
) -> Result<()> {
    let grads = gradients(params, x, &f)?;
    let vars: Vec<(&str, &Var)> = params.trained().chain(x.map(|x| ("x", x))).collect();
    let mut tested = 0;
    let probes = if vars.len() > 10 { FEW } else { PROBES };
    // What rounding of f itself leaves in a difference.
    let rounding = 1e-15 * f()?.to_scalar::<f64>()?.abs() / STEP;
    for (name, var) in vars {
        let Some(grad) = grads.get(name) else {
            return Err(Error::new(format!("{what}: {name} has no gradient")));
        };
        assert_eq!(grad.dims(), var.dims(), "{what}: the gradient of {name}");
        let grad = grad.flatten_all()?.to_vec1::<f64>()?;
        let value = var.as_detached_tensor().copy()?;
        let flat = value.flatten_all()?.to_vec1::<f64>()?;
        let stride = flat.len().div_ceil(probes);
        for i in (0..flat.len()).step_by(stride) {
            let at = |moved: f64| -> Result<f64> {
                let mut flat = flat.clone();
                flat[i] += moved;
                var.set(&Tensor::from_vec(flat, value.shape(), &Device::Cpu)?)?;
                Ok(f()?.to_scalar::<f64>()?)
            };
            let near = at(STEP)? - at(-STEP)?;
            let far = at(2.0 * STEP)? - at(-2.0 * STEP)?;
            let slope = (8.0 * near - far) / (12.0 * STEP);
            var.set(&value)?;
            let scale = slope.abs().max(grad[i].abs()).max(1.0);
            assert!(
                (slope - grad[i]).abs() <= TOLERANCE * scale + rounding,
                "{what}: d/d{name}[{i}] is {}, finite differences give {slope}",
                grad[i]
            );
            tested += 1;
        }
    }
    assert!(tested > 0, "{what}: nothing was tested");
    Ok(())
}

/// The largest difference between two tensors.
fn gap(a: &Tensor, b: &Tensor) -> Result<f64> {
    Ok((a - b)?.abs()?.max_all()?.to_scalar()?)
}

/// A layer's output against fixed random weights: a scalar that depends on all of it.
fn weigh(ys: &Tensor) -> Result<Tensor> {
    Ok((ys * noise("weights", ys.dims())?)?.sum_all()?)
}

/// Parameters that are all random: zeros and ones would hide terms.
fn shaken(params: &Params) -> Result<()> {
    for (name, var) in params.trained() {
        var.set(&(var.as_detached_tensor() + (noise(name, var.dims())? * 0.3)?)?)?;
    }
    Ok(())
}

/// The two roads that a layer has: the CPU's kernels, and candle's operations, which other
/// devices take.
const ROADS: [(&str, Settings); 2] = {
    let kernels =
        Settings { checkpoint: false, precision: consistency::nn::Precision::F32, tensors: false };
    [("kernels", kernels), ("tensors", Settings { tensors: true, ..kernels })]
};

/// A layer built from `build`, checked by its input and all its parameters, on both roads;
/// and the two against each other.
fn layer<L>(
    what: &str,
    shape: &[usize],
    build: impl Fn(&mut Scope) -> Result<L>,
    forward: impl Fn(&L, &mut Tape, &Value) -> Result<Value>,
) -> Result<()> {
    let mut answers = Vec::new();
    for (road, settings) in ROADS {
        let what = format!("{what} on {road}");
        let mut params = Params::new(DType::F64, &Device::Cpu).with(settings);
        let mut link = None;
        let layer = params.init(&Key::new(0), |scope| {
            link = scope.link();
            build(scope)
        })?;
        shaken(&params)?;
        let x = var("x", shape)?;
        let run = |x: &Tensor| on_tape(x, link.as_ref(), settings, |t, x| forward(&layer, t, x));
        let once = || weigh(&run(x.as_tensor())?);
        check(&what, &params, Some(&x), once)?;
        // Twice: a backward that overwrites instead of adding would show here.
        check(&format!("{what}, its input used twice"), &params, Some(&x), || {
            let again = weigh(&run(&(x.as_tensor() * 0.5)?)?)?;
            Ok(((once()? * again)? + (x.sqr()?.sum_all()? * 5.0)?)?)
        })?;
        let mut answer = gradients(&params, Some(&x), once)?;
        let x = x.as_detached_tensor();
        let along = noise("along", shape)?;
        let (ys, dys) = push_forward(&x, Some(&along), settings, |t, x| forward(&layer, t, x))?;
        let same = run(&x)?;
        assert_eq!(gap(&ys, &same)?, 0.0, "{what}: a tangent changes the output");
        tangents::check(&what, &dys, |h| run(&(&x + (&along * h)?)?))?;
        tangents::beside_the_way_back(&what, &dys, &along, &answer["x"])?;
        answer.insert("the output".to_string(), same);
        answer.insert("its tangent".to_string(), dys);
        answers.push(answer);
    }
    for (name, mine) in &answers[0] {
        let gap = gap(mine, &answers[1][name])?;
        let size = mine.abs()?.max_all()?.to_scalar::<f64>()?.max(1.0);
        assert!(gap <= 1e-11 * size, "{what}: the roads differ by {gap:.1e} in {name}");
    }
    Ok(())
}
