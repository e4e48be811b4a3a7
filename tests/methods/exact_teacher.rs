//! Promise: `teacher = "exact"` is the exact denoiser of the data. Of a single datum it is that
//! datum, and then Euler's step of distillation is the pair of consistency training.

#[path = "../support/first_step.rs"]
mod first_step;
#[path = "../support/formula.rs"]
#[allow(dead_code)]
mod formula;

use candle_core::{DType, Device, Tensor};
use consistency::Result;
use consistency::experiment::{Experiment, Monitor, train};
use consistency::method::MethodConfig;
use consistency::rng::Key;
use formula::Folder;

const NETWORK: &str = "{ kind = \"mlp\", width = 16, blocks = 1 }";
// N = 11 from the first step on.
const CD: &str = "{ kind = \"distillation\", teacher = \"exact\", points = 11, mu = 0.9, \
                  solver = \"euler\" }";
const CT: &str = "{ kind = \"consistency-training\", schedule = { s0 = 11, s1 = 11, mu0 = 0.9 } }";

fn experiment(count: usize, method: &str) -> Result<Experiment> {
    Experiment::parse(&format!(
        "name = \"exact\"\ndata = {{ name = \"moons\", count = {count} }}\nnetwork = {NETWORK}\n\
         method = {method}\ntraining = {{ iterations = 30, batch = 4 }}\n"
    ))
}

/// The loss of the first step on a batch of the rows of `data`.
fn loss(method: &MethodConfig, data: &Tensor) -> Result<f32> {
    first_step::loss(method, &experiment(2, CT)?.network, data, &first_step::batch(data))
}

#[test]
fn of_one_datum_distillation_is_training() -> Result<()> {
    let (cd, ct) = (experiment(2, CD)?.method, experiment(2, CT)?.method);
    assert_eq!(ct.points(0, 30), Some(11));
    // One datum, in a batch of eight.
    let one = Tensor::new(&[[0.3f32, -0.7]], &Device::Cpu)?.repeat((8, 1))?;
    let (distilled, trained) = (loss(&cd, &one)?, loss(&ct, &one)?);
    assert!((distilled / trained - 1.0).abs() < 1e-4, "{distilled} and {trained}");
    // Of eight, the exact teacher does not know from which a point came; training does.
    let eight = Key::new(8).normal(0..8, &[2], DType::F32, &Device::Cpu)?;
    let (distilled, trained) = (loss(&cd, &eight)?, loss(&ct, &eight)?);
    assert!((distilled / trained - 1.0).abs() > 0.01, "{distilled} and {trained}");
    Ok(())
}

#[test]
fn a_run_with_the_exact_teacher_is_trained_and_one_with_classes_refused() -> Result<()> {
    let folder = Folder::new("exact-teacher")?;
    let trained = train(&experiment(50, CD)?, &folder.0, &Monitor::default(), 1)?;
    trained.consistency_model()?;
    let conditional = Experiment::parse(&format!(
        "name = \"classes\"\ndata = {{ name = \"images\", of = \"digits\" }}\nmethod = {CD}\n\
         network = {{ kind = \"unet\", block_out_channels = [4], layers_per_block = 1, \
         norm_num_groups = 2, num_class_embeds = 10 }}\n\
         training = {{ iterations = 1, batch = 4 }}\n"
    ))?;
    let refused = train(&conditional, &folder.0, &Monitor::default(), 1).err();
    let refused = refused.map(|e| e.to_string()).unwrap_or_default();
    assert!(refused.contains("the exact teacher: it knows no classes"), "{refused}");
    Ok(())
}
