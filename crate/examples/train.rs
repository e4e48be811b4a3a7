//! Consistency training (the paper, algorithm 3; the talk, algorithm 2) as one program: batch,
//! noise, pair, loss, gradients, step, target, in the paper's symbols, with nothing hidden but
//! the networks. `cargo run --release --example train`
//!
//! The method `consistency-training` of an experiment does the same: `tests/methods/in_sight.rs`
//! holds the two to the same bits.

use consistency::prelude::*;

const BATCH: usize = 128;
const LEARNING_RATE: f64 = 1e-3;

fn network() -> NetworkConfig {
    NetworkConfig::Mlp(MlpConfig { width: 256, blocks: 4, ..MlpConfig::default() })
}

/// theta, theta- and the average of theta after `steps` steps.
pub struct Trained {
    /// theta.
    pub theta: Params,
    /// theta-, the target.
    pub target: Ema,
    /// What is sampled.
    pub average: Ema,
}

/// Train on the digits for `steps` steps, K in the schedules N(k) and mu(k).
pub fn train(steps: u64) -> consistency::Result<Trained> {
    let (key, device) = (Key::new(0), Device::Cpu);
    let data = digits(DType::F32, &device)?.train; // (1347, 1, 8, 8)
    let (noise, sigma_data) = (NoiseRange::default(), 0.5);
    let schedule = Schedule::growing(10, 40, 0.9);
    let distance = Distance { metric: Metric::PseudoHuber { c: 0.03 }, ..Distance::default() };
    let weighting = Weighting { weight: Weight::InverseGap, ..Weighting::default() };

    // f_theta, and f_theta-, which takes no gradients.
    let network = network();
    let mut theta = Params::new(DType::F32, &device);
    let student = theta.init(&key.stream("network"), |scope| network.build(scope, &[1, 8, 8]))?;
    let target = Ema::new(&theta)?;
    let frozen = target.params().frozen(|scope| network.build(scope, &[1, 8, 8]))?;
    let model = |of| ConsistencyModel::new(of, Parameterization::Skip, sigma_data, noise.eps);
    let (f, f_target) = (model(student), model(frozen));

    let config = OptimizerConfig { learning_rate: LEARNING_RATE, ..OptimizerConfig::default() };
    let mut optimizer = Optimizer::new(config, &theta)?;
    let average = Ema::new(&theta)?;

    for k in 0..steps {
        // A batch x_0, and z ~ N(0, I). A step's random numbers have a key of their own.
        let rows = batch_rows(data.dims()[0], BATCH, k, &key.stream("order"));
        let x0 = select(&data, &rows)?; // (B, 1, 8, 8)
        let key = key.stream("step").step(k);
        let z = key.stream("noise").normal_like(&x0, 0)?;

        // n ~ U[1, N(k) - 1], and the pair: one z at t_n and at t_{n+1}.
        let grid = noise.karras(schedule.points(k, steps))?;
        let n = key.stream("n").integers(0..BATCH as u64, 1..grid.points())?;
        let (t, t_next) = grid.neighbours(&n)?;
        let (x, x_next) = (perturb(&x0, &t, &z)?, perturb(&x0, &t_next, &z)?);

        // L = E[lambda d(f_theta(x_{t_{n+1}}, t_{n+1}), f_theta-(x_{t_n}, t_n))]
        let goal = f_target.origin(&x, &t)?.detach();
        let d = distance.per_sample(&f.origin(&x_next, &t_next)?, &goal)?; // (B)
        let loss = weighting.mean(&d, &t_next, &t)?;

        // theta, then theta- = mu theta- + (1 - mu) theta, and the average.
        optimizer.step(&theta, &theta.gradients(&loss)?, 1.0)?;
        target.update(&theta, schedule.mu(k, steps))?;
        average.follow(&theta, 0.999, k)?;
        if (k + 1) % 500 == 0 {
            println!("step {}: loss {:.4}", k + 1, loss.to_scalar::<f32>()?);
        }
    }
    Ok(Trained { theta, target, average })
}

#[allow(dead_code)] // a test calls `train` alone
fn main() -> consistency::Result<()> {
    let trained = train(4000)?;
    let network = network();
    let network = trained.average.params().frozen(|scope| network.build(scope, &[1, 8, 8]))?;
    let f = ConsistencyModel::new(network, Parameterization::Skip, 0.5, NoiseRange::default().eps);

    // One step: f(T z, T).
    let comparison = DigitsComparison::new(&digits(DType::F32, &Device::Cpu)?)?;
    let count = comparison.samples() as u64;
    let z = Key::new(1).normal(0..count, &[1, 8, 8], DType::F32, &Device::Cpu)?;
    let samples = sample::one_step(&f, &z, NoiseRange::default().t_max)?;
    println!(
        "samples: {:?}\nheld-out digits: {:?}",
        comparison.score(&samples)?,
        comparison.real()
    );
    Ok(())
}
