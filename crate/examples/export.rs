//! Trains a tiny consistency model of the handwritten digits for a few steps and exports it as
//! a diffusers folder: `cargo run --release --package consistency --example export -- FOLDER`.
//!
//! `tests/peers/diffusers_peer.py` loads it in diffusers and compares samples.

use consistency::experiment::{Card, Experiment, Monitor, train};
use consistency::{Error, Result};
use std::path::PathBuf;

const TEXT: &str = r#"
name = "tiny-digits"
data = { name = "digits" }
network = { kind = "unet", block_out_channels = [16, 32], layers_per_block = 1, norm_num_groups = 4, attention_head_dim = 16 }
method = { kind = "consistency-training", schedule = { s0 = 2, s1 = 20, mu0 = 0.9 } }
training = { iterations = 200, batch = 16, record_every = 50, checkpoint_every = 200 }
"#;

fn main() -> Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.ok_or_else(|| Error::new("name the folder to export to"))?;
    let runs = std::env::temp_dir().join(format!("consistency-export-{}", std::process::id()));
    let trained = train(&Experiment::parse(TEXT)?, &runs, &Monitor::default(), 0);
    let exported = trained.and_then(|trained| trained.export(&folder, &Card::default()));
    let _ = std::fs::remove_dir_all(&runs);
    exported
}
