//! Promise: a reproduction gives the numbers that it gave before, and its report says them.

mod held_out;
mod reference;
mod shipped;

use candle_core::{DType, Device};
use consistency::data::{digits, read_frame, select};
use consistency::model::NetworkConfig;
use consistency::record::Budget;
use consistency::reproduce::{
    Options, Report, Reproduction, interval, read_results, report, reproduce,
};
use consistency::{Error, Result, ensure};
use polars::prelude::{
    Column, DataFrame, IntoSeries, NamedFrom, ParquetWriter, Series, StructChunked,
};
use std::path::{Path, PathBuf};

const TEACHER: &str = r#"
title = "A teacher"
seeds = [0, 1]
evaluate = { samples = 120, points = [5], again = [0.8], from_data = [0.8], solvers = [{ sampler = { kind = "ancestral" }, points = 9 }] }

[experiment]
data = { name = "digits" }
network = { kind = "mlp", width = 16, blocks = 1 }
method = { kind = "score-matching" }
training = { iterations = 20, batch = 8 }
"#;

const STUDENT: &str = r#"
title = "A student"
seeds = [0, 1]
teacher = "teacher"
evaluate = { samples = 120, taus = [[], [0.8]], from_data = [0.8] }

[experiment]
data = { name = "digits" }
network = { kind = "mlp", width = 16, blocks = 1 }
method = { kind = "distillation", points = 9, mu = 0.5 }
training = { iterations = 20, batch = 8 }
"#;

const VARIANTS: &str = r#"
[variants.euler]
title = "By Euler"
experiment.method.solver = "euler"
[variants.n-5]
title = "N = 5"
experiment.method.points = 5
[variants.n-17]
title = "N = 17"
experiment.method.points = 17
[variants.small]
reduced = true
title = "A smaller student"
evaluate.samples = 110
"#;

const PUBLISHED: &str =
    "dataset,group,method,nfe,fid,is,precision,recall\ncifar10,distillation,CD,1,3.55,9.48,,\n";

