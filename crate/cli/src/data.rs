//! `data list | fetch | show`: the datasets.

use clap::{Arg, ArgMatches, Command, value_parser};
use consistency::data::{Dataset, Images, catalog};
use consistency::plot::Figure;
use consistency::rng::Key;
use consistency::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Images in the grid of `show`.
const SHOWN: usize = 100;

/// No image of a dataset is wider or higher.
const LARGEST_SIDE: i64 = 1 << 15;

/// The command line of `data`.
pub fn command() -> Command {
    let name = || {
        Arg::new("NAME").required(true).help(
            "A name of `data list`, or a path: a folder of images, a .parquet file, a .toml entry",
        )
    };
    let count = |name: &'static str, most: i64, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("N")
            .help(help)
            .value_parser(value_parser!(u32).range(1..=most))
    };
    let column = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("COLUMN").help(help)
    };
    Command::new("data")
        .about("List, fetch and show datasets")
        .subcommand_required(true)
        .subcommand(
            Command::new("list")
                .about("The catalog: names, shapes, sizes, and what is here")
                .after_help("Example:\n  cargo lab data list"),
        )
        .subcommand(
            Command::new("fetch")
                .about("Fetch a dataset from the Hub into its cache (HF_HOME), once")
                .arg(name())
                .after_help("Example:\n  cargo lab data fetch fashion_mnist"),
        )
        .subcommand(
            Command::new("show")
                .about("Splits, shape, classes, licence, revision, and a grid of images as PNG")
                .arg(name())
                .arg(
                    Arg::new("split")
                        .long("split")
                        .value_name("SPLIT")
                        .help("The split of the grid"),
                )
                .arg(count(
                    "size",
                    LARGEST_SIDE,
                    "Crop images to their middle square and reduce them to N pixels",
                ))
                .arg(count(
                    "limit",
                    u32::MAX.into(),
                    "Read N images of a split alone, chosen by key from all classes",
                ))
                .arg(column("image", "The column of a Parquet file that holds the images"))
                .arg(column("label", "The column of a Parquet file that holds the labels"))
                .arg(
                    Arg::new("png")
                        .long("png")
                        .value_name("FILE")
                        .help("The grid's file (default: NAME.png)")
                        .value_parser(value_parser!(PathBuf)),
                )
                .after_help(
                    "Examples:\n  cargo lab data show digits --png digits.png\n  \
                     cargo lab data show own.parquet --image photo --label fine_label",
                ),
        )
}

/// Do what the command line asks for.
pub fn run(matches: &ArgMatches) -> Result<()> {
    match matches.subcommand() {
        Some(("fetch", matches)) => fetch(&dataset(matches)?),
        Some(("show", matches)) => show(&dataset(matches)?, matches),
        _ => list(),
    }
}

fn dataset(matches: &ArgMatches) -> Result<Dataset> {
    let name = matches.get_one::<String>("NAME").map(String::as_str).unwrap_or_default();
    let column =
        |name: &str| matches.try_get_one::<String>(name).ok().flatten().map(String::as_str);
    // `show` prints the notes among what it shows.
    let dataset = Dataset::find_with_columns(name, column("image"), column("label"))?;
    let mut dataset = dataset.silent();
    let count = |name: &str| matches.try_get_one::<u32>(name).ok().flatten().copied();
    if let Some(size) = count("size") {
        dataset = dataset.resized(size as usize);
    }
    if let Some(limit) = count("limit") {
        dataset = dataset.limited(limit as usize);
    }
    Ok(dataset)
}

fn list() -> Result<()> {
    let row = |name: &str, shape: &str, train: &str, here: &str, size: &str| {
        println!("{name:<18} {shape:<12} {train:>9}  {here:<9} {size}");
    };
    row("name", "shape", "train", "here", "to fetch");
    for entry in catalog()? {
        let dataset = Dataset::find(&entry.name)?;
        let [c, h, w] = entry.shape;
        let rows = entry.splits.get("train").and_then(|split| split.rows);
        let rows = rows.map_or("?".to_string(), |rows| rows.to_string());
        let here = entry.splits.keys().filter(|split| dataset.is_here(split)).count();
        let here = match (here, entry.splits.len()) {
            (0, _) => "no",
            (some, all) if some < all => "in part",
            _ => "yes",
        };
        let shape = format!("{c}x{h}x{w}");
        row(&entry.name, &shape, &rows, here, &entry.size);
    }
    println!(
        "\n`cargo lab data show NAME` says more; a folder of images or a Parquet file of your own is a NAME too."
    );
    Ok(())
}

