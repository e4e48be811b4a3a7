//! Promise: a run is sampled, judged and refused by what it gives, whatever its method: a denoiser,
//! a consistency model, a map between two noise levels, a generator.

#[path = "../support/first_step.rs"]
mod first_step;
#[path = "../support/formula.rs"]
#[allow(dead_code)]
mod formula;

use candle_core::{DType, Device, Tensor, Var};
use consistency::Result;
use consistency::data::moons;
use consistency::experiment::{Experiment, Monitor, Trained, train};
use consistency::loss::score_matching_loss;
use consistency::method::{Batch, MethodConfig, TrajectoryMaps};
use consistency::model::{EdmDenoiser, OneStepGenerator, Times, TwoTimeModel};
use consistency::nn::Params;
use consistency::process::{Empirical, ExactFlow, GaussianMixture, NoiseRange, Solver};
use consistency::rng::Key;
use consistency::sample::{Classes, Draws, GammaSampling, multistep, pf_ode};
use consistency::seam::{Denoiser, EndingAt, Generator, TwoTimeMap};
use first_step::batch;
use formula::Folder;
use std::collections::HashMap;

const EPS: f64 = 0.002;
const KD: &str = "kind = 'knowledge-distillation'\nteacher = 'exact'\npoints = 6";
const CTM: &str = "kind = 'consistency-trajectory'\nteacher = 'exact'\npoints = 6\nmu = 0.5";

fn experiment(method: &str, iterations: u64) -> Result<Experiment> {
    Experiment::parse(&format!(
        "name = 'given'\ndata = {{ name = 'moons', count = 200 }}\n\
         network = {{ kind = 'mlp', width = 32, blocks = 1 }}\noptimizer = {{ kind = 'adam', learning_rate = 2e-3 }}\n\
         training = {{ iterations = {iterations}, batch = 32, ema = 0.9 }}\n[method]\n{method}\n"
    ))
}

fn gap(a: &Tensor, b: &Tensor) -> Result<f64> {
    let gap = (a.to_dtype(DType::F64)? - b.to_dtype(DType::F64)?)?;
    Ok(gap.abs()?.flatten_all()?.max(0)?.to_scalar::<f64>()?)
}

fn run(folder: &Folder, method: &str, iterations: u64) -> Result<Trained> {
    train(&experiment(method, iterations)?, &folder.0, &Monitor::default(), 1)
}

fn refused<T>(result: Result<T>) -> String {
    result.err().map(|e| e.to_string()).unwrap_or_default()
}

#[test]
fn each_run_gives_one_thing_and_says_so() -> Result<()> {
    let folder = Folder::new("given")?;
    let z = Key::new(1).normal(0..3, &[2], DType::F32, &Device::Cpu)?;

    let generator = run(&folder, KD, 5)?;
    assert_eq!(generator.generator()?.generate(&z, None)?.dims(), [3, 2]);
    let said = refused(generator.denoiser());
    assert_eq!(said, "given trained a generator, not a denoiser");
    assert!(
        refused(generator.generator()?.generate(&z.narrow(1, 0, 1)?, None)).contains("noise of")
    );

    let map = run(&folder, CTM, 5)?;
    let at = map.two_time_map()?;
    assert_eq!(at.map(&(&z * 80.0)?, &[80.0], &[3.0])?.dims(), [3, 2]);
    assert_eq!(gap(&at.map(&z, &[3.0], &[3.0])?, &z)?, 0.0);
    let said = refused(map.consistency_model());
    assert_eq!(said, "given trained a map between two noise levels, not a consistency model");
    let said = refused(map.generator());
    assert_eq!(said, "given trained a map between two noise levels, not a generator");

    // What a run gives does not depend on its parameters: a map's have a second noise level.
    assert!(
        refused(run(&folder, "kind = 'score-matching'", 5)?.two_time_map()).contains("a denoiser")
    );
    assert!(map.params().count() > generator.params().count());
    Ok(())
}

