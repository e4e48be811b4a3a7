//! Promise: an experiment's identity is its values that differ from the defaults. What is written
//! out or left out does not matter, and no committed record of the digits has lost its experiment.

use consistency::Result;
use consistency::experiment::Experiment;
use consistency::record::Budget;
use consistency::reproduce::{self, Reproduction};
use std::collections::BTreeMap;
use std::path::Path;

const SHORT: &str = r#"
name = "short"
data = { name = "digits" }
network = { kind = "mlp", width = 32 }
method = { kind = "distillation", teacher = "a-teacher", points = 18, mu = 0.95 }
training = { iterations = 100, batch = 16 }
"#;

#[test]
fn a_default_that_is_written_out_changes_nothing() -> Result<()> {
    let short = Experiment::parse(SHORT)?;
    let whole = Experiment::parse(&short.to_toml()?)?;
    assert!(short.to_toml()?.len() > 2 * SHORT.len(), "all its values are written");
    assert_eq!(short.hash()?, whole.hash()?);
    let chosen = short.chosen()?;
    assert_eq!(Experiment::parse(&toml::to_string(&chosen).unwrap_or_default())?, short);
    let text = SHORT
        .replace("width = 32", "width = 32, blocks = 4")
        .replace("mu = ", "solver = \"heun\", mu = ");
    assert_eq!(Experiment::parse(&text)?.hash()?, short.hash()?);
    let method = chosen["method"].as_table().cloned().unwrap_or_default();
    let names: Vec<&str> = method.keys().map(String::as_str).collect();
    assert_eq!(names, ["kind", "mu", "points", "teacher"]);
    Ok(())
}

#[test]
fn every_value_counts_and_the_schema_stands() -> Result<()> {
    let short = Experiment::parse(SHORT)?.hash()?;
    for (from, to) in [
        ("short", "other"),
        ("32", "33"),
        ("0.95", "0.9"),
        ("mu = ", "distance = { metric = { kind = \"l1\" } }, mu = "),
        ("batch = 16", "batch = 16, ema = [0.9, 0.99]"),
        ("data =", "seed = 1\ndata ="),
    ] {
        let other = Experiment::parse(&SHORT.replace(from, to))?;
        assert_ne!(other.hash()?, short, "{from} to {to}");
    }
    // Where this changes, every run and record loses its name: a new version of the schema, and
    // records carried over to it.
    assert_eq!(short, "08a8561cf3b82ce6");
    Ok(())
}

#[test]
fn no_record_of_the_digits_is_orphaned() -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../reproductions");
    let mut known = BTreeMap::new();
    let mut count = 0;
    for name in Reproduction::names(&folder)?.into_iter().filter(|name| name.starts_with("digits-"))
    {
        for row in reproduce::read_results(&folder.join(name))? {
            let of = row.provenance;
            let Some(budget) = Budget::ALL.into_iter().find(|e| e.name() == row.budget) else {
                continue;
            };
            let key = (of.experiment, of.seed, row.budget, of.device);
            let configuration = match known.get(&key) {
                Some(configuration) => String::clone(configuration),
                None => Reproduction::read(&folder, &key.0)?
                    .configuration(&folder, key.1, budget, &key.3)?,
            };
            assert_eq!(of.configuration, configuration, "{key:?}");
            known.insert(key, configuration);
            count += 1;
        }
    }
    assert!(count > 1000, "{count} rows");
    Ok(())
}
