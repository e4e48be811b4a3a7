//! Promise: datasets as they are. Rows, channels, sides and labels stay where they were;
//! what is damaged is named; what was decoded once is not decoded again.

use candle_core::{DType, Device, Tensor};
use consistency::data::{Dataset, Encoding, Images, catalog, digits, part_rows};
use consistency::experiment::{Experiment, Monitor, train};
use consistency::hub::{Hub, HubSettings};
use consistency::rng::Key;
use consistency::{Context, Error, Result};
use polars::prelude::{
    Column, DataFrame, IntoSeries, NamedFrom, ParquetWriter, Series, StructChunked,
};
use std::fs::File;
use std::path::{Path, PathBuf};

#[allow(dead_code)] // written for the tests of the Hub, which use all of it
#[path = "hub/server.rs"]
mod server;

/// A folder that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("data-test-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The dataset at `name` in this folder, with its cache beside it.
    fn find(&self, name: &str) -> Result<Dataset> {
        Ok(Dataset::find(&self.at(name).to_string_lossy())?.with_cache(self.at("cache")))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn fixture(name: &str) -> Result<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/data").join(name);
    std::fs::read(&path).with_context(|| path.display().to_string())
}

/// A pixel that says which it is: no two rows, channels or sides can be exchanged unseen.
fn pixel(row: usize, c: usize, y: usize, x: usize) -> u8 {
    ((row * 31 + c * 89 + y * 17 + x * 3) % 251) as u8
}