#[test]
fn a_generator_is_the_denoiser_at_t_whatever_the_batch() -> Result<()> {
    let of = experiment(KD, 5)?.network;
    let mut params = Params::new(DType::F32, &Device::Cpu);
    params.init(&Key::new(3), |scope| of.build(scope, &[2]))?;
    let network = || params.frozen(|scope| of.build(scope, &[2]));
    let generator = OneStepGenerator::new(network()?, &[2], 0.5, 80.0);
    let denoiser = EdmDenoiser::new(network()?, 0.5);
    let z = Key::new(1).normal(0..5, &[2], DType::F32, &Device::Cpu)?;
    let wanted = denoiser.denoise(&(&z * 80.0)?, &[80.0])?;
    assert_eq!(gap(&generator.generate(&z, None)?, &wanted)?, 0.0);

    let draws = |at_once| Draws {
        shape: generator.noise_shape().to_vec(),
        device: Device::Cpu,
        start: Key::new(1),
        renoise: Key::new(2),
        classes: Classes::None,
        given: HashMap::new(),
        at_once,
    };
    for at_once in [1, 2, 5] {
        let (samples, nfe) = draws(at_once).of_generator(&generator, 0..5, &Device::Cpu)?;
        assert_eq!((gap(&samples, &wanted)?, nfe), (0.0, 1));
    }
    Ok(())
}

/// N(0.3, 0.25): the exact flow is a line through the mean.
fn gaussian() -> Result<GaussianMixture> {
    GaussianMixture::new(vec![1.0], vec![vec![0.3]], vec![0.5])
}

#[test]
fn gamma_sampling_is_the_ode_at_0_and_multistep_at_1() -> Result<()> {
    let flow = ExactFlow::new(gaussian()?, EPS)?;
    let z = Key::new(1).normal(0..4, &[1], DType::F64, &Device::Cpu)?;
    let sigmas = [80.0, 5.0, 0.7];
    let key = Key::new(2);
    let sample = |gamma: f64| {
        let steps = GammaSampling { sigmas: &sigmas, eps: EPS, gamma };
        steps.sample(&flow, &z, |n, x| key.step(n as u64).normal_like(x, 0))
    };
    let whole = flow.map(&(&z * 80.0)?, &[80.0], &[EPS])?;
    assert!(gap(&sample(0.0)?, &whole)? < 1e-12);
    let ending = EndingAt::new(&flow, EPS);
    let wanted = multistep(&ending, &z, 80.0, &sigmas[1..], EPS, &key)?;
    assert!(gap(&sample(1.0)?, &wanted)? < 1e-12);
    // Between the two it is neither.
    let between = sample(0.5)?;
    assert!(gap(&between, &whole)? > 1e-2 && gap(&between, &wanted)? > 1e-2);
    for gamma in [-0.1, 1.1, f64::NAN] {
        assert!(refused(sample(gamma)).contains("gamma"), "{gamma}");
    }
    Ok(())
}

/// The exact flow of N(0.3, 0.25) in closed form.
struct Line;

impl TwoTimeMap for Line {
    fn map(&self, x: &Tensor, t: &[f64], s: &[f64]) -> Result<Tensor> {
        let spread = |level: f64| (0.25 + level * level).sqrt();
        Ok((((x - 0.3)? * (spread(s[0]) / spread(t[0])))? + 0.3)?)
    }
}

/// Whatever gamma is, the samples of the exact flow have the data's law at eps; with the noise of a
/// wrong level they have not.
#[test]
fn gamma_sampling_keeps_the_law() -> Result<()> {
    let count = 20_000u64;
    let z = Key::new(1).normal(0..count, &[1], DType::F64, &Device::Cpu)?;
    let key = Key::new(2);
    let variance = |gamma: f64, factor: f64| -> Result<f64> {
        let steps = GammaSampling { sigmas: &[80.0, 2.0, 0.9], eps: EPS, gamma };
        let noise = |n: usize, x: &Tensor| Ok((key.step(n as u64).normal_like(x, 0)? * factor)?);
        let x = steps.sample(&Line, &z, noise)?;
        let mean = x.mean_all()?.to_scalar::<f64>()?;
        Ok((x - mean)?.sqr()?.mean_all()?.to_scalar::<f64>()?)
    };
    for gamma in [0.0, 0.4, 0.9, 1.0] {
        let ratio = variance(gamma, 1.0)? / (0.25 + EPS * EPS);
        // Five standard errors of a variance of 20 000 samples.
        assert!((ratio - 1.0).abs() < 0.05, "gamma {gamma}: {ratio}");
    }
    assert!((variance(0.9, 1.5)? / 0.25 - 1.0).abs() > 0.1);
    Ok(())
}

