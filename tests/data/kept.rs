//! The catalog, the Hub, and the cache of what was decoded once.

use crate::given::{Folder, fixture, message, png_of, values, write_parquet};
use crate::{server, table};
use candle_core::{DType, Device};
use consistency::Result;
use consistency::data::{Dataset, Encoding, catalog, digits};
use consistency::hub::{Hub, HubSettings};
use polars_arrow::array::PrimitiveArray;
use std::path::PathBuf;

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
        [
            "digits",
            "fashion_10k",
            "fashion_10k_tinted",
            "mnist",
            "fashion_mnist",
            "cifar10",
            "imagenet64",
            "lsun_bedroom",
            "lsun_cat"
        ]
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

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A Hub that has `body` as the data files of owner/tiny.
fn hub_of(body: Vec<u8>) -> Result<server::Server> {
    server::Server::new(move |request| {
        let data = "/datasets/owner/tiny/resolve/0123456789abcdef0123456789abcdef01234567/data/";
        match request.path.strip_prefix(data) {
            Some("train-00.parquet" | "train-01.parquet") => {
                let reply = server::Reply::new(200, body.clone());
                reply.with("x-repo-commit", COMMIT).with("etag", "\"the-first\"")
            }
            _ => server::Reply::new(404, "").with("x-error-code", "EntryNotFound"),
        }
    })
}

fn entry_with(classes: &str) -> String {
    format!(
        "name = \"tiny\"\ntitle = \"Tiny\"\nhub = \"owner/tiny\"\nrevision = \"{COMMIT}\"\n\
         image = \"img\"\nlabel = \"label\"\nencoding = \"png\"\nshape = [3, 32, 48]\n\
         values = [0, 255]\n{classes}\nlicence = \"none\"\nsize = \"1 kB\"\n\
         citation = \"nobody\"\n[splits]\n\
         train = {{ rows = 4, files = [\"data/train-{{00..01}}.parquet\"] }}\n\
         test = {{ files = [\"data/test.parquet\"] }}\n"
    )
}

#[test]
fn a_dataset_of_the_hub_comes_once_and_a_jpeg_copy_is_called_one() -> Result<()> {
    let folder = Folder::new("hub")?;
    let jpeg = fixture("quadrants.jpg")?;
    write_parquet(&folder.at("served"), "img", &[jpeg.clone(), jpeg], &[1, 0])?;
    let body = std::fs::read(folder.at("served"))?;
    let server = hub_of(body)?;
    std::fs::write(folder.at("tiny.toml"), entry_with("classes = [\"no\", \"yes\"]"))?;
    let hub = Hub::new(HubSettings::new(&server.url(), folder.at("hub")))?;
    let dataset = folder.find("tiny.toml")?.with_hub(&hub);
    assert!(!dataset.is_here("train"));
    let images = dataset.split("train")?;
    assert_eq!(images.labels(), Some(&[1, 0, 1, 0][..]));
    assert_eq!(images.name(), "tiny-jpeg");
    assert!(images.revision().starts_with(&format!("tiny-jpeg: owner/tiny@{COMMIT} images ")));
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
fn names_of_classes_have_one_order_in_all_splits_of_an_entry() -> Result<()> {
    let folder = Folder::new("hub-names")?;
    let images = vec![fixture("quadrants.webp")?; 2];
    let columns: table::Columns<'_> = vec![
        ("img", table::images_of(table::bytes(&images), &["x"; 2])),
        ("label", table::text(&["yes", "no"])),
        ("odd", PrimitiveArray::from_vec(vec![5u8, 3]).boxed()),
    ];
    table::write(&folder.at("served"), &columns)?;
    let server = hub_of(std::fs::read(folder.at("served"))?)?;
    let hub = Hub::new(HubSettings::new(&server.url(), folder.at("hub")))?;
    // The other split, which is not here, may have other names.
    std::fs::write(folder.at("unnamed.toml"), entry_with(""))?;
    let error = message(folder.find("unnamed.toml")?.with_hub(&hub).split("train"));
    assert!(error.contains("label holds text") && error.contains("[\"no\", \"yes\""), "{error}");
    std::fs::write(folder.at("named.toml"), entry_with("classes = [\"yes\", \"maybe\", \"no\"]"))?;
    let images = folder.find("named.toml")?.with_hub(&hub).split("train")?;
    assert_eq!(images.labels(), Some(&[0, 2, 0, 2][..]));
    assert_eq!((images.classes().count(), images.classes().name(2)), (3, "no".to_string()));
    assert_eq!(images.name(), "tiny-webp");
    std::fs::write(folder.at("other.toml"), entry_with("classes = [\"yes\", \"maybe\"]"))?;
    let error = message(folder.find("other.toml")?.with_hub(&hub).split("train"));
    assert!(error.contains("row 1: the label \"no\" in the column label is not among"), "{error}");
    // Another column has other classes than those that the entry names.
    let named = folder.at("named.toml").display().to_string();
    let odd = Dataset::find_with_columns(&named, None, Some("odd"))?.with_hub(&hub);
    let odd = odd.with_cache(folder.at("cache")).split("train")?;
    assert_eq!((odd.labels(), odd.classes().count()), (Some(&[5, 3, 5, 3][..]), 6));
    Ok(())
}
