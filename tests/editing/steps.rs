//! The loop: its noise, its limits, and where it leads with an exact consistency function.

use super::{CPU, Scaled, bits, exact, gap, grid, hits, images, message, values};
use candle_core::{DType, Tensor};
use consistency::Result;
use consistency::data::digits;
use consistency::edit::{Steps, denoise, inpaint, stroke_guided};
use consistency::process::{Empirical, FlowMap, NoiseRange, Solver};
use consistency::rng::Key;
use consistency::sample::multistep;

#[test]
fn the_start_is_noise_of_level_t_1() -> Result<()> {
    // A function that returns its input, scaled, lets the noise through to the end.
    let f = Scaled::by(0.25);
    let y = images(400, &[1, 8, 8], DType::F64)?;
    let mask = Tensor::ones((1, 1, 1, 1), DType::U8, &CPU)?;
    let steps = Steps { times: vec![80.0, 2.0, 0.5], eps: 0.3, clip: false };
    let x = inpaint(&f, &y, &mask, &steps, &Key::new(5))?;
    let deviation =
        |x: &Tensor| -> Result<f64> { Ok(x.sqr()?.mean_all()?.to_scalar::<f64>()?.sqrt()) };
    let asked = f.asked();
    assert_eq!(asked.iter().map(|a| a.1).collect::<Vec<_>>(), [80.0, 2.0, 0.5]);
    assert!((deviation(&asked[0].0)? / 80.0 - 1.0).abs() < 0.02, "the start is not t_1 z");
    let mut before = (&asked[0].0 * 0.25)?;
    for (input, t) in &asked[1..] {
        let (added, want) = ((input - before)?, (t * t - 0.09f64).sqrt());
        assert!((deviation(&added)? / want - 1.0).abs() < 0.02, "renoising to {t}");
        before = (input * 0.25)?;
    }
    assert_eq!(gap(&x, &before)?, 0.0, "the last answer is the result");
    Ok(())
}

#[test]
fn with_all_free_it_is_multistep_sampling() -> Result<()> {
    for dtype in [DType::F64, DType::F32] {
        let f = exact(&images(5, &[1, 4, 4], dtype)?)?;
        let (grid, key) = (grid()?, Key::new(6));
        let times: Vec<f64> = [13, 8, 4].map(|i| grid.times()[i]).to_vec();
        let y = images(7, &[1, 4, 4], dtype)?;
        let mask = Tensor::ones((7, 1, 4, 4), DType::F32, &CPU)?;
        let steps = Steps { times: times.clone(), eps: grid.first(), clip: false };
        let edited = inpaint(&f, &y, &mask, &steps, &key)?;
        let z = key.stream("start").normal_like(&y, 0)?;
        let drawn = multistep(&f, &z, times[0], &times[1..], grid.first(), &key)?;
        assert_eq!(bits(&edited)?, bits(&drawn)?);
    }
    Ok(())
}

#[test]
fn with_nothing_free_it_is_the_input() -> Result<()> {
    let f = Scaled::by(3.0);
    let y = (images(3, &[3, 4, 4], DType::F32)? * 1.7)?; // beyond [-1, 1]
    let mask = Tensor::zeros((1, 1, 1, 1), DType::U8, &CPU)?;
    let steps = Steps::along(&grid()?);
    assert_eq!(bits(&inpaint(&f, &y, &mask, &steps, &Key::new(0))?)?, bits(&y)?);
    Ok(())
}

#[test]
fn answers_are_clipped_before_the_known_part_is_put_in() -> Result<()> {
    let f = Scaled::by(1.0);
    let y = Tensor::new(&[[1.5f64, 0.0]], &CPU)?;
    let mask = Tensor::new(&[[0u8, 1]], &CPU)?;
    let steps = Steps { times: vec![80.0], eps: 0.002, clip: true };
    let x = values(&inpaint(&f, &y, &mask, &steps, &Key::new(1))?)?;
    assert_eq!((x[0], x[1].abs()), (1.5, 1.0), "known beyond the range, free clipped to it");
    let x = inpaint(&f, &y, &mask, &Steps { clip: false, ..steps }, &Key::new(1))?;
    assert!(values(&x)?[1].abs() > 1.0);
    Ok(())
}

