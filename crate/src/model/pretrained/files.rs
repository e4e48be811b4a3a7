//! Which files of a folder or a repository hold a network's weights.

use super::source::{Source, read_text};
use super::{LoadOptions, PICKLE, SAFETENSORS};
use crate::model::json;
use crate::{Context, Result, bail, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// How tensors lie in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Safetensors,
    Pickle,
}

impl Format {
    fn stem(self) -> &'static str {
        match self {
            Self::Safetensors => SAFETENSORS,
            Self::Pickle => PICKLE,
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Self::Safetensors => ".safetensors",
            Self::Pickle => ".bin",
        }
    }

    /// The name of the one file that has all of them, and the names of an index of several: the
    /// current one, and for a variant also diffusers' earlier one.
    fn names(self, at: &str, variant: Option<&str>) -> (String, Vec<String>) {
        let stem = self.stem();
        let Some(variant) = variant else {
            return (format!("{at}{stem}"), vec![format!("{at}{stem}.index.json")]);
        };
        let (name, end) = (stem.trim_end_matches(self.extension()), self.extension());
        let indices = [
            format!("{at}{stem}.index.{variant}.json"),
            format!("{at}{stem}.{variant}.index.json"),
        ];
        (format!("{at}{name}.{variant}{end}"), indices.into())
    }
}

/// The files of a network's weights, on this machine.
#[derive(Debug)]
pub struct Files {
    pub format: Format,
    /// What a message names: the one file, or the index.
    pub named: PathBuf,
    /// Each under its name in the index.
    pub shards: BTreeMap<String, PathBuf>,
    /// Which shard has which tensor, as the index says; none where there is one file.
    pub index: Option<BTreeMap<String, String>>,
}

impl Files {
    /// The weights below `at` in `source`. As in diffusers, an index and its shards come before one
    /// file. A pickle is read only where it is asked for and there is nothing else.
    ///
    /// # Errors
    /// No weights that these options read: with what is there and the option that reads it.
    pub fn find(source: &Source, at: &str, options: &LoadOptions) -> Result<Self> {
        let variant = options.variant.as_deref();
        if let Some(name) = variant {
            ensure!(
                !name.is_empty()
                    && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)),
                "the variant '{name}': a name as fp16 is needed"
            );
        }
        let formats = match options.pickle {
            true => &[Format::Safetensors, Format::Pickle][..],
            false => &[Format::Safetensors],
        };
        for format in formats {
            let (single, indices) = format.names(at, variant);
            for index in indices {
                if let Some(path) = source.file_if_there(&index)? {
                    let read = || Self::indexed(source, at, *format, path.clone());
                    return read().with_context(|| path.display().to_string());
                }
            }
            if let Some(named) = source.file_if_there(&single)? {
                let shards = BTreeMap::from([(single, named.clone())]);
                return Ok(Self { format: *format, named, shards, index: None });
            }
        }
        Err(missing(source, at, options)?)
    }

    fn indexed(source: &Source, at: &str, format: Format, named: PathBuf) -> Result<Self> {
        let keys = json::object(&read_text(&named)?)?;
        let Some(map) = keys.get("weight_map").and_then(serde_json::Value::as_object) else {
            bail!("it has no weight_map, which says where each tensor is");
        };
        let (mut index, mut shards) = (BTreeMap::new(), BTreeMap::new());
        for (tensor, shard) in map {
            // A name in this folder: an index must not lead to other files.
            let plain = shard
                .as_str()
                .filter(|name| name.ends_with(format.extension()) && !name.contains(['/', '\\']));
            let Some(shard) = plain else {
                bail!(
                    "{} is in {}: a file name that ends in {} is needed",
                    json::short(tensor),
                    json::shown(shard),
                    format.extension()
                );
            };
            index.insert(tensor.clone(), shard.to_string());
            if !shards.contains_key(shard) {
                let path = source.file(&format!("{at}{shard}"));
                let path = path.context("a shard that it names is not there")?;
                shards.insert(shard.to_string(), path);
            }
        }
        ensure!(!index.is_empty(), "its weight_map is empty");
        Ok(Self { format, named, shards, index: Some(index) })
    }
}

/// Why there are none, and what reads those that are there.
fn missing(source: &Source, at: &str, options: &LoadOptions) -> Result<crate::Error> {
    let (wanted, _) = Format::Safetensors.names(at, options.variant.as_deref());
    let (pickle, indices) = Format::Pickle.names(at, options.variant.as_deref());
    if !options.pickle {
        let mut names = indices;
        names.insert(0, pickle.clone());
        for name in names {
            if source.is_there(&name)? {
                return Ok(crate::Error::new(format!(
                    "{source} has only a PyTorch pickle, {name}. A pickle is a program; the reader \
                     here executes nothing and takes tensors alone. Pass --pickle (LoadOptions {{ \
                     pickle: true }}) if you trust the file"
                )));
            }
        }
    }
    let wanted = match options.pickle {
        true => format!("{source} holds neither {wanted} nor {pickle}"),
        false => format!("{source} holds no {wanted}"),
    };
    let there = Variants::of(&source.names(&format!("{at}diffusion_pytorch_model")), at);
    Ok(crate::Error::not_found(match there {
        Variants { plain: true, .. } if options.variant.is_some() => {
            format!("{wanted}; it has weights that are no variant: leave the variant out")
        }
        Variants { named, .. } if !named.is_empty() => {
            let all: Vec<&str> = named.iter().map(String::as_str).collect();
            format!(
                "{wanted}, but the variant {}: pass --variant {} (LoadOptions {{ variant: Some(\
                 \"{1}\".into()) }})",
                all.join(", "),
                all[0]
            )
        }
        Variants { shards: true, .. } => {
            format!(
                "{wanted}: there are parts of weights (shards), and no {SAFETENSORS}.index.json"
            )
        }
        _ => wanted,
    }))
}

/// What is there, by the names of the weights' files.
#[derive(Debug, Default)]
struct Variants {
    plain: bool,
    shards: bool,
    named: BTreeSet<String>,
}

impl Variants {
    fn of(names: &[String], at: &str) -> Self {
        let mut found = Self::default();
        for name in names {
            let Some(rest) = name.strip_prefix(at) else { continue };
            let rest = rest.trim_start_matches("diffusion_pytorch_model");
            match rest.split('.').skip(1).collect::<Vec<_>>().as_slice() {
                // A shard: `-00001-of-00002.safetensors`.
                ["safetensors" | "bin"] if rest.starts_with('-') => found.shards = true,
                ["safetensors" | "bin"] | ["safetensors" | "bin", "index", "json"] => {
                    found.plain = true;
                }
                ["safetensors" | "bin", "index", variant, "json"]
                | ["safetensors" | "bin", variant, "index", "json"]
                | [variant, "safetensors" | "bin"] => {
                    // `fp16-00001-of-00002` is a shard of a variant.
                    match variant.contains("-of-") {
                        true => found.shards = true,
                        false => drop(found.named.insert((*variant).to_string())),
                    }
                }
                _ => {}
            }
        }
        found
    }
}
