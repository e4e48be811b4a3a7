//! Flax msgpack files, made in the format of the paper's CIFAR-10 checkpoints.

use crate::formula::Folder;
use crate::msgpack::{array, array_of, flax_tree, nested, packed, state, tree};
use crate::networks::{get, load, numbers};
use crate::{fixture, gap, message};
use candle_core::Tensor;
use consistency::Result;
use consistency::model::pretrained::{FlaxOptions, FlaxParams, Kind};
use consistency::model::{Condition, NcsnppConfig, Pretrained};
use rmpv::Value;
use std::path::PathBuf;

fn config() -> Result<NcsnppConfig> {
    let text = std::fs::read_to_string(fixture("diffusers/tiny_ncsnpp.config.json"))?;
    NcsnppConfig::from_json(&text)
}

fn options() -> Result<FlaxOptions> {
    Ok(FlaxOptions { config: config()?, ..FlaxOptions::default() })
}

fn written(folder: &Folder, name: &str, value: &Value) -> Result<PathBuf> {
    folder.write(name, &packed(value)?)?;
    Ok(folder.0.join(name))
}

/// How far the network is from what score_sde's answered.
fn apart(read: &Pretrained) -> Result<f64> {
    let (tensors, _) = load(&fixture("diffusers/tiny_ncsnpp.safetensors"))?;
    let network = read.network()?;
    let mut largest = 0f64;
    for (i, noise) in numbers(get(&tensors, "conditions")?)?.into_iter().enumerate() {
        let noise = [noise];
        let condition = Condition { noise: &noise, ..Condition::default() };
        let ours = network.forward(get(&tensors, "sample")?, condition)?;
        largest = largest.max(gap(&ours, get(&tensors, &format!("output.{i}"))?)?);
    }
    Ok(largest)
}

#[test]
fn a_state_and_a_tree_answer_as_the_fixture() -> Result<()> {
    let folder = Folder::new("flax")?;
    let tensors = flax_tree(&config()?)?;
    let path = written(&folder, "cd-l2", &state(tree(&tensors)?)?)?;
    let read = Pretrained::load_flax(&path, &options()?)?;
    assert!(matches!(read.kind(), Kind::Consistency(schedule) if schedule.sigma_min == 0.002));
    assert_eq!((read.shape(), read.classes()), ([3, 16, 16], None));
    let (found, shapes) = (apart(&read)?, read.params().count());
    assert!(found < 3e-4, "{found}");
    // The fixed frequencies are not trained.
    assert_eq!(shapes + 16, tensors.values().map(Tensor::elem_count).sum::<usize>());
    read.consistency_model()?;

    let path = written(&folder, "edm.msgpack", &tree(&tensors)?)?;
    let options = FlaxOptions { teacher: true, ..options()? };
    let read = Pretrained::load_flax(&path, &options)?;
    assert!(matches!(read.kind(), Kind::Edm { sigma_data } if *sigma_data == 0.5));
    assert!(apart(&read)? < 3e-4);
    read.denoiser()?;
    assert!(FlaxOptions::for_file(&folder.0.join("edm_cifar10_ema")).teacher);
    assert!(!FlaxOptions::for_file(&folder.0.join("cd-lpips")).teacher);
    Ok(())
}

#[test]
fn chunks_and_older_vectors() -> Result<()> {
    let folder = Folder::new("chunks")?;
    let numbered = |values: Vec<Value>| {
        Value::Map(values.into_iter().enumerate().map(|(i, v)| (i.to_string().into(), v)).collect())
    };
    let mut arrays = Vec::new();
    for (name, tensor) in flax_tree(&config()?)? {
        let value = if name == "Conv_0/kernel" {
            let flat = tensor.flatten_all()?;
            let parts = (0..12).map(|i| array(&flat.narrow(0, i * 36, 36)?));
            Value::Map(vec![
                ("__msgpack_chunked_array__".into(), true.into()),
                (
                    "shape".into(),
                    numbered(tensor.dims().iter().map(|d| (*d as u64).into()).collect()),
                ),
                ("chunks".into(), numbered(parts.collect::<Result<_>>()?)),
            ])
        } else if name == "GroupNorm_0/scale" {
            array(&tensor.reshape((1, 1, 1, ()))?)?
        } else {
            array(&tensor)?
        };
        arrays.push((name, value));
    }
    let path = written(&folder, "ct-lpips", &state(nested(arrays))?)?;
    let read = Pretrained::load_flax(&path, &options()?)?;
    let found = apart(&read)?;
    assert!(found < 3e-4, "{found}");
    Ok(())
}

