//! Whole files with rows and pixels: Parquet, PNG, JPEG, decoded images, results.

use crate::formula::Folder;
use crate::seeds;
use consistency::{Context, Error, Result};
use polars::prelude::{
    Column, DataFrame, IntoSeries, NamedFrom, ParquetWriter, Series, StructChunked,
};
use std::fs::File;
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> Result<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests").join(name);
    std::fs::read(&path).with_context(|| path.display().to_string())
}

/// A picture of 12x10 pixels, in so many bits and this colour type.
fn picture(number: usize, colour: png::ColorType, depth: png::BitDepth) -> Result<Vec<u8>> {
    let failed = |e: png::EncodingError| Error::new(e.to_string());
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 12, 10);
    encoder.set_color(colour);
    encoder.set_depth(depth);
    if colour == png::ColorType::Indexed {
        encoder.set_palette((0..48).map(|i| (i * 5) as u8).collect::<Vec<u8>>());
        encoder.set_trns((0..16).map(|i| (i * 16) as u8).collect::<Vec<u8>>());
    }
    let mut writer = encoder.write_header().map_err(failed)?;
    let row = (12 * colour.samples() * depth as usize).div_ceil(8);
    let pixels: Vec<u8> = (0..row * 10).map(|i| ((i * 7 + number * 31) % 251) as u8).collect();
    writer.write_image_data(&pixels).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(bytes)
}

pub fn pngs(to: &Folder) -> Result<Vec<PathBuf>> {
    use png::BitDepth::{Eight, Four, One, Sixteen};
    use png::ColorType::{Grayscale, GrayscaleAlpha, Indexed, Rgb, Rgba};
    let kinds = [
        (Rgb, Eight),
        (Rgba, Eight),
        (Grayscale, One),
        (GrayscaleAlpha, Sixteen),
        (Indexed, Four),
        (Rgb, Sixteen),
    ];
    let mut files = Vec::new();
    for (number, (colour, depth)) in kinds.into_iter().enumerate() {
        let name = format!("pictures/{number}.png");
        to.write(&name, &picture(number, colour, depth)?)?;
        files.push(to.0.join(name));
    }
    Ok(files)
}

pub fn jpegs(to: &Folder) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for (name, from) in [
        ("pictures/colours.jpg", "fixtures/data/quadrants.jpg"),
        ("pictures/grey.jpg", "fixtures/data/grey.jpg"),
        ("pictures/progressive.jpg", "mutations/progressive.jpg"),
    ] {
        to.write(name, &fixture(from)?)?;
        files.push(to.0.join(name));
    }
    Ok(files)
}

/// A folder for each picture in another format.
pub fn others(to: &Folder) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for name in [
        "colour.bmp",
        "grey.bmp",
        "colour.gif",
        "grey.gif",
        "colour.tif",
        "grey.tif",
        "colour.webp",
        "quadrants.webp",
    ] {
        let place = format!("{}/{name}", name.replace('.', "-"));
        to.write(&place, &fixture(&format!("fixtures/data/{name}"))?)?;
        files.push(to.0.join(place));
    }
    Ok(files)
}

/// The cache of the decoded images of two classes.
pub fn decoded(to: &Folder) -> Result<Vec<PathBuf>> {
    for number in 0..4 {
        let bytes = picture(number, png::ColorType::Rgb, png::BitDepth::Eight)?;
        to.write(&format!("pictures/{}/{number}.png", ["cats", "dogs"][number % 2]), &bytes)?;
    }
    seeds::pictures(&to.0, &to.0)?;
    let entries = std::fs::read_dir(to.0.join("cache"))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

/// Images as the Hub has them, in a column of structs; and as bytes alone, without labels.
pub fn parquets(to: &Folder) -> Result<Vec<PathBuf>> {
    let count = 6;
    let images = (0..count).map(|i| picture(i, png::ColorType::Rgb, png::BitDepth::Eight));
    let images: Vec<Vec<u8>> = images.collect::<Result<_>>()?;
    let slices = || images.iter().map(Vec::as_slice).collect::<Vec<&[u8]>>();
    let names: Vec<String> = (0..count).map(|i| format!("{i}.png")).collect();
    let parts = [Series::new("bytes".into(), slices()), Series::new("path".into(), &names)];
    let structs = StructChunked::from_series("img".into(), count, parts.iter())?.into_series();
    let labels: Vec<i64> = (0..count as i64).map(|i| i % 3).collect();
    let hub = vec![structs.into(), Column::new("label".into(), labels)];
    let bare = vec![
        Column::new("name".into(), names),
        Series::new("image".into(), slices()).into(),
        Column::new("score".into(), (0..count).map(|i| i as f64).collect::<Vec<f64>>()),
    ];
    let mut files = Vec::new();
    for (name, columns) in [("hub.parquet", hub), ("bare.parquet", bare)] {
        let path = to.0.join(name);
        let mut table = DataFrame::new(count, columns)?;
        ParquetWriter::new(File::create(&path)?).finish(&mut table)?;
        files.push(path);
    }
    Ok(files)
}

pub fn results(to: &Folder) -> Result<Vec<PathBuf>> {
    let rows = 5;
    let texts = [
        "sampler",
        "metric",
        "budget",
        "experiment",
        "configuration",
        "device",
        "dtype",
        "commit",
        "data",
    ];
    let text = |name: &str| {
        Column::new(name.into(), (0..rows).map(|i| format!("{name} {i}")).collect::<Vec<_>>())
    };
    let count = |name: &str| Column::new(name.into(), (0..rows as u64).collect::<Vec<u64>>());
    let values = Column::new("value".into(), (0..rows).map(|i| i as f64 / 3.0).collect::<Vec<_>>());
    let counts = ["nfe", "samples", "iterations", "seed"];
    let columns = texts.map(text).into_iter().chain(counts.map(count)).chain([values]).collect();
    let path = to.0.join("results.parquet");
    ParquetWriter::new(File::create(&path)?).finish(&mut DataFrame::new(rows, columns)?)?;
    Ok(vec![path])
}

pub fn published(to: &Folder) -> Result<Vec<PathBuf>> {
    let text = "dataset,group,method,nfe,fid,is,precision,recall\n\
                cifar10,diffusion + samplers,DDIM,50,4.67,,,\n\
                cifar10,distillation,CD,1,3.55,9.48,0.69,0.63\n\
                imagenet64,direct generation,CT,2,11.1,,0.69,0.56\n";
    to.write("published.csv", text.as_bytes())?;
    Ok(vec![to.0.join("published.csv")])
}
