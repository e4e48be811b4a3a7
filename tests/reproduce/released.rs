//! `cargo lab reproduce NAME --weights ID`: a released network is fetched, sampled and measured like
//! a run of ours, and never taken for one.

use super::server::{Reply, Request, Server};
use super::{Folder, Result, TEXT};
use consistency::reproduce::{Row, read_results};
use std::process::Command;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const EVALUATE: &str = "evaluate = { samples = 120, taus = [[], [0.8]], by = ['held-out'] }";

/// A Hub on the loopback whose repository `lab/tiny` is the folder `model`.
fn hub(folder: &Folder) -> Result<Server> {
    let model = folder.0.join("model");
    Ok(Server::new(move |request: &Request| {
        let path = request.path.strip_prefix("/lab/tiny/resolve/main/");
        let path = path.or(request.path.strip_prefix(&format!("/lab/tiny/resolve/{COMMIT}/")));
        match path.and_then(|name| Some((name, std::fs::read(model.join(name)).ok()?))) {
            Some((name, bytes)) => {
                let etag = format!("\"{}\"", name.replace('/', "-"));
                Reply::new(200, bytes).with("x-repo-commit", COMMIT).with("etag", &etag)
            }
            None => Reply::new(404, "no")
                .with("x-error-code", "EntryNotFound")
                .with("x-repo-commit", COMMIT),
        }
    })?)
}

fn put(folder: &Folder, name: &str, experiment: &str) -> Result {
    let path = folder.0.join("reproductions").join(name);
    std::fs::create_dir_all(&path)?;
    let experiment: String = experiment
        .lines()
        .filter(|line| !line.starts_with("name = "))
        .map(|line| format!("{line}\n"))
        .collect();
    let text = format!("title = 'Tiny'\nseeds = [0]\n{EVALUATE}\n[experiment]\n{experiment}");
    Ok(std::fs::write(path.join("experiment.toml"), text)?)
}

fn lab(folder: &Folder, hub: &Server, arguments: &[&str]) -> Result<(bool, String)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_consistency-cli"));
    for name in ["HF_HUB_OFFLINE", "HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE", "http_proxy"] {
        command.env_remove(name);
    }
    command.env("HF_ENDPOINT", hub.url()).env("HF_HOME", folder.0.join("hf"));
    command.env("LAB_PROJECT", &folder.0).env("LAB_RUNS", folder.0.join("runs"));
    let output = command.args(arguments).current_dir(&folder.0).output()?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8(said)?))
}

#[test]
fn a_released_network_is_measured_like_a_run_of_ours() -> Result {
    let folder = Folder::new("released")?;
    put(&folder, "tiny", TEXT)?;
    let at_commit = "dataset,group,method,nfe,fid,is,precision,recall\n\
                     cifar10,distillation,CD,1,3.55,9.48,,\n";
    std::fs::write(folder.0.join("reproductions/published.csv"), at_commit)?;
    let hub = hub(&folder)?;
    // What was exported is what this reproduction trains: the numbers must be the same.
    let (good, said) = lab(&folder, &hub, &["reproduce", "tiny"])?;
    assert!(good, "{said}");
    let (good, said) = lab(&folder, &hub, &["reproduce", "tiny", "--weights", "lab/tiny"])?;
    assert!(good && said.contains("tiny, seed 0: lab/tiny in place of a run"), "{said}");
    let fetched = hub.seen().iter().any(|request| request.path.ends_with(".safetensors"));
    assert!(fetched, "{:?}", hub.seen());
    let rows = read_results(&folder.0.join("reproductions/tiny"))?;
    let of = |experiment: &str| -> Vec<&Row> {
        rows.iter().filter(|row| row.provenance.experiment == experiment).collect()
    };
    let (own, released) = (of("tiny"), of("tiny with lab/tiny"));
    assert!(own.len() == released.len() && own.len() >= 30, "{rows:?}");
    for (own, released) in own.iter().zip(&released) {
        let names = |row: &Row| (row.sampler.clone(), row.metric.clone(), row.nfe, row.samples);
        assert_eq!(names(own), names(released));
        let gap = (own.value - released.value).abs();
        assert!(gap <= 1e-4 * own.value.abs().max(1e-3), "{own:?} {released:?}");
        assert_ne!(own.provenance.configuration, released.provenance.configuration);
        assert_eq!((own.iterations, released.iterations), (4, 0));
    }
    // The report has both, each under its name and with its command.
    let (good, said) = lab(&folder, &hub, &["report"])?;
    assert!(good, "{said}");
    let page = std::fs::read_to_string(folder.0.join("reproductions/REPORT.md"))?;
    assert!(page.contains("| tiny: Tiny | one step | 1 |"), "{page}");
    assert!(page.contains("| tiny with lab/tiny: Tiny | one step | 1 |"), "{page}");
    assert!(page.contains("trained elsewhere"), "{page}");
    let command = "`cargo lab reproduce tiny --weights lab/tiny --budget full --seeds 0`";
    assert!(page.contains(command), "{page}");
    Ok(())
}

#[test]
fn a_network_for_something_else_is_refused() -> Result {
    let folder = Folder::new("refused weights")?;
    let hub = hub(&folder)?;
    let garments = r#"{ name = "images", of = "fashion_10k" }"#;
    put(&folder, "garments", &TEXT.replace(r#"{ name = "digits" }"#, garments))?;
    put(&folder, "tiny", TEXT)?;
    let refused = |name: &str, weights: &str, wanted: &str| -> Result {
        let (good, said) = lab(&folder, &hub, &["reproduce", name, "--weights", weights])?;
        assert!(!good && said.contains(wanted), "{said}");
        Ok(())
    };
    refused("garments", "model", "its images are [1, 8, 8], those of garments [1, 28, 28]")?;
    refused("tiny", "lab/other", "--weights lab/other")?;
    let teacher = r#"method = { kind = "score-matching" }"#;
    let method = TEXT.lines().find(|line| line.starts_with("method")).unwrap_or_default();
    put(&folder, "teacher", &TEXT.replace(method, teacher))?;
    let file = folder.0.join("reproductions/teacher/experiment.toml");
    let text = std::fs::read_to_string(&file)?.replace("taus = [[], [0.8]]", "points = [5]");
    std::fs::write(&file, text)?;
    refused("teacher", "model", "this is a consistency model")?;
    Ok(())
}
