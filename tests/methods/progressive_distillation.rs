//! Promise: progressive distillation. A student of zero loss ends where its first teacher does,
//! whatever the number of stages; its target is Salimans and Ho's; a stage is handed over, also
//! through a kill.

#[path = "../support/formula.rs"]
#[allow(dead_code)]
mod formula;

use candle_core::{DType, Device, Tensor};
use consistency::Result;
use consistency::experiment::{Experiment, Monitor, RunFolder, train};
use consistency::method::two_steps_in_one;
use consistency::process::{GaussianMixture, NoiseRange, Solver, TimeGrid};
use consistency::rng::Key;
use consistency::sample;
use consistency::seam::Denoiser;
use formula::Folder;

/// N(0, 0.25), whose denoiser is linear.
fn gaussian() -> Result<GaussianMixture> {
    GaussianMixture::new(vec![1.0], vec![vec![0.0]], vec![0.5])
}

/// The student of zero loss on the grid of `steps` steps: what its teacher does in two.
struct ZeroLoss {
    teacher: Box<dyn Denoiser>,
    fine: TimeGrid,
}

impl Denoiser for ZeroLoss {
    fn denoise(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        let times = self.fine.times();
        let i = times.iter().position(|other| (other / t[0] - 1.0).abs() < 1e-12);
        let i =
            i.ok_or_else(|| consistency::Error::new(format!("{t:?} is no noise level here")))?;
        two_steps_in_one(self.teacher.as_ref(), x, &[times[i]], &[times[i - 1]], &[times[i - 2]])
    }
}

/// x_eps / x_T after `steps` steps of Euler on the Karras grid.
fn factor(denoiser: &dyn Denoiser, steps: usize) -> Result<f64> {
    let (noise, z) = (NoiseRange::default(), Tensor::new(&[[1f64]], &Device::Cpu)?);
    let end = sample::pf_ode(denoiser, Solver::Euler, &z, &noise.karras(steps + 1)?)?;
    Ok(end.flatten_all()?.to_vec1::<f64>()?[0] / noise.t_max)
}

#[test]
fn stages_of_zero_loss_telescope() -> Result<()> {
    // Euler's 16 steps, computed elsewhere; the exact flow's factor is .0062499279.
    let wanted = 0.0052330681564;
    let first = factor(&gaussian()?, 16)?;
    assert!((first / wanted - 1.0).abs() < 1e-10, "{first}");
    let mut teacher: Box<dyn Denoiser> = Box::new(gaussian()?);
    for steps in [8, 4, 2, 1] {
        let fine = NoiseRange::default().karras(2 * steps + 1)?;
        teacher = Box::new(ZeroLoss { teacher, fine });
        let found = factor(teacher.as_ref(), steps)?;
        assert!((found / first - 1.0).abs() < 1e-12, "{steps} steps: {found}, {first}");
    }
    let x = Tensor::new(&[[1f64]], &Device::Cpu)?;
    let one = teacher.denoise(&x, &[80.0])?.flatten_all()?.to_vec1::<f64>()?[0];
    assert!((one - 0.00520820).abs() < 1e-8, "{one}");

    // Where no stage is handed over, the last student has learnt two steps of the first teacher.
    let fine = NoiseRange::default().karras(3)?;
    let stale = factor(&ZeroLoss { teacher: Box::new(gaussian()?), fine }, 1)?;
    assert!((stale / first - 1.0).abs() > 0.1, "{stale}");
    Ok(())
}

/// In the variance-preserving frame, z = alpha (x0 + t noise) with alpha = 1 / sqrt(1 + t^2) and
/// sigma = alpha t: two steps of DDIM to z'', and x~ = (z'' - (sigma''/sigma) z) / (alpha'' -
/// (sigma''/sigma) alpha).
#[test]
fn the_target_is_that_of_the_variance_preserving_process() -> Result<()> {
    let (data, device) = (gaussian()?, Device::Cpu);
    let (alpha, sigma) = (|t: f64| (1.0 + t * t).powf(-0.5), |t: f64| t * (1.0 + t * t).powf(-0.5));
    let denoise = |x: f64, t: f64| -> Result<f64> {
        let answer = data.denoise(&Tensor::new(&[[x]], &device)?, &[t])?;
        Ok(answer.flatten_all()?.to_vec1::<f64>()?[0])
    };
    for (x, [t, half, next]) in [(3.0, [2.0, 1.1, 0.4]), (-70.0, [80.0, 9.0, 0.002])] {
        let ddim = |z: f64, t: f64, to: f64| -> Result<f64> {
            let x0 = denoise(z / alpha(t), t)?;
            Ok(alpha(to) * x0 + sigma(to) / sigma(t) * (z - alpha(t) * x0))
        };
        let z = alpha(t) * x;
        let end = ddim(ddim(z, t, half)?, half, next)?;
        let ratio = sigma(next) / sigma(t);
        let wanted = (end - ratio * z) / (alpha(next) - ratio * alpha(t));
        let x = Tensor::new(&[[x]], &device)?;
        let got = two_steps_in_one(&data, &x, &[t], &[half], &[next])?;
        let got = got.flatten_all()?.to_vec1::<f64>()?[0];
        assert!((got - wanted).abs() < 1e-12 * wanted.abs().max(1.0), "{got} and {wanted}");
    }
    Ok(())
}

