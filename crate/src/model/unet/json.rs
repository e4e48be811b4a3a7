//! A U-Net's configuration as diffusers reads and writes it.

use super::config::{DownBlock, SampleSize, UNetConfig, UpBlock};
use crate::model::json;
use crate::{Context, Result, bail, ensure};
use serde_json::{Value, json};

/// The release of diffusers whose files these are.
pub(crate) const DIFFUSERS: &str = "0.42.1";

impl UNetConfig {
    /// Read diffusers' `config.json`: a key that is left out has diffusers' default, and null is
    /// what diffusers makes of it.
    ///
    /// # Errors
    /// A key or value that this network does not have, or a null that diffusers does not have, by
    /// name.
    pub fn from_json(text: &str) -> Result<Self> {
        let mut keys = json::object(text)?;
        let class = keys.get("_class_name").and_then(Value::as_str);
        ensure!(
            class.is_none_or(|name| name == "UNet2DModel"),
            "a {}: this reads a UNet2DModel",
            json::short(class.unwrap_or_default())
        );
        // Keys with an underscore are diffusers' own notes.
        keys.retain(|key, _| !key.starts_with('_'));
        let context = "a U-Net's configuration";
        for (key, default) in [
            ("in_channels", json!(3)),
            ("out_channels", json!(3)),
            ("attention_head_dim", json!(8)),
            ("block_out_channels", json!([224, 448, 672, 896])),
            ("down_block_types", {
                let attention = "AttnDownBlock2D";
                json!(["DownBlock2D", attention, attention, attention])
            }),
            ("up_block_types", {
                let attention = "AttnUpBlock2D";
                json!([attention, attention, attention, "UpBlock2D"])
            }),
        ] {
            // These may be left out here, but then they mean something else.
            let value = keys.entry(key).or_insert(default);
            ensure!(
                !value.is_null() || key == "attention_head_dim",
                "{context}: {key} = null: give a value, or leave the key out for diffusers' default"
            );
        }
        // diffusers tests these for truth, and takes a missing type for a convolution. Every other
        // null that it knows means "left out" in this network as well: one head, the groups of the
        // other norms, no classes.
        for (key, meaning) in [
            ("center_input_sample", json!(false)),
            ("flip_sin_to_cos", json!(false)),
            ("add_attention", json!(false)),
            ("downsample_type", json!("conv")),
            ("upsample_type", json!("conv")),
        ] {
            if let Some(value) = keys.get_mut(key).filter(|value| value.is_null()) {
                *value = meaning;
            }
        }
        let read = || -> Result<Self> {
            let config: Self = json::typed(keys)?;
            config.check()?;
            config.check_in_diffusers()?;
            Ok(config)
        };
        read().context(context)
    }

    /// diffusers' `config.json` of this network for images of `shape` (C, H, W): every key,
    /// what is left out here as diffusers would read it.
    ///
    /// # Errors
    /// Images that are not square, or a network that diffusers does not have.
    pub fn to_json(&self, shape: &[usize]) -> Result<Value> {
        let config = self.for_images(shape)?;
        let (down, up) = config.levels()?;
        let sides = config.sample_size.map_or([shape[1], shape[2]], SampleSize::sides);
        // In diffusers a model may have a pair, but the pipeline of consistency models may not.
        ensure!(
            shape[1] == shape[2] && sides == shape[1..],
            "images of {}x{} and sample_size = {sides:?}: diffusers' pipeline draws square ones",
            shape[1],
            shape[2]
        );
        config.check_in_diffusers()?;
        Ok(json!({
            "_class_name": "UNet2DModel",
            "_diffusers_version": DIFFUSERS,
            "sample_size": sides[0],
            "in_channels": config.in_channels,
            "out_channels": config.out_channels,
            "center_input_sample": config.center_input_sample,
            "time_embedding_type": config.time_embedding_type,
            "time_embedding_dim": config.time_embedding_dim,
            "freq_shift": config.freq_shift,
            "flip_sin_to_cos": config.flip_sin_to_cos,
            "down_block_types": down,
            "mid_block_type": config.mid_block_type,
            "up_block_types": up,
            "block_out_channels": config.block_out_channels,
            "layers_per_block": config.layers_per_block,
            "mid_block_scale_factor": config.mid_block_scale_factor,
            "downsample_padding": config.downsample_padding,
            "downsample_type": config.downsample_type,
            "upsample_type": config.upsample_type,
            "dropout": config.dropout,
            "act_fn": config.act_fn,
            "attention_head_dim": config.attention_head_dim,
            "norm_num_groups": config.norm_num_groups,
            "attn_norm_num_groups": config.attn_norm_num_groups,
            "norm_eps": config.norm_eps,
            "resnet_time_scale_shift": config.resnet_time_scale_shift,
            "add_attention": config.add_attention,
            "class_embed_type": config.class_embed_type,
            "num_class_embeds": config.num_class_embeds,
            "num_train_timesteps": config.num_train_timesteps,
        }))
    }

    // What this network can do and diffusers' cannot.
    fn check_in_diffusers(&self) -> Result<()> {
        ensure!(
            self.patch == 1,
            "patch = {}: diffusers has no such stem; train with patch = 1 to export",
            self.patch
        );
        if self.attn_norm_num_groups == Some(0) {
            bail!("attn_norm_num_groups = 0: diffusers has no such norm; leave it out");
        }
        // Heads that are wider than a level become one head here, and none in diffusers.
        let (down, up) = self.levels()?;
        let Some(width) = self.attention_head_dim else { return Ok(()) };
        let attended = |i: usize| {
            let last = i + 1 == down.len();
            down[i] == DownBlock::AttnDownBlock2D
                || up[down.len() - 1 - i] == UpBlock::AttnUpBlock2D
                || (last && self.add_attention)
        };
        for (i, channels) in self.block_out_channels.iter().enumerate() {
            ensure!(
                !attended(i) || channels.is_multiple_of(width),
                "attention_head_dim = {width} and an attention over {channels} channels: diffusers \
                 has no whole heads there"
            );
        }
        Ok(())
    }
}
