//! Promise: what is recorded can be read back, with where it came from; figures are there
//! in every form.

use candle_core::{DType, Device};
use consistency::data::digits;
use consistency::evaluate::{DigitsComparison, Neighbours, Statistics, frechet_distance};
use consistency::experiment::{Experiment, Monitor, train};
use consistency::notebook::Show;
use consistency::plot::Figure;
use consistency::rng::Key;
use consistency::{Error, Result};
use polars::prelude::{CsvReader, ParquetReader, SerReader};
use std::fs::{self, File};

#[test]
fn metrics_carry_their_provenance() -> Result<()> {
    let runs = std::env::temp_dir().join(format!("consistency-{}-metrics", std::process::id()));
    let experiment = Experiment::parse(
        r#"
        name = "recorded"
        seed = 12
        data = { name = "moons", count = 500 }
        network = { kind = "mlp", width = 8, blocks = 1 }
        method = { kind = "score-matching" }
        training = { iterations = 25, batch = 8, record_every = 10 }
        "#,
    )?;
    let trained = train(&experiment, &runs, &Monitor::default(), 1)?;
    let folder = runs.join(experiment.folder()?);
    let parquet = ParquetReader::new(File::open(folder.join("metrics.parquet"))?).finish()?;
    let csv = CsvReader::new(File::open(folder.join("metrics.csv"))?).finish()?;
    for frame in [&parquet, &csv] {
        assert_eq!(frame.height(), 3);
        assert_eq!(frame.column("step")?.f64()?.get(2), Some(25.0));
        let text = |name: &str| -> Result<String> {
            Ok(frame.column(name)?.get(0)?.to_string().trim_matches('"').to_string())
        };
        assert_eq!(text("experiment")?, "recorded");
        assert_eq!(text("seed")?, "12");
        assert_eq!(text("device")?, "cpu");
        assert_eq!(text("dtype")?, "f32");
        assert_eq!(text("data")?, "made");
        assert!(!text("commit")?.is_empty());
    }
    let hash = parquet.column("configuration")?.get(0)?.to_string();
    assert_eq!(hash.trim_matches('"'), experiment.hash()?);
    assert_eq!(parquet.column("loss")?.f64()?.get(0), Some(trained.table().column("loss")[0]));
    // The configuration is there to be run again, to the letter.
    assert_eq!(Experiment::read(folder.join("experiment.toml"))?, experiment);
    fs::remove_dir_all(&runs)?;
    Ok(())
}

fn sample_figure() -> Figure {
    let x: Vec<f64> = (1..50).map(f64::from).collect();
    let y: Vec<f64> = x.iter().map(|x| x.powi(-2)).collect();
    let line = Figure::new("line").x("n").y("error").log_x().log_y().line("slope -2", &x, &y);
    let dots = Figure::new("dots").x("x").y("y").equal().points("points", &x, &y);
    let heat =
        Figure::new("heat").heatmap("z", (0.0, 1.0), (0.0, 1.0), &[vec![1.0, 2.0], vec![3.0, 4.0]]);
    Figure::panels("all of them", 2, &[line, dots, heat])
}

#[test]
fn figures_in_every_form() -> Result<()> {
    let figure = sample_figure();
    let json = figure.json()?;
    assert_eq!(json["data"].as_array().map(Vec::len), Some(3));
    assert_eq!(json["data"][0]["type"], "scatter");
    assert_eq!(json["data"][2]["type"], "heatmap");
    assert_eq!(json["layout"]["xaxis"]["type"], "log");
    assert_eq!(json["layout"]["xaxis"]["title"]["text"], "n");
    assert_eq!(json["layout"]["yaxis2"]["scaleanchor"], "x2");
    let png = figure.png()?;
    let mut reader = png::Decoder::new(std::io::Cursor::new(&png))
        .read_info()
        .map_err(|e| Error::new(e.to_string()))?;
    let mut pixels = vec![0; reader.output_buffer_size().unwrap_or(0)];
    let info = reader.next_frame(&mut pixels).map_err(|e| Error::new(e.to_string()))?;
    assert!(info.width > 800 && info.height > 400);
    // Something is drawn, in more than one colour, on white.
    let colours: std::collections::HashSet<&[u8]> = pixels.chunks(3).collect();
    assert!(colours.len() > 50 && pixels.chunks(3).filter(|p| *p == [255; 3]).count() > 100_000);
    assert_eq!(png, sample_figure().png()?, "the same figure is the same file");
    assert!(figure.text().contains("slope -2: 49 points, n 1.0000 .. 49.0000"));
    let bundle = figure.bundle();
    let kinds: Vec<&str> = bundle.iter().map(|(media, _)| *media).collect();
    assert_eq!(kinds, ["application/vnd.plotly.v1+json", "image/png", "text/plain"]);
    Ok(())
}

