//! Consistency models and teachers from whole folders.

use crate::formula::{Folder, formula};
use crate::networks::{DDPM, get, labels, load, numbers, unet, weights};
use crate::{beside, fixture, gap, message};
use candle_core::{DType, Device, Tensor};
use consistency::model::pretrained::{Kind, Source};
use consistency::model::{
    Condition, Conditioned, EdmDenoiser, Network, Pretrained, VariancePreserving,
};
use consistency::process::{Betas, VpSchedule};
use consistency::rng::Key;
use consistency::sample::{Multistep, grid_steps};
use consistency::seam::{ConsistencyFunction, Denoiser};
use consistency::{Error, Result, ensure};

fn scheduler(points: usize) -> String {
    format!(
        r#"{{"_class_name": "CMStochasticIterativeScheduler", "_diffusers_version": "0.18.0.dev0",
            "clip_denoised": true, "num_train_timesteps": {points}, "rho": 7.0, "s_noise": 1.0,
            "sigma_data": 0.5, "sigma_max": 80.0, "sigma_min": 0.002}}"#
    )
}

/// The recorded chains of diffusers' pipeline, by the loaded model and the library's sampler.
#[test]
fn pipelines() -> Result<()> {
    for (name, points, classes) in [("tiny_imagenet64", 40, Some(10)), ("tiny_lsun256", 151, None)]
    {
        let config = std::fs::read_to_string(fixture(&format!("diffusers/{name}.config.json")))?;
        let folder = Folder::new(&format!("chain-{name}"))?;
        folder.pipeline(&config, &scheduler(points), &weights(&unet(&config)?)?)?;
        let read = Pretrained::open(&folder.0.display().to_string())?;
        assert_eq!((read.shape(), read.classes()), ([3, 16, 16], classes));
        assert_eq!((read.noise_range().eps, read.noise_range().t_max), (0.002, 80.0));
        let Kind::Consistency(schedule) = read.kind() else {
            return Err(Error::new(format!("{name} is {}", read.kind())));
        };
        assert_eq!(schedule.num_train_timesteps, points);
        let got = message(read.denoiser());
        assert!(got.starts_with("this is a consistency model"), "{got}");

        let file = format!("diffusers/{name}.pipeline{points}.safetensors");
        let (tensors, metadata) = load(&fixture(&file))?;
        let (outputs, _) = load(&fixture(&format!("diffusers/{name}.safetensors")))?;
        let labels = labels(&outputs)?;
        let model = read.consistency_model()?;
        let f = Conditioned::new(&model, labels.as_deref(), None);
        let mut cases = 0;
        for case in 0.. {
            let Some(initial) = tensors.get(&format!("{case}.initial")) else { break };
            let steps = metadata.get(&format!("{case}.steps")).cloned().unwrap_or_default();
            let sigmas = match steps.parse::<usize>() {
                Ok(steps) => grid_steps(&schedule.grid()?, steps)?,
                // A list of grid indices, the last first, counted from the noisy end.
                Err(_) => {
                    let indices: Vec<usize> =
                        serde_json::from_str(&steps).map_err(|e| Error::new(e.to_string()))?;
                    let grid = schedule.grid()?;
                    indices.iter().rev().map(|i| grid.times()[points - 1 - i]).collect()
                }
            };
            let z = (initial / 80.0)?;
            let chain = Multistep { sigmas: &sigmas, eps: 0.002, clip: true, s_noise: 1.0 };
            let ours = chain.sample(&f, &z, |n, x| {
                let label = format!("input:{name}.{case}.renoise.{}", n + 1);
                formula(&label, x.dims(), 3f64.sqrt(), 0.0)
            })?;
            let apart = gap(&ours, get(&tensors, &format!("{case}.sample"))?)?;
            assert!(apart < 1e-4, "{name} {case}: {apart}");
            cases += 1;
        }
        assert!(cases > 0, "{name} has no case");
    }
    Ok(())
}

/// A network that is told time steps, as published for CIFAR-10: all three files at the top.
#[test]
fn a_teacher_at_the_top_of_its_repository() -> Result<()> {
    let config = std::fs::read_to_string(fixture("diffusers/tiny_ddpm_cifar10.config.json"))?;
    let folder = Folder::new("top")?;
    folder.pipeline(&config, DDPM, &weights(&unet(&config)?)?)?;
    for name in ["config.json", "diffusion_pytorch_model.safetensors"] {
        std::fs::rename(folder.0.join("unet").join(name), folder.0.join(name))?;
    }
    let scheduler = folder.0.join("scheduler_config.json");
    std::fs::rename(folder.0.join("scheduler/scheduler_config.json"), scheduler)?;
    let read = Pretrained::load(&Source::folder(&folder.0)?, Default::default())?;
    let got = message(read.consistency_model());
    assert!(got.starts_with("this is a teacher (predicts the noise"), "{got}");

    // D(x, sigma) = x - sigma eps(x / sqrt(1 + sigma^2), i) at the sigma of step i.
    let (tensors, _) = load(&fixture("diffusers/tiny_ddpm_cifar10.safetensors"))?;
    let sample = get(&tensors, "sample")?;
    let sigmas = VpSchedule::default().sigmas();
    let teacher = read.denoiser()?;
    for (i, step) in numbers(get(&tensors, "timesteps")?)?.into_iter().enumerate() {
        let sigma = sigmas[step as usize];
        let output = get(&tensors, &format!("output.{i}"))?;
        let x = (sample * sigma.hypot(1.0))?;
        let ours = ((&x - teacher.denoise(&x, &[sigma])?)? / sigma)?;
        let apart = gap(&ours, output)?;
        assert!(apart < 3e-4, "step {step}: {apart}");
    }
    Ok(())
}