fn png_of(row: usize, [c, h, w]: [usize; 3]) -> Result<Vec<u8>> {
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
fn write_parquet(path: &Path, image: &str, images: &[Vec<u8>], labels: &[i64]) -> Result<()> {
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

fn values(tensor: &Tensor) -> Result<Vec<u8>> {
    Ok(tensor.flatten_all()?.to_vec1()?)
}

fn message<T>(result: Result<T>) -> String {
    result.err().map_or_else(|| "no error".to_string(), |error| error.to_string())
}

#[test]
fn rows_channels_and_sides_of_a_parquet_file_stay_where_they_are() -> Result<()> {
    let folder = Folder::new("sides")?;
    for (channels, name) in [(1, "grey.parquet"), (3, "colour.parquet")] {
        let shape @ [c, h, w] = [channels, 5, 9];
        let rows = 100;
        let images: Vec<Vec<u8>> =
            (0..rows).map(|row| png_of(row, shape)).collect::<Result<_>>()?;
        let labels: Vec<i64> = (0..rows as i64).map(|row| row * 7 % 10).collect();
        write_parquet(&folder.at(name), "img", &images, &labels)?;
        let images = folder.find(name)?.split("train")?;
        assert_eq!(images.pixels().dims(), [rows, c, h, w]);
        assert_eq!(images.pixels().dtype(), DType::U8);
        let expected: Vec<u8> = (0..rows * c * h * w)
            .map(|i| pixel(i / (c * h * w), i / (h * w) % c, i / w % h, i % w))
            .collect();
        assert_eq!(values(images.pixels())?, expected);
        let expected: Vec<u32> = labels.iter().map(|label| *label as u32).collect();
        assert_eq!(images.labels(), Some(expected.as_slice()));
        assert_eq!(images.classes().count(), 10);
        // A batch: any rows in any order, in [-1, 1].
        let batch = images.batch(&[42, 7], DType::F64)?;
        assert_eq!(batch.dims(), [2, c, h, w]);
        let last = batch.flatten_all()?.to_vec1::<f64>()?.pop().unwrap_or(f64::NAN);
        let byte = f64::from(pixel(7, c - 1, h - 1, w - 1));
        assert!((last - (byte / 127.5 - 1.0)).abs() < 1e-12, "{last}");
    }
    Ok(())
}

#[test]
fn many_rows_come_in_order_slice_by_slice() -> Result<()> {
    let folder = Folder::new("slices")?;
    // More than two of the reader's slices.
    let rows = 20_000;
    let images: Vec<Vec<u8>> = (0..251).map(|row| png_of(row, [1, 1, 2])).collect::<Result<_>>()?;
    let images: Vec<Vec<u8>> = (0..rows).map(|row| images[row % 251].clone()).collect();
    let labels: Vec<i64> = (0..rows as i64).collect();
    write_parquet(&folder.at("long.parquet"), "image", &images, &labels)?;
    let all = folder.find("long.parquet")?.split("train")?;
    let expected: Vec<u8> =
        (0..rows).flat_map(|row| [0, 1].map(|x| pixel(row % 251, 0, 0, x))).collect();
    assert_eq!(values(all.pixels())?, expected);
    assert!(all.labels().into_iter().flatten().copied().eq(0..rows as u32));
    // A part is taken by key, in the order of the whole.
    let part = folder.find("long.parquet")?.limited(9_000).split("train")?;
    let taken: Vec<usize> = part.labels().into_iter().flatten().map(|l| *l as usize).collect();
    assert!(taken.len() == 9_000 && taken.is_sorted_by(|a, b| a < b));
    let here: Vec<u8> = taken.iter().flat_map(|row| expected[2 * row..][..2].to_vec()).collect();
    assert_eq!(values(part.pixels())?, here);
    // Half of them from each half, by 4.3 standard deviations.
    let first = taken.iter().filter(|row| **row < rows / 2).count();
    assert!((4_350..4_650).contains(&first), "{first} of the first half");
    Ok(())
}

// Three classes one after the other, as folders and some files have them.
fn in_class_order(each: usize) -> Result<Images> {
    let pixels: Vec<u8> = (0..3 * each).map(|row| pixel(row, 0, 0, 0)).collect();
    let labels = (0..3 * each).map(|row| (row / each) as u32).collect();
    let pixels = Tensor::from_vec(pixels, (3 * each, 1, 1, 1), &Device::Cpu)?;
    Images::new("ordered", pixels, 255, Some(labels))
}

#[test]
fn a_part_is_of_all_classes_and_the_whole_keeps_its_order() -> Result<()> {
    let (all, key) = (in_class_order(100)?, Key::new(5));
    let part = all.part(60, &key)?;
    let of = |class: u32| part.labels().into_iter().flatten().filter(|l| **l == class).count();
    assert!((0..3).all(|class| of(class) >= 10), "{:?}", part.labels());
    // Each image with its label, none twice, the same ones for the same key.
    let rows = part_rows(300, 60, &key);
    let label = |row: &u32| Some(*all.labels()?.get(*row as usize)?);
    assert!(rows.iter().map(label).eq(part.labels().into_iter().flatten().map(|l| Some(*l))));
    assert_eq!(
        values(part.pixels())?,
        values(&all.pixels().index_select(&Tensor::new(rows.clone(), &Device::Cpu)?, 0)?)?
    );
    let mut once = rows.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), 60);
    assert_ne!(rows, part_rows(300, 60, &Key::new(6)));
    // A part is not the whole, and says so; images of one hash are the same images.
    assert_eq!(part.revision(), "made, 60 of 300");
    assert_eq!(part.hash_of(&(0..60).collect::<Vec<_>>())?, all.hash_of(&rows)?);
    assert_ne!(all.hash_of(&rows)?, all.hash_of(&once)?);
    for count in [300, 1_000] {
        let whole = all.part(count, &key)?;
        assert_eq!(values(whole.pixels())?, values(all.pixels())?);
        assert_eq!((whole.labels(), whole.revision()), (all.labels(), all.revision()));
    }
    Ok(())
}

