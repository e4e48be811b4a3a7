//! A part of a dataset is taken over all of it.

use crate::given::{Folder, pixel, png_of, values, write_parquet};
use crate::table;
use consistency::Result;
use consistency::data::{Dataset, Images};
use polars_arrow::array::PrimitiveArray;

// The first value of each image, which says which row it is.
fn firsts(images: &Images) -> Result<Vec<u8>> {
    let size: usize = images.shape().iter().product();
    Ok(values(images.pixels())?.into_iter().step_by(size).collect())
}

fn shares(images: &Images) -> [usize; 3] {
    let labels = images.labels().unwrap_or_default();
    [0, 1, 2].map(|class| labels.iter().filter(|label| **label == class).count())
}

#[test]
fn a_part_has_its_share_of_each_class() -> Result<()> {
    let folder = Folder::new("parts")?;
    // In the order of its classes, in several groups of rows.
    let images: Vec<Vec<u8>> = (0..240).map(|row| png_of(row, [1, 1, 2])).collect::<Result<_>>()?;
    let labels: Vec<i64> = (0..240).map(|row| row / 80).collect();
    let columns: table::Columns<'_> = vec![
        ("image", table::images_of(table::bytes(&images), &["x"; 240])),
        ("label", PrimitiveArray::from_vec(labels).boxed()),
    ];
    table::write_groups(&folder.at("p.parquet"), &columns, &[100, 1, 99, 40])?;
    for (row, image) in images.iter().enumerate() {
        let path = folder.at(&format!("f/train/{}/{row:03}.png", row / 80));
        std::fs::create_dir_all(path.parent().unwrap_or(&path))?;
        std::fs::write(path, image)?;
    }
    for name in ["p.parquet", "f"] {
        let dataset = folder.find(name)?;
        let whole = dataset.split("train")?;
        let part = dataset.clone().limited(60).split("train")?;
        assert_eq!(part.len(), 60);
        assert!(shares(&part).iter().all(|share| (12..=28).contains(share)), "{:?}", shares(&part));
        // In the order of the dataset, and each image beside its label.
        let all = firsts(&whole)?;
        let row = |first: &u8| all.iter().position(|other| other == first).unwrap_or(usize::MAX);
        let rows: Vec<usize> = firsts(&part)?.iter().map(row).collect();
        assert!(rows.is_sorted(), "{rows:?}");
        assert!(
            part.labels().into_iter().flatten().eq(rows.iter().map(|row| &[0, 1, 2][row / 80]))
        );
        // A smaller part lies within a larger one; all of it is all of it.
        let small = firsts(&dataset.clone().limited(7).split("train")?)?;
        assert!(small.len() == 7 && small.iter().all(|first| rows.contains(&row(first))));
        let more = dataset.clone().limited(1000).split("train")?;
        assert_eq!(firsts(&more)?, all);
        assert_ne!(part.revision(), whole.revision());
    }
    Ok(())
}

#[test]
fn a_part_of_the_digits_is_one_too() -> Result<()> {
    let digits = Dataset::find("digits")?;
    let (whole, part) = (digits.split("train")?, digits.clone().limited(200).split("train")?);
    assert_eq!(part.len(), 200);
    let count = |class: u32| part.labels().into_iter().flatten().filter(|l| **l == class).count();
    assert!((0..10).all(|class| (5..=40).contains(&count(class))));
    assert_ne!(values(part.pixels())?, values(whole.pixels())?[..200 * 64]);
    assert_ne!(part.revision(), whole.revision());
    assert_eq!(digits.limited(5000).split("train")?.revision(), whole.revision());
    Ok(())
}

#[test]
fn rows_outside_of_a_part_are_not_decoded() -> Result<()> {
    let folder = Folder::new("outside")?;
    let good = png_of(3, [1, 1, 2])?;
    let mut images = vec![good; 50];
    write_parquet(&folder.at("a.parquet"), "image", &images, &[0; 50])?;
    // Which row a part of one is: the one whose damage it sees.
    let found = (1..50).find(|row| {
        let mut bad = images.clone();
        bad[*row] = b"damaged".to_vec();
        let written = write_parquet(&folder.at("b.parquet"), "image", &bad, &[0; 50]);
        let part = folder.find("b.parquet").and_then(|d| d.limited(1).split("train"));
        written.is_ok() && part.is_err()
    });
    for (row, image) in images.iter_mut().enumerate().skip(1) {
        if Some(row) != found {
            *image = b"damaged".to_vec();
        }
    }
    write_parquet(&folder.at("c.parquet"), "image", &images, &[0; 50])?;
    let part = folder.find("c.parquet")?.limited(1).split("train")?;
    assert_eq!(values(part.pixels())?, [pixel(3, 0, 0, 0), pixel(3, 0, 0, 1)]);
    Ok(())
}