/// The commit of records that the report takes.
const COMMIT: &str = "0123456789ab";

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("reproduce-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    fn put(&self, name: &str, text: &str) -> Result<()> {
        std::fs::create_dir_all(self.0.join(name))?;
        Ok(std::fs::write(self.0.join(name).join("experiment.toml"), text)?)
    }

    fn options(&self) -> Options {
        Options {
            folder: self.0.clone(),
            runs: self.0.join("runs"),
            budget: Budget::Full,
            device: "cpu".to_string(),
            seeds: Vec::new(),
            weights: None,
        }
    }

    /// As if all that is recorded here had been measured at `commit`: while one works on the
    /// library, the commit of a record says that files differ, and the report leaves it out.
    fn measured_at(&self, commit: &str) -> Result<()> {
        for entry in std::fs::read_dir(&self.0)? {
            let path = entry?.path().join("results.parquet");
            if path.is_file() {
                let mut table = read_frame(&path)?;
                table.with_column(Column::new("commit".into(), vec![commit; table.height()]))?;
                ParquetWriter::new(std::fs::File::create(&path)?).finish(&mut table)?;
            }
        }
        Ok(())
    }

    fn report(&self) -> Result<Report> {
        self.measured_at(COMMIT)?;
        report(&self.0)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

// A classifier takes a second to train, and most tests are of something else.
fn by_pixels(text: &str) -> String {
    text.replace("evaluate = {", "evaluate = { by = ['pixels'],")
}

fn said(error: impl std::fmt::Display) -> Error {
    Error::new(error.to_string())
}

fn message<T>(result: Result<T>) -> String {
    result.err().map_or_else(|| "no error".to_string(), |error| error.to_string())
}

#[test]
fn the_same_command_gives_the_same_numbers_and_the_report_says_them() -> Result<()> {
    let folder = Folder::new("numbers")?;
    folder.put("teacher", TEACHER)?;
    folder.put("student", STUDENT)?;
    let mut said = Vec::new();
    let first = reproduce("student", &folder.options(), &mut |line| said.push(line))?;
    // Two seeds, three kinds of sampling, three numbers; each seed has a teacher of its own.
    assert_eq!(first.len(), 18);
    assert_eq!(
        first.iter().map(|row| row.nfe).collect::<Vec<_>>()[..9],
        [1, 1, 1, 2, 2, 2, 1, 1, 1]
    );
    assert!(said.iter().any(|line| line.starts_with("teacher, seed 1: 20 steps")), "{said:?}");
    assert!(folder.0.join("student/2-steps-tau-0.8-1.png").is_file());
    let kept = read_results(&folder.0.join("student"))?;
    assert_eq!(kept, first);
    assert_ne!(first[0].value, first[9].value, "two seeds gave one number");

    // Again from nothing, and again with what is there: the same rows, none of them twice.
    std::fs::remove_dir_all(folder.0.join("runs"))?;
    for _ in 0..2 {
        assert_eq!(reproduce("student", &folder.options(), &mut |_| {})?, first);
        assert_eq!(read_results(&folder.0.join("student"))?.len(), 18);
    }

    std::fs::write(folder.0.join("published.csv"), PUBLISHED)?;
    let page = folder.report()?;
    let text = page.markdown();
    // The first metric of the table is the classifier's; of the rows, the pixels'.
    let (mean, half) = interval(&[first[2].value, first[11].value]);
    let number = format!("{mean:.3} ± {:.3}", half.unwrap_or(f64::NAN));
    let row = text.lines().find(|line| line.starts_with("| student: A student | one step | 1 |"));
    assert!(row.is_some_and(|row| row.contains(&number)), "{number}\n{text}");
    assert!(text.contains("`cargo lab reproduce student --budget full --seeds 0,1`"), "{text}");
    let not_run = text.lines().find(|line| line.starts_with("| teacher: A teacher |"));
    assert!(not_run.is_some_and(|line| line.contains("not run")), "{text}");
    assert!(text.contains("| distillation | CD | 1 | 3.55 | 9.48 |"), "{text}");
    // Measured with files that differ from their commit, it would not be there.
    folder.measured_at("0123456789ab+")?;
    let refused = report(&folder.0)?;
    let said = "18 rows of `student`, measured with uncommitted changes under `crate/`";
    assert!(refused.left_out().iter().any(|what| what.starts_with(said)), "{refused:?}");
    let text = refused.markdown();
    assert!(text.contains(said) && !text.contains(&number), "{text}");
    // The page for a browser has the same number, the samples inside, and loads nothing.
    let html = page.html();
    assert!(html.contains(&number), "{number}\n{html}");
    assert!(html.contains("data:image/png;base64,"), "no picture");
    assert!(!html.contains("src=\"http") && !html.contains("<script"), "it loads something");
    Ok(())
}

#[test]
fn where_all_before_was_right_the_last_step_is_nearest() -> Result<()> {
    // From the data, with little noise, even an untrained network gives the data again.
    let folder = Folder::new("from-data")?;
    folder.put("teacher", &by_pixels(&TEACHER.replace("[0.8]", "[0.01, 0.8]")))?;
    let rows = reproduce("teacher", &folder.options(), &mut |_| {})?;
    let of = |sampler: &str| -> Result<f64> {
        let row = rows.iter().find(|r| r.sampler == sampler && r.metric.ends_with("pixels"));
        row.map(|row| row.value).ok_or_else(|| Error::new(format!("no {sampler}")))
    };
    let near = of("from data, tau 0.01, Heun, 5 points")?;
    let far = of("from data, tau 0.8, Heun, 5 points")?;
    let all = of("Heun, 5 points")?;
    assert!(of("ancestral, 9 points")?.is_finite());
    assert!(near < far && far < all, "{near} {far} {all}");
    // A sample that is all but untouched stays what it was.
    let again = of("Heun, 5 points, again from tau 0.01")?;
    assert!((again / all - 1.0).abs() < 0.05, "{again} {all}");
    // Nothing is lost of an image that is all but untouched.
    let kept = rows.iter().find(|r| r.sampler.contains("0.01,") && r.metric.contains("variance"));
    assert!(kept.is_some_and(|row| (row.value - 1.0).abs() < 0.1), "{kept:?}");
    // The grid of 5 has one point below 0.01 and two below 0.8: a step each, of two evaluations.
    for row in &rows {
        let whole = if row.sampler.contains("from data") { 0 } else { 8 };
        let below = match row.sampler.as_str() {
            at if at.contains("tau 0.01") => 2,
            at if at.contains("tau 0.8") => 4,
            _ => 0,
        };
        assert_eq!(row.nfe, whole + below, "{}", row.sampler);
    }
    Ok(())
}

#[test]
fn variants_are_ablations_or_of_reduced_size() -> Result<()> {
    let folder = Folder::new("variants")?;
    folder.put("teacher", TEACHER)?;
    folder.put("student", &(by_pixels(STUDENT) + VARIANTS))?;
    std::fs::write(folder.0.join("published.csv"), PUBLISHED)?;
    let base = Reproduction::read(&folder.0, "student")?;
    assert_eq!(base.variants(), ["euler", "n-17", "n-5", "small"].map(|v| format!("student.{v}")));
    let sweeps = base.sweeps();
    assert_eq!(sweeps.len(), 1, "{sweeps:?}");
    assert_eq!((sweeps[0].path.as_str(), sweeps[0].here), ("method.points", 9.0));
    for name in base.variants() {
        assert_eq!(reproduce(&name, &folder.options(), &mut |_| {})?.len(), 12);
    }
    let path = folder.0.join("student");
    assert!(path.join("small-one-step-0.png").is_file(), "no picture of the reduced one");
    assert!(!path.join("one-step-0.png").exists(), "an ablation's picture in the place of another");
    let page = folder.report()?.markdown();
    assert!(page.contains("| student.small: A smaller student | one step | 1 |"), "{page}");
    assert!(!page.contains("| small: "), "a reduced one among the ablations");
    // Without the reproduction itself there is nothing that they could be compared with.
    assert!(!folder.0.join("figures").exists());
    reproduce("student", &folder.options(), &mut |_| {})?;
    let pages = folder.report()?.write(&folder.0)?;
    assert!(pages.iter().all(|page| page.is_file()));
    assert!(folder.0.join("figures/ablation-student.png").is_file());
    let card = std::fs::read_to_string(path.join("model-card-small.md"))?;
    assert!(
        card.contains("# student.small") && card.contains("by distillation of `teacher`"),
        "{card}"
    );
    let got = message(Reproduction::read(&folder.0, "student.heun"));
    assert!(got.contains("no variant 'heun'; there are euler"), "{got}");
    Ok(())
}

// Digits as a file of one's own, whose images are PNG and have classes: these rows of the digits.
fn own(folder: &Folder, rows: &[u32]) -> Result<String> {
    let digits = digits(DType::F32, &Device::Cpu)?;
    let images = select(&digits.train, rows)?;
    let images = ((images + 1.0)? * 127.5)?.round()?.to_dtype(DType::U8)?;
    let files = images.flatten_from(1)?.to_vec2::<u8>()?;
    let files: Vec<Vec<u8>> = files
        .iter()
        .map(|pixels| {
            let mut bytes = Vec::new();
            let mut encoder = png::Encoder::new(&mut bytes, 8, 8);
            encoder.set_color(png::ColorType::Grayscale);
            let mut writer = encoder.write_header().map_err(said)?;
            writer.write_image_data(pixels).map_err(said)?;
            drop(writer);
            Ok(bytes)
        })
        .collect::<Result<_>>()?;
    let label = |row: &u32| i64::from(digits.train_labels[*row as usize]);
    let labels: Vec<i64> = rows.iter().map(label).collect();
    let count = rows.len();
    let bytes = Series::new("bytes".into(), files.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let images = StructChunked::from_series("image".into(), count, [bytes].iter())?.into_series();
    let mut table =
        DataFrame::new(count, vec![images.into(), Column::new("label".into(), labels)])?;
    let path = folder.0.join("own.parquet");
    ParquetWriter::new(std::fs::File::create(&path)?).finish(&mut table)?;
    Ok(path.display().to_string())
}

#[test]
fn a_network_that_is_told_classes_is_sampled_with_them() -> Result<()> {
    let folder = Folder::new("classes")?;
    let network = r#"{ kind = "unet", block_out_channels = [8], layers_per_block = 1, norm_num_groups = 4, attention_head_dim = 8, num_class_embeds = 10, down_block_types = ["DownBlock2D"], up_block_types = ["UpBlock2D"] }"#;
    let told = TEACHER
        .replace(r#"{ kind = "mlp", width = 16, blocks = 1 }"#, network)
        .replace(
            r#"{ name = "digits" }"#,
            &format!(
                "{{ name = 'images', of = '{}' }}",
                own(&folder, &(0..300).collect::<Vec<_>>())?
            ),
        )
        .replace("[0, 1]", "[0]");
    let told = by_pixels(&told);
    folder.put("told", &told)?;
    let rows = reproduce("told", &folder.options(), &mut |_| {})?;
    assert!(!rows.is_empty() && rows.iter().all(|row| row.value.is_finite()), "{rows:?}");
    // Data of another name are not those that it is of.
    folder.put("jpeg", &told.replace("seeds =", "dataset = \"own-jpeg\"\nseeds ="))?;
    let got = message(reproduce("jpeg", &folder.options(), &mut |_| {}));
    assert!(
        got.contains("an experiment on the dataset 'own-jpeg', but what was read is 'own'"),
        "{got}"
    );
    Ok(())
}

#[test]
fn an_interval_is_students() {
    // 1, 2, 3: mean 2, deviation 1, 4.303 / sqrt(3).
    let (mean, half) = interval(&[1.0, 2.0, 3.0]);
    assert_eq!(mean, 2.0);
    assert!((half.unwrap_or(f64::NAN) - 2.48434).abs() < 1e-4, "{half:?}");
    assert_eq!(interval(&[5.0]), (5.0, None));
}

#[test]
fn what_makes_no_sense_is_refused() -> Result<()> {
    let folder = Folder::new("refused")?;
    folder.put("teacher", TEACHER)?;
    let got = message(Reproduction::read(&folder.0, "tacher"));
    assert!(got.contains("no reproduction 'tacher'; there are teacher"), "{got}");
    for (name, text, words) in [
        (
            "named",
            TEACHER.replace("data = {", "name = \"x\"\ndata = {"),
            "experiment.name: it comes",
        ),
        (
            "empty",
            STUDENT.replace("taus = ", "from_data = [0.8] } # "),
            "give taus (a consistency model, a map",
        ),
        ("seedless", TEACHER.replace("[0, 1]", "[]"), "seeds = []"),
        ("odd", TEACHER.replace("width = 16", "widht = 16"), "widht"),
        (
            "kind",
            TEACHER.replace("points = [5], again = [0.8]", "taus = [[]]"),
            "evaluate: 'one step' is not for a denoiser, which denoising score matching gives",
        ),
        (
            "steps",
            STUDENT
                .replace("points = 9, mu = 0.5", "points = 9")
                .replace("kind = \"distillation\"", "kind = \"knowledge-distillation\""),
            "evaluate: '2 steps, tau 0.8' is not for a generator, which knowledge distillation",
        ),
        (
            "gammas",
            STUDENT.replace("taus =", "gammas = [0.0], taus ="),
            "evaluate: '2 steps, tau 0.8, gamma 0' is not for a consistency model",
        ),
        (
            "again",
            STUDENT.replace("taus =", "again = [0.8], taus ="),
            "evaluate.again: give evaluate.points",
        ),
        ("self", STUDENT.replace("\"teacher\"", "\"self\""), "self is its own teacher"),
    ] {
        folder.put(name, &text)?;
        let got = message(reproduce(name, &folder.options(), &mut |_| {}));
        assert!(got.contains(words), "{name}: {got}");
    }
    Ok(())
}

/// A generator and a map between two noise levels are sampled, judged and reported as all others.
#[test]
fn whatever_a_run_gives_is_sampled_and_judged() -> Result<()> {
    let folder = Folder::new("gives")?;
    folder.put("teacher", &by_pixels(TEACHER))?;
    let student = |evaluate: &str, method: &str| {
        by_pixels(STUDENT)
            .replace("[0, 1]", "[0]")
            .replace("taus = [[], [0.8]], from_data = [0.8]", evaluate)
            .replace("kind = \"distillation\", points = 9, mu = 0.5", method)
    };
    let kd = student("taus = [[]]", "kind = \"knowledge-distillation\", points = 4");
    folder.put("kd", &kd)?;
    let map = "taus = [[], [0.8]], gammas = [0.0, 0.5], from_data = [0.8]";
    let map = student(map, "kind = \"consistency-trajectory\", points = 4, mu = 0.5");
    folder.put("ctm", &map)?;
    let of = |name: &str| -> Result<Vec<(String, u64, f64)>> {
        let rows = reproduce(name, &folder.options(), &mut |_| {})?;
        let variances = rows.into_iter().filter(|row| row.metric.starts_with("variance"));
        Ok(variances.map(|row| (row.sampler, row.nfe, row.value)).collect())
    };
    let names = |rows: &[(String, u64, f64)]| -> Vec<(String, u64)> {
        rows.iter().map(|(name, nfe, _)| (name.clone(), *nfe)).collect()
    };
    assert_eq!(names(&of("kd")?), [("one step".to_string(), 1)]);
    let rows = of("ctm")?;
    let wanted = [
        ("one step", 1),
        ("2 steps, tau 0.8", 2),
        ("2 steps, tau 0.8, gamma 0", 2),
        ("2 steps, tau 0.8, gamma 0.5", 2),
        ("from data, tau 0.8", 1),
    ];
    assert_eq!(names(&rows), wanted.map(|(name, nfe)| (name.to_string(), nfe)));
    // Each is another set of samples.
    for (i, (name, _, value)) in rows.iter().enumerate() {
        assert!(rows[..i].iter().all(|(_, _, other)| other != value), "{name}: {value}");
    }
    std::fs::write(folder.0.join("published.csv"), PUBLISHED)?;
    let text = folder.report()?.markdown();
    assert!(text.contains("2 steps, tau 0.8, gamma 0.5"), "{text}");
    Ok(())
}

// Whatever of a network says which weights it has: all but dropout.
fn weights(network: &NetworkConfig) -> Result<serde_json::Value> {
    let mut all = serde_json::to_value(network).map_err(said)?;
    if let Some(fields) = all.as_object_mut() {
        fields.remove("dropout");
    }
    Ok(all)
}

#[test]
fn every_reproduction_of_the_project_is_one() -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../reproductions");
    let names = Reproduction::names(&folder)?;
    ensure!(names.len() >= 6, "{names:?}");
    for name in &names {
        let read = Reproduction::read(&folder, name)?;
        if let Some(teacher) = &read.teacher {
            // A student starts from its teacher's weights: the networks must be alike.
            let teacher = Reproduction::read(&folder, teacher)?;
            let of = |r: &Reproduction| r.experiment(0, Budget::Full, "cuda", Some("t"));
            let (a, b) = (of(&read)?, of(&teacher)?);
            assert_eq!((&a.data, a.sigma_data), (&b.data, b.sigma_data), "{name}");
            assert_eq!(weights(&a.network)?, weights(&b.network)?, "{name}");
        }
    }
    Ok(())
}