#[test]
fn a_limited_folder_has_all_of_its_classes() -> Result<()> {
    let folder = Folder::new("limited")?;
    for (class, name) in ["cat", "dog", "owl"].into_iter().enumerate() {
        std::fs::create_dir_all(folder.at("photos").join(name))?;
        for row in 0..20 {
            let file = folder.at("photos").join(name).join(format!("{row:02}.png"));
            std::fs::write(file, png_of(class * 20 + row, [1, 2, 2])?)?;
        }
    }
    let part = folder.find("photos")?.limited(24).split("train")?;
    let labels = part.labels().unwrap_or_default();
    let of = |class: u32| labels.iter().filter(|l| **l == class).count();
    assert!(labels.len() == 24 && (0..3).all(|class| of(class) >= 4), "{labels:?}");
    assert!(labels.is_sorted());
    // Each image is one of its label's.
    let corners = values(&part.pixels().narrow(2, 0, 1)?.narrow(3, 0, 1)?.contiguous()?)?;
    for (corner, label) in corners.iter().zip(labels) {
        let first = *label as usize * 20;
        assert!((first..first + 20).any(|row| pixel(row, 0, 0, 0) == *corner), "{label}");
    }
    Ok(())
}

#[test]
fn a_jpeg_stands_upright_in_its_colours() -> Result<()> {
    let folder = Folder::new("jpeg")?;
    std::fs::create_dir_all(folder.at("photos"))?;
    std::fs::write(folder.at("photos/a.jpg"), fixture("quadrants.jpg")?)?;
    std::fs::write(folder.at("photos/b.JPEG"), fixture("grey.jpg")?)?;
    let images = folder.find("photos")?.split("train")?;
    // Grey beside colours becomes RGB.
    assert_eq!(images.pixels().dims(), [2, 3, 32, 48]);
    let at = |image: usize, y: usize, x: usize| -> Result<[i32; 3]> {
        let mut colour = [0; 3];
        for (c, value) in colour.iter_mut().enumerate() {
            let pixel = images.pixels().narrow(0, image, 1)?.narrow(1, c, 1)?;
            *value = i32::from(values(&pixel.narrow(2, y, 1)?.narrow(3, x, 1)?)?[0]);
        }
        Ok(colour)
    };
    for (y, x, colour) in [
        (8, 12, [200, 30, 30]),
        (8, 36, [30, 200, 30]),
        (24, 12, [30, 30, 200]),
        (24, 36, [230; 3]),
    ] {
        let found = at(0, y, x)?;
        assert!(found.iter().zip(colour).all(|(a, b)| (a - b).abs() < 12), "{y} {x}: {found:?}");
        let found = at(1, y, x)?;
        assert!(found.iter().all(|a| (a - colour[0]).abs() < 12), "{y} {x}: {found:?}");
    }
    Ok(())
}

#[test]
fn a_folder_is_a_dataset_with_its_subfolders_as_classes() -> Result<()> {
    let folder = Folder::new("folder")?;
    for (row, name) in
        ["b/1.png", "a/2.png", "a/1.png", "b/notes.txt", "c/.hidden.png"].iter().enumerate()
    {
        let path = folder.at("set/train").join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(&path))?;
        std::fs::write(path, png_of(row, [3, 4, 6])?)?;
    }
    std::fs::create_dir_all(folder.at("set/test/a"))?;
    std::fs::write(folder.at("set/test/a/x.png"), png_of(9, [3, 4, 6])?)?;
    let dataset = folder.find("set")?;
    let train = dataset.split("train")?;
    assert_eq!(train.labels(), Some(&[0, 0, 1][..]));
    let classes: Vec<String> = (0..3).map(|label| train.classes().name(label)).collect();
    assert_eq!(classes, ["a", "b", "c"]);
    let firsts: Vec<u8> = values(train.pixels())?.into_iter().step_by(3 * 4 * 6).collect();
    assert_eq!(firsts, [2, 1, 0].map(|row| pixel(row, 0, 0, 0)));
    assert_eq!(dataset.split("test")?.len(), 1);
    let wrong = message(dataset.split("tset"));
    assert!(wrong.contains("no split 'tset'") && wrong.contains("test, train"), "{wrong}");
    // Without subfolders there are no classes; with both, nobody knows which.
    std::fs::create_dir_all(folder.at("flat"))?;
    std::fs::write(folder.at("flat/1.png"), png_of(0, [1, 4, 6])?)?;
    assert_eq!(folder.find("flat")?.split("train")?.labels(), None);
    std::fs::create_dir_all(folder.at("flat/more"))?;
    let both = message(folder.find("flat").and_then(|dataset| dataset.split("train")));
    assert!(both.contains("holds images and folders"), "{both}");
    std::fs::create_dir_all(folder.at("empty"))?;
    let none = message(folder.find("empty"));
    assert!(none.contains("holds no images"), "{none}");
    Ok(())
}

