//! Promise: the paper's experiments have the paper's values.

use consistency::experiment::Experiment;
use consistency::method::MethodConfig;
use consistency::process::NoiseRange;
use consistency::record::Budget;
use consistency::reproduce::{Reproduction, paper, published};
use consistency::{Error, Result};
use std::path::PathBuf;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../reproductions")
}

fn full(name: &str) -> Result<(Reproduction, Experiment)> {
    let read = Reproduction::read(&folder(), name)?;
    let experiment = read.experiment(0, Budget::Full, "cuda", Some("a-teacher"))?;
    Ok((read, experiment))
}

fn message<T>(result: Result<T>) -> String {
    result.err().map_or_else(|| "no error".to_string(), |error| error.to_string())
}

#[test]
fn every_reproduction_and_variant_reads() -> Result<()> {
    for name in Reproduction::names(&folder())? {
        let (read, _) = full(&name)?;
        for variant in read.variants() {
            full(&variant)?;
        }
        if let Some(teacher) = &read.teacher {
            let (teacher, _) = full(teacher)?;
            assert!(!teacher.evaluate.points.is_empty(), "{name}: its teacher is none");
        }
    }
    Ok(())
}

/// Name; learning rate, batch, iterations, decay rate of the average: table 3 of the paper.
const TRAINING: [(&str, f64, usize, u64, f64); 8] = [
    ("cifar10-cd", 4e-4, 512, 800_000, 0.9999),
    ("cifar10-ct", 4e-4, 512, 800_000, 0.9999),
    ("imagenet64-cd", 8e-6, 2048, 600_000, 0.999943),
    ("imagenet64-ct", 8e-6, 2048, 800_000, 0.999943),
    ("lsun-bedroom-cd", 1e-5, 2048, 600_000, 0.0),
    ("lsun-bedroom-ct", 1e-5, 2048, 1_000_000, 0.999943),
    ("lsun-cat-cd", 1e-5, 2048, 600_000, 0.999943),
    ("lsun-cat-ct", 1e-5, 2048, 1_000_000, 0.999943),
];

#[test]
fn hyper_parameters_are_those_of_table_3() -> Result<()> {
    for (name, rate, batch, iterations, ema) in TRAINING {
        let (read, experiment) = full(name)?;
        let training = &experiment.training;
        assert_eq!(experiment.optimizer.learning_rate, rate, "{name}");
        assert_eq!((training.batch, training.iterations), (batch, iterations), "{name}");
        assert!((training.ema.all()[0] - ema).abs() < 1e-6, "{name}: {:?}", training.ema);
        assert_eq!(experiment.noise, NoiseRange::default(), "{name}");
        assert_eq!((read.evaluate.samples, experiment.sigma_data), (50_000, 0.5), "{name}");
        let small = !name.starts_with("lsun");
        let (mu_or_mu0, count, lpips) = match &experiment.method {
            MethodConfig::Distillation(cd) => (cd.mu, cd.points, &cd.lpips),
            MethodConfig::ConsistencyTraining(ct) => {
                assert_eq!(ct.schedule.s0, 2, "{name}");
                (ct.schedule.mu0, ct.schedule.points(iterations, iterations), &ct.lpips)
            }
            _ => {
                return Err(Error::new(format!("{name} is no consistency model")));
            }
        };
        let want = match name {
            "cifar10-cd" => (0.0, 18),
            "cifar10-ct" => (0.9, 151),
            "imagenet64-ct" => (0.95, 201),
            _ if name.ends_with("-cd") => (0.95, 40),
            _ => (0.95, 151),
        };
        assert_eq!((mu_or_mu0, count), want, "{name}");
        let Some(lpips) = lpips else { return Err(Error::new(format!("{name} has no LPIPS"))) };
        assert_eq!(lpips.side, small.then_some(224), "{name}");
    }
    Ok(())
}

#[test]
fn networks_have_the_papers_sizes() -> Result<()> {
    let sizes = [
        ("cifar10-cd", 3, 32, 56.4e6),
        ("imagenet64-ct", 3, 64, 295.9e6),
        ("lsun-cat-cd", 3, 256, 526.3e6),
    ];
    for (name, channels, side, parameters) in sizes {
        let (_, experiment) = full(name)?;
        let count = experiment.network.parameters(&[channels, side, side])?;
        assert!((count as f64 - parameters).abs() < 0.05e6, "{name} has {count} parameters");
    }
    Ok(())
}

#[test]
fn the_second_step_is_at_the_released_point_of_the_grid() -> Result<()> {
    let released = [
        ("cifar10-cd", 18, 11, 0.585),
        ("imagenet64-cd", 40, 22, 1.382),
        ("imagenet64-ct", 201, 106, 1.913),
        ("lsun-bedroom-cd", 40, 17, 4.366),
        ("lsun-bedroom-ct", 151, 67, 3.991),
        ("lsun-cat-ct", 151, 62, 5.249),
    ];
    for (name, points, from_t, rounded) in released {
        let (read, experiment) = full(name)?;
        let grid = experiment.noise.karras(points)?;
        let there = grid.times()[points - 1 - from_t];
        let [one, two] = read.evaluate.taus.as_slice() else {
            return Err(Error::new(format!("{name}: {:?}", read.evaluate.taus)));
        };
        assert!(one.is_empty() && two.len() == 1, "{name}");
        assert!((two[0] - there).abs() < 1e-9 && (there - rounded).abs() < 5e-4, "{name}: {there}");
    }
    Ok(())
}

#[test]
fn the_published_tables_have_our_commands_in_the_rows_of_the_paper() -> Result<()> {
    for (dataset, rows, commands) in
        [("cifar10", 36, 11), ("imagenet64", 10, 5), ("lsun-bedroom", 13, 5), ("lsun-cat", 11, 5)]
    {
        let table = published(&folder(), dataset)?;
        let by = table.column("made by")?;
        assert_eq!((table.height(), by.len() - by.null_count()), (rows, commands), "{dataset}");
        let fid = table.column("FID")?.f64()?.iter().flatten().count();
        assert_eq!(fid, rows, "{dataset}: a row without a FID");
    }
    Ok(())
}

#[test]
fn a_launch_line_says_what_it_has_otherwise() -> Result<()> {
    let ct = Reproduction::read(&folder(), "imagenet64-ct")?;
    let table = ct.differences("launch")?;
    let text = |name: &str| -> Result<Vec<Option<String>>> {
        Ok(table.column(name)?.str()?.iter().map(|v| v.map(String::from)).collect())
    };
    let paths = ["method.schedule.convention", "optimizer.learning_rate", "training.ema"];
    let paths = paths.map(|path| Some(format!("experiment.{path}")));
    assert_eq!(text("value")?, paths);
    let here = text("imagenet64-ct")?;
    assert_eq!((here[0].as_deref(), here[1].as_deref()), (None, Some("0.000008")));
    assert_eq!(text("launch")?[1].as_deref(), Some("0.0001"));
    let error = message(ct.differences("lunch"));
    assert!(error.contains("'lunch'") && error.contains("launch"), "{error}");
    Ok(())
}

#[test]
fn a_published_number_is_found_by_method_and_evaluations() -> Result<()> {
    let table = published(&folder(), "cifar10")?;
    for (method, nfe, fid) in [("CD", 1, 3.55), ("CD", 2, 2.93), ("CT", 1, 8.70), ("CT", 2, 5.83)] {
        assert_eq!(paper::fid(&table, method, nfe)?, fid, "{method} at {nfe}");
    }
    let error = message(paper::fid(&table, "CD", 3));
    assert!(error.contains("'CD' at 3"), "{error}");
    Ok(())
}
