//! Sizes and numbers of a damaged or hostile configuration are refused by key, before anything is
//! built from them.

use crate::formula::Folder;
use crate::networks::DDPM;
use crate::{beside, message};
use consistency::model::pretrained::{Kind, Source};
use consistency::model::{LoadOptions, NcsnppConfig, Pretrained, UNetConfig};
use consistency::{Error, Result};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The smallest network's configuration, with `key` replaced as the text `value`.
fn with(key: &str, value: &str) -> Result<String> {
    let text = std::fs::read_to_string(beside("pickle/tiny.config.json"))?;
    let mut keys: Map<String, Value> =
        serde_json::from_str(&text).map_err(|e| Error::new(e.to_string()))?;
    keys.insert(key.to_string(), Value::from("HERE"));
    // The text as it is: `NaN` and 2^64 are no values of the parser's.
    Ok(Value::Object(keys).to_string().replace("\"HERE\"", value))
}

const HUGE: [&str; 8] = [
    "0",
    "-1",
    "4294967296",
    "99999999999",
    "1152921504606846976",
    "18446744073709551615",
    "18446744073709551616",
    "1e300",
];

#[test]
fn sizes_of_a_unet() -> Result<()> {
    let begun = Instant::now();
    let mut tried = 0;
    let folder = Folder::new("sizes")?;
    for key in [
        "sample_size",
        "in_channels",
        "out_channels",
        "time_embedding_dim",
        "layers_per_block",
        "downsample_padding",
        "attention_head_dim",
        "norm_num_groups",
        "attn_norm_num_groups",
        "num_class_embeds",
        "block_out_channels",
    ] {
        for value in HUGE {
            let value = match key {
                "block_out_channels" => format!("[{value}]"),
                _ => value.to_string(),
            };
            // No zeros around an image are a row and a column.
            if key == "downsample_padding" && value == "0" {
                continue;
            }
            folder.pipeline(&with(key, &value)?, DDPM, &BTreeMap::new())?;
            let got =
                message(Pretrained::load(&Source::folder(&folder.0)?, LoadOptions::default()));
            let named =
                got.contains(&format!("unet/config.json: a U-Net's configuration: {key} = "));
            assert!(named && got.len() < 1000, "{key} = {value}: {got}");
            tried += 1;
        }
    }
    assert_eq!(tried, 11 * 8 - 1);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    Ok(())
}

#[test]
fn lists_and_numbers_of_a_unet() -> Result<()> {
    let many = |what: &str, count: usize| format!("[{}]", vec![what; count].join(","));
    for (key, value, want) in [
        ("block_out_channels", "[]".into(), "number of block_out_channels = 0: needs 1 <="),
        ("block_out_channels", many("4", 100_000), "number of block_out_channels = 100000: needs"),
        ("down_block_types", many("\"DownBlock2D\"", 100_000), "100000 down_block_types"),
        ("up_block_types", many("\"UpBlock2D\"", 100_000), "100000 up_block_types"),
        ("down_block_types", "[\"Up\"]".into(), "down_block_types = [\"Up\"]: unknown variant"),
        ("sample_size", "[4]".into(), "sample_size = [4]: a number of pixels, or [height, width]"),
        ("sample_size", "[4,4,4]".into(), "sample_size = [4,4,4]: a number of pixels, or"),
        ("sample_size", "[4,0]".into(), "sample_size = 0: needs 1 <= sample_size"),
        ("norm_eps", "NaN".into(), "norm_eps = \"NaN\": invalid type: string \"NaN\""),
        ("norm_eps", "-1".into(), "norm_eps = -1: needs 1e-12 <= norm_eps <= 1"),
        ("dropout", "1".into(), "dropout = 1: needs 0 <= dropout < 1"),
        ("dropout", "-Infinity".into(), "dropout = \"-Infinity\": invalid type"),
        ("freq_shift", "-1".into(), "freq_shift = -1: needs 0 <= freq_shift < 2"),
        ("mid_block_scale_factor", "0".into(), "mid_block_scale_factor = 0: the middle's sums"),
        ("act_fn", format!("\"{}\"", "x".repeat(1 << 20)), "act_fn = 'xxx"),
        ("a_key", "[1]".into(), "a_key = [1]: unknown field `a_key`"),
        ("freq_shift", "2".into(), "freq_shift = 2: needs 0 <= freq_shift < 2"),
        ("block_out_channels", "[1]".into(), "first of block_out_channels = 1: needs 2 <="),
        ("norm_num_groups", "3".into(), "norm_num_groups = 3: 4 channels do not divide into them"),
    ] {
        let read = UNetConfig::from_json(&with(key, &value)?);
        let got = message(read.and_then(|_| crate::networks::unet(&with(key, &value)?)));
        assert!(got.contains(want) && got.len() < 2000, "{want}: {got}");
    }
    for (size, shape) in [("[4, 4]", "[1, 4, 4]"), ("[2, 6]", "[1, 2, 6]"), ("8", "[1, 8, 8]")] {
        let folder = Folder::new("pair")?;
        let config = with("sample_size", size)?;
        let tensors = crate::networks::weights(&crate::networks::unet(&config)?)?;
        folder.pipeline(&config, DDPM, &tensors)?;
        let read = Pretrained::open(&folder.0.display().to_string())?;
        assert_eq!(format!("{:?}", read.shape()), shape);
    }
    Ok(())
}

