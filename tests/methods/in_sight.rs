//! Promise: the loop that a reader sees is the library's: after 50 steps the program
//! `crate/examples/train.rs` and a run of the same experiment have the same bits. Notebooks check
//! that of loops of their own, by a check that sees a single bit.

#[path = "../../crate/examples/train.rs"]
mod example;
#[path = "../support/formula.rs"]
#[allow(dead_code)]
mod formula;

use candle_core::{DType, Device, Tensor};
use consistency::Result;
use consistency::experiment::{Experiment, Monitor, train};
use consistency::model::{MlpConfig, NetworkConfig};
use consistency::nn::Params;
use consistency::notebook::check;
use consistency::rng::Key;
use formula::Folder;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

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

fn small(blocks: usize) -> Result<Params> {
    let network = NetworkConfig::Mlp(MlpConfig { width: 8, blocks, time_features: 4 });
    let mut params = Params::new(DType::F32, &Device::Cpu);
    params.init(&Key::new(0), |scope| network.build(scope, &[2]))?;
    Ok(params)
}

/// What `check::to_the_bit` fails with, if it fails.
fn failure(got: &Params, want: &Params) -> Option<String> {
    let checked = catch_unwind(AssertUnwindSafe(|| check::to_the_bit("a copy", got, want)));
    checked.err().map(|panic| panic.downcast_ref::<String>().cloned().unwrap_or_default())
}

#[test]
fn a_check_to_the_bit_sees_one_bit_of_any_parameter() -> Result<()> {
    let params = small(1)?;
    let copy = params.duplicate()?;
    assert_eq!(failure(&copy, &params), None);
    for (name, tensor) in params.tensors() {
        // The last bit of its last number, and the sign, which makes -0 of a 0.
        for bit in [1, 1 << 31] {
            let mut numbers = tensor.flatten_all()?.to_vec1::<f32>()?;
            let count = numbers.len();
            let last = &mut numbers[count - 1];
            *last = f32::from_bits(last.to_bits() ^ bit);
            let other = params.duplicate()?;
            let var = other.iter().find(|(own, _)| *own == name).map(|(_, var)| var.clone());
            let changed = Tensor::from_vec(numbers, tensor.dims(), &Device::Cpu)?;
            var.iter().try_for_each(|var| var.set(&changed))?;
            let message = failure(&other, &params).unwrap_or_default();
            assert!(
                message.contains(&format!("1 of {count} numbers of {name} differ")),
                "{message}"
            );
        }
    }
    let message = failure(&small(2)?, &params).unwrap_or_default();
    assert!(message.contains("only one of them has block.1."), "{message}");
    Ok(())
}