#[test]
fn pictures_are_the_right_way_up() -> Result<()> {
    // One bright pixel in the upper right corner of the second image.
    let mut values = vec![-1.0f32; 2 * 4 * 4];
    values[16 + 3] = 1.0;
    let images = candle_core::Tensor::from_vec(values, (2, 1, 4, 4), &Device::Cpu)?;
    let png = Figure::images("", &images, 2)?.png()?;
    let mut reader = png::Decoder::new(std::io::Cursor::new(&png))
        .read_info()
        .map_err(|e| Error::new(e.to_string()))?;
    let mut pixels = vec![0; reader.output_buffer_size().unwrap_or(0)];
    let info = reader.next_frame(&mut pixels).map_err(|e| Error::new(e.to_string()))?;
    let (w, h) = (info.width as usize, info.height as usize);
    let at = |x: f64, y: f64| pixels[((y * h as f64) as usize * w + (x * w as f64) as usize) * 3];
    // Within the montage, which has a margin of a few pixels.
    assert_eq!(at(0.83, 0.25), 255, "the bright pixel is at the upper right");
    assert_eq!(at(0.83, 0.6), 0);
    assert_eq!(at(0.3, 0.25), 0);
    Ok(())
}

#[test]
fn frechet_distance_of_gaussians() -> Result<()> {
    // For diagonal covariances: |m1 - m2|^2 + sum (s1 - s2)^2, exactly once the samples'
    // moments are made exact.
    let z = Key::new(0).normal(0..500, &[3], DType::F64, &Device::Cpu)?;
    let fit = |scale: [f64; 3], shift: f64| -> Result<Statistics> {
        let scale = candle_core::Tensor::new(&scale, &Device::Cpu)?;
        Statistics::of(&(z.broadcast_mul(&scale)? + shift)?)
    };
    let same = fit([1.0, 2.0, 0.5], 0.0)?;
    assert!(same.frechet_distance(&same)?.abs() < 1e-9);
    let moved = fit([1.0, 2.0, 0.5], 3.0)?;
    assert!((same.frechet_distance(&moved)? - 27.0).abs() < 1e-9);
    let wider = frechet_distance(&z, &(&z * 3.0)?)?;
    let mean = z.mean(0)?.sqr()?.sum_all()?.to_scalar::<f64>()? * 4.0;
    let variance = z.broadcast_sub(&z.mean(0)?)?.sqr()?.sum_all()?.to_scalar::<f64>()? / 499.0;
    assert!((wider - (mean + 4.0 * variance)).abs() < 1e-9, "{wider}");
    // A covariance without full rank.
    let flat = fit([1.0, 0.0, 0.0], 0.0)?;
    assert!(flat.frechet_distance(&flat)?.abs() < 1e-9);
    Ok(())
}

#[test]
fn the_classifier_knows_the_digits() -> Result<()> {
    let digits = digits(DType::F32, &Device::Cpu)?;
    let neighbours = Neighbours::new(&digits.train, &digits.train_labels, 10)?;
    let assigned = neighbours.assign(&digits.held_out)?;
    let right = assigned.iter().zip(&digits.held_out_labels).filter(|(a, l)| a.label == **l);
    let share = right.count() as f64 / assigned.len() as f64;
    assert!(share > 0.97, "it classifies {share} of the held-out digits");
    // The judge's scale: real digits at its top, noise far below, and only equal numbers.
    let comparison = DigitsComparison::new(&digits)?;
    let real = comparison.real();
    assert!(real.assigned >= 0.9 && real.frechet < 1.0, "{real:?}");
    let noise = Key::new(0).normal(0..450, &[1, 8, 8], DType::F32, &Device::Cpu)?;
    let noise_score = comparison.score(&noise)?;
    assert!(noise_score.frechet > 20.0 && noise_score.assigned < 0.4, "{noise_score:?}");
    let unequal = comparison.score(&digits.held_out.narrow(0, 0, 100)?).err();
    assert!(unequal.is_some_and(|e| e.to_string().contains("give a multiple of the 450")));
    Ok(())
}
