//! The exact denoiser of a dataset (Lemma 1) at Fashion-MNIST's shape, against the machine's rate
//! of f64 matrix products, in the same run. The rows are Fashion-MNIST's if it is here
//! (`cargo lab data fetch fashion_mnist`), else synthetic.
//!
//! `cargo lab bench lemma1` runs it. The work is in a process of its own, whose number of threads
//! candle and rayon learn from the environment, and whose memory is its own.

use candle_core::{DType, Device, Tensor};
use consistency::data::Dataset;
use consistency::process::{Empirical, NoiseRange};
use consistency::rng::Key;
use consistency::seam::Denoiser;
use consistency::{Error, Result, bail, ensure};
use rand::Rng;
use rayon::prelude::*;
use std::process::Command;
use std::time::Instant;

/// Timed calls of each kind, in turn.
const CALLS: usize = 9;
const ROWS: usize = 60_000;
const DIM: usize = 784;
/// The last is too small to make good use of what is read from memory.
const BATCHES: [usize; 3] = [256, 64, 8];
/// How far a mean may be from the definition's, where data lie in [-1, 1].
const TOLERANCE: f64 = 1e-9;

/// Calls of one kind that are timed together with the others.
struct Case {
    name: String,
    /// Floating-point operations of a call.
    operations: f64,
    call: Box<dyn Fn() -> Result<Tensor>>,
    seconds: Vec<f64>,
}

impl Case {
    fn new(name: String, operations: usize, call: impl Fn() -> Result<Tensor> + 'static) -> Self {
        Self { name, operations: operations as f64, call: Box::new(call), seconds: Vec::new() }
    }

    /// Median, lowest and highest.
    fn spread(&self) -> [f64; 3] {
        let mut seconds = self.seconds.clone();
        seconds.sort_by(f64::total_cmp);
        let at = |i: usize| seconds.get(i).copied().unwrap_or(f64::NAN);
        [at(seconds.len() / 2), at(0), at(seconds.len().max(1) - 1)]
    }

    /// Operations a second at the median, in units of 1e9.
    fn rate(&self) -> f64 {
        self.operations / self.spread()[0] / 1e9
    }
}

/// The most memory that was resident so far, in bytes.
fn peak() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM")).unwrap_or_default();
    let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) * 1024.0
}

/// The rows, and what they are.
fn data() -> Result<(Tensor, String)> {
    let fashion = Dataset::find("fashion_mnist")?;
    if fashion.is_here("train") {
        let images = fashion.split("train")?;
        let rows = images.all(DType::F64)?.reshape((ROWS, DIM))?;
        return Ok((rows, format!("rows of {}", images.name())));
    }
    let key = Key::new(1).stream("rows");
    let mut values = vec![0f64; ROWS * DIM];
    values.par_chunks_mut(DIM).enumerate().for_each(|(i, row)| {
        let mut generator = key.generator(i as u64);
        row.iter_mut().for_each(|value| *value = 2.0 * generator.random::<f64>() - 1.0);
    });
    let rows = Tensor::from_vec(values, (ROWS, DIM), &Device::Cpu)?;
    Ok((rows, "synthetic rows, uniform on [-1, 1)".to_string()))
}

/// Rows with noise of these levels, one per sample.
fn noisy(data: &Tensor, t: &[f64]) -> Result<Tensor> {
    let noise =
        Key::new(1).stream("noise").normal(0..t.len() as u64, &[DIM], DType::F64, &Device::Cpu)?;
    let level = Tensor::new(t, &Device::Cpu)?.unsqueeze(1)?;
    Ok((data.narrow(0, 0, t.len())? + noise.broadcast_mul(&level)?)?)
}

