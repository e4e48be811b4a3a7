//! Promise: the loop that a reader sees is the library's: after 50 steps the program
//! `crate/examples/train.rs` and a run of the same experiment have the same bits.

#[path = "../../crate/examples/train.rs"]
mod example;
#[path = "../support/formula.rs"]
#[allow(dead_code)]
mod formula;

use candle_core::{Device, Tensor};
use consistency::Result;
use consistency::experiment::{Experiment, Monitor, train};
use formula::Folder;
use std::collections::BTreeMap;

const STEPS: u64 = 50;

fn bits(of: &Tensor) -> Result<Vec<u32>> {
    Ok(of.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f32::to_bits).collect())
}

#[test]
fn the_program_is_the_library_to_the_bit() -> Result<()> {
    let folder = Folder::new("in-sight")?;
    let experiment = Experiment::parse(&format!(
        r#"
        name = "in-sight"
        data = {{ name = "digits" }}
        network = {{ kind = "mlp", width = 256, blocks = 4 }}
        optimizer = {{ learning_rate = 1e-3 }}
        training = {{ iterations = {STEPS}, batch = 128 }}
        [method]
        kind = "consistency-training"
        schedule = {{ s0 = 10, s1 = 40, mu0 = 0.9 }}
        distance = {{ metric = {{ kind = "pseudo-huber", c = 0.03 }} }}
        weighting = {{ weight = "inverse-gap" }}
        "#
    ))?;
    let run = train(&experiment, &folder.0, &Monitor::default(), 1)?;
    let file = folder.0.join(run.folder()).join(format!("checkpoint-{STEPS:09}.safetensors"));
    let saved = candle_core::safetensors::load(file, &Device::Cpu)?;
    let seen = example::train(STEPS)?;
    let all: [(&str, BTreeMap<String, Tensor>); 3] = [
        ("params", seen.theta.tensors()),
        ("target", seen.target.params().tensors()),
        ("ema", seen.average.params().tensors()),
    ];
    for (group, tensors) in all {
        assert!(tensors.len() > 20, "{group}: {} tensors", tensors.len());
        for (name, tensor) in tensors {
            let of_run = saved.get(&format!("{group}/{name}"));
            let same = of_run.map(bits).transpose()? == Some(bits(&tensor)?);
            assert!(same, "{group} {name} has other bits than the library's run");
        }
    }
    Ok(())
}
