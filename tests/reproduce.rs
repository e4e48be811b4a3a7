//! Promise: a reproduction gives the numbers that it gave before, and its report says them.

use consistency::reproduce::{
    Effort, Options, Reproduction, interval, read_results, report, reproduce,
};
use consistency::{Result, ensure};
use std::path::{Path, PathBuf};

const TEACHER: &str = r#"
title = "A teacher"
seeds = [0, 1]
evaluate = { samples = 120, points = [5] }

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
evaluate = { samples = 120, taus = [[], [0.8]] }

[experiment]
data = { name = "digits" }
network = { kind = "mlp", width = 16, blocks = 1 }
method = { kind = "distillation", points = 9, mu = 0.5 }
training = { iterations = 20, batch = 8 }
"#;

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
            effort: Effort::Full,
            device: "cpu".to_string(),
            seeds: Vec::new(),
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
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
    // Two seeds by one and by two steps; each seed has a teacher of its own.
    assert_eq!(first.len(), 4);
    assert_eq!(first.iter().map(|row| row.nfe).collect::<Vec<_>>(), [1, 2, 1, 2]);
    assert!(said.iter().any(|line| line.starts_with("teacher, seed 1: 20 steps")), "{said:?}");
    assert!(folder.0.join("student/2-steps-1.png").is_file());
    let kept = read_results(&folder.0.join("student"))?;
    assert_eq!(kept, first);
    assert_ne!(first[0].value, first[2].value, "two seeds gave one number");

    // Again from nothing, and again with what is there: the same rows, none of them twice.
    std::fs::remove_dir_all(folder.0.join("runs"))?;
    for _ in 0..2 {
        assert_eq!(reproduce("student", &folder.options(), &mut |_| {})?, first);
        assert_eq!(read_results(&folder.0.join("student"))?.len(), 4);
    }

    std::fs::write(
        folder.0.join("published.csv"),
        "dataset,group,method,nfe,fid,is,precision,recall\ncifar10,distillation,CD,1,3.55,9.48,,\n",
    )?;
    let text = report(&folder.0)?;
    let (mean, half) = interval(&[first[0].value, first[2].value]);
    let number =
        format!("| one step | 1 | {mean:.3} +- {:.3} | 20 | 120 | cpu |", half.unwrap_or(f64::NAN));
    assert!(text.contains(&number), "{number}\n{text}");
    assert!(text.contains("`cargo lab reproduce student --budget full --seeds 0,1`"), "{text}");
    assert!(text.contains("| teacher: A teacher | not run |"), "{text}");
    assert!(text.contains("| distillation | CD | 1 | 3.55 | 9.48 |  |  |"), "{text}");
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
        ("named", TEACHER.replace("data =", "name = \"x\"\ndata ="), "experiment.name: it comes"),
        (
            "empty",
            TEACHER.replace("points = [5]", "points = []"),
            "give taus (a consistency model)",
        ),
        ("seedless", TEACHER.replace("[0, 1]", "[]"), "seeds = []"),
        ("odd", TEACHER.replace("width = 16", "widht = 16"), "widht"),
        (
            "kind",
            TEACHER.replace("points = [5]", "taus = [[]]"),
            "evaluate.taus: for a consistency model",
        ),
        ("self", STUDENT.replace("\"teacher\"", "\"self\""), "self is its own teacher"),
    ] {
        folder.put(name, &text)?;
        let got = message(reproduce(name, &folder.options(), &mut |_| {}));
        assert!(got.contains(words), "{name}: {got}");
    }
    Ok(())
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
            let of = |r: &Reproduction| r.experiment(0, Effort::Full, "cpu", Some("t"));
            let (a, b) = (of(&read)?, of(&teacher)?);
            assert_eq!((&a.network, &a.data, a.sigma_data), (&b.network, &b.data, b.sigma_data));
        }
    }
    Ok(())
}
