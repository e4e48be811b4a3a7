//! Weights in several files, in variants, and pointers in their place.

use crate::files::{BIN, WEIGHTS, apart, read, tiny};
use crate::formula::Folder;
use crate::{beside, message};
use candle_core::{DType, Tensor};
use consistency::Result;
use consistency::model::pretrained::{FlaxOptions, Source};
use consistency::model::{LoadOptions, Pretrained};
use serde_json::json;
use std::collections::BTreeMap;

type Tensors = BTreeMap<String, Tensor>;

fn variant(folder: &Folder, name: &str) -> Result<Pretrained> {
    let options = LoadOptions { variant: Some(name.into()), ..LoadOptions::default() };
    Pretrained::load(&Source::folder(&folder.0)?, options)
}

fn put(folder: &Folder, name: &str, tensors: &Tensors) -> Result<()> {
    folder.write(name, &safetensors::serialize(tensors.iter().map(|(n, t)| (n.as_str(), t)), None)?)
}

/// The tensors in two shards and an index of these names.
fn shards(folder: &Folder, index: &str, names: [&str; 2], all: &Tensors) -> Result<String> {
    let mut parts = [Tensors::new(), Tensors::new()];
    let mut map = BTreeMap::new();
    for (i, (name, tensor)) in all.iter().enumerate() {
        parts[i % 2].insert(name.clone(), tensor.clone());
        map.insert(name.clone(), names[i % 2]);
    }
    for (name, part) in names.iter().zip(&parts) {
        put(folder, &format!("unet/{name}"), part)?;
    }
    let text = json!({"metadata": {"total_size": 1}, "weight_map": map}).to_string();
    folder.write(index, text.as_bytes())?;
    Ok(text)
}

const INDEX: &str = "unet/diffusion_pytorch_model.safetensors.index.json";
const SHARDS: [&str; 2] = [
    "diffusion_pytorch_model-00001-of-00002.safetensors",
    "diffusion_pytorch_model-00002-of-00002.safetensors",
];

