//! A U-Net's configuration as diffusers writes it.

use super::config::{DownBlock, UNetConfig, UpBlock};
use crate::{Result, ensure};
use serde_json::{Value, json};

/// The release of diffusers whose files these are.
pub(crate) const DIFFUSERS: &str = "0.42.1";

impl UNetConfig {
    /// diffusers' `config.json` of this network for images of `shape` (C, H, W): every key,
    /// what is left out here as diffusers would read it.
    ///
    /// # Errors
    /// Images that are not square, or a network that diffusers does not have.
    pub fn to_json(&self, shape: &[usize]) -> Result<Value> {
        let config = self.for_images(shape)?;
        config.check()?;
        let (down, up) = config.levels()?;
        let size = config.sample_size.unwrap_or(shape[1]);
        ensure!(
            shape[1] == size && shape[2] == size,
            "images of {}x{} and sample_size = {size}: diffusers' are square here",
            shape[1],
            shape[2]
        );
        config.check_heads(&down, &up)?;
        Ok(json!({
            "_class_name": "UNet2DModel",
            "_diffusers_version": DIFFUSERS,
            "sample_size": size,
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

    // Heads that are wider than a level have one here and none in diffusers.
    fn check_heads(&self, down: &[DownBlock], up: &[UpBlock]) -> Result<()> {
        let Some(width) = self.attention_head_dim else { return Ok(()) };
        let attended = |i: usize| {
            let last = i + 1 == down.len();
            down[i] == DownBlock::AttnDownBlock2D
                || up[down.len() - 1 - i] == UpBlock::AttnUpBlock2D
                || (last && self.add_attention)
        };
        for (i, channels) in self.block_out_channels.iter().enumerate() {
            ensure!(
                !attended(i) || *channels >= width,
                "attention_head_dim = {width} and an attention over {channels} channels: diffusers \
                 has no such network"
            );
        }
        Ok(())
    }
}