#[test]
fn images_are_cropped_and_reduced_as_the_papers_code_does_it() -> Result<()> {
    let folder = Folder::new("reduce")?;
    for name in ["source", "reduced-16", "reduced-40", "reduced-100"] {
        std::fs::create_dir_all(folder.at(name))?;
        std::fs::write(folder.at(name).join("1.png"), fixture(&format!("{name}.png"))?)?;
    }
    for side in [16, 40, 100] {
        let ours = folder.find("source")?.resized(side).split("train")?;
        let theirs = folder.find(&format!("reduced-{side}"))?.split("train")?;
        assert_eq!(ours.pixels().dims(), [1, 3, side, side]);
        let (ours, theirs) = (values(ours.pixels())?, values(theirs.pixels())?);
        let gaps: Vec<u8> = ours.iter().zip(&theirs).map(|(a, b)| a.abs_diff(*b)).collect();
        // Pillow computes in fixed point: a byte may be rounded the other way, now and then.
        assert!(gaps.iter().all(|gap| *gap <= 1), "{side}: {:?}", gaps.iter().max());
        let off = gaps.iter().filter(|gap| **gap > 0).count();
        assert!(off * 100 <= gaps.len(), "{side}: {off} of {} bytes", gaps.len());
    }
    Ok(())
}

#[test]
fn what_is_damaged_is_named_by_file_and_row() -> Result<()> {
    let folder = Folder::new("damaged")?;
    let good = png_of(0, [1, 4, 6])?;
    let jpeg = fixture("grey.jpg")?;
    let mut flipped = good.clone();
    let middle = flipped.len() - 20;
    flipped[middle] ^= 0x55;
    let cases: [(&str, Vec<u8>, &[&str]); 6] = [
        ("cut", good[..good.len() - 16].to_vec(), &["row 2", "a damaged PNG"]),
        ("flipped", flipped, &["row 2", "a damaged PNG"]),
        ("size", png_of(0, [1, 4, 7])?, &["row 2", "it has 4x7 pixels", "4x6"]),
        ("colours", png_of(0, [3, 4, 6])?, &["row 2", "it has colours"]),
        ("text", b"no image".to_vec(), &["row 2", "neither a PNG nor a JPEG (8 bytes)"]),
        ("jpeg", jpeg[..jpeg.len() / 2].to_vec(), &["row 2", "a damaged JPEG"]),
    ];
    for (name, bad, words) in cases {
        let file = format!("{name}.parquet");
        write_parquet(&folder.at(&file), "image", &[good.clone(), good.clone(), bad], &[0, 1, 2])?;
        let error = message(folder.find(&file)?.split("train"));
        assert!(error.contains(&file), "{error}");
        assert!(words.iter().all(|word| error.contains(word)), "{name}: {error}");
    }
    let whole = std::fs::read(folder.at("text.parquet"))?;
    std::fs::write(folder.at("half.parquet"), &whole[..whole.len() / 2])?;
    std::fs::write(folder.at("none.parquet"), b"PAR")?;
    for file in ["half.parquet", "none.parquet"] {
        let error = message(folder.find(file));
        assert!(error.contains(file) && error.contains("no Parquet file"), "{error}");
    }
    let numbers = Column::new("x".into(), [1i64, 2]);
    let mut table = DataFrame::new(2, vec![numbers])?;
    ParquetWriter::new(File::create(folder.at("numbers.parquet"))?).finish(&mut table)?;
    let error = message(folder.find("numbers.parquet"));
    assert!(error.contains("has the columns x: none holds images"), "{error}");
    let error = message(Dataset::find("cifar-11"));
    assert!(error.contains("no dataset 'cifar-11'") && error.contains("fashion_mnist"), "{error}");
    // What failed left nothing in the cache.
    assert!(!folder.at("cache").exists());
    Ok(())
}