/// The mean and ln p_t(x) by the definition, distances summed number by number.
fn definition(rows: &[f64], x: &[f64], t: f64) -> (Vec<f64>, f64) {
    let distance = |row: &[f64]| row.iter().zip(x).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
    let exponents: Vec<f64> =
        rows.par_chunks(DIM).map(|row| -distance(row) / (2.0 * t * t)).collect();
    let most = exponents.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = exponents.iter().map(|e| (e - most).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let mut mean = vec![0f64; DIM];
    for (row, weight) in rows.chunks_exact(DIM).zip(&weights) {
        mean.iter_mut().zip(row).for_each(|(m, v)| *m += weight / sum * v);
    }
    let normal = 0.5 * DIM as f64 * (2.0 * std::f64::consts::PI * t * t).ln();
    (mean, most + sum.ln() - (ROWS as f64).ln() - normal)
}

/// Hold some samples to the definition; the largest differences of means, and of ln p_t relative
/// to its size.
fn check(data: &Tensor, empirical: &Empirical, x: &Tensor, t: &[f64]) -> Result<(f64, f64)> {
    let means = empirical.denoise(x, t)?.to_vec2::<f64>()?;
    let densities = empirical.log_density(x, t)?.to_vec1::<f64>()?;
    let rows: Vec<f64> = data.flatten_all()?.to_vec1()?;
    let mut worst = (0f64, 0f64);
    for i in (0..t.len()).step_by(t.len() / 16) {
        let (mean, density) = definition(&rows, &x.get(i)?.to_vec1::<f64>()?, t[i]);
        let relative = (densities[i] - density).abs() / density.abs().max(1.0);
        for (found, want) in means[i].iter().zip(&mean) {
            let gap = (found - want).abs();
            ensure!(
                gap <= TOLERANCE && relative <= TOLERANCE,
                "sample {i}, t = {}: {found} and ln p = {}, by the definition {want} and {density}",
                t[i],
                densities[i]
            );
            worst = (worst.0.max(gap), worst.1.max(relative));
        }
    }
    Ok(worst)
}

/// Noise levels from 0.002 to 80, one per sample, far ones side by side.
fn levels(count: usize) -> Result<Vec<f64>> {
    let grid = NoiseRange::default().karras(count)?;
    Ok((0..count).map(|i| grid.times()[i * 37 % count]).collect())
}

/// f64 products of candle: a large square, and the two that the denoiser is made of.
fn products(data: &Tensor) -> Result<Vec<Case>> {
    let square = Key::new(2).normal(0..2048, &[2048], DType::F64, &Device::Cpu)?;
    let rows = data.narrow(0, 0, 8192)?;
    let x = data.narrow(0, 0, BATCHES[0])?;
    let weights = x.matmul(&rows.t()?)?;
    let operations = 2 * BATCHES[0] * 8192 * DIM;
    let (other, below) = (square.clone(), rows.clone());
    let case = |name: &str, operations, a: Tensor, b: Tensor| {
        Case::new(name.to_string(), operations, move || Ok(a.matmul(&b)?))
    };
    Ok(vec![
        case("product 2048 x 2048 x 2048", 2 * 2048usize.pow(3), square, other),
        case("product 256 x 784 x 8192, transposed", operations, x, rows.t()?),
        case("product 256 x 8192 x 784", operations, weights, below),
    ])
}

/// The denoiser at each batch, four operations for each sample and number of the data; the
/// density, two.
fn denoisers(data: &Tensor, empirical: &Empirical) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for batch in BATCHES {
        let (t, empirical) = (levels(batch)?, empirical.clone());
        let (x, name) = (noisy(data, &t)?, format!("denoise, batch {batch}"));
        let call = move || empirical.denoise(&x, &t);
        cases.push(Case::new(name, 4 * batch * ROWS * DIM, call));
    }
    let batch = BATCHES[0];
    let (t, empirical) = (levels(batch)?, empirical.clone());
    let (x, name) = (noisy(data, &t)?, format!("log density, batch {batch}"));
    let call = move || empirical.log_density(&x, &t);
    cases.push(Case::new(name, 2 * batch * ROWS * DIM, call));
    Ok(cases)
}

fn measure(threads: usize) -> Result<()> {
    let (data, what) = data()?;
    let empirical = Empirical::new(&data)?;
    let mut cases = denoisers(&data, &empirical)?;
    for case in &cases {
        (case.call)()?;
    }
    // Before the products and the check, which have memory of their own.
    let memory = peak();
    let t = levels(BATCHES[0])?;
    let (mean, density) = check(&data, &empirical, &noisy(&data, &t)?, &t)?;
    let mut all = products(&data)?;
    let count = all.len();
    all.append(&mut cases);
    // The first round warms up.
    for round in 0..=CALLS {
        for case in &mut all {
            let start = Instant::now();
            (case.call)()?;
            if round > 0 {
                case.seconds.push(start.elapsed().as_secs_f64());
            }
        }
    }
    report(&all, count, &what, threads);
    println!(
        "\nResident at the most, data included: {:.2} GB. Against the definition (16 samples): means \
         within {mean:.1e}, ln p_t within {density:.1e} of its size.",
        memory / 1e9
    );
    Ok(())
}

/// The table; the first `products` of the cases are the products.
fn report(cases: &[Case], products: usize, what: &str, threads: usize) {
    let best = cases[..products].iter().map(Case::rate).fold(f64::NAN, f64::max);
    println!(
        "{ROWS} x {DIM} {what}, f64; t from 0.002 to 80 in each batch; \
         {threads} threads, medians of {CALLS} (lowest to highest), in turn\n"
    );
    println!("| | seconds | GFLOP/s | of the best product |\n|---|---|---|---|");
    for case in cases {
        let ([median, low, high], rate) = (case.spread(), case.rate());
        let share = 100.0 * rate / best;
        println!(
            "| {} | {median:.3} ({low:.3} to {high:.3}) | {rate:.1} | {share:.0} % |",
            case.name
        );
    }
}

fn run() -> Result<()> {
    let (mut threads, mut inside) = (std::thread::available_parallelism()?.get(), false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--threads" => {
                let count = arguments.next().and_then(|n| n.parse().ok()).filter(|n| *n > 0);
                threads = count.ok_or_else(|| Error::new("--threads N"))?;
            }
            "--inside" => inside = true,
            // `cargo bench` passes this to every benchmark.
            "--bench" => {}
            other => bail!("what is {other}?"),
        }
    }
    if inside {
        return measure(threads);
    }
    let status = Command::new(std::env::current_exe()?)
        .args(["--inside", "--threads", &threads.to_string()])
        .env("RAYON_NUM_THREADS", threads.to_string())
        .env("CANDLE_NUM_THREADS", "1")
        .status()?;
    ensure!(status.success(), "the benchmark failed, see above");
    Ok(())
}

fn main() {
    if let Err(error) = run() {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}
