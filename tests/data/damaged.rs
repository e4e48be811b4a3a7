//! What is damaged is named, by file and row.

use crate::given::{Folder, fixture, message, png_of, write_parquet};
use crate::table;
use consistency::Result;
use consistency::data::Dataset;
use polars::prelude::{Column, DataFrame, ParquetWriter};
use polars_arrow::array::{BinaryViewArray, NullArray, PrimitiveArray};
use polars_arrow::datatypes::ArrowDataType;
use std::fs::File;

#[test]
fn what_is_damaged_is_named_by_file_and_row() -> Result<()> {
    let folder = Folder::new("damaged")?;
    let good = png_of(0, [1, 4, 6])?;
    let jpeg = fixture("grey.jpg")?;
    let mut flipped = good.clone();
    let middle = flipped.len() - 20;
    flipped[middle] ^= 0x55;
    let cases: [(&str, Vec<u8>, &[&str]); 5] = [
        ("cut", good[..good.len() - 16].to_vec(), &["row 2", "a damaged PNG"]),
        ("flipped", flipped, &["row 2", "a damaged PNG"]),
        ("size", png_of(0, [1, 4, 7])?, &["row 2", "it has 4x7 pixels", "4x6"]),
        (
            "text",
            b"no image".to_vec(),
            &["row 2", "not an image: the text \"no image\" (8 bytes); PNG, JPEG, WebP"],
        ),
        ("jpeg", jpeg[..jpeg.len() / 2].to_vec(), &["row 2", "a damaged JPEG"]),
    ];
    for (name, bad, words) in cases {
        let file = format!("{name}.parquet");
        write_parquet(&folder.at(&file), "image", &[good.clone(), good.clone(), bad], &[0, 1, 2])?;
        let error = message(folder.find(&file)?.split("train"));
        assert!(error.contains(&file), "{error}");
        assert!(words.iter().all(|word| error.contains(word)), "{name}: {error}");
    }
    // Colours far behind greys.
    let mut images = vec![good; 70];
    images.push(png_of(0, [3, 4, 6])?);
    write_parquet(&folder.at("colours.parquet"), "image", &images, &[0; 71])?;
    let error = message(folder.find("colours.parquet")?.split("train"));
    assert!(error.contains("colours.parquet, row 70: it has colours"), "{error}");
    let whole = std::fs::read(folder.at("text.parquet"))?;
    std::fs::write(folder.at("half.parquet"), &whole[..whole.len() / 2])?;
    std::fs::write(folder.at("none.parquet"), b"PAR")?;
    for file in ["half.parquet", "none.parquet"] {
        let error = message(folder.find(file));
        assert!(error.contains(file) && error.contains("not a Parquet file"), "{error}");
    }
    let numbers = Column::new("x".into(), [1i64, 2]);
    let mut table = DataFrame::new(2, vec![numbers])?;
    ParquetWriter::new(File::create(folder.at("numbers.parquet"))?).finish(&mut table)?;
    let error = message(folder.find("numbers.parquet"));
    assert!(error.contains("it has the columns x: none holds images"), "{error}");
    let error = message(Dataset::find("cifar-11"));
    assert!(error.contains("no dataset 'cifar-11'") && error.contains("fashion_mnist"), "{error}");
    // What failed left nothing in the cache.
    assert!(!folder.at("cache").exists());
    Ok(())
}

#[test]
fn a_path_in_place_of_an_image_is_called_one() -> Result<()> {
    let folder = Folder::new("paths")?;
    let good = png_of(0, [1, 4, 6])?;
    let none: Option<&[u8]> = None;
    // Null in some rows, null in all, and of no type at all.
    let some = BinaryViewArray::from_slice([Some(good.as_slice()), Some(&good), none]);
    let all = BinaryViewArray::from_slice([none; 3]);
    let null = NullArray::new(ArrowDataType::Null, 3);
    let paths = ["0.png", "1.png", "2.png"];
    for (name, bytes, row) in
        [("some", some.boxed(), 2), ("all", all.boxed(), 0), ("null", null.boxed(), 0)]
    {
        let file = format!("{name}.parquet");
        let images = table::images_of(bytes, &paths);
        table::write_groups(&folder.at(&file), &vec![("image", images)], &[1, 2])?;
        let error = message(folder.find(&file).and_then(|dataset| dataset.split("train")));
        let at = format!("{file}, row {row}: only a path is stored ({row}.png)");
        assert!(error.contains(&at), "{error}");
    }
    let bytes = BinaryViewArray::from_slice([Some(good.as_slice()), none]);
    table::write(&folder.at("bytes.parquet"), &vec![("image", bytes.boxed())])?;
    let error = message(folder.find("bytes.parquet").and_then(|d| d.split("train")));
    assert!(error.contains("bytes.parquet, row 1: no image in the column image"), "{error}");
    Ok(())
}

#[test]
fn any_byte_of_a_file_may_be_wrong() -> Result<()> {
    let folder = Folder::new("bytes")?;
    let images: Vec<Vec<u8>> = (0..4).map(|row| png_of(row, [1, 2, 3])).collect::<Result<_>>()?;
    let labels = PrimitiveArray::from_vec(vec![0u8, 1, 2, 0]).boxed();
    let images = table::images_of(table::bytes(&images), &["x"; 4]);
    table::write(&folder.at("good.parquet"), &vec![("image", images), ("label", labels)])?;
    let good = std::fs::read(folder.at("good.parquet"))?;
    let cache = folder.at("cache");
    let (mut wrong, mut gave_up) = (0, 0);
    for at in (0..good.len()).step_by(4) {
        let mut bad = good.clone();
        bad[at] ^= 0xff;
        std::fs::write(folder.at("bad.parquet"), bad)?;
        let read = folder.find("bad.parquet").and_then(|dataset| dataset.split("train"));
        let _ = std::fs::remove_dir_all(&cache);
        if let Err(error) = read {
            let error = error.to_string();
            assert!(error.contains("bad.parquet") && error.lines().count() == 1, "{at}: {error}");
            wrong += 1;
            gave_up += usize::from(error.contains("polars-parquet fails on it"));
        }
    }
    // Polars panics on some of them: that is an error like any other.
    assert!(wrong > good.len() / 12 && gave_up > 0, "{wrong} of {}, {gave_up}", good.len());
    Ok(())
}