#[test]
fn decoded_images_are_kept_by_content() -> Result<()> {
    let folder = Folder::new("cache")?;
    let images: Vec<Vec<u8>> = (0..3).map(|row| png_of(row, [1, 4, 6])).collect::<Result<_>>()?;
    write_parquet(&folder.at("a.parquet"), "image", &images, &[4, 5, 6])?;
    std::fs::copy(folder.at("a.parquet"), folder.at("b.parquet"))?;
    let kept = || -> Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(folder.at("cache"))?;
        Ok(entries.flatten().map(|entry| entry.path()).collect())
    };
    let first = folder.find("a.parquet")?.split("train")?;
    assert_eq!(kept()?.len(), 1);
    // Another name, the same content: it is the kept images that come.
    let before = std::fs::metadata(&kept()?[0])?.modified()?;
    let again = folder.find("b.parquet")?.split("train")?;
    assert_eq!(values(first.pixels())?, values(again.pixels())?);
    assert_eq!((first.labels(), kept()?.len()), (again.labels(), 1));
    assert_eq!(std::fs::metadata(&kept()?[0])?.modified()?, before);
    let (shape, revision) = folder.find("b.parquet")?.describe("train")?;
    assert_eq!((shape.as_slice(), revision.as_str()), (again.shape(), again.revision()));
    // Another recipe or another content is kept beside it.
    folder.find("a.parquet")?.limited(2).split("train")?;
    write_parquet(&folder.at("a.parquet"), "image", &images, &[4, 5, 7])?;
    let other = folder.find("a.parquet")?.split("train")?;
    assert_eq!((other.labels(), kept()?.len()), (Some(&[4, 5, 7][..]), 3));
    assert_ne!(other.revision(), first.revision());
    // A kept file that is cut off is named, not read.
    for path in kept()? {
        let bytes = std::fs::read(&path)?;
        std::fs::write(&path, &bytes[..bytes.len() - 9])?;
    }
    let error = message(folder.find("b.parquet")?.split("train"));
    assert!(error.contains("is cut off") && error.contains("delete it"), "{error}");
    Ok(())
}

#[test]
fn the_catalog_is_whole() -> Result<()> {
    let all = catalog()?;
    let names: Vec<&str> = all.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(
        names,
        ["digits", "mnist", "fashion_mnist", "cifar10", "imagenet64", "lsun_bedroom", "lsun_cat"]
    );
    for entry in &all {
        assert!(!entry.licence.is_empty() && !entry.citation.is_empty(), "{}", entry.name);
        let commit = entry.revision.as_ref().is_some_and(|revision| revision.len() == 40);
        assert!(commit || !entry.verified || entry.embedded, "{} is not pinned", entry.name);
        assert!(entry.hub.is_some() || entry.embedded || entry.how.is_some(), "{}", entry.name);
        assert_eq!(Dataset::find(&entry.name)?.entry(), entry);
    }
    let cat = message(Dataset::find("lsun_cat")?.split("train"));
    assert!(cat.contains("export its images"), "{cat}");
    // The digits are the ones that the notebooks have.
    let (all, parts) = (Dataset::find("digits")?, digits(DType::F32, &Device::Cpu)?);
    for (split, images, labels) in [
        ("train", &parts.train, &parts.train_labels),
        ("held_out", &parts.held_out, &parts.held_out_labels),
    ] {
        let split = all.split(split)?;
        let gap = (split.all(DType::F32)? - images)?.abs()?.max_all()?.to_scalar::<f32>()?;
        assert_eq!(gap, 0.0);
        assert!(
            split.labels().into_iter().flatten().eq(labels
                .iter()
                .map(|l| u32::from(*l))
                .collect::<Vec<_>>()
                .iter())
        );
    }
    Ok(())
}

