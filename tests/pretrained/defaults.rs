//! What is left out of a configuration, and what is null, is what diffusers makes of it:
//! `defaults/table.json` is its own word, `defaults/make.py` asks for it.

use crate::networks::unet;
use crate::{beside, message};
use consistency::model::UNetConfig;
use consistency::model::pretrained::Kind;
use consistency::{Error, Result};
use serde_json::{Map, Value, json};

fn table() -> Result<Value> {
    let text = std::fs::read_to_string(beside("defaults/table.json"))?;
    serde_json::from_str(&text).map_err(|e| Error::new(e.to_string()))
}

fn keys_of(class: &Value) -> Result<&Map<String, Value>> {
    class.as_object().ok_or_else(|| Error::new("no object"))
}

fn values(config: &UNetConfig) -> Result<Value> {
    serde_json::to_value(config).map_err(|e| Error::new(e.to_string()))
}

/// Numbers are compared as numbers: 0 is 0.0.
fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

#[test]
fn every_key_of_a_unet_has_its_default() -> Result<()> {
    let table = table()?;
    let keys = keys_of(&table["UNet2DModel"])?;
    assert_eq!(keys.len(), 28);
    let empty = values(&UNetConfig::from_json(r#"{"_class_name": "UNet2DModel"}"#)?)?;
    for (key, row) in keys {
        let (ours, theirs) = (empty.get(key).unwrap_or(&Value::Null), &row["default"]);
        assert!(same(ours, theirs), "{key}: {ours}, diffusers has {theirs}");
    }
    for key in keys_of(&empty)?.keys() {
        assert!(keys.contains_key(key), "diffusers has no key {key}");
    }
    // The network of nothing but defaults.
    assert!(unet("{}")?.count() > 100_000_000);
    Ok(())
}

/// A configuration in which no key has its default.
fn other() -> Value {
    json!({
        "sample_size": 8, "in_channels": 1, "out_channels": 1, "center_input_sample": true,
        "time_embedding_dim": 20, "freq_shift": 1, "flip_sin_to_cos": true,
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"], "block_out_channels": [16, 32],
        "layers_per_block": 1, "mid_block_scale_factor": 2, "downsample_padding": 0,
        "downsample_type": "resnet", "upsample_type": "resnet", "dropout": 0.1,
        "attention_head_dim": 4, "norm_num_groups": 8, "attn_norm_num_groups": 4,
        "norm_eps": 1e-3, "resnet_time_scale_shift": "scale_shift", "add_attention": true,
        "num_class_embeds": 5, "num_train_timesteps": 10,
    })
}

#[test]
fn every_null_of_a_unet_is_what_diffusers_makes_of_it() -> Result<()> {
    let table = table()?;
    for (key, row) in keys_of(&table["UNet2DModel"])? {
        let mut config = other();
        config[key] = Value::Null;
        let read = UNetConfig::from_json(&config.to_string());
        if row["null"] == "refused" || key == "mid_block_type" {
            // A network without a middle is diffusers', and not known here.
            let got = message(read);
            assert!(got.starts_with(&format!("a U-Net's configuration: {key} = null: ")), "{got}");
            continue;
        }
        let ours = values(&read?)?[key].clone();
        let theirs = row["null"]["as"].as_array().ok_or_else(|| Error::new("no list"))?;
        let fits = match key.as_str() {
            // Ours are left out: the size of no images, four times the first channels, one head,
            // the groups of the other norms, no classes.
            "sample_size" | "num_class_embeds" | "class_embed_type" | "num_train_timesteps" => {
                ours.is_null()
            }
            "time_embedding_dim" => ours.is_null() && *theirs == [json!(4 * 16)],
            "attention_head_dim" => ours.is_null() && *theirs == [json!("channels")],
            "attn_norm_num_groups" => ours.is_null() && *theirs == [json!(8)],
            _ => theirs.contains(&ours),
        };
        assert!(fits, "{key} = null: {ours}, diffusers makes {theirs:?} of it");
    }
    Ok(())
}

fn kind(class: &str, more: &Value) -> Result<Kind> {
    let mut config = more.clone();
    config["_class_name"] = json!(class);
    Kind::from_json(&config.to_string())
}

#[test]
fn every_key_of_a_scheduler_has_its_default() -> Result<()> {
    let table = table()?;
    for class in ["DDPMScheduler", "DDIMScheduler", "CMStochasticIterativeScheduler"] {
        let of = &table[class];
        let default = |key: &str| of[key]["default"].as_f64().unwrap_or(f64::NAN);
        // Those that say how others sample; nothing here depends on them.
        let unread = |key: &str| of[key].get("null").is_none();
        match kind(class, &json!({}))? {
            Kind::VariancePreserving(schedule) => {
                assert_eq!(schedule.beta_start, default("beta_start"));
                assert_eq!(schedule.beta_end, default("beta_end"));
                assert_eq!(schedule.steps as f64, default("num_train_timesteps"));
                assert_eq!(of["beta_schedule"]["default"], "linear");
                assert_eq!(of["prediction_type"]["default"], "epsilon");
                assert_eq!(of["trained_betas"]["default"], Value::Null);
                assert_eq!(of["rescale_betas_zero_snr"]["default"], false);
                let read = keys_of(of)?.keys().filter(|key| !unread(key)).count();
                assert_eq!(read, 7, "{class}");
            }
            Kind::Consistency(schedule) => {
                let ours = serde_json::to_value(schedule).map_err(|e| Error::new(e.to_string()))?;
                assert_eq!(keys_of(&ours)?.len(), keys_of(of)?.len());
                for (key, value) in keys_of(&ours)? {
                    assert!(same(value, &of[key]["default"]), "{key}: {value}");
                }
            }
            other => return Err(Error::new(other.to_string())),
        }
        for (key, row) in keys_of(of)? {
            let mut null = json!({});
            null[key] = Value::Null;
            let read = kind(class, &null);
            match row.get("null") {
                Some(Value::String(_)) => {
                    let got = message(read);
                    assert!(got.starts_with(&format!("{class}: {key} = null: ")), "{got}");
                }
                Some(made) => {
                    // One value, which is no default of `clip_denoised`.
                    null[key] = made["as"][0].clone();
                    assert_eq!(read?, kind(class, &null)?, "{class} {key}");
                }
                None => assert_eq!(read?, kind(class, &json!({}))?, "{class} {key}"),
            }
        }
    }
    let Kind::Consistency(schedule) =
        kind("CMStochasticIterativeScheduler", &json!({"clip_denoised": null}))?
    else {
        return Err(Error::new("another kind"));
    };
    assert!(!schedule.clip_denoised);
    Ok(())
}
