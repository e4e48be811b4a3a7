//! What samples are compared with: a part of the data is of all classes, and the record says which.

use crate::{COMMIT, Folder, PUBLISHED, TEACHER, by_pixels, own};
use candle_core::{DType, Device, Tensor};
use consistency::Result;
use consistency::data::{Dataset, Images, digits};
use consistency::evaluate::Classifier;
use consistency::method::ClassifierConfig;
use consistency::reproduce::{
    Options, Reproduction, Row, evaluation_classifier, read_results, reproduce,
};
use consistency::rng::Key;
use polars::prelude::{Column, ParquetReader, ParquetWriter, SerReader};
use std::fs::File;
use std::path::Path;

/// Images of each of three classes: more, all together, than a judge is taught on.
const EACH: usize = 10_000;

// Digits of three classes under noise, class after class, or the same images shuffled.
fn three_classes(shuffled: bool) -> Result<Images> {
    let digits = Dataset::find("digits")?.split("train")?;
    let labels = digits.labels().unwrap_or_default();
    let of =
        |class: u32| (0..digits.len() as u32).filter(move |row| labels[*row as usize] == class);
    let classes = [1u32, 7, 8];
    let all: Vec<u32> = classes.iter().flat_map(|class| of(*class).cycle().take(EACH)).collect();
    let named: Vec<u32> = (0..3 * EACH).map(|row| (row / EACH) as u32).collect();
    let key = Key::new(7);
    let noise = key.normal(0..all.len() as u64, &[1, 8, 8], DType::F32, &Device::Cpu)?;
    let pixels = (digits.batch(&all, DType::F32)? + (noise * 0.3)?)?.clamp(-1f32, 1f32)?;
    let pixels = ((pixels + 1.0)? * 127.5)?.round()?.to_dtype(DType::U8)?;
    let order: Vec<u32> = match shuffled {
        true => key.permutation(all.len()).into_iter().map(|row| row as u32).collect(),
        false => (0..all.len() as u32).collect(),
    };
    let labels = order.iter().map(|row| named[*row as usize]).collect();
    let pixels = pixels.index_select(&Tensor::new(order, &Device::Cpu)?, 0)?;
    Images::new("three", pixels, 255, Some(labels))
}

#[test]
fn a_judge_of_data_in_class_order_is_one_of_the_same_data_shuffled() -> Result<()> {
    let held_out = digits(DType::F32, &Device::Cpu)?.held_out;
    let judged = |shuffled: bool| -> Result<(f64, f64)> {
        let images = three_classes(shuffled)?;
        let judge = evaluation_classifier(&images)?;
        let some = images.part(3_000, &Key::new(8))?;
        let pixels = some.all(DType::F32)?;
        let known = judge.accuracy(&pixels, some.labels().unwrap_or_default())?;
        Ok((known, judge.frechet_distance(&held_out, &pixels)?))
    };
    let (known, distance) = judged(false)?;
    let (reference, other) = judged(true)?;
    // Taught on the first 20 000, which are two of the three classes, it knows 0.667 of them.
    assert!(known > 0.99 && (known - reference).abs() < 0.01, "{known} and {reference}");
    // Of two trainings one distance is up to 0.15 further than the other; a judge that knows two
    // classes of three gives less than half of it.
    assert!((distance / other - 1.0).abs() < 0.25, "{distance} and {other}");
    Ok(())
}

#[test]
fn the_judge_of_the_digits_is_taught_on_all_of_them_in_their_order() -> Result<()> {
    let digits = Dataset::find("digits")?.split("train")?;
    let (all, labels) = (digits.all(DType::F32)?, digits.labels().unwrap_or_default());
    let config = ClassifierConfig { steps: 1000, ..ClassifierConfig::default() };
    let same = Classifier::train(&all, labels, 10, config, &Key::new(0).stream("judge"))?;
    // A hash of the weights is in the name.
    assert_eq!(evaluation_classifier(&digits)?.features(), same.features());
    Ok(())
}

