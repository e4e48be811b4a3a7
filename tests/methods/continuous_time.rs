//! Continuous-time consistency distillation and training: their losses on a family of functions whose
//! derivatives are known, and whole runs.

#[path = "../support/formula.rs"]
#[allow(dead_code)]
mod formula;

use candle_core::{DType, Device, Tensor, Var};
use consistency::experiment::{Experiment, Monitor, train};
use consistency::loss::{stopped_tangent_loss, tangent_loss};
use consistency::process::{GaussianMixture, pf_ode_slope};
use consistency::rng::Key;
use consistency::seam::{ConsistencyFunction, Moved, Tangent, per_sample};
use consistency::{Error, Result};
use formula::Folder;

const EPS: f64 = 0.002;
const STD: f64 = 0.5;

/// f_a(x, t) = x (1 - a + a r(t)), r(t) = sqrt((s^2 + eps^2) / (s^2 + t^2)): the identity at eps for
/// every a, and the consistency function of N(0, s^2) at a = 1.
struct Line(Var);

fn ratio(t: f64) -> f64 {
    ((STD * STD + EPS * EPS) / (STD * STD + t * t)).sqrt()
}

impl ConsistencyFunction for Line {
    fn origin(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        let less = per_sample(&t.iter().map(|t| ratio(*t) - 1.0).collect::<Vec<_>>(), x)?;
        Ok((x * (less.broadcast_mul(self.0.as_tensor())? + 1.0)?.broadcast_as(x.dims())?)?)
    }
}

impl Tangent for Line {
    fn push_forward(&self, x: &Tensor, t: &[f64], v: &Tensor, w: &[f64]) -> Result<Moved> {
        let a = self.0.as_detached_tensor().to_vec1::<f64>()?[0];
        let slope = |t: f64| -t * ratio(t) / (STD * STD + t * t);
        let by_t: Vec<f64> = t.iter().map(|t| a * slope(*t) * w[0]).collect();
        let by_x: Vec<f64> = t.iter().map(|t| 1.0 - a + a * ratio(*t)).collect();
        let moved = (x.broadcast_mul(&per_sample(&by_t, x)?)?
            + v.broadcast_mul(&per_sample(&by_x, x)?)?)?;
        Ok((self.origin(x, t)?.detach(), moved))
    }
}

fn line(a: f64) -> Result<Line> {
    Ok(Line(Var::from_tensor(&Tensor::new(&[a], &Device::Cpu)?)?))
}

fn gradient(f: &Line, loss: &Tensor) -> Result<f64> {
    let all = loss.sum_all()?.backward()?;
    let of_a = all.get(f.0.as_tensor()).ok_or_else(|| Error::new("a has no gradient"))?;
    Ok(of_a.to_vec1::<f64>()?[0])
}

fn data() -> Result<GaussianMixture> {
    GaussianMixture::new(vec![1.0], vec![vec![0.0]], vec![STD])
}

/// Points, noise levels and the slope of the PF ODE, x t / (s^2 + t^2).
fn places() -> Result<(Tensor, Vec<f64>, Tensor)> {
    let t = vec![0.01, 0.3, 1.0, 7.0];
    let x = Tensor::new(&[[0.4f64], [-1.1], [2.0], [5.0]], &Device::Cpu)?;
    let slope = pf_ode_slope(&data()?, &x, &t)?;
    Ok((x, t, slope))
}