#[test]
fn odd_files() -> Result<()> {
    let folder = Folder::new("odd")?;
    let good = flax_tree(&config()?)?;
    let read = |value: &Value, options: &FlaxOptions| -> Result<String> {
        Ok(message(Pretrained::load_flax(&written(&folder, "odd", value)?, options)))
    };
    let options = options()?;
    let with = |name: &str, value: Option<Value>| -> Result<Value> {
        let mut arrays =
            good.iter().map(|(n, t)| Ok((n.clone(), array(t)?))).collect::<Result<Vec<_>>>()?;
        arrays.retain(|(other, _)| other != name);
        arrays.extend(value.map(|value| (name.to_string(), value)));
        state(nested(arrays))
    };
    for (name, value, want) in [
        ("Conv_0/bias", None, "missing [\"Conv_0/bias\"]"),
        ("Conv_9/bias", Some(array_of(&[1], "float32", vec![0; 4])?), "extra [\"Conv_9/bias\"]"),
        (
            "Conv_0/bias",
            Some(array_of(&[4, 4], "float32", vec![0; 64])?),
            "Conv_0/bias has shape [4, 4], the network needs [16]",
        ),
        (
            "Conv_0/bias",
            Some(array_of(&[16], "float32", vec![0; 60])?),
            "60 bytes for the shape [16]",
        ),
        ("Conv_0/bias", Some(array_of(&[16], "float64", vec![0; 128])?), "dtype float64: float32"),
        (
            "Conv_0/bias",
            Some(array_of(&[16], "float32", f32::NAN.to_le_bytes().repeat(16))?),
            "the array Conv_0/bias: numbers that are not finite",
        ),
        (
            "Conv_0/bias",
            Some(array_of(&[1 << 62, 1 << 62], "float32", vec![0; 4])?),
            "4 bytes for the shape",
        ),
        ("Conv_0/bias", Some(Value::Ext(1, vec![0xdd, 255, 255, 255, 255])), "not a whole msgpack"),
        ("Conv_0/bias", Some(Value::Ext(2, vec![])), "msgpack extension 2"),
        ("Conv_0/bias", Some(Value::from(3)), "Conv_0/bias: neither a map nor an array"),
    ] {
        let got = read(&with(name, value)?, &options)?;
        assert!(got.contains("odd") && got.contains(want), "{got}");
    }
    let target = FlaxOptions { which: FlaxParams::Target, ..options.clone() };
    let got = read(&state(tree(&good)?)?, &target)?;
    assert!(got.ends_with("this training state has no target_params"), "{got}");
    assert!(read(&Value::from(1), &options)?.ends_with("a flax file is a map; this one is not"));
    // Another network's: sizes of the paper's.
    let got = read(&state(tree(&good)?)?, &FlaxOptions::default())?;
    assert!(got.contains("these parameters do not belong to this network"), "{got}");
    Ok(())
}

#[test]
fn every_beginning_of_a_file_is_an_error() -> Result<()> {
    let folder = Folder::new("prefix")?;
    // Small, of one array, so that every length can be tried.
    let small =
        state(nested(vec![("Dense_0/bias".into(), array_of(&[4], "float32", vec![0; 16])?)]))?;
    let bytes = packed(&small)?;
    for length in 0..bytes.len() {
        folder.write("prefix", &bytes[..length])?;
        let got = message(Pretrained::load_flax(&folder.0.join("prefix"), &options()?));
        assert!(got.contains("prefix: not a whole msgpack file"), "{length}: {got}");
    }
    folder.write("prefix", &[bytes.as_slice(), b"\0"].concat())?;
    let got = message(Pretrained::load_flax(&folder.0.join("prefix"), &options()?));
    assert!(got.contains("1 bytes after the end"), "{got}");
    Ok(())
}

/// Depth and numbers of values are bounded, and no count costs more than the file has bytes.
#[test]
fn hostile_trees() -> Result<()> {
    let folder = Folder::new("trees")?;
    let begun = std::time::Instant::now();
    // {"a": {"a": ..}}, values without number, an array of 2^32 - 1, a text of 4 GiB.
    let deep = [&b"\x81\xa1a".repeat(1_000_000)[..], b"\xc0"].concat();
    let many = [&b"\xdd\x00\x40\x00\x00"[..], &vec![0xc0; 1 << 22]].concat();
    for (bytes, want) in [
        (&deep[..], "not a whole msgpack file: depth limit exceeded"),
        (&many, "more than 1000000 values"),
        (b"\xdd\xff\xff\xff\xff", "not a whole msgpack file"),
        (b"\xdf\xff\xff\xff\xff\xa1a", "not a whole msgpack file"),
        (b"\x81\xa1a\xdb\xff\xff\xff\xff", "not a whole msgpack file"),
        (b"\x81\xa1a\xc9\xff\xff\xff\xff\x01", "not a whole msgpack file"),
    ] {
        folder.write("tree", bytes)?;
        let got = message(Pretrained::load_flax(&folder.0.join("tree"), &options()?));
        assert!(got.contains("tree: ") && got.contains(want), "{got}");
    }
    // A hundred thousand chunks, the last of which is missing.
    let chunks = (1..100_000).map(|i: u32| (Value::from(i.to_string()), Value::Nil)).collect();
    let array = Value::Map(vec![
        ("__msgpack_chunked_array__".into(), true.into()),
        ("shape".into(), Value::Map(vec![("0".into(), 1.into())])),
        ("chunks".into(), Value::Map(chunks)),
    ]);
    let path = written(&folder, "chunks", &Value::Map(vec![("a".into(), array)]))?;
    let got = message(Pretrained::load_flax(&path, &options()?));
    assert!(got.contains("chunks has no 0"), "{got}");
    assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{:?}", begun.elapsed());
    let wide = FlaxOptions {
        config: NcsnppConfig { nf: 1 << 40, ..NcsnppConfig::default() },
        ..FlaxOptions::default()
    };
    let got = message(Pretrained::load_flax(&path, &wide));
    assert!(got.contains("nf = 1099511627776: needs 4 <= nf"), "{got}");
    Ok(())
}
