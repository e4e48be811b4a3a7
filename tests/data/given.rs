//! What the tests of datasets share: a folder, images that say which they are, files.

use candle_core::Tensor;
use consistency::data::Dataset;
use consistency::{Context, Error, Result};
use polars::prelude::{
    Column, DataFrame, IntoSeries, NamedFrom, ParquetWriter, Series, StructChunked,
};
use std::fs::File;
use std::path::{Path, PathBuf};

/// A folder that goes away with the test.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("data-test-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The dataset at `name` in this folder, with its cache beside it.
    pub fn find(&self, name: &str) -> Result<Dataset> {
        Ok(Dataset::find(&self.at(name).to_string_lossy())?.with_cache(self.at("cache")))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn fixture(name: &str) -> Result<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/data").join(name);
    std::fs::read(&path).with_context(|| path.display().to_string())
}

/// A pixel that says which it is: no two rows, channels or sides can be exchanged unseen.
pub fn pixel(row: usize, c: usize, y: usize, x: usize) -> u8 {
    ((row * 31 + c * 89 + y * 17 + x * 3) % 251) as u8
}

pub fn png_of(row: usize, [c, h, w]: [usize; 3]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, w as u32, h as u32);
    encoder.set_color(if c == 1 { png::ColorType::Grayscale } else { png::ColorType::Rgb });
    let pixels: Vec<u8> = (0..h * w * c).map(|i| pixel(row, i % c, i / c / w, i / c % w)).collect();
    let failed = |e: png::EncodingError| Error::new(e.to_string());
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(&pixels).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(bytes)
}

/// A file as the Hub has them: a column of {bytes, path} and one of labels.
pub fn write_parquet(path: &Path, image: &str, images: &[Vec<u8>], labels: &[i64]) -> Result<()> {
    let count = images.len();
    let slices: Vec<&[u8]> = images.iter().map(Vec::as_slice).collect();
    let bytes = Series::new("bytes".into(), slices);
    let names: Vec<String> = (0..count).map(|i| format!("{i}.png")).collect();
    let names = Series::new("path".into(), names);
    let images = StructChunked::from_series(image.into(), count, [bytes, names].iter())?;
    let labels = Column::new("label".into(), labels);
    let mut table = DataFrame::new(count, vec![images.into_series().into(), labels])?;
    ParquetWriter::new(File::create(path)?).finish(&mut table)?;
    Ok(())
}

pub fn values(tensor: &Tensor) -> Result<Vec<u8>> {
    Ok(tensor.flatten_all()?.to_vec1()?)
}

pub fn message<T>(result: Result<T>) -> String {
    result.err().map_or_else(|| "no error".to_string(), |error| error.to_string())
}