#[test]
fn a_dataset_of_the_hub_comes_once_and_a_jpeg_copy_is_called_one() -> Result<()> {
    let folder = Folder::new("hub")?;
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let jpeg = fixture("quadrants.jpg")?;
    write_parquet(&folder.at("served"), "img", &[jpeg.clone(), jpeg], &[1, 0])?;
    let body = std::fs::read(folder.at("served"))?;
    let server = server::Server::new(move |request| {
        let data = "/datasets/owner/tiny/resolve/0123456789abcdef0123456789abcdef01234567/data/";
        match request.path.strip_prefix(data) {
            Some("train-00.parquet" | "train-01.parquet") => {
                let reply = server::Reply::new(200, body.clone());
                reply.with("x-repo-commit", commit).with("etag", "\"the-first\"")
            }
            _ => server::Reply::new(404, "").with("x-error-code", "EntryNotFound"),
        }
    })?;
    let entry = format!(
        "name = \"tiny\"\ntitle = \"Tiny\"\nhub = \"owner/tiny\"\nrevision = \"{commit}\"\n\
         image = \"img\"\nlabel = \"label\"\nencoding = \"png\"\nshape = [3, 32, 48]\n\
         values = [0, 255]\nclasses = [\"no\", \"yes\"]\nlicence = \"none\"\nsize = \"1 kB\"\n\
         citation = \"nobody\"\n[splits]\n\
         train = {{ rows = 4, files = [\"data/train-{{00..01}}.parquet\"] }}\n\
         test = {{ files = [\"data/test.parquet\"] }}\n"
    );
    std::fs::write(folder.at("tiny.toml"), entry)?;
    let hub = Hub::new(HubSettings::new(&server.url(), folder.at("hub")))?;
    let dataset = folder.find("tiny.toml")?.with_hub(&hub);
    assert!(!dataset.is_here("train"));
    let images = dataset.split("train")?;
    assert_eq!(images.labels(), Some(&[1, 0, 1, 0][..]));
    assert_eq!(images.name(), "tiny-jpeg");
    assert!(images.revision().starts_with(&format!("tiny-jpeg: owner/tiny@{commit} images ")));
    assert_eq!(images.classes().name(1), "yes");
    assert_eq!(dataset.entry().encoding, Some(Encoding::Png));
    let asked = server.seen().len();
    assert!(dataset.is_here("train"));
    dataset.split("train")?;
    assert_eq!(server.seen().len(), asked, "a pinned dataset asked the network again");
    let missing = message(dataset.split("test"));
    assert!(missing.contains("tiny") && missing.contains("data/test.parquet"), "{missing}");
    Ok(())
}

#[test]
fn images_are_mirrored_by_key_whatever_the_batch() -> Result<()> {
    let pixels: Vec<u8> = (0..60 * 2 * 4).map(|i| (i % 256) as u8).collect();
    let pixels = Tensor::from_vec(pixels, (60, 1, 2, 4), &Device::Cpu)?;
    let images = Images::new("made", pixels, 255, None)?;
    let rows: Vec<u32> = (0..60).rev().collect();
    let key = Key::new(3).stream("flip");
    let plain = images.batch(&rows, DType::F32)?;
    let whole = images.batch_flipped(&rows, DType::F32, &key, 0)?;
    let (plain, flipped) = (rows_of(&plain)?, rows_of(&whole)?);
    let mirrored: Vec<Vec<f32>> = plain
        .iter()
        .map(|row| row.chunks(4).flat_map(|line| line.iter().rev().copied()).collect())
        .collect();
    let count = flipped.iter().zip(&mirrored).filter(|(a, b)| a == b).count();
    assert!((18..=42).contains(&count), "{count} of 60 mirrored");
    for (i, row) in flipped.iter().enumerate() {
        assert!(*row == plain[i] || *row == mirrored[i], "image {i} is neither");
    }
    let second = images.batch_flipped(&rows[25..], DType::F32, &key, 25)?;
    assert_eq!(rows_of(&second)?, flipped[25..]);
    Ok(())
}

fn rows_of(images: &Tensor) -> Result<Vec<Vec<f32>>> {
    Ok(images.flatten_from(1)?.to_vec2()?)
}