#[test]
fn sizes_of_ncsnpp() {
    for (key, value, want) in [
        ("nf", "0", "nf = 0: needs 4 <= nf <= 65536"),
        ("nf", "4294967296", "nf = 4294967296: needs 4 <= nf <= 65536"),
        ("ch_mult", "[]", "number of ch_mult = 0: needs 1 <="),
        ("ch_mult", "[0]", "ch_mult = 0: needs 1 <= ch_mult <= 512"),
        ("ch_mult", "[144115188075855872]", "ch_mult = 144115188075855872"),
        ("num_res_blocks", "18446744073709551615", "num_res_blocks = 18446744073709551615"),
        ("image_size", "1152921504606846976", "image_size = 1152921504606846976"),
        ("channels", "0", "channels = 0: needs 1 <= channels"),
        ("dropout", "NaN", "dropout = \"NaN\": invalid type"),
        ("fourier_scale", "0", "fourier_scale = 0: needs 0 < fourier_scale"),
        ("nonlinearity", "\"relu\"", "nonlinearity = \"relu\": this NCSN++ has"),
    ] {
        let got = message(NcsnppConfig::from_json(&format!("{{\"{key}\": {value}}}")));
        assert!(got.contains(want), "{got}");
    }
}

#[test]
fn numbers_of_a_scheduler() {
    for (class, keys, want) in [
        ("DDPMScheduler", "\"beta_end\": NaN", "beta_end = \"NaN\": invalid type"),
        (
            "DDPMScheduler",
            "\"beta_end\": 2",
            "beta_start = 0.0001, beta_end = 2: needs 0 < beta_start",
        ),
        ("DDIMScheduler", "\"beta_start\": 0", "beta_start = 0, beta_end = 0.02: needs"),
        ("DDIMScheduler", "\"beta_start\": -0.1", "beta_start = -0.1, beta_end"),
        (
            "DDPMScheduler",
            "\"num_train_timesteps\": 1152921504606846976",
            "num_train_timesteps = 1152921504606846976: needs 2 <= num",
        ),
        ("DDPMScheduler", "\"num_train_timesteps\": 1", "num_train_timesteps = 1: needs 2 <="),
        (
            "DDPMScheduler",
            "\"beta_end\": 0.5",
            "the noise levels of beta_start = 0.0001 to beta_end = 0.5: t_max =",
        ),
        ("DDPMScheduler", "\"beta_schedule\": 1", "beta_schedule = 1: invalid type"),
        (
            "CMStochasticIterativeScheduler",
            "\"sigma_min\": -1",
            "sigma_min = -1: needs 1e-6 <= sigma_min",
        ),
        (
            "CMStochasticIterativeScheduler",
            "\"sigma_min\": 0",
            "sigma_min = 0: needs 1e-6 <= sigma_min",
        ),
        ("CMStochasticIterativeScheduler", "\"sigma_min\": 90", "sigma_min = 90, sigma_max = 80"),
        ("CMStochasticIterativeScheduler", "\"sigma_max\": 1e300", "sigma_max = 1e300: needs"),
        ("CMStochasticIterativeScheduler", "\"sigma_max\": Infinity", "sigma_max = \"Infinity\""),
        ("CMStochasticIterativeScheduler", "\"rho\": 0", "rho = 0: needs 0.1 <= rho"),
        ("CMStochasticIterativeScheduler", "\"rho\": -7", "rho = -7: needs 0.1 <= rho"),
        ("CMStochasticIterativeScheduler", "\"rho\": 1e-300", "rho = 1e-300: needs"),
        ("CMStochasticIterativeScheduler", "\"rho\": NaN", "rho = \"NaN\": invalid type"),
        ("CMStochasticIterativeScheduler", "\"sigma_data\": 0", "sigma_data = 0: needs"),
        ("CMStochasticIterativeScheduler", "\"s_noise\": -1", "s_noise = -1: needs 0 <= s_noise"),
        (
            "CMStochasticIterativeScheduler",
            "\"num_train_timesteps\": 18446744073709551615",
            "num_train_timesteps = 18446744073709551615: needs 2 <= num",
        ),
    ] {
        let got = message(Kind::from_json(&format!("{{\"_class_name\": \"{class}\", {keys}}}")));
        assert!(got.starts_with(&format!("{class}: ")) && got.contains(want), "{got}");
    }
}

/// Python's words for numbers that JSON does not have: their key refuses them, and a text that
/// has them in it stays as it is.
#[test]
fn words_of_python() {
    for (text, want) in [
        (r#"{"act_fn": "\"NaN", "norm_eps": -Infinity}"#, "norm_eps = \"-Infinity\": invalid type"),
        (r#"{"norm_eps": NaN, "act_fn": "\u00e9 NaN \\"}"#, "norm_eps = \"NaN\": invalid type"),
        // The other key is read as it stands.
        (r#"{"_note": [NaN, Infinity], "act_fn": "\"NaN\\"}"#, r#"act_fn = '"NaN\': this U-Net"#),
        ("{\"norm_eps\": NaN,\n}", "at line 1 column 14"),
        (r#"{"norm_eps": NaN, "act_fn": "NaN"#, "at line 1 column 14"),
        ("[1]", "[1]: an object of keys and values is needed"),
        ("", "EOF while parsing"),
    ] {
        let got = message(UNetConfig::from_json(text));
        assert!(got.contains(want), "{want}: {got}");
    }
}