fn fetch(dataset: &Dataset) -> Result<()> {
    let start = Instant::now();
    let entry = dataset.entry();
    for (split, files) in dataset.fetch()? {
        for file in &files {
            println!("{split}: {}", file.display());
        }
        if files.is_empty() {
            println!("{split}: part of the library");
        }
    }
    println!("{} is here ({:.1} s)", entry.name, start.elapsed().as_secs_f64());
    Ok(())
}

fn show(dataset: &Dataset, matches: &ArgMatches) -> Result<()> {
    let entry = dataset.entry();
    let [c, h, w] = entry.shape;
    println!("{} ({})", entry.name, entry.title);
    let line = |name: &str, value: &str| println!("  {name:<9} {value}");
    line(
        "shape",
        &format!("{c} x {h} x {w} (channels x height x width), bytes {:?}", entry.values),
    );
    match (&entry.hub, &entry.revision) {
        (Some(hub), Some(revision)) => {
            line("Hub", hub);
            line("revision", revision);
        }
        _ if entry.embedded => line("Hub", "none needed: part of the library"),
        _ => line("Hub", "not on it"),
    }
    line("verified", &format!("{}", entry.verified));
    if !entry.verified {
        println!("            repository or revision could not be confirmed: it may be elsewhere");
    }
    for (name, value) in [("login", &entry.login), ("how", &entry.how), ("note", &entry.note)] {
        if let Some(value) = value {
            line(name, value);
        }
    }
    line("licence", &entry.licence);
    line("size", &entry.size);
    if !entry.citation.is_empty() {
        line("cite", &entry.citation);
    }

    dataset.notes().iter().for_each(|note| line("note", note));

    // ---- what is here
    let wanted = matches.get_one::<String>("split");
    let mut shown = None;
    for (split, about) in &entry.splits {
        if !dataset.is_here(split) {
            let rows = about.rows.map_or("?".to_string(), |rows| rows.to_string());
            line(
                split,
                &format!("{rows} images, not fetched: cargo lab data fetch {}", entry.name),
            );
            continue;
        }
        let start = Instant::now();
        let images = dataset.split(split)?;
        let seconds = start.elapsed().as_secs_f64();
        if images.name() != entry.name {
            let name = images.name();
            line("called", &format!("{name}: the images of this copy are coded with loss"));
        }
        line(split, &describe(&images, seconds)?);
        // The part to train on, unless another is asked for.
        if wanted.map_or(shown.is_none() || split == "train", |wanted| wanted == split) {
            shown = Some((split.clone(), images));
        }
    }
    if let Some(wanted) = wanted {
        ensure!(
            shown.is_some(),
            "{} has no split '{wanted}' here; it has {:?}",
            entry.name,
            entry.splits.keys().collect::<Vec<_>>()
        );
    }
    let Some((split, images)) = shown else { return Ok(()) };
    let default = PathBuf::from(format!("{}.png", images.name()));
    grid(&images, &split, matches.get_one::<PathBuf>("png").unwrap_or(&default))
}

fn describe(images: &Images, seconds: f64) -> Result<String> {
    let (mean, std) = images.mean_std()?;
    let classes = match (images.labels(), images.classes().count()) {
        (None, _) => "no classes".to_string(),
        (Some(_), count) if count <= 12 => {
            let names: Vec<String> = (0..count as u32).map(|l| images.classes().name(l)).collect();
            format!("{count} classes ({})", names.join(", "))
        }
        (Some(_), count) => format!("{count} classes"),
    };
    Ok(format!(
        "{} images, {classes}\n            mean {mean:.4}, standard deviation {std:.4} in [-1, 1]; read in \
         {seconds:.2} s\n            {}",
        images.len(),
        images.revision()
    ))
}

fn grid(images: &Images, split: &str, path: &Path) -> Result<()> {
    let part = images.part(SHOWN, &Key::new(0).stream("grid"))?;
    let columns = (part.len() as f64).sqrt().ceil() as usize;
    let title = format!("{}, {split}: {} of {}", images.name(), part.len(), images.len());
    let all = part.all(consistency::candle_core::DType::F32)?;
    let path = std::path::absolute(path).with_context(|| path.display().to_string())?;
    Figure::images(title, &all, columns)?.save(&path)?;
    println!("  grid      {}", path.display());
    Ok(())
}