#[test]
fn a_network_trains_on_images_of_ones_own() -> Result<()> {
    let folder = Folder::new("train")?;
    let images: Vec<Vec<u8>> = (0..32).map(|row| png_of(row, [1, 8, 8])).collect::<Result<_>>()?;
    write_parquet(&folder.at("own.parquet"), "image", &images, &[0; 32])?;
    let text = format!(
        "name = \"own\"\n[data]\nname = \"images\"\nof = '{}'\nflip = true\nsize = 4\n\
         [network]\nkind = \"mlp\"\nwidth = 16\nblocks = 1\n[method]\nkind = \"score-matching\"\n\
         [training]\niterations = 4\nbatch = 8\n",
        folder.at("own.parquet").display()
    );
    let mut experiment = Experiment::parse(&text)?;
    let whole = train(&experiment, &folder.at("runs"), &Monitor::default(), 1)?;
    assert!(whole.provenance()?.data.starts_with("own: images "), "{:?}", whole.provenance()?);
    // In two parts each, a sample is mirrored or not as before.
    experiment.training.accumulate = 2;
    let parts = train(&experiment, &folder.at("runs"), &Monitor::default(), 1)?;
    let (a, b) = (whole.table().column("loss"), parts.table().column("loss"));
    assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4 * a.abs()), "{a:?} {b:?}");
    Ok(())
}

#[test]
fn a_network_that_knows_classes_is_told_those_of_the_data() -> Result<()> {
    let folder = Folder::new("classes")?;
    let images: Vec<Vec<u8>> = (0..16).map(|row| png_of(row, [1, 8, 8])).collect::<Result<_>>()?;
    let network = "kind = 'unet'\nblock_out_channels = [8]\nlayers_per_block = 1\n\
                   norm_num_groups = 4\nattention_head_dim = 8\n";
    let text = |of: &str, classes: usize, method: &str| {
        format!(
            "name = 'classes'\n[data]\nname = 'images'\nof = '{of}'\n[network]\n{network}\
             num_class_embeds = {classes}\n[method]\n{method}\n[training]\niterations = 3\n\
             batch = 4\naccumulate = 2\n"
        )
    };
    let matching = "kind = 'score-matching'";
    let mut losses = Vec::new();
    // The same images in the same order; only the classes differ.
    for (name, labels) in [("a", [0, 1]), ("b", [2, 3])] {
        let labels: Vec<i64> = (0..16).map(|row| labels[row % 2]).collect();
        write_parquet(&folder.at(&format!("{name}.parquet")), "image", &images, &labels)?;
        let of = folder.at(&format!("{name}.parquet")).display().to_string();
        let teacher = train(
            &Experiment::parse(&text(&of, 4, matching))?,
            &folder.at("runs"),
            &Monitor::default(),
            1,
        )?;
        let distil = format!(
            "kind = 'distillation'\nteacher = '{}'\npoints = 9\nmu = 0.5",
            teacher.folder()
        );
        let student = train(
            &Experiment::parse(&text(&of, 4, &distil))?,
            &folder.at("runs"),
            &Monitor::default(),
            1,
        )?;
        losses.push([&teacher, &student].map(|run| run.table().column("loss").to_vec()));
    }
    assert_ne!(losses[0][0], losses[1][0], "the teacher was not told");
    assert_ne!(losses[0][1], losses[1][1], "the student was not told");
    let of = folder.at("b.parquet").display().to_string();
    let experiment = Experiment::parse(&text(&of, 3, matching))?;
    let few = message(train(&experiment, &folder.at("runs"), &Monitor::default(), 1));
    assert!(few.contains("num_class_embeds = 3: the data have 4 classes"), "{few}");
    let none = text("x", 3, matching).replace("name = 'images'\nof = 'x'", "name = 'digits'");
    let none =
        message(train(&Experiment::parse(&none)?, &folder.at("runs"), &Monitor::default(), 1));
    assert!(none.contains("have no classes"), "{none}");
    Ok(())
}
