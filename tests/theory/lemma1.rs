//! Lemma 1: the mean of the single-sample estimator is the score; what each estimator costs.

use super::column;
use candle_core::{DType, Device};
use consistency::Result;
use consistency::data::digits;
use consistency::polars::prelude::DataFrame;
use consistency::process::GaussianMixture;
use consistency::rng::Key;
use consistency::theory::{Source, binned_score, score_errors, score_errors_at, slope};

fn line() -> Result<GaussianMixture> {
    GaussianMixture::new(vec![0.4, 0.6], vec![vec![-0.6], vec![0.5]], vec![0.2, 0.1])
}

/// The rows of an estimator: (time, batch, bias, its interval, variance).
fn rows(table: &DataFrame, estimator: &str) -> Result<Vec<[f64; 5]>> {
    let names = table.column("estimator")?.str()?.clone();
    let batch: Vec<u32> = table.column("batch")?.u32()?.iter().flatten().collect();
    let numbers = ["time", "bias", "bias_ci", "variance"].map(|name| column(table, name));
    let [time, bias, ci, variance] = numbers;
    let (time, bias, ci, variance) = (time?, bias?, ci?, variance?);
    let row = |i: usize| [time[i], f64::from(batch[i]), bias[i], ci[i], variance[i]];
    Ok((0..table.height()).filter(|i| names.get(*i) == Some(estimator)).map(row).collect())
}

#[test]
fn the_single_sample_has_no_bias_and_the_variance_of_the_noise() -> Result<()> {
    // For N(0, s^2): E(z/t)^2 less E score^2, 1/t^2 - 1/(s^2 + t^2), a dimension.
    let s = 0.5;
    for dim in [1, 3] {
        let data = GaussianMixture::new(vec![1.0], vec![vec![0.0; dim]], vec![s])?;
        let times = [0.1, 0.5, 3.0];
        let table =
            score_errors(&Source::Mixture(data.clone()), &times, &[4], 40_000, &Key::new(3))?;
        for [t, _, bias, ci, variance] in rows(&table, "single")? {
            assert!(bias < 2.0 * ci, "{dim} d, t = {t}: bias {bias} +- {ci}");
            let want = 1.0 / (t * t) - 1.0 / (s * s + t * t);
            // The relative deviation of a variance over n normal numbers is sqrt(2 / n).
            let allowed = 4.0 * (2.0 / (40_000.0 * dim as f64)).sqrt() * want;
            assert!((variance - want).abs() < allowed, "{dim} d, t = {t}: {variance}, {want}");
        }
    }
    Ok(())
}

#[test]
fn a_batch_with_the_sample_in_it_has_no_bias_and_less_variance() -> Result<()> {
    let (data, times) = (line()?, [0.2, 1.0, 5.0]);
    let table =
        score_errors(&Source::Mixture(data.clone()), &times, &[1, 4, 64], 20_000, &Key::new(4))?;
    let (single, batches) = (rows(&table, "single")?, rows(&table, "minibatch")?);
    for (i, [t, ..]) in single.iter().enumerate() {
        let own: Vec<_> = batches.iter().filter(|row| row[0] == *t).collect();
        assert_eq!(own[0][4], single[i][4], "a batch of one is the sample itself");
        assert!(own[1][4] < own[0][4] && own[2][4] < own[1][4], "t = {t}: {own:?}");
        for row in own {
            assert!(row[2] < 2.0 * row[3], "t = {t}: bias {} +- {}", row[2], row[3]);
        }
    }
    for row in rows(&table, "exact")? {
        assert_eq!(row[1..], [0.0; 4]);
    }
    Ok(())
}

#[test]
fn without_the_sample_bias_and_variance_fall_with_the_batch() -> Result<()> {
    let data = line()?;
    let batches = [64, 128, 256, 512];
    let table = score_errors_at(
        &Source::Mixture(data.clone()),
        &[0.3],
        0.5,
        &batches,
        60_000,
        &Key::new(5),
    )?;
    let sizes = batches.map(|b| b as f64);
    let variance = slope(&sizes, &column(&table, "variance")?)?;
    assert!((variance.value + 1.0).abs() < 0.1, "variance falls as {variance}");
    let (bias, ci) = (column(&table, "bias")?, column(&table, "bias_ci")?);
    assert!(bias[0] > 3.0 * ci[0], "at 64 there is a bias: {bias:?} +- {ci:?}");
    assert!(bias[3] < 0.5 * bias[0], "and it falls: {bias:?}");
    Ok(())
}

#[test]
fn the_conditional_mean_is_the_score() -> Result<()> {
    let edges: Vec<f64> = (0..=24).map(|i| -1.8 + 0.15 * f64::from(i)).collect();
    let table = binned_score(&line()?, 0.4, &edges, 200_000, &Key::new(6))?;
    let (mean, exact, ci) =
        (column(&table, "mean")?, column(&table, "exact")?, column(&table, "ci")?);
    assert!(mean.len() > 18, "{} bins", mean.len());
    let beyond = (0..mean.len()).filter(|i| (mean[*i] - exact[*i]).abs() > ci[*i]).count();
    // 95 % of intervals hold the truth: of 24, more than 5 outside is one chance in 1000.
    assert!(beyond <= 5, "{beyond} of {} bins are off", mean.len());
    let worst = (0..mean.len()).map(|i| (mean[i] - exact[i]).abs() / ci[i]).fold(0.0, f64::max);
    assert!(worst < 2.2, "a bin is off by {worst} intervals");
    Ok(())
}

#[test]
fn estimators_take_a_dataset_too() -> Result<()> {
    let digits = digits(DType::F32, &Device::Cpu)?;
    let source = Source::rows(&digits.train)?;
    let table = score_errors(&source, &[0.5, 3.0], &[16], 500, &Key::new(7))?;
    let (single, batch) = (rows(&table, "single")?, rows(&table, "minibatch")?);
    for i in 0..2 {
        assert!(single[i][2] < 1.5 * single[i][3], "{:?}", single[i]);
        assert!(batch[i][4] < single[i][4], "{:?} and {:?}", batch[i], single[i]);
    }
    Ok(())
}

#[test]
fn the_same_key_gives_the_same_table() -> Result<()> {
    let data = line()?;
    let table =
        |key: u64| score_errors(&Source::Mixture(data.clone()), &[0.5], &[8], 1000, &Key::new(key));
    assert!(table(1)?.equals_missing(&table(1)?));
    assert!(!table(1)?.equals_missing(&table(2)?));
    Ok(())
}
