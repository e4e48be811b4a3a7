//! Promise: an error keeps its kind and its source behind its one message, on every way from where
//! it arose to the cell that asks.

use super::{Folder, GOOD, run};
use candle_core::{Device, Tensor};
use consistency::data::Dataset;
use consistency::experiment::{Experiment, Monitor, RunFolder, train};
use consistency::model::Pretrained;
use consistency::{Context, Error, Result, ensure};
use std::error::Error as _;
use std::io;
use std::path::Path;

type Ask = fn(&Error) -> bool;

const ALL: [(&str, Ask); 4] = [
    ("not found", Error::is_not_found),
    ("offline", Error::is_offline),
    ("stopped", Error::is_stopped),
    ("diverged", Error::is_diverged),
];

// The kinds of an error, which are one or none.
fn kinds(error: &Error) -> Vec<&'static str> {
    ALL.iter().filter(|(_, is)| is(error)).map(|(name, _)| *name).collect()
}

fn kinds_of<T>(result: Result<T>) -> Result<Vec<&'static str>> {
    match result {
        Ok(_) => Err(Error::new("no error at all")),
        Err(error) => Ok(kinds(&error)),
    }
}

#[test]
fn a_kind_stays_through_context_and_other_libraries() {
    let made = [
        (Error::not_found("m"), vec!["not found"]),
        (Error::offline("m"), vec!["offline"]),
        (Error::stopped("m"), vec!["stopped"]),
        (Error::diverged("m"), vec!["diverged"]),
        (Error::new("m"), vec![]),
    ];
    for (error, want) in made {
        assert_eq!(kinds(&error), want);
        let error = error.context("a").reworded(|m| format!("{m}; b"));
        assert_eq!((error.to_string().as_str(), kinds(&error)), ("a: m; b", want.clone()));
        // There and back: as a custom operation's error comes through candle.
        let theirs = candle_core::Error::from(error);
        assert_eq!(theirs.to_string(), "a: m; b");
        let error = Error::from(theirs.bt()).context("c");
        assert_eq!((error.to_string().as_str(), kinds(&error)), ("c: a: m; b", want));
        assert!(error.source().is_none(), "it was made here");
    }
}

#[test]
fn a_source_is_the_error_of_the_other_library() -> Result<()> {
    let read = std::fs::read("no-such-folder/file").context("a").context("b");
    let Err(error) = read else { return Err(Error::new("it was read")) };
    assert!(error.is_not_found());
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    assert_eq!(source.map(io::Error::kind), Some(io::ErrorKind::NotFound));
    assert_eq!(source.map(|source| format!("b: a: {source}")), Some(error.to_string()));

    // A file that cannot be read is there all the same.
    let denied = Error::from(io::Error::from(io::ErrorKind::PermissionDenied));
    assert!(kinds(&denied).is_empty() && denied.source().is_some());

    let zeros = |width: usize| Tensor::zeros((2, width), candle_core::DType::F32, &Device::Cpu);
    let Err(error) = (zeros(3)? + zeros(4)?).context("a sum") else {
        return Err(Error::new("shapes that differ were added"));
    };
    let source = error.source().and_then(|source| source.downcast_ref::<candle_core::Error>());
    let is = matches!(source, Some(candle_core::Error::ShapeMismatchBinaryOp { .. }));
    assert!(is && kinds(&error).is_empty(), "{source:?}");
    assert_eq!(source.map(|source| format!("a sum: {source}")), Some(error.to_string()));

    // Through candle a missing file is one too.
    let loaded = candle_core::safetensors::load("no-such-folder/file", &Device::Cpu);
    let Err(error) = loaded.context("weights") else { return Err(Error::new("it was read")) };
    assert!(error.is_not_found() && error.source().is_some_and(|source| source.is::<io::Error>()));
    Ok(())
}

#[test]
fn what_is_not_there_is_not_found() -> Result<()> {
    let nowhere = Path::new("no-such-folder");
    let with = |from: &str, to: &str| Experiment::parse(&GOOD.replace(from, to));
    let student = with(
        r#"{ kind = "score-matching" }"#,
        r#"{ kind = "distillation", teacher = "nobody", points = 8, mu = 0.0 }"#,
    )?;
    let folder = Folder::new("not-found")?;
    for (what, found) in [
        ("an experiment", kinds_of(Experiment::read(nowhere.join("a.toml")))?),
        ("a run", kinds_of(RunFolder::open(nowhere))?),
        ("a teacher", kinds_of(run(&student, &folder.0))?),
        ("a dataset", kinds_of(Dataset::find("no-such-dataset"))?),
        ("a model", kinds_of(Pretrained::open("./no-such-folder"))?),
    ] {
        assert_eq!(found, ["not found"], "{what}");
    }
    // A value that makes no sense is for a person to mend.
    assert!(kinds_of(with("batch = 8", "batch = 0"))?.is_empty());
    Ok(())
}

#[test]
fn a_run_says_whether_it_diverged_or_was_stopped() -> Result<()> {
    let folder = Folder::new("kinds")?;
    let with = |optimizer: &str| {
        let optimizer = format!("optimizer = {{ {optimizer} }}\ntraining = {{");
        Experiment::parse(&GOOD.replace("training = {", &optimizer))
    };
    // A loss far above the first, and a gradient that is not finite.
    for optimizer in ["learning_rate = 3.0", "kind = \"adam\", learning_rate = 1e30"] {
        assert_eq!(kinds_of(run(&with(optimizer)?, &folder.0))?, ["diverged"], "{optimizer}");
    }
    let experiment = Experiment::parse(GOOD)?;
    let monitor = Monitor::default();
    monitor.stop();
    let ended = match train(&experiment, &folder.0, &monitor, 1) {
        Err(error) if error.is_stopped() => error.to_string(),
        Err(error) => return Err(error),
        Ok(_) => return Err(Error::new("it went on")),
    };
    assert_eq!(ended, "test was stopped at step 1 of 20; it resumes there");
    ensure!(run(&experiment, &folder.0).is_ok(), "it does not resume");
    Ok(())
}