#[test]
fn losses_and_gradients_are_those_of_the_formulas() -> Result<()> {
    let (x, t, slope) = places()?;
    let xs = x.flatten_all()?.to_vec1::<f64>()?;
    for a in [0.3, 1.0, 1.4] {
        let f = line(a)?;
        // A = (1 - a) x t / (s^2 + t^2)
        let each: Vec<f64> =
            xs.iter().zip(&t).map(|(x, t)| (1.0 - a) * x * t / (STD * STD + t * t)).collect();
        let value: f64 = each.iter().map(|a| a * a).sum();
        let stopped = stopped_tangent_loss(&f, &f, &x, &t, &slope)?;
        assert!((stopped.sum_all()?.to_scalar::<f64>()? - value).abs() < 1e-12);
        // 2 A df/da, df/da = x (r - 1)
        let want: f64 = (0..4).map(|i| 2.0 * each[i] * xs[i] * (ratio(t[i]) - 1.0)).sum();
        let found = gradient(&f, &stopped)?;
        assert!((found - want).abs() < 1e-12, "a = {a}: {found}, not {want}");
        // Through A: 2 A dA/da, dA/da = -x t / (s^2 + t^2)
        let through = tangent_loss(&f, &x, &t, &slope, (1e-3, EPS))?;
        assert!((through.sum_all()?.to_scalar::<f64>()? - value).abs() < 1e-12);
        let want: f64 =
            (0..4).map(|i| -2.0 * each[i] * xs[i] * t[i] / (STD * STD + t[i] * t[i])).sum();
        let found = gradient(&f, &through)?;
        assert!((found - want).abs() < 1e-5 * want.abs().max(1e-3), "a = {a}: {found}, not {want}");
    }
    Ok(())
}

/// The order of the differences: a step of a tenth has a hundredth of the error.
#[test]
fn the_gradient_through_a_is_of_second_order_in_its_step() -> Result<()> {
    let (x, t, slope) = places()?;
    let f = line(0.3)?;
    let at = |step| gradient(&f, &tangent_loss(&f, &x, &t, &slope, (step, EPS))?);
    let exact = (100.0 * at(1e-3)? - at(1e-2)?) / 99.0;
    let errors = [0.1, 0.01].map(|step| at(step).map(|found| (found - exact).abs()));
    let [large, small] = errors;
    let order = (large? / small?).log10();
    assert!((order - 2.0).abs() < 0.05, "order {order}");
    Ok(())
}

#[test]
fn the_consistency_function_has_no_loss_and_another_slope_has() -> Result<()> {
    let (x, t, slope) = places()?;
    let exact = line(1.0)?;
    let loss = |slope: &Tensor| -> Result<[f64; 2]> {
        let loss = stopped_tangent_loss(&exact, &exact, &x, &t, slope)?;
        Ok([loss.sum_all()?.to_scalar::<f64>()?, gradient(&exact, &loss)?])
    };
    let [value, by_a] = loss(&slope)?;
    assert!(value < 1e-25 && by_a.abs() < 1e-12, "{value}, {by_a}");
    // Time the other way round.
    let [value, by_a] = loss(&slope.neg()?)?;
    assert!(value > 0.1 && by_a.abs() > 0.1, "{value}, {by_a}");
    // Near eps no step leads below it.
    let at_eps = tangent_loss(&exact, &x, &[EPS], &slope, (0.1, EPS))?;
    assert!(at_eps.sum_all()?.to_scalar::<f64>()?.is_finite());
    Ok(())
}

/// Theorem 6: with z in place of the slope of the PF ODE the gradient is the same in the mean.
#[test]
fn training_has_the_gradient_of_distillation_in_the_mean() -> Result<()> {
    let (f, count) = (line(0.3)?, 200_000u64);
    let key = Key::new(5);
    let x0 = (key.stream("x0").normal(0..count, &[1], DType::F64, &Device::Cpu)? * STD)?;
    let z = key.stream("z").normal(0..count, &[1], DType::F64, &Device::Cpu)?;
    for t in [0.2, 1.0, 5.0] {
        let x = (&x0 + (&z * t)?)?;
        let slope = pf_ode_slope(&data()?, &x, &[t])?;
        let of = |slope: &Tensor| -> Result<f64> {
            gradient(&f, &(stopped_tangent_loss(&f, &f, &x, &[t], slope)? / count as f64)?)
        };
        let (by_z, by_slope) = (of(&z)?, of(&slope)?);
        // 2 (1 - a) E[x^2] t (r - 1) / (s^2 + t^2), with E[x^2] = s^2 + t^2
        let exact = 2.0 * 0.7 * t * (ratio(t) - 1.0);
        assert!((by_slope - exact).abs() < 0.02 * exact.abs(), "{by_slope}, not {exact}");
        assert!((by_z - exact).abs() < 0.02 * exact.abs(), "t = {t}: {by_z}, not {exact}");
    }
    Ok(())
}

