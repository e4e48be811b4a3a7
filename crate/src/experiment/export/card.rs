//! The model card of an export: what was recorded, and nothing else.

use crate::experiment::trained::Trained;
use crate::record::page::{Block, Cell, Table, columns, markdown};
use crate::{Context, Error, Result, ensure};
use polars::prelude::{CsvReadOptions, CsvReader, SerReader};
use std::fmt::Write;
use std::fs::File;
use std::path::Path;

/// What a model card says beyond what the run has recorded.
///
/// ```
/// use consistency::prelude::*;
/// # let experiment = Experiment::parse(r#"
/// #     name = "example-of-a-card"
/// #     data = { name = "digits" }
/// #     network = { kind = "unet", block_out_channels = [8, 8], norm_num_groups = 4 }
/// #     method = { kind = "consistency-training", schedule = { s0 = 2, s1 = 20, mu0 = 0.9 } }
/// #     training = { iterations = 1, batch = 4 }
/// # "#)?;
/// # let runs = std::env::temp_dir().join(format!("example-of-a-card-{}", std::process::id()));
/// let model = train(&experiment, &runs, &Monitor::default(), 1)?;
/// model.export(&runs.join("my-model"), &Card { license: Some("mit".to_string()) })?;
/// let card = std::fs::read_to_string(runs.join("my-model/README.md"))?;
/// assert!(card.contains("\nlicense: mit\n"));
/// # std::fs::remove_dir_all(runs)?;
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Card {
    /// The license of the weights, as the Hub names it (`mit`); left out where it is not given.
    pub license: Option<String>,
}

impl Card {
    /// The card of `trained`, whose images are of `shape` (C, H, W).
    pub(super) fn text(&self, trained: &Trained, shape: &[usize]) -> Result<String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        ensure!(
            self.license.as_ref().is_none_or(|name| !name.is_empty() && name.chars().all(plain)),
            "license = '{}': letters, digits, '-', '_' and '.'",
            self.license.as_deref().unwrap_or_default()
        );
        let experiment = trained.experiment();
        let size = shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
        let mut blocks = vec![Block::Text(format!(
            "A consistency model (Song, Dhariwal, Chen and Sutskever, 2023) for images of {size} \
             (channels, height, width), by {}, of {} parameters. Trained with Consistency Lab; \
             `experiment.toml` is its whole configuration. These are the averaged parameters.",
            experiment.method.name(),
            trained.params().count()
        ))];
        let table = trained.table();
        let recorded = table.columns().iter().map(|column| {
            let last = table.column(column).last().copied();
            (column.to_string(), last.map_or_else(String::new, short))
        });
        blocks.push(heading("Recorded"));
        blocks.push(rows("last row", recorded));
        blocks.push(heading("Where the numbers come from"));
        blocks.push(rows("", provenance(trained.run_folder().path())?.into_iter()));
        blocks.extend(usage());
        let front = self.front(experiment.data.repository()?);
        Ok(front + "\n" + &markdown(&experiment.name, &blocks))
    }

    fn front(&self, dataset: Option<String>) -> String {
        let mut text = String::from("---\nlibrary_name: diffusers\n");
        text += "pipeline_tag: unconditional-image-generation\ntags:\n- consistency-model\n";
        if let Some(dataset) = dataset {
            let _ = writeln!(text, "datasets:\n- {dataset}");
        }
        if let Some(license) = &self.license {
            let _ = writeln!(text, "license: {license}");
        }
        text + "---\n"
    }
}

fn heading(text: &str) -> Block {
    Block::Heading(2, text.to_string())
}

/// A table of names and values.
fn rows(head: &str, values: impl Iterator<Item = (String, String)>) -> Block {
    let rows = values.map(|(name, value)| vec![Cell::Text(name), Cell::Text(value)]).collect();
    Block::Table(Table { columns: columns("", &["", head]), rows })
}

fn usage() -> [Block; 5] {
    let text = |text: &str| Block::Text(text.to_string());
    [
        heading("Use"),
        text("From Python, with DIR this folder or the name of its repository on the Hub:"),
        Block::Code("python", PYTHON.to_string()),
        text("From Consistency Lab:"),
        Block::Code("sh", "cargo lab sample --model DIR --steps 1 --out grid.png\n".to_string()),
    ]
}

const PYTHON: &str = r#"from diffusers import ConsistencyModelPipeline

pipeline = ConsistencyModelPipeline.from_pretrained("DIR")
image = pipeline(num_inference_steps=1).images[0]
"#;

fn short(value: f64) -> String {
    match value.fract() == 0.0 && value.abs() < 1e15 {
        true => format!("{value:.0}"),
        false => format!("{value:.6}"),
    }
}

/// The provenance that stands beside the run's own numbers: the commit is the one that trained
/// it, not the one that exports it.
fn provenance(run: &Path) -> Result<Vec<(String, String)>> {
    let path = run.join("metrics.csv");
    let context = || format!("reading {}", path.display());
    let file = File::open(&path).with_context(context)?;
    // As text: a seed or a commit is shown as it stands there.
    let options = CsvReadOptions::default().with_infer_schema_length(Some(0));
    let table = CsvReader::new(file).with_options(options).finish().with_context(context)?;
    let last = table.height().checked_sub(1).ok_or_else(|| {
        Error::new(format!("{} has no row: the run has recorded nothing", path.display()))
    })?;
    let fields = ["experiment", "configuration", "seed", "device", "dtype", "commit", "data"];
    let of = |field: &str| -> Result<(String, String)> {
        let value = table.column(field).with_context(context)?.get(last)?;
        let text = value.get_str().map_or_else(|| value.to_string(), str::to_string);
        Ok((field.to_string(), text))
    };
    fields.into_iter().map(of).collect()
}
