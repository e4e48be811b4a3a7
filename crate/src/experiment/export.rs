//! A trained consistency model as the folder that diffusers loads.

mod card;

pub use card::Card;

use super::config::Experiment;
use super::trained::Trained;
use crate::method::Gives;
use crate::model::pretrained::CmSchedule;
use crate::model::{DIFFUSERS, NetworkConfig, UNetConfig};
use crate::process::Parameterization;
use crate::record::{write_atomically, write_tensors};
use crate::{Context, Error, Result, bail, ensure};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// What lies at the top of an export, and of nothing else.
const MARKS: [&str; 2] = ["model_index.json", "experiment.toml"];

impl Trained {
    /// Write the averaged network to `folder` as a `ConsistencyModelPipeline` of diffusers, with
    /// its model card and its experiment. An earlier export there is replaced; the folder is
    /// written whole or not at all.
    ///
    /// # Errors
    /// A run that diffusers cannot compute (the error says why), a folder that is something else,
    /// or a disk that cannot be written.
    pub fn export(&self, folder: &Path, card: &Card) -> Result<()> {
        let absolute = std::path::absolute(folder).with_context(|| folder.display().to_string())?;
        let context = || format!("exporting to {}", folder.display());
        check_place(&absolute).with_context(context)?;
        let experiment = self.experiment();
        let network = exportable(experiment)
            .with_context(|| format!("{} cannot be exported to diffusers", experiment.name))?;
        let (shape, _) = experiment.data.describe()?;
        let unet = network
            .to_json(&shape)
            .with_context(|| format!("{} cannot be exported to diffusers", experiment.name))?;
        let text = card.text(self, &shape).with_context(context)?;

        let (parent, name) = split(&absolute)?;
        let process = std::process::id();
        let temporary = parent.join(format!(".{name}.{process}.tmp"));
        let write = || -> Result<()> {
            fs::create_dir_all(temporary.join("unet"))?;
            fs::create_dir_all(temporary.join("scheduler"))?;
            let put =
                |name: &str, text: &str| write_atomically(&temporary.join(name), text.as_bytes());
            put("model_index.json", &pretty(&index())?)?;
            put("unet/config.json", &pretty(&unet)?)?;
            put("scheduler/scheduler_config.json", &pretty(&scheduler(experiment)?)?)?;
            put("README.md", &text)?;
            put("experiment.toml", &experiment.to_toml()?)?;
            write_tensors(
                &temporary.join("unet/diffusion_pytorch_model.safetensors"),
                &self.params().tensors(),
                &[("format", "pt")],
            )?;
            replace(&temporary, &absolute, &parent.join(format!(".{name}.{process}.old")))
        };
        write().inspect_err(|_| drop(fs::remove_dir_all(&temporary))).with_context(context)
    }
}

// The U-Net of a run whose consistency function diffusers computes.
fn exportable(experiment: &Experiment) -> Result<&UNetConfig> {
    let parameterization = match experiment.method.gives() {
        Gives::Consistency(parameterization) => parameterization,
        other => bail!("it is {}, not a consistency model", other.name()),
    };
    ensure!(
        parameterization == Parameterization::Skip,
        "its parameterization is {parameterization:?}; diffusers computes Skip alone"
    );
    match &experiment.network {
        NetworkConfig::Unet(config) => Ok(config),
        NetworkConfig::Mlp(_) => bail!("its network is an MLP; diffusers' is a U-Net"),
        NetworkConfig::Ncsnpp(_) => bail!("its network is NCSN++; diffusers' is a U-Net"),
        NetworkConfig::Convnet(_) => bail!("its network is a classifier; diffusers' is a U-Net"),
    }
}

fn index() -> Value {
    json!({
        "_class_name": "ConsistencyModelPipeline",
        "_diffusers_version": DIFFUSERS,
        "scheduler": ["diffusers", "CMStochasticIterativeScheduler"],
        "unet": ["diffusers", "UNet2DModel"],
    })
}

/// The scheduler of the noise levels that the run was trained on.
fn scheduler(experiment: &Experiment) -> Result<Value> {
    let total = experiment.training.iterations;
    let points = experiment.method.points(total, total);
    let Some(points) = points else { bail!("its method has no time grid") };
    let schedule = CmSchedule {
        sigma_min: experiment.noise.eps,
        sigma_max: experiment.noise.t_max,
        sigma_data: experiment.sigma_data,
        rho: experiment.noise.rho,
        num_train_timesteps: points,
        s_noise: 1.0,
        clip_denoised: true,
    };
    let mut value = serde_json::to_value(schedule).map_err(|e| Error::new(e.to_string()))?;
    value["_class_name"] = json!("CMStochasticIterativeScheduler");
    value["_diffusers_version"] = json!(DIFFUSERS);
    Ok(value)
}

fn pretty(value: &Value) -> Result<String> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::new(e.to_string()))?;
    Ok(text + "\n")
}

fn split(path: &Path) -> Result<(PathBuf, String)> {
    match path.parent().zip(path.file_name()) {
        Some((parent, name)) => Ok((parent.to_path_buf(), name.to_string_lossy().into_owned())),
        None => bail!("{} cannot be the path of a folder", path.display()),
    }
}

// Only what an export has written, or nothing, may be there.
fn check_place(path: &Path) -> Result<()> {
    let (parent, _) = split(path)?;
    ensure!(not_found: parent.is_dir(), "there is no folder {}", parent.display());
    if !path.exists() {
        return Ok(());
    }
    ensure!(path.is_dir(), "there is a file of this name");
    let empty = fs::read_dir(path)?.next().is_none();
    ensure!(
        empty || MARKS.iter().all(|mark| path.join(mark).is_file()),
        "this folder is not an earlier export: give another, or remove it yourself"
    );
    Ok(())
}

fn replace(new: &Path, place: &Path, aside: &Path) -> Result<()> {
    if place.exists() {
        fs::rename(place, aside)?;
    }
    if let Err(error) = fs::rename(new, place) {
        // Put the old one back.
        let _ = fs::rename(aside, place);
        return Err(error.into());
    }
    if aside.exists() {
        fs::remove_dir_all(aside)?;
    }
    Ok(())
}