/// The loss of the first step of `method` on `batch`, with the network as it is initialised.
fn loss(method: &MethodConfig, data: &Tensor, batch: &Batch) -> Result<f64> {
    Ok(f64::from(first_step::loss(method, &experiment(KD, 5)?.network, data, batch)?))
}

/// The pair is the noise and what the teacher's ODE makes of it; the data are not in it.
#[test]
fn knowledge_distillation_compares_with_the_teachers_sample() -> Result<()> {
    let data = Key::new(8).normal(0..8, &[2], DType::F32, &Device::Cpu)?;
    let method = experiment(KD, 5)?.method;
    let of = experiment(KD, 5)?.network;
    let mut params = Params::new(DType::F32, &Device::Cpu);
    let network = params.init(&Key::new(3).stream("network"), |scope| of.build(scope, &[2]))?;
    let generator = OneStepGenerator::new(network, &[2], 0.5, 80.0);
    let batch = batch(&data);
    let z = batch.noise()?;
    let exact = Empirical::new(&data)?;
    let sample = pf_ode(&exact, Solver::Heun, &z, &NoiseRange::default().karras(6)?)?;
    let wanted = (generator.generate(&z, None)? - &sample)?.abs()?.sum(1)?.mean_all()?;
    let wanted = f64::from(wanted.to_scalar::<f32>()?);
    let found = loss(&method, &data, &batch)?;
    assert!((found / wanted - 1.0).abs() < 1e-5, "{found}, {wanted}");
    let other = Batch { x0: (&data * 3.0)?, ..batch.clone() };
    assert_eq!(loss(&method, &data, &other)?, found);
    // Another pairing of noise and sample is another loss.
    let other = Batch { key: Key::new(6), ..batch };
    assert!((loss(&method, &data, &other)? / found - 1.0).abs() > 1e-3);
    Ok(())
}

/// One step of Euler's from t to s, which does not compose.
struct Euler(GaussianMixture);

impl TwoTimeMap for Euler {
    fn map(&self, x: &Tensor, t: &[f64], s: &[f64]) -> Result<Tensor> {
        Solver::Euler.step(&self.0, x, t, s)
    }
}

/// The exact flow has no trajectory loss, from any t by way of any u to any s; a map that does not
/// compose has, and so has the exact flow from another x_u.
#[test]
fn the_pair_of_the_exact_flow_is_one_point() -> Result<()> {
    let (flow, euler) = (ExactFlow::new(gaussian()?, EPS)?, Euler(gaussian()?));
    let x = Tensor::new(&[[90.0f64], [-3.0], [0.9]], &Device::Cpu)?;
    let (t, u, s) = ([80.0, 4.0, 0.5], [30.0, 3.9, 0.01], [0.002, 1.0, 0.01]);
    let exact_u = flow.map(&x, &t, &u)?;
    let apart = |map: &dyn TwoTimeMap, x_u: &Tensor| -> Result<f64> {
        let maps = TrajectoryMaps { student: map, target: map };
        let (estimate, wanted) = maps.pair((&x, &t), (x_u, &u), &s, &[EPS])?;
        gap(&estimate, &wanted)
    };
    assert!(apart(&flow, &exact_u)? < 1e-12);
    assert!(apart(&euler, &exact_u)? > 1e-3);
    assert!(apart(&flow, &euler.map(&x, &t, &u)?)? > 1e-3);
    Ok(())
}

/// The gradient of the estimate goes through the map to eps, whose parameters take none.
#[test]
fn the_gradient_goes_through_the_map_to_eps() -> Result<()> {
    let x = Var::new(&[[2.0f64, 1.0]], &Device::Cpu)?;
    let of = experiment(CTM, 5)?.network;
    let mut params = Params::new(DType::F64, &Device::Cpu);
    params.init(&Key::new(3), |scope| of.build_for(scope, &[2], Times::Two))?;
    // A new network answers 0: without other weights the derivative would be that of a line.
    for (i, (_, var)) in params.iter().enumerate() {
        let noise = Key::new(4).step(i as u64).normal_like(&var.as_detached_tensor(), 0)?;
        var.set(&(noise * 0.3)?)?;
    }
    let held = params.frozen(|scope| of.build_for(scope, &[2], Times::Two))?;
    let held = TwoTimeModel::new(held, 0.5);
    let end = |x: &Tensor| -> Result<Tensor> { Ok(held.map(x, &[3.0], &[0.5])?.sum_all()?) };
    let gradients = end(x.as_tensor())?.backward()?;
    let Some(found) = gradients.get(x.as_tensor()) else { panic!("no gradient") };
    let (found, step) = (found.flatten_all()?.to_vec1::<f64>()?, 1e-5);
    let line = 0.5 / 3.0 + (1.0 - 0.5 / 3.0) * 0.25 / (0.25 + 9.0); // if F were constant
    for (i, found) in found.into_iter().enumerate() {
        let mut moved = [0f64; 2];
        moved[i] = step;
        let moved = Tensor::new(&moved[..], &Device::Cpu)?.reshape((1, 2))?;
        let (up, down) = (end(&(x.as_tensor() + &moved)?)?, end(&(x.as_tensor() - &moved)?)?);
        let wanted = (up - down)?.to_scalar::<f64>()? / (2.0 * step);
        assert!((found - wanted).abs() < 1e-7 * wanted.abs().max(1.0), "{found}, {wanted}");
        assert!((wanted - line).abs() > 1e-3, "{wanted}: the network's part is not in it");
    }
    Ok(())
}