#[test]
fn from_data_in_class_order_takes_all_classes() -> Result<()> {
    let folder = Folder::new("ordered")?;
    let labels = digits(DType::F32, &Device::Cpu)?.train_labels;
    let mut rows: Vec<u32> = (0..labels.len() as u32).collect();
    rows.sort_by_key(|row| labels[*row as usize]);
    let data = format!("{{ name = 'images', of = '{}' }}", own(&folder, &rows)?);
    let teacher = by_pixels(TEACHER).replace(r#"{ name = "digits" }"#, &data);
    folder.put("teacher", &teacher.replace("from_data = [0.8]", "from_data = [0.01]"))?;
    let rows = reproduce("teacher", &folder.options(), &mut |_| {})?;
    // An image under that little noise stays what it is, so 120 of them vary as all do.
    for row in rows.iter().filter(|row| row.sampler.contains("from data")) {
        if row.metric == "variance over the data's" {
            assert!((row.value - 1.0).abs() < 0.05, "{row:?}");
        }
    }
    Ok(())
}

// The record in `folder` as it was before it said what its numbers are from.
fn made_earlier(folder: &Path) -> Result<()> {
    let path = folder.join("results.parquet");
    let mut table = ParquetReader::new(File::open(&path)?).finish()?;
    for column in ["judge", "reference"] {
        table = table.drop(column)?;
    }
    ParquetWriter::new(File::create(&path)?).finish(&mut table)?;
    Ok(())
}

fn at_commit(row: &Row) -> Row {
    let mut row = row.clone();
    row.provenance.commit = COMMIT.to_string();
    row
}

#[test]
fn a_record_says_what_its_numbers_are_from_and_an_earlier_one_is_read() -> Result<()> {
    let folder = Folder::new("reference")?;
    folder.put("teacher", TEACHER)?;
    std::fs::write(folder.0.join("published.csv"), PUBLISHED)?;
    let path = folder.0.join("teacher");
    let seed = |seed: u64| Options { seeds: vec![seed], ..folder.options() };
    let rows = reproduce("teacher", &seed(0), &mut |_| {})?;
    let digits = Dataset::find("digits")?.split("train")?;
    let hash = digits.hash_of(&(0..1347).collect::<Vec<_>>())?;
    let all = format!("train, 1347 of 1347, {hash}");
    for row in &rows {
        assert_eq!(row.reference.as_ref(), Some(&all), "{}", row.metric);
        let judge = row.judge.as_deref().unwrap_or_default();
        match row.metric.contains("classifier") {
            true => assert!(
                judge.starts_with("classifier ") && judge.ends_with(&format!("taught on {all}")),
                "{judge}"
            ),
            false => assert_eq!(judge, "pixels"),
        }
    }
    let csv = std::fs::read_to_string(path.join("results.csv"))?;
    assert!(csv.lines().next().is_some_and(|head| head.ends_with("value,judge,reference")));
    assert!(csv.contains(&format!("\"{all}\"")), "{csv}");
    let of = |text: &str| text.matches("; reference train, 1347 of 1347").count();
    let not_recorded = |text: &str| text.contains("; reference not recorded");
    let page = folder.report()?.markdown();
    assert!(of(&page) > 0 && !not_recorded(&page), "{page}");

    // What was recorded before is the same but for that, and stays when more comes.
    made_earlier(&path)?;
    let earlier: Vec<Row> =
        rows.iter().map(|row| Row { judge: None, reference: None, ..at_commit(row) }).collect();
    assert_eq!(read_results(&path)?, earlier);
    // All judges took all of so few images: there is nothing to say.
    let page = folder.report()?.markdown();
    assert!(of(&page) == 0 && !not_recorded(&page), "{page}");
    let more = reproduce("teacher", &seed(1), &mut |_| {})?;
    assert_eq!(read_results(&path)?, [earlier, more].concat());
    Ok(())
}

#[test]
fn an_earlier_record_of_more_images_than_its_judge_took_is_marked() -> Result<()> {
    let folder = Folder::new("unknown")?;
    // Of a file of one's own nobody knows how many there were.
    let data = format!("{{ name = 'images', of = '{}' }}", own(&folder, &[0, 1, 2, 3, 4, 5])?);
    folder.put("teacher", &by_pixels(TEACHER).replace(r#"{ name = "digits" }"#, &data))?;
    std::fs::write(folder.0.join("published.csv"), PUBLISHED)?;
    reproduce("teacher", &folder.options(), &mut |_| {})?;
    let marked =
        || -> Result<bool> { Ok(folder.report()?.markdown().contains("; reference not recorded")) };
    assert!(!marked()?);
    made_earlier(&folder.0.join("teacher"))?;
    assert!(marked()?);
    Ok(())
}

#[test]
fn the_records_of_the_project_are_read() -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../reproductions");
    let mut recorded = 0;
    for name in Reproduction::names(&folder)? {
        let rows = read_results(&folder.join(&name))?;
        recorded += usize::from(!rows.is_empty());
        assert!(rows.iter().all(|row| row.value.is_finite() && !row.metric.is_empty()), "{name}");
        // The report would leave them out.
        let clean = |row: &Row| !row.provenance.has_uncommitted_changes();
        assert!(rows.iter().all(clean), "{name}: measured with uncommitted changes");
    }
    assert!(recorded >= 9, "{recorded} reproductions have records");
    Ok(())
}

#[test]
fn a_part_of_a_dataset_never_stands_beside_published_numbers() -> Result<()> {
    let folder = Folder::new("a part")?;
    let published = "dataset,group,method,nfe,fid,is,precision,recall\n\
                     fashion-10k,direct generation,CT,1,3.21,,,\n";
    std::fs::write(folder.0.join("published.csv"), published)?;
    for (name, limit) in [("whole", ""), ("part", ", limit = 120")] {
        folder.put(
            name,
            &format!(
                "title = 'A {name}'\nseeds = [0]\n\
                 published = {{ dataset = 'fashion-10k', method = 'CT' }}\n\
                 evaluate = {{ samples = 120, taus = [[]], by = ['pixels'] }}\n[experiment]\n\
                 data = {{ name = 'images', of = 'fashion_10k'{limit} }}\n\
                 network = {{ kind = 'mlp', width = 16, blocks = 1 }}\n\
                 method = {{ kind = 'consistency-training', schedule = {{ s0 = 2, s1 = 4, mu0 = 0.9 }} }}\n\
                 training = {{ iterations = 2, batch = 8 }}\n"
            ),
        )?;
        reproduce(name, &folder.options(), &mut |_| {})?;
        // As if the number were a FID, whose network is not to be had here.
        let path = folder.0.join(name).join("results.parquet");
        let mut table = ParquetReader::new(File::open(&path)?).finish()?;
        let metrics = table.column("metric")?.str()?.iter();
        let as_fid = |metric: Option<&str>| match metric {
            Some("Frechet distance on pixels") => "FID".to_string(),
            other => other.unwrap_or_default().to_string(),
        };
        let metrics: Vec<String> = metrics.map(as_fid).collect();
        table.with_column(Column::new("metric".into(), metrics))?;
        ParquetWriter::new(File::create(&path)?).finish(&mut table)?;
    }
    let page = folder.report()?.markdown();
    let beside = |name: &str| {
        let row = page.lines().find(|line| line.contains(&format!("| {name} | one step |")));
        row.map(|row| row.contains("not run"))
    };
    assert_eq!((beside("whole"), beside("part")), (Some(false), Some(true)), "{page}");
    // It is measured all the same, and stands among our own.
    assert!(page.contains("| part: A part | one step | 1 |"), "{page}");
    Ok(())
}
