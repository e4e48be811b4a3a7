//! Files that are old, missing, damaged or another network's.

use crate::formula::Folder;
use crate::networks::{DDPM, numbers, unet, weights};
use crate::{beside, message};
use candle_core::{DType, Device, Tensor};
use consistency::model::pretrained::Source;
use consistency::model::{Condition, LoadOptions, Pretrained};
use consistency::{Error, Result};
use std::collections::BTreeMap;

pub const WEIGHTS: &str = "unet/diffusion_pytorch_model.safetensors";
pub const BIN: &str = "unet/diffusion_pytorch_model.bin";

pub fn read(folder: &Folder, pickle: bool) -> Result<Pretrained> {
    Pretrained::load(&Source::folder(&folder.0)?, LoadOptions { pickle, variant: None })
}

/// A folder of the smallest network, and its tensors.
pub fn tiny(name: &str) -> Result<(Folder, String, BTreeMap<String, Tensor>)> {
    let config = std::fs::read_to_string(beside("pickle/tiny.config.json"))?;
    let tensors = weights(&unet(&config)?)?;
    let folder = Folder::new(name)?;
    folder.pipeline(&config, DDPM, &tensors)?;
    Ok((folder, config, tensors))
}

/// The largest difference to what diffusers answered.
pub fn apart(read: &Pretrained) -> Result<f64> {
    let text = std::fs::read_to_string(beside("pickle/tiny.output.json"))?;
    let recorded: BTreeMap<String, Vec<f32>> =
        serde_json::from_str(&text).map_err(|e| Error::new(e.to_string()))?;
    let sample = Tensor::from_slice(&recorded["sample"], (2, 1, 4, 4), &Device::Cpu)?;
    let condition = Condition { noise: &[500.0], ..Condition::default() };
    let ours = numbers(&read.network()?.forward(&sample, condition)?)?;
    let pairs = ours.iter().zip(&recorded["output"]);
    Ok(pairs.map(|(a, b)| (a - f64::from(*b)).abs()).fold(0.0, f64::max))
}

#[test]
fn old_attention_names_and_half_precision() -> Result<()> {
    let (folder, config, tensors) = tiny("old")?;
    assert!(apart(&read(&folder, false)?)? < 1e-5);
    let names = [("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")];
    let mut renamed = 0;
    let mut old = BTreeMap::new();
    for (name, tensor) in &tensors {
        let mut name = name.clone();
        for (today, before) in names {
            name = name.replace(&format!(".{today}."), &format!(".{before}."));
        }
        let projection = !tensors.contains_key(&name);
        renamed += usize::from(projection);
        // Some were 1x1 convolutions.
        let tensor = match tensor.dims() {
            &[a, b] if projection => tensor.reshape((a, b, 1, 1))?,
            _ => tensor.clone(),
        };
        old.insert(name, tensor);
    }
    assert_eq!(renamed, 8);
    folder.pipeline(&config, DDPM, &old)?;
    assert!(apart(&read(&folder, false)?)? < 1e-5);
    for dtype in [DType::F16, DType::BF16] {
        let half: BTreeMap<_, _> =
            old.iter().map(|(n, t)| Ok((n.clone(), t.to_dtype(dtype)?))).collect::<Result<_>>()?;
        folder.pipeline(&config, DDPM, &half)?;
        let read = read(&folder, false)?;
        assert_eq!(read.params().dtype(), DType::F32);
        let apart = apart(&read)?;
        assert!(apart > 1e-6 && apart < 0.1, "{dtype:?}: {apart}");
    }
    Ok(())
}