#[test]
fn the_range_of_ddpm() -> Result<()> {
    let (schedule, range) = (VpSchedule::default(), VpSchedule::default().range());
    assert!((range.eps - 0.0100).abs() < 5e-5, "{range:?}");
    assert!((range.t_max - 157.4).abs() < 0.05, "{range:?}");
    let below = schedule.sigmas().iter().filter(|sigma| **sigma <= 80.0).count();
    assert_eq!(below, 930);
    // The square roots of beta in equal steps: the same ends, less noise in between.
    let scaled = VpSchedule { betas: Betas::ScaledLinear, ..schedule };
    assert!((scaled.range().eps - range.eps).abs() < 1e-12);
    assert!(scaled.sigmas()[500] < schedule.sigmas()[500]);
    Ok(())
}

/// The exact noise predictor of data N(0, s^2): E[e | y] = y sqrt(1 - abar) / var(y), where
/// y = sqrt(abar) x0 + sqrt(1 - abar) e. It is told steps alone, fractions of them too.
struct Exact {
    s: f64,
    sigmas: Vec<f64>,
}

impl Network for Exact {
    fn forward(&self, xs: &Tensor, condition: Condition) -> Result<Tensor> {
        let [step] = condition.noise else {
            return Err(Error::new("one step for all"));
        };
        let (i, part) = (step.floor() as usize, step.fract());
        let next = self.sigmas[(i + 1).min(self.sigmas.len() - 1)];
        let sigma = self.sigmas[i].powf(1.0 - part) * next.powf(part);
        let kept = 1.0 / (1.0 + sigma * sigma); // abar
        Ok((xs * ((1.0 - kept).sqrt() / (kept * self.s * self.s + 1.0 - kept)))?)
    }
}

/// F = 0 with sigma_data = s is EDM's exact denoiser of N(0, s^2): D = s^2 / (s^2 + t^2) x.
struct Zero;

impl Network for Zero {
    fn forward(&self, xs: &Tensor, _: Condition) -> Result<Tensor> {
        Ok(xs.zeros_like()?)
    }
}

#[test]
fn a_variance_preserving_teacher_is_the_denoiser_of_its_data() -> Result<()> {
    let (s, schedule) = (0.7, VpSchedule::default());
    let exact = Exact { s, sigmas: schedule.sigmas() };
    let teacher = VariancePreserving::new(Box::new(exact), schedule)?;
    let edm = EdmDenoiser::new(Box::new(Zero), s);
    let x = Key::new(1).normal(0..4, &[1, 2, 2], DType::F64, &Device::Cpu)?;
    let range = teacher.range();
    for sigma in [range.eps, 0.0123, 0.5, 1.0, 17.3, 80.0, range.t_max] {
        let gap = (teacher.denoise(&x, &[sigma])? - edm.denoise(&x, &[sigma])?)?;
        let gap = gap.abs()?.max_all()?.to_scalar::<f64>()?;
        ensure!(gap < 1e-10, "sigma {sigma}: {gap:e}");
    }
    assert!(!teacher.extrapolated());
    // Below the lowest level the first step answers, and it is said.
    let low = teacher.denoise(&x, &[0.002])?;
    assert!(teacher.extrapolated() && low.dims() == x.dims());
    Ok(())
}

#[test]
fn a_model_of_a_consistency_folder_is_the_identity_at_eps() -> Result<()> {
    let config = std::fs::read_to_string(fixture("diffusers/tiny_lsun256.config.json"))?;
    let folder = Folder::new("identity")?;
    folder.pipeline(&config, &scheduler(151), &weights(&unet(&config)?)?)?;
    let model = Pretrained::open(&folder.0.display().to_string())?.consistency_model()?;
    let x = Key::new(2).normal(0..1, &[3, 16, 16], DType::F32, &Device::Cpu)?;
    assert!(gap(&model.origin(&x, &[0.002])?, &x)? < 1e-6);
    Ok(())
}

/// The networks of the published repositories have as many parameters and tensors as their
/// files.
#[test]
fn the_published_networks() -> Result<()> {
    let text = std::fs::read_to_string(beside("published.json"))?;
    let all: serde_json::Value =
        serde_json::from_str(&text).map_err(|e| Error::new(e.to_string()))?;
    let all = all.as_object().ok_or_else(|| Error::new("no object"))?;
    assert_eq!(all.len(), 4);
    for (name, stated) in all {
        let shapes = unet(&stated["config"].to_string())?;
        assert_eq!(Some(shapes.count() as u64), stated["parameters"].as_u64(), "{name}");
        assert_eq!(Some(shapes.iter().count() as u64), stated["tensors"].as_u64(), "{name}");
    }
    Ok(())
}