fn teacher() -> Result<Experiment> {
    Experiment::parse(&experiment("teacher", "kind = \"score-matching\"", 40))
}

fn student(teacher: &str, iterations: u64) -> Result<Experiment> {
    let method = format!("kind = \"progressive-distillation\"\nteacher = \"{teacher}\"\nsteps = 4");
    Experiment::parse(&experiment("student", &method, iterations))
}

fn experiment(name: &str, method: &str, iterations: u64) -> String {
    format!(
        "name = \"{name}\"\ndata = {{ name = \"moons\", count = 200 }}\n\
         network = {{ kind = \"mlp\", width = 16, blocks = 1 }}\n\
         training = {{ iterations = {iterations}, batch = 8, decay = 1.0, record_every = 1, \
         checkpoint_every = 5, keep_checkpoints = 100 }}\n[method]\n{method}\n"
    )
}

#[test]
fn stages_are_handed_over_also_through_a_stop() -> Result<()> {
    let folder = Folder::new("pd")?;
    let taught = train(&teacher()?, &folder.0, &Monitor::default(), 1)?;
    // Stages of 4, 2 and 1 steps: 8, 16 and 16 of 40 steps of training.
    let experiment = student(&taught.folder(), 40)?;
    let whole = train(&experiment, &folder.0, &Monitor::default(), 1)?;
    let table = whole.table();
    let at = |column: &str, k: usize| table.column(column)[k];
    for (k, steps) in [(0, 4.0), (7, 4.0), (8, 2.0), (23, 2.0), (24, 1.0), (39, 1.0)] {
        assert_eq!(at("steps", k), steps, "step {k}");
    }
    // The learning rate falls to 0 in each stage, and starts anew.
    assert!(at("learning_rate", 7) < 0.2 * at("learning_rate", 0));
    assert_eq!(at("learning_rate", 8), at("learning_rate", 0));

    // From each of its checkpoints, the run ends with the same bits: within a stage, at a
    // hand-over, and right after one.
    let name = experiment.folder()?;
    let last = |runs: &std::path::Path| {
        std::fs::read(runs.join(&name).join("checkpoint-000000040.safetensors"))
    };
    let wanted = last(&folder.0)?;
    for step in [5, 10, 20, 25, 35] {
        let again = Folder::new(&format!("pd-{step}"))?;
        for run in [taught.folder(), name.clone()] {
            std::fs::create_dir_all(again.0.join(&run))?;
            for entry in std::fs::read_dir(folder.0.join(&run))? {
                let file = entry?.file_name();
                let text = file.to_string_lossy().into_owned();
                let number = text.strip_prefix("checkpoint-").and_then(|n| n[..9].parse().ok());
                if run == name && number.is_some_and(|number: u64| number > step) {
                    continue;
                }
                let from = folder.0.join(&run).join(&file);
                std::fs::copy(from, again.0.join(&run).join(&file))?;
            }
        }
        train(&experiment, &again.0, &Monitor::default(), 1)?;
        assert!(last(&again.0)? == wanted, "from step {step}: other bits");
    }
    Ok(())
}

#[test]
fn a_student_is_the_teacher_of_another() -> Result<()> {
    let folder = Folder::new("pd-chain")?;
    let taught = train(&teacher()?, &folder.0, &Monitor::default(), 1)?;
    let first = train(&student(&taught.folder(), 40)?, &folder.0, &Monitor::default(), 1)?;
    let second = train(&student(&first.folder(), 20)?, &folder.0, &Monitor::default(), 1)?;
    let denoiser = RunFolder::open(&folder.0.join(second.folder()))?.trained()?.denoiser()?;
    let x = Key::new(1).normal(0..4, &[2], DType::F32, &Device::Cpu)?;
    assert_eq!(denoiser.denoise(&(x * 80.0)?, &[80.0])?.dims(), [4, 2]);
    let refused = second.consistency_model().err().map(|e| e.to_string()).unwrap_or_default();
    assert_eq!(refused, "student trained a denoiser, not a consistency model");
    Ok(())
}

#[test]
fn what_cannot_be_halved_is_refused() -> Result<()> {
    let folder = Folder::new("pd-refused")?;
    for (steps, last) in [(6, 1), (4, 3), (4, 8)] {
        let text = student("t", 40)?.to_toml()?;
        let text = text.replace("steps = 4", &format!("steps = {steps}"));
        let text = text.replace("last = 1", &format!("last = {last}"));
        let error = Experiment::parse(&text).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.contains("method.last") || error.contains("method.steps"), "{error}");
    }
    let taught = train(&teacher()?, &folder.0, &Monitor::default(), 1)?;
    let short = student(&taught.folder(), 2)?;
    let error = train(&short, &folder.0, &Monitor::default(), 1).err();
    let error = error.map(|e| e.to_string()).unwrap_or_default();
    assert!(error.contains("training.iterations = 2: 3 stages"), "{error}");
    Ok(())
}
