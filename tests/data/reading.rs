//! Rows, channels, sides and labels stay where they were.

use crate::given::{Folder, fixture, pixel, png_of, values, write_parquet};
use candle_core::{DType, Device, Tensor};
use consistency::Result;
use consistency::data::Images;
use consistency::rng::Key;

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
fn colours_after_a_grey_image_are_colours() -> Result<()> {
    let folder = Folder::new("grey-first")?;
    let images = [png_of(0, [1, 4, 6])?, png_of(1, [3, 4, 6])?];
    write_parquet(&folder.at("a.parquet"), "image", &images, &[0, 1])?;
    let images = folder.find("a.parquet")?.split("train")?;
    assert_eq!(images.shape(), [3, 4, 6]);
    let all = values(images.pixels())?;
    assert_eq!(
        all[..3 * 24].iter().step_by(24).copied().collect::<Vec<_>>(),
        [pixel(0, 0, 0, 0); 3]
    );
    assert_eq!(all[3 * 24..][24], pixel(1, 1, 0, 0));
    Ok(())
}