#[test]
fn all_that_is_wrong_in_one_message() -> Result<()> {
    let (folder, config, tensors) = tiny("wrong")?;
    let mut wrong = tensors.clone();
    wrong.remove("conv_in.bias");
    wrong.insert("conv_more.bias".into(), Tensor::zeros(3, DType::F32, &Device::Cpu)?);
    wrong.insert("conv_out.bias".into(), Tensor::zeros(7, DType::F32, &Device::Cpu)?);
    folder.pipeline(&config, DDPM, &wrong)?;
    let got = message(read(&folder, false));
    assert!(got.starts_with(&format!("{}: these", folder.0.join(WEIGHTS).display())), "{got}");
    for part in [
        "missing [\"conv_in.bias\"]",
        "extra [\"conv_more.bias\"]",
        "parameter conv_out.bias has shape [7], the network needs [1]",
    ] {
        assert!(got.contains(part), "{got}");
    }
    // Twenty are named and the rest counted.
    folder.pipeline(&config, DDPM, &BTreeMap::new())?;
    let got = message(read(&folder, false));
    let rest = tensors.len() - 20;
    assert!(got.ends_with(&format!(" and {rest} more]")), "{got}");
    assert_eq!(got.matches('"').count(), 40);

    for value in [f32::NAN, f32::INFINITY] {
        let mut spoiled = tensors.clone();
        spoiled.insert("conv_out.bias".into(), Tensor::new(&[value], &Device::Cpu)?);
        folder.pipeline(&config, DDPM, &spoiled)?;
        let got = message(read(&folder, false));
        assert!(got.ends_with("conv_out.bias: numbers that are not finite"), "{got}");
    }
    let mut double = tensors.clone();
    double.insert("conv_out.bias".into(), Tensor::new(&[0f64], &Device::Cpu)?);
    folder.pipeline(&config, DDPM, &double)?;
    let got = message(read(&folder, false));
    assert!(got.ends_with("conv_out.bias has dtype F64: F32, F16 and BF16 are read"), "{got}");
    // Cut off anywhere, it is an error and not a network.
    folder.pipeline(&config, DDPM, &tensors)?;
    let whole = std::fs::read(folder.0.join(WEIGHTS))?;
    for length in [0, 7, 8, 100, whole.len() / 2, whole.len() - 1] {
        folder.write(WEIGHTS, &whole[..length])?;
        let got = message(read(&folder, false));
        assert!(got.contains(WEIGHTS), "{length}: {got}");
    }
    Ok(())
}

#[test]
fn what_is_missing_or_unknown() -> Result<()> {
    let (folder, config, tensors) = tiny("missing")?;
    let place = folder.0.display().to_string();
    for (text, want) in [
        (r#"{"_class_name": "PNDMScheduler"}"#, "a scheduler PNDMScheduler: known are"),
        (r#"{}"#, "a scheduler without a _class_name"),
        (
            r#"{"_class_name": "DDPMScheduler", "prediction_type": "v_prediction"}"#,
            "prediction_type = 'v_prediction': known is epsilon alone",
        ),
        (
            r#"{"_class_name": "DDIMScheduler", "beta_schedule": "squaredcos_cap_v2"}"#,
            "beta_schedule = 'squaredcos_cap_v2': known are linear and scaled_linear",
        ),
        (
            r#"{"_class_name": "CMStochasticIterativeScheduler", "sigma_min": 90}"#,
            "sigma_min = 90, sigma_max = 80",
        ),
        ("{", "EOF while parsing"),
    ] {
        folder.pipeline(&config, text, &tensors)?;
        let got = message(read(&folder, false));
        assert!(got.contains("scheduler/scheduler_config.json: ") && got.contains(want), "{got}");
    }
    std::fs::remove_file(folder.0.join("scheduler/scheduler_config.json"))?;
    let got = message(read(&folder, false));
    let want = format!("{place} holds no scheduler/scheduler_config.json (nor");
    assert!(got.starts_with(&want), "{got}");
    folder.pipeline(&config, DDPM, &tensors)?;
    std::fs::remove_file(folder.0.join(WEIGHTS))?;
    assert_eq!(message(read(&folder, false)), format!("{place} holds no {WEIGHTS}"));
    std::fs::remove_file(folder.0.join("unet/config.json"))?;
    let got = message(read(&folder, false));
    assert_eq!(got, format!("{place} holds neither unet/config.json nor config.json"));
    folder.pipeline(
        &config.replace("\"out_channels\": 1", "\"out_channels\": 2"),
        DDPM,
        &tensors,
    )?;
    let got = message(read(&folder, false));
    assert!(got.contains("in_channels = 1 and out_channels = Some(2)"), "{got}");
    assert_eq!(message(Pretrained::open("./nowhere")), "there is no folder ./nowhere");
    Ok(())
}
