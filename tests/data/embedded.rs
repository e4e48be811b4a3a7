//! The images in the library are the published ones, in parts that never change.

use crate::given::{message, values};
use candle_core::DType;
use consistency::Result;
use consistency::data::{Dataset, Images};

fn garments(name: &str, side: Option<usize>, split: &str) -> Result<Images> {
    let dataset = Dataset::find(name)?;
    side.map_or(dataset.clone(), |side| dataset.resized(side)).split(split)
}

#[test]
fn ten_thousand_garments_of_ten_classes() -> Result<()> {
    let (train, held_out) =
        (garments("fashion-10k", None, "train")?, garments("fashion-10k", None, "held_out")?);
    assert_eq!((train.len(), held_out.len()), (9000, 1000));
    assert_eq!(train.shape(), [1, 28, 28]);
    let mut counts = [0; 10];
    for label in
        [&train, &held_out].into_iter().flat_map(|part| part.labels().into_iter().flatten())
    {
        counts[*label as usize] += 1;
    }
    assert_eq!(counts, [1000; 10]);
    // The first of the file is an ankle boot.
    let first = held_out.labels().map(|labels| held_out.classes().name(labels[0]));
    assert_eq!(first.as_deref(), Some("Ankle boot"));
    // The mean of all pixels, as those who use the test split know it: 0.2868.
    let sum = |part: &Images| -> Result<f64> {
        Ok(values(part.pixels())?.iter().map(|pixel| f64::from(*pixel)).sum())
    };
    let mean = (sum(&train)? + sum(&held_out)?) / (255.0 * 7_840_000.0);
    assert!((mean - 0.2868).abs() < 1e-4, "{mean}");
    assert!(train.revision().starts_with("fashion_10k: "), "{}", train.revision());
    let all = train.all(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    assert!(all.iter().all(|pixel| (-1.0..=1.0).contains(pixel)));
    Ok(())
}

#[test]
fn a_tint_is_one_colour_times_the_grey_value() -> Result<()> {
    let grey = values(garments("fashion-10k", None, "held_out")?.pixels())?;
    let tinted = garments("fashion-10k-tinted", None, "held_out")?;
    assert_eq!((tinted.shape(), tinted.len()), (&[3, 28, 28][..], 1000));
    let tinted = values(tinted.pixels())?;
    let mut colours = Vec::new();
    for (image, grey) in tinted.chunks(3 * 784).zip(grey.chunks(784)) {
        let planes: Vec<&[u8]> = image.chunks(784).collect();
        let brightest = |p: usize| planes.iter().map(|plane| plane[p]).max().unwrap_or(0);
        assert!((0..784).all(|p| brightest(p) == grey[p]));
        // Each channel is the grey times one number, rounded: that of the brightest pixel.
        let at = (0..784).max_by_key(|p| grey[*p]).unwrap_or(0);
        let share = |plane: &&[u8]| f64::from(plane[at]) / f64::from(grey[at]);
        let colour: Vec<f64> = planes.iter().map(share).collect();
        for (plane, part) in planes.iter().zip(&colour) {
            let off = plane.iter().zip(grey).map(|(v, g)| f64::from(*v) - part * f64::from(*g));
            assert!(off.map(f64::abs).fold(0.0, f64::max) < 1.01);
        }
        colours.push(colour);
    }
    // Every hue comes: each channel is the largest, and the smallest, in its share of the images.
    for channel in 0..3 {
        let (mut most, mut least) = (0, 0);
        for colour in &colours {
            most += usize::from(colour[channel] > 0.99);
            least += usize::from(colour.iter().all(|part| *part >= colour[channel]));
        }
        assert!((230..480).contains(&most) && (230..450).contains(&least), "{most} and {least}");
    }
    Ok(())
}

#[test]
fn half_a_side_is_the_average_of_four_pixels() -> Result<()> {
    let (whole, half) =
        (garments("fashion-10k", None, "train")?, garments("fashion-10k", Some(14), "train")?);
    assert_eq!((half.shape(), half.len()), (&[1, 14, 14][..], 9000));
    assert_eq!(whole.labels(), half.labels());
    assert_ne!(whole.revision(), half.revision());
    let (whole, half) = (values(whole.pixels())?, values(half.pixels())?);
    for (image, small) in whole.chunks(784).zip(half.chunks(196)) {
        for (at, value) in small.iter().enumerate() {
            let from = at / 14 * 56 + at % 14 * 2;
            let four = [from, from + 1, from + 28, from + 29].map(|p| f64::from(image[p]));
            // Rounded twice, along the rows and along the columns.
            assert!((four.iter().sum::<f64>() / 4.0 - f64::from(*value)).abs() <= 1.0);
        }
    }
    let refused = message(Dataset::find("digits")?.resized(4).split("train"));
    assert!(refused.contains("8x8 is their size"), "{refused}");
    for side in [0, 29, 32768] {
        let refused = message(Dataset::find("fashion_10k_tinted")?.resized(side).split("train"));
        assert!(refused.contains(&format!("size = {side}: its images are 28x28")), "{refused}");
    }
    Ok(())
}
