//! A published teacher distils into a student of ours.

use crate::formula::Folder;
use crate::message;
use crate::networks::{DDPM, unet, weights};
use consistency::Result;
use consistency::experiment::{Experiment, Monitor, Trained, train};
use std::path::Path;

/// A network for the embedded digits.
fn config(size: usize) -> String {
    format!(
        r#"{{"_class_name": "UNet2DModel", "sample_size": {size}, "in_channels": 1,
        "out_channels": 1, "block_out_channels": [8, 16], "layers_per_block": 1,
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
        "norm_num_groups": 4, "attention_head_dim": 8}}"#
    )
}

fn student(teacher: &str) -> Result<Experiment> {
    Experiment::parse(&format!(
        "name = \"student\"\n[data]\nname = \"digits\"\n[network]\nkind = \"mlp\"\nwidth = 16\n\
         blocks = 1\n[noise]\neps = 0.02\n[method]\nkind = \"distillation\"\n\
         teacher = '{teacher}'\npoints = 9\nmu = 0.5\n[training]\niterations = 3\nbatch = 4\n"
    ))
}

fn run(teacher: &str, runs: &Path) -> Result<Trained> {
    train(&student(teacher)?, runs, &Monitor::default(), 1)
}

#[test]
fn a_folder_of_others_teaches() -> Result<()> {
    let folder = Folder::new("teach")?;
    let teachers = [("teacher", 1.0), ("other", 0.5)].map(|(name, scale)| -> Result<String> {
        let place = Folder(folder.0.join(name));
        let mut weights = weights(&unet(&config(8))?)?;
        for tensor in weights.values_mut() {
            *tensor = (&*tensor * scale)?;
        }
        place.pipeline(&config(8), DDPM, &weights)?;
        let path = place.0.display().to_string();
        std::mem::forget(place); // it goes with the folder around it
        Ok(path)
    });
    let [teacher, other] = teachers;
    let runs = folder.0.join("runs");
    let trained = run(&teacher?, &runs)?;
    let loss = |trained: &Trained| trained.table().column("loss").to_vec();
    assert!(loss(&trained).iter().all(|loss| loss.is_finite()), "{:?}", loss(&trained));
    // It is this teacher that teaches, not any.
    assert_ne!(loss(&trained), loss(&run(&other?, &runs)?));
    Ok(())
}

#[test]
fn a_teacher_that_does_not_fit_is_refused() -> Result<()> {
    let folder = Folder::new("misfit")?;
    folder.pipeline(&config(16), DDPM, &weights(&unet(&config(16))?)?)?;
    let runs = folder.0.join("runs");
    let name = folder.0.display().to_string();
    let got = message(run(&name, &runs));
    assert!(got.contains(&format!("the teacher {name}: its images are [1, 16, 16]")), "{got}");
    assert!(got.contains("the data [1, 8, 8]"), "{got}");
    let got = message(run("./nowhere", &runs));
    assert!(got.contains("there is no folder ./nowhere"), "{got}");
    let got = message(run("no-such-run", &runs));
    assert!(got.contains("no-such-run"), "{got}");
    Ok(())
}