#[test]
fn strokes_guide_the_image_that_comes_of_them() -> Result<()> {
    let data = digits(DType::F64, &CPU)?.train.narrow(0, 0, 12)?;
    let f = exact(&data)?;
    let grid = grid()?;
    let near: Vec<f64> =
        grid.times().iter().rev().copied().filter(|t| *t < 0.6 && *t > 0.2).collect();
    let steps = Steps { times: near, eps: grid.first(), clip: true };
    // Strokes: the image without half of its detail.
    let y = ((&data + data.avg_pool2d(2)?.upsample_nearest2d(8, 8)?)? * 0.5)?;
    let x = stroke_guided(&f, &y, &steps, &Key::new(2))?;
    assert!(hits(&x, &data)? >= 11, "{} of 12 strokes led to their image", hits(&x, &data)?);
    // Control: algorithm 4 as it is written starts from 0, not from the strokes.
    let mask = Tensor::ones((1, 1, 1, 1), DType::U8, &CPU)?;
    let lost = inpaint(&f, &y, &mask, &steps, &Key::new(2))?;
    assert!(hits(&lost, &data)? <= 5, "{} hits without strokes", hits(&lost, &data)?);
    assert_eq!(Steps::stroke().times, [5.38, 2.24]);
    Ok(())
}

#[test]
fn inpainting_finds_the_image_that_the_known_half_is_of() -> Result<()> {
    let data = digits(DType::F64, &CPU)?.train.narrow(0, 0, 10)?;
    let grid = NoiseRange::default().karras(60)?;
    let f = FlowMap::new(Empirical::new(&data)?, Solver::Heun, grid.clone());
    let hole = Tensor::ones((1, 1, 4, 8), DType::U8, &CPU)?;
    let mask = Tensor::cat(&[&hole.zeros_like()?, &hole], 2)?;
    let steps = Steps::along(&grid);
    let lower = |x: &Tensor| x.narrow(2, 4, 4);
    let (mut right, mut chance) = (0, 0);
    for seed in 0..3 {
        let key = Key::new(seed);
        let x = inpaint(&f, &data, &mask, &steps, &key)?;
        right += hits(&lower(&x)?, &lower(&data)?)?;
        // Control: with nothing known it is chance.
        let x = inpaint(&f, &data, &hole.narrow(2, 0, 1)?.narrow(3, 0, 1)?, &steps, &key)?;
        chance += hits(&lower(&x)?, &lower(&data)?)?;
    }
    assert!(right >= 28, "{right} of 30 lower halves are the right ones");
    assert!(chance <= 12, "{chance} of 30 by chance");
    Ok(())
}

#[test]
fn denoising_is_one_evaluation_at_any_level() -> Result<()> {
    let data = digits(DType::F64, &CPU)?.train.narrow(0, 0, 12)?;
    let (grid, f) = (grid()?, exact(&data)?);
    let z = Key::new(4).normal_like(&data, 0)?;
    let levels: Vec<f64> = (0..12).map(|i| grid.times()[1 + i % 6]).collect();
    let t = Tensor::from_vec(levels.clone(), (12, 1, 1, 1), &CPU)?;
    let noisy = (&data + z.broadcast_mul(&t)?)?;
    let clean = denoise(&f, &noisy, &levels)?;
    assert_eq!(hits(&clean, &data)?, 12);
    assert!(gap(&clean, &data)? < 0.05, "{}", gap(&clean, &data)?);
    assert!(gap(&denoise(&f, &noisy, &[grid.first()])?, &noisy)? == 0.0, "identity at eps");
    assert!(message(denoise(&f, &noisy, &[0.0])).contains("must be above 0"));
    Ok(())
}
