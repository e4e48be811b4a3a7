//! The judge of the tables, on what is known: training images, a Gaussian, noise, copies.

use crate::{Folder, TEACHER, message, own, said};
use candle_core::DType;
use consistency::Result;
use consistency::data::Dataset;
use consistency::evaluate::Statistics;
use consistency::experiment::Trained;
use consistency::reproduce::{Reproduction, Row, read_results, reproduce};
use std::path::Path;

fn judged(samples: usize) -> Result<Vec<Row>> {
    let folder = Folder::new(&format!("judged-{samples}"))?;
    let by = format!("evaluate = {{ samples = {samples}, by = [\"held-out\"], points = [5] }}");
    let text = TEACHER.replace("[0, 1]", "[0]");
    let old = text.lines().find(|line| line.starts_with("evaluate")).unwrap_or_default();
    folder.put("teacher", &text.replace(old, &by))?;
    reproduce("teacher", &folder.options(), &mut |_| {})
}

fn value(rows: &[Row], sampler: &str, metric: &str) -> f64 {
    let row = rows.iter().find(|row| row.sampler.contains(sampler) && row.metric == metric);
    row.map_or(f64::NAN, |row| row.value)
}

#[test]
fn training_images_are_the_floor_and_noise_is_the_ceiling() -> Result<()> {
    let rows = judged(900)?;
    let of = |sampler: &str, metric: &str| value(&rows, sampler, metric);
    let all = ["floor", "Gaussian", "ceiling"];
    for metric in ["kernel distance", "Frechet distance to held-out images"] {
        let [floor, gaussian, ceiling] = all.map(|sampler| of(sampler, metric));
        // A set of the data is nearer than anything else, and a Gaussian nearer than noise.
        assert!(
            floor < 0.1 * gaussian && gaussian < ceiling,
            "{metric}: {floor} {gaussian} {ceiling}"
        );
    }
    // With as many on both sides a distance of 0 is measured as more; extrapolated it is less, by
    // most of it.
    let [biased, limit] = ["Frechet distance to held-out images", "Frechet distance, extrapolated"]
        .map(|metric| of("floor", metric));
    assert!(biased > 0.0 && limit.abs() < 0.6 * biased, "{biased} {limit}");
    // Training images are copies, noise is none; both are what the number is there to tell.
    assert_eq!(of("floor", "nearest training image over the held-out"), 0.0);
    assert_eq!(of("floor", "share near a training image"), 1.0);
    assert!(of("ceiling", "nearest training image over the held-out") > 1.5);
    assert_eq!(of("ceiling", "share near a training image"), 0.0);
    assert!(of("ceiling", "recall on classifier features") < 0.1);
    assert!((of("floor", "variance over the held-out") - 1.0).abs() < 0.05);
    for row in &rows {
        assert!(row.reference.as_deref().is_some_and(|of| of.starts_with("held_out, 450 of 450")));
    }
    Ok(())
}

#[test]
fn more_samples_do_not_make_a_floor_smaller() -> Result<()> {
    let [few, many] = [judged(450)?, judged(1350)?];
    // The bias is that of equal numbers, whatever the number of samples.
    let metric = "Frechet distance to held-out images";
    let [few, many] = [few, many].map(|rows| value(&rows, "floor", metric));
    assert!((few / many - 1.0).abs() < 0.35, "{few} {many}");
    Ok(())
}

#[test]
fn the_gaussian_has_the_images_mean_and_covariance() -> Result<()> {
    use consistency::reproduce::FromImages;
    let digits = Dataset::find("digits")?.split("train")?;
    let real = Statistics::of(&digits.all(DType::F32)?)?;
    let distance = |count: usize| -> Result<f64> {
        Statistics::of(&FromImages::Gaussian.draw(&digits, count)?)?.frechet_distance(&real)
    };
    // It falls as 1 / N, to nothing.
    let (few, many) = (distance(1000)?, distance(8000)?);
    assert!((few / many / 8.0 - 1.0).abs() < 0.3, "{few} {many}");
    Ok(())
}

#[test]
fn judges_are_as_good_as_their_records_say() -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../reproductions");
    for (name, at_least) in [("digits-classifier", 0.97), ("fashion-10k-classifier", 0.87)] {
        let trained = Trained::shipped(name)?;
        let (classifier, data) = (trained.classifier()?, &trained.experiment().data);
        let held_out = data.held_out()?;
        let labels = held_out.labels().unwrap_or_default();
        let accuracy = classifier.accuracy(&held_out.all(DType::F32)?, labels)?;
        let rows = read_results(&folder.join(name))?;
        let kept = value(&rows, "held-out", "accuracy on held-out images");
        assert!(accuracy >= at_least && (accuracy - kept).abs() < 0.003, "{accuracy} {kept}");
        assert!(rows.iter().all(|row| row.judge.as_deref() == Some(classifier.features().name())));
    }
    Ok(())
}

#[test]
fn data_without_a_judge_are_refused() -> Result<()> {
    let folder = Folder::new("no judge")?;
    let data = own(&folder, &(0..300).collect::<Vec<_>>())?;
    let text = TEACHER
        .replace("samples = 120,", "samples = 120, by = [\"held-out\"],")
        .replace(r#"{ name = "digits" }"#, &format!("{{ name = 'images', of = '{data}' }}"));
    folder.put("own", &text)?;
    let got = message(reproduce("own", &folder.options(), &mut |_| {}));
    assert!(got.contains("held_out") || got.contains("'test'"), "{got}");
    let mixed = TEACHER.replace("samples = 120,", "samples = 120, by = [\"accuracy\"],");
    folder.put("mixed", &mixed)?;
    let got = message(Reproduction::read(&folder.0, "mixed").map_err(said));
    assert!(got.contains("'accuracy' is of a classifier"), "{got}");
    Ok(())
}