fn experiment(method: &str, iterations: u64) -> Result<Experiment> {
    Experiment::parse(&format!(
        "name = 'limit'\ndata = {{ name = 'moons', count = 200 }}\n\
         network = {{ kind = 'mlp', width = 32, blocks = 1 }}\n\
         optimizer = {{ kind = 'adam', learning_rate = 2e-3 }}\n\
         training = {{ iterations = {iterations}, batch = 64, ema = 0.9 }}\n[method]\n{method}\n"
    ))
}

#[test]
fn runs_come_nearer_to_the_flow_of_the_data() -> Result<()> {
    use consistency::data::moons;
    use consistency::process::{Empirical, ExactFlow};
    let folder = Folder::new("continuous")?;
    let data = moons(200, 0.03, &Key::new(0).stream("data"), DType::F64, &Device::Cpu)?;
    let flow = ExactFlow::new(Empirical::new(&data)?, EPS)?;
    let z = Key::new(9).normal(0..64, &[2], DType::F64, &Device::Cpu)?;
    let t = [3.0];
    let x = (data.narrow(0, 0, 64)? + (z * t[0])?)?;
    let want = flow.origin(&x, &t)?;
    for method in [
        "kind = 'continuous-distillation'\nteacher = 'exact'",
        "kind = 'continuous-distillation'\nteacher = 'exact'\nstop_gradient = false",
        "kind = 'continuous-training'",
    ] {
        let error = |iterations: u64| -> Result<f64> {
            let trained =
                train(&experiment(method, iterations)?, &folder.0, &Monitor::default(), 1)?;
            let f = trained.consistency_model()?;
            let found = f.origin(&x.to_dtype(DType::F32)?, &t)?.to_dtype(DType::F64)?;
            Ok((found - &want)?.sqr()?.mean_all()?.to_scalar::<f64>()?)
        };
        let (early, late) = (error(20)?, error(1500)?);
        assert!(late < 0.4 * early, "{method}: from {early:.4} to {late:.4}");
    }
    Ok(())
}

#[test]
fn what_cannot_be_is_refused() -> Result<()> {
    for (method, word) in [
        (
            "kind = 'continuous-distillation'\nteacher = 'exact'\nparameterization = 'piecewise'",
            "jumps at eps",
        ),
        ("kind = 'continuous-training'\nparameterization = 'piecewise'", "jumps at eps"),
        ("kind = 'continuous-distillation'\nteacher = 'exact'\nstep = 0.7", "method.step"),
        ("kind = 'continuous-training'\nteacher = 'exact'", "no weights"),
    ] {
        let said = experiment(method, 5).and_then(|e| e.check()).err().map(|e| e.to_string());
        assert!(said.as_ref().is_some_and(|e| e.contains(word)), "{method}: {said:?}");
    }
    // Weights of another network.
    let folder = Folder::new("continuous-start")?;
    let mut other = experiment("kind = 'score-matching'", 2)?;
    other.name = "teacher".to_string();
    let teacher = train(&other, &folder.0, &Monitor::default(), 1)?.folder();
    let start = format!("kind = 'continuous-training'\nteacher = '{teacher}'");
    train(&experiment(&start, 2)?, &folder.0, &Monitor::default(), 1)?;
    let text = experiment(&start, 2)?.to_toml()?.replace("width = 32", "width = 16");
    let said = train(&Experiment::parse(&text)?, &folder.0, &Monitor::default(), 1);
    let said = said.err().map(|e| e.to_string()).unwrap_or_default();
    assert!(said.contains("another network"), "{said}");
    Ok(())
}