/// The denoising part is score matching of g(x, t, t) with the weight that was asked for.
#[test]
fn the_denoising_part_is_score_matching() -> Result<()> {
    let data = Key::new(8).normal(0..8, &[2], DType::F32, &Device::Cpu)?;
    let with = |weight: f64| -> Result<f64> {
        let method = format!("{CTM}\ndenoising = {weight}");
        loss(&experiment(&method, 5)?.method, &data, &batch(&data))
    };
    let (one, three) = (with(1.0)?, with(3.0)?);
    let part = (three - one) / 2.0;

    let of = experiment(KD, 5)?.network;
    let mut params = Params::new(DType::F32, &Device::Cpu);
    let network = params.init(&Key::new(3).stream("network"), |scope| of.build(scope, &[2]))?;
    // The second noise level starts at zero: g(x, t, t) is the denoiser of one noise level.
    let denoiser = EdmDenoiser::new(network, 0.5);
    let batch = batch(&data);
    let sigma = consistency::method::ScoreMatching::default()
        .noise_levels(0..8, &batch.key.stream("sigma"));
    let z = batch.key.stream("denoising").normal_like(&data, 0)?;
    let wanted = score_matching_loss(&denoiser, &data, &z, &sigma, 0.5)?.to_scalar::<f32>()?;
    assert!((part / f64::from(wanted) - 1.0).abs() < 1e-3, "{part}, {wanted}");
    // The rest of the loss is the trajectory's: an untrained map does not compose.
    assert!(one - part > 1e-3, "{one}, {part}");
    Ok(())
}

/// Training closes the gap between the student's map and the teacher's flow.
#[test]
fn a_trajectory_student_approaches_the_flow() -> Result<()> {
    let folder = Folder::new("given-ctm")?;
    let z = Key::new(9).normal(0..200, &[2], DType::F32, &Device::Cpu)?;
    let x = (&z * 80.0)?;
    let (mut errors, mut trained) = (Vec::new(), run(&folder, CTM, 1)?);
    for iterations in [5, 600] {
        trained = run(&folder, CTM, iterations)?;
        let exact = Empirical::new(&moons(
            200,
            0.03,
            &Key::new(0).stream("data"),
            DType::F64,
            &Device::Cpu,
        )?)?;
        let flow = ExactFlow::new(exact, EPS)?;
        let wanted = flow.map(&x.to_dtype(DType::F64)?, &[80.0], &[EPS])?;
        let found = trained.two_time_map()?.map(&x, &[80.0], &[EPS])?;
        let error = (found.to_dtype(DType::F64)? - wanted)?.sqr()?.mean_all()?;
        errors.push(error.to_scalar::<f64>()?.sqrt());
    }
    assert!(errors[1] < 0.5 * errors[0], "{errors:?}");
    // The second noise level has been learnt: its last layer starts at zero.
    let learnt = trained
        .params()
        .tensors()
        .into_iter()
        .filter(|(name, _)| name.starts_with("second_time.linear_2"));
    let learnt = learnt.map(|(_, x)| Ok(x.abs()?.max_all()?.to_scalar::<f32>()?));
    let learnt = learnt.collect::<Result<Vec<f32>>>()?;
    assert!(learnt.len() == 2 && learnt.iter().all(|most| *most > 1e-3), "{learnt:?}");
    Ok(())
}