#[test]
fn shards_are_one_network() -> Result<()> {
    let (folder, _, tensors) = tiny("shards")?;
    std::fs::remove_file(folder.0.join(WEIGHTS))?;
    let text = shards(&folder, INDEX, SHARDS, &tensors)?;
    assert!(apart(&read(&folder, false)?)? < 1e-5);
    // Of an index and a whole file, diffusers reads the index.
    folder.write(WEIGHTS, b"not these")?;
    assert!(apart(&read(&folder, false)?)? < 1e-5);
    std::fs::remove_file(folder.0.join(WEIGHTS))?;

    let place = folder.0.join(INDEX).display().to_string();
    let (first, second) = (SHARDS[0], SHARDS[1]);
    for (index, want) in [
        (
            text.replace(second, "../../elsewhere.safetensors"),
            "a file name that ends in .safetensors",
        ),
        (text.replace(second, "weights.bin"), "a file name that ends in .safetensors is needed"),
        (text.replace(second, "none.safetensors"), "holds no unet/none.safetensors"),
        (
            text.replace("conv_in.bias", "conv_on.bias"),
            "the tensor conv_in.bias, other than the index says",
        ),
        (text.replacen(first, second, 1), "other than the index says: they are of two versions"),
        ("{}".into(), "it has no weight_map"),
        (r#"{"weight_map": {}}"#.into(), "its weight_map is empty"),
        (r#"{"weight_map": {"conv_in.bias": 1}}"#.into(), "conv_in.bias is in 1: a file name"),
    ] {
        folder.write(INDEX, index.as_bytes())?;
        let got = message(read(&folder, false));
        assert!(got.starts_with(&format!("{place}: ")) && got.contains(want), "{want}: {got}");
    }
    // A tensor too many, and a shard that is cut off.
    let mut more = tensors.clone();
    more.insert("conv_more.bias".into(), tensors["conv_in.bias"].clone());
    shards(&folder, INDEX, SHARDS, &more)?;
    let got = message(read(&folder, false));
    assert!(got.starts_with(&place) && got.contains("extra [\"conv_more.bias\"]"), "{got}");
    shards(&folder, INDEX, SHARDS, &tensors)?;
    let path = folder.0.join("unet").join(second);
    let bytes = std::fs::read(&path)?;
    std::fs::write(&path, &bytes[..bytes.len() - 4])?;
    let got = message(read(&folder, false));
    assert!(got.starts_with(&format!("{}: ", path.display())) && got.contains("fetch it"), "{got}");
    std::fs::remove_file(folder.0.join(INDEX))?;
    let got = message(read(&folder, false));
    assert!(got.contains("there are parts of weights (shards), and no"), "{got}");
    Ok(())
}

#[test]
fn a_variant_is_read_by_its_name() -> Result<()> {
    let (folder, _, tensors) = tiny("variant")?;
    let half: Tensors = tensors
        .iter()
        .map(|(n, t)| Ok((n.clone(), t.to_dtype(DType::F16)?)))
        .collect::<Result<_>>()?;
    put(&folder, "unet/diffusion_pytorch_model.fp16.safetensors", &half)?;
    let exact = apart(&read(&folder, false)?)?;
    let read_half = variant(&folder, "fp16")?;
    assert_eq!(read_half.params().dtype(), DType::F32);
    let gap = apart(&read_half)?;
    assert!(exact < 1e-5 && gap > 1e-5 && gap < 0.1, "{exact} {gap}");
    let got = message(variant(&folder, "bf16"));
    assert!(got.ends_with("it has weights that are no variant: leave the variant out"), "{got}");
    std::fs::remove_file(folder.0.join(WEIGHTS))?;
    let got = message(read(&folder, false));
    let want = format!(
        "{} holds no {WEIGHTS}, but the variant fp16: pass --variant fp16 (LoadOptions {{ variant: \
         Some(\"fp16\".into()) }})",
        folder.0.display()
    );
    assert_eq!(got, want);
    let got = message(variant(&folder, "../x"));
    assert!(got.contains("the variant '../x': a name as fp16 is needed"), "{got}");
    std::fs::remove_file(folder.0.join("unet/diffusion_pytorch_model.fp16.safetensors"))?;

    // In shards, under the names of diffusers today and before.
    let parts = SHARDS.map(|name| name.replace("model-", "model.fp16-"));
    for index in ["safetensors.index.fp16.json", "safetensors.fp16.index.json"] {
        let index = format!("unet/diffusion_pytorch_model.{index}");
        shards(&folder, &index, [&parts[0], &parts[1]], &half)?;
        assert!(apart(&variant(&folder, "fp16")?)? < 0.1);
        let got = message(read(&folder, false));
        assert!(got.contains("but the variant fp16: pass --variant fp16"), "{got}");
        std::fs::remove_file(folder.0.join(index))?;
    }
    // A pickle of a variant.
    folder.write(
        "unet/diffusion_pytorch_model.fp16.bin",
        &std::fs::read(beside("pickle/tiny.bin"))?,
    )?;
    let got = message(variant(&folder, "fp16"));
    assert!(got.contains("only a PyTorch pickle, unet/diffusion_pytorch_model.fp16.bin"), "{got}");
    let options = LoadOptions { pickle: true, variant: Some("fp16".into()) };
    assert!(apart(&Pretrained::load(&Source::folder(&folder.0)?, options)?)? < 1e-5);
    Ok(())
}

#[test]
fn a_pointer_of_git_lfs_is_called_one() -> Result<()> {
    let pointer = format!(
        "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 1182345\n",
        "0".repeat(64)
    );
    let says = |got: &str, name: &str| {
        got.contains(name)
            && got.contains("a pointer of Git LFS in place of the file of 1182345 bytes")
            && got.contains("`git lfs pull`")
    };
    for name in [WEIGHTS, "unet/config.json", "scheduler/scheduler_config.json", INDEX] {
        let (folder, _, _) = tiny("pointer")?;
        folder.write(name, pointer.as_bytes())?;
        let got = message(read(&folder, false));
        assert!(says(&got, name), "{got}");
    }
    let (folder, _, _) = tiny("pointers")?;
    std::fs::remove_file(folder.0.join(WEIGHTS))?;
    folder.write(BIN, pointer.as_bytes())?;
    let got = message(read(&folder, true));
    assert!(says(&got, BIN), "{got}");
    folder.write("cd-l2", pointer.as_bytes())?;
    let path = folder.0.join("cd-l2");
    let got = message(Pretrained::load_flax(&path, &FlaxOptions::for_file(&path)));
    assert!(says(&got, "cd-l2"), "{got}");
    Ok(())
}

/// A header's numbers are held against the file before memory is taken for them.
#[test]
fn headers_that_lie() -> Result<()> {
    let (folder, _, tensors) = tiny("lies")?;
    let whole = std::fs::read(folder.0.join(WEIGHTS))?;
    let header = u64::from_le_bytes(whole[..8].try_into().unwrap_or_default()) as usize;
    let text = String::from_utf8_lossy(&whole[8..8 + header]).into_owned();
    let first = tensors.keys().next().cloned().unwrap_or_default();
    assert!(text.contains(&first));
    let mut odd = Vec::new();
    for length in [0u64, 1, 1 << 40, u64::MAX, u64::MAX - 7, header as u64 - 1] {
        odd.push([&length.to_le_bytes()[..], &whole[8..]].concat());
    }
    for (from, to) in [
        ("\"shape\":[4]", "\"shape\":[18446744073709551615]"),
        ("\"shape\":[4]", "\"shape\":[4611686018427387904,4]"),
        ("\"data_offsets\":[", "\"data_offsets\":[18446744073709551600,"),
        ("\"shape\":[4]", "\"shape\":[5]"),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        let length = (changed.len() as u64).to_le_bytes();
        odd.push([&length[..], changed.as_bytes(), &whole[8 + header..]].concat());
    }
    for bytes in odd {
        folder.write(WEIGHTS, &bytes)?;
        let got = message(read(&folder, false));
        assert!(got.contains(WEIGHTS) && got.ends_with("fetch it again"), "{got}");
    }
    // Two names for one parameter.
    let mut twice = tensors.clone();
    let old = "mid_block.attentions.0.query.bias";
    twice.insert(old.into(), tensors["mid_block.attentions.0.to_q.bias"].clone());
    put(&folder, WEIGHTS, &twice)?;
    let got = message(read(&folder, false));
    assert!(got.contains("two tensors are one: ") && got.contains(old), "{got}");
    Ok(())
}
