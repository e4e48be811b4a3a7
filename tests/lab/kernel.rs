//! Promise: the kernel. Gradients are right across cells, any number of notebooks run at
//! once, a restart compiles nothing, and the environment of the person who starts it does
//! not matter. Through a real kernel and a real Jupyter client.

use crate::support::{Folder, Result, answer, client, project, ready, stdout};
use serde_json::{Value, json};

/// Cells 1 and 3 make variables, cell 4 differentiates sum(2 v + w) by both.
const GRADIENTS: [&str; 4] = [
    "let v = Var::new(&[1f32, 2.0], &Device::Cpu)?;",
    "let unrelated = Tensor::new(&[0f32], &Device::Cpu)?;",
    "let w = Var::new(&[3f32, 4.0], &Device::Cpu)?;",
    "let y = ((v.as_tensor() * 2.0)? + w.as_tensor())?.sum_all()?; let g = y.backward()?; \
     println!(\"{:?} {:?}\", g.get(&v).map(|t| t.to_vec1::<f32>().ok()), \
     g.get(&w).map(|t| t.to_vec1::<f32>().ok()));",
];
const RIGHT: &str = "Some(Some([2.0, 2.0])) Some(Some([1.0, 1.0]))";

/// Types of the prelude, each bound by a plain `let`.
const TYPES: [(&str, &str); 99] = [
    ("Tensor", "let a1 = Tensor::new(&[1f32, 2.0], &Device::Cpu)?;"),
    ("Var", "let a2 = Var::new(&[1f32, 2.0], &Device::Cpu)?;"),
    ("Device", "let a3 = Device::Cpu;"),
    ("DType", "let a4 = DType::F32;"),
    ("D", "let a5 = D::Minus1;"),
    ("DataFrame", "let b1 = df!(\"x\" => [1.0, 2.0], \"y\" => [3i64, 4])?;"),
    ("Column", "let b2 = b1.column(\"x\")?.clone();"),
    ("Series", "let b3 = Series::new(\"s\".into(), [1.0, 2.0]);"),
    ("Key", "let key = Key::new(0);"),
    ("NoiseRange", "let range = NoiseRange::default();"),
    ("TimeGrid", "let grid = range.karras(8)?;"),
    ("Schedule", "let c1 = Schedule::growing(2, 10, 0.9);"),
    ("Convention", "let c2 = Convention::Code;"),
    ("Growth", "let c2b = Growth::Doubling;"),
    ("Decay", "let c2c = Decay::Fixed;"),
    ("Density", "let c2d = Density::LogNormal { p_mean: -1.1, p_std: 2.0 };"),
    ("Scaling", "let c3 = Scaling::Edm { sigma_data: 0.5 };"),
    ("Coefficients", "let c4 = c3.at(1.0);"),
    ("Parameterization", "let c5 = Parameterization::Skip;"),
    ("Solver", "let c6 = Solver::Heun;"),
    (
        "GaussianMixture",
        "let mixture = GaussianMixture::new(vec![1.0], vec![vec![0.0]], vec![0.5])?;",
    ),
    ("FlowMap", "let flow = FlowMap::new(mixture.clone(), Solver::Euler, grid.clone());"),
    ("ExactFlow", "let exact = ExactFlow::new(mixture.clone(), 0.002)?;"),
    ("EndingAt", "let ending = EndingAt::new(ExactFlow::new(mixture.clone(), 0.002)?, 0.002);"),
    ("TanhModel", "let tanh = TanhModel::new([0.8, 0.2, 0.1], &range);"),
    ("Dual", "let dual = Dual { value: 1.0, tangent: 0.5 };"),
    ("Slope", "let found = theory::slope(&[1.0, 2.0, 4.0], &[1.0, 2.0, 4.0])?;"),
    ("Limit", "let limit = Limit::Theorem5 { i: 1 };"),
    ("Source", "let source = Source::Mixture(mixture.clone());"),
    ("Counted", "let counted = Counted::new(mixture.clone());"),
    ("Digits", "let digits = digits(DType::F32, &Device::Cpu)?;"),
    ("Empirical", "let empirical = Empirical::new(&digits.train)?;"),
    ("Neighbours", "let near = Neighbours::new(&digits.train, &digits.train_labels, 3)?;"),
    ("Assignment", "let assigned = near.assign(&digits.held_out)?[0];"),
    ("DigitsComparison", "let comparison = DigitsComparison::new(&digits)?;"),
    ("Score", "let score = comparison.real();"),
    ("Distance", "let d1 = Distance::default();"),
    ("Metric", "let d2 = Metric::PseudoHuber { c: 0.03 };"),
    ("Reduction", "let d3 = Reduction::Sum;"),
    ("Weight", "let d4 = Weight::Uniform;"),
    ("Weighting", "let d5 = Weighting::default();"),
    ("ScoreMatching", "let d6 = ScoreMatching::default();"),
    (
        "Pair",
        "let x0 = digits.train.narrow(0, 0, 2)?; let pair = training_pair(&x0, &x0, &[1, 2], &grid)?;",
    ),
    ("Statistics", "let m1 = Statistics::of(&digits.train)?;"),
    ("Features", "let m2 = m1.features().clone();"),
    ("ClassifierConfig", "let m3 = ClassifierConfig { steps: 1, ..Default::default() };"),
    ("Classifier", "let m4 = Classifier::train(&x0, &[0, 1], 2, m3, &key)?;"),
    ("Inception", "let m5: Option<Inception> = None;"),
    ("InceptionFeatures", "let m6: Option<InceptionFeatures> = None;"),
    ("Lpips", "let m7: Option<Lpips> = None;"),
    ("LpipsConfig", "let m11 = LpipsConfig::default();"),
    ("Pooling", "let m8 = Pooling::Max;"),
    ("PrecisionRecall", "let m9: Option<PrecisionRecall> = None;"),
    ("Spread", "let m10: Option<Spread> = None;"),
    ("Memorization", "let memory = Memorization::of(&x0, &digits.train, &digits.held_out)?;"),
    ("MlpConfig", "let e1 = MlpConfig { width: 8, blocks: 1, time_features: 4 };"),
    ("UNetConfig", "let e2 = UNetConfig::default();"),
    ("ConvNetConfig", "let e3a = ConvNetConfig { classes: 10 };"),
    ("NcsnppConfig", "let e3b = NcsnppConfig::default();"),
    ("NetworkConfig", "let e3 = NetworkConfig::Mlp(e1.clone());"),
    (
        "Params",
        "let mut params = Params::new(DType::F32, &Device::Cpu); let _ = params.init(&key, |s| e3.build(s, &[1, 8, 8]))?;",
    ),
    (
        "EdmDenoiser",
        "let edm = EdmDenoiser::new(params.frozen(|s| e3.build(s, &[1, 8, 8]))?, 0.5);",
    ),
    (
        "ConsistencyModel",
        "let model = ConsistencyModel::new(params.frozen(|s| e3.build(s, &[1, 8, 8]))?, Parameterization::Skip, 0.5, 0.002);",
    ),
    (
        "Learner",
        "let learner = Learner::new(&e3, &[1, 8, 8], &key, |network| EdmDenoiser::new(network, 0.5))?;",
    ),
    ("Ema", "let ema = Ema::new(&params)?;"),
    ("OptimizerKind", "let e4 = OptimizerKind::Radam;"),
    ("OptimizerConfig", "let e5 = OptimizerConfig::default();"),
    ("Optimizer", "let optimizer = Optimizer::new(e5, &params)?;"),
    (
        "Experiment",
        "let experiment = Experiment::parse(\"name = 't'\\ndata = { name = 'moons', count = 50 }\\nnetwork = { kind = 'mlp', width = 4, blocks = 1 }\\nmethod = { kind = 'score-matching' }\\ntraining = { iterations = 5, batch = 4 }\")?;",
    ),
    ("DataConfig", "let f1 = experiment.data.clone();"),
    ("MethodConfig", "let f2 = experiment.method.clone();"),
    ("ConsistencyDistillation", "let f2b: Option<ConsistencyDistillation> = None;"),
    ("ConsistencyTraining", "let f2c: Option<ConsistencyTraining> = None;"),
    ("Training", "let f3 = experiment.training.clone();"),
    ("Run", "let run = Run::start(&experiment, 1)?;"),
    ("Trained", "let trained = run.join()?;"),
    ("Progress", "let f4 = run.progress();"),
    ("Monitor", "let f5 = Monitor::default();"),
    ("RunFolder", "let f6 = RunFolder::create(&runs_folder(), &experiment)?;"),
    ("Reproduction", "let k9 = Reproduction::read(&reproduce::folder(), \"digits-cd\")?;"),
    ("Provenance", "let f7 = trained.provenance()?;"),
    ("Table", "let f8 = trained.table().clone();"),
    ("Live", "let f10: Option<Live> = None;"),
    ("Budget", "let f9 = budget()?;"),
    ("Figure", "let figure = trained.plot();"),
    ("Entry", "let entries = catalog()?; let g1 = entries[0].clone();"),
    ("Dataset", "let dataset = Dataset::find(\"digits\")?;"),
    ("Images", "let images = dataset.split(\"train\")?;"),
    ("Hub", "let hub = Hub::from_env()?;"),
    ("VpSchedule", "let g2 = VpSchedule::default();"),
    ("LinearSde", "let g10 = LinearSde::default();"),
    ("Spacing", "let g11 = Spacing::LogSnr;"),
    ("Pretrained", "let g3 = Pretrained::open(\"./nowhere\").ok();"),
    ("Card", "let g4 = Card::default();"),
    ("Churn", "let g5 = Churn::default();"),
    ("Sampler", "let g6 = Sampler::Heun { churn: g5 };"),
    ("Operator", "let g7 = Operator::Patch(2);"),
    ("Steps", "let g8 = Steps::along(&grid);"),
    (
        "Edit",
        "let g9 = Edit { operator: g7, mask: digits.train.zeros_like()?, steps: g8.clone(), guided: false };",
    ),
];

/// Traits: they have methods, not values.
const TRAITS: [&str; 15] = [
    "ByParameter",
    "ChunkAgg",
    "Compare",
    "ConsistencyFunction",
    "Denoiser",
    "Generator",
    "IndexOp",
    "MapTangent",
    "Method",
    "NamedFrom",
    "Network",
    "Number",
    "Show",
    "Tangent",
    "TwoTimeMap",
];

/// Figures and tables, shown in every form.
const SHOWN: [&str; 6] = [
    "let xs: Vec<f64> = vec![1.0, 2.0]; let plot = Figure::new(\"f\").line(\"l\", &xs, &xs);",
    "plot",
    // Shown again, and after more is added to it: showing uses nothing up.
    "plot.line(\"more\", &xs, &[3.0, 4.0])",
    "df!(\"a\" => [1.5], \"b\" => [\"<b>\"])?",
    "Tensor::new(&[1f32], &Device::Cpu)?",
    "for i in 0..2 { println!(\"{i}\"); }",
];

fn check_shown(ran: &[Value]) {
    for shown in [&ran[1], &ran[2]] {
        let data = &shown["data"];
        assert!(data["image/png"].as_str().is_some_and(|png| png.starts_with("iVBOR")));
        assert!(data["application/vnd.plotly.v1+json"]["data"].is_array());
        assert!(data["text/plain"].as_str().is_some_and(|text| text.starts_with("Figure: f")));
        assert_eq!(data["text/html"], Value::Null, "nothing that needs a network to show");
    }
    assert!(ran[3]["data"]["text/html"].as_str().is_some_and(|t| t.contains("&lt;b&gt;")));
    assert!(ran[4]["data"]["text/plain"].as_str().is_some_and(|t| t.contains("[1.]")));
    assert_eq!(stdout(&ran[5]), "0\n1");
    assert_eq!(ran[5]["data"], json!({}));
}

/// The types of the prelude, several a cell, and a use of each in a later one: it must have
/// been kept.
fn types() -> Result<Vec<String>> {
    let prelude = std::fs::read_to_string(project().join("crate/src/prelude.rs"))?;
    let code: String = prelude.lines().filter(|l| !l.starts_with("//")).collect();
    let names = code
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|name| name.starts_with(|c: char| c.is_ascii_uppercase()));
    for name in names {
        let known = TYPES.iter().any(|(t, _)| *t == name) || TRAITS.contains(&name);
        assert!(known, "{name} is in the prelude and not in this test");
    }
    let cell =
        |group: &[(&str, &str)]| group.iter().map(|(_, code)| *code).collect::<Vec<_>>().join("\n");
    Ok(TYPES.chunks(8).map(cell).collect())
}

// One test, because a kernel's start is what costs: two kernels at once, and one of them
// started again for all the rest.
#[test]
fn gradients_restarts_types_and_figures() -> Result {
    let types = types()?;
    ready();
    let runs = Folder::new("prelude")?;
    let mut all: Vec<Value> = GRADIENTS.iter().map(|c| json!(c)).collect();
    all.push(json!({ "stop": 1 }));
    all.push(json!({ "restart": true }));
    all.extend(GRADIENTS.iter().map(|c| json!(c)));
    all.extend(SHOWN.iter().map(|c| json!(c)));
    all.extend(types.iter().map(|c| json!(c)));
    let env = json!({ "LAB_RUNS": runs.0 });
    let kernels = answer(client(&json!({ "kernels": 2, "cells": all, "env": env }))?)?;
    assert_eq!(kernels.len(), 2);
    let ran = |kernel: usize| kernels[kernel]["cells"].as_array().cloned().unwrap_or_default();
    let (first, second) = (ran(0), ran(1));
    assert_eq!((first.len(), second.len()), (2 * 4 + SHOWN.len() + types.len(), 4));
    for cell in first.iter().chain(&second) {
        assert_eq!(cell["status"], "ok", "{cell:#}");
    }
    for (gradients, when) in
        [(&first[3], "two at once"), (&second[3], "two at once"), (&first[7], "after a restart")]
    {
        assert_eq!(stdout(gradients), RIGHT, "{when}");
    }
    // The one crate that cells name: three lines that re-export the library.
    let compiled = kernels[0]["compiled"].as_array().cloned().unwrap_or_default();
    assert_eq!(compiled, [json!("consistency")], "a restart compiles no dependency");
    check_shown(&first[8..]);
    Ok(())
}

#[test]
fn a_strange_environment_and_folder_do_not_matter() -> Result {
    ready();
    let folder = Folder::new("strange env")?; // with a space
    let request = json!({ "cells": ["1 + 1"], "cwd": folder.0 });
    // It is no dead kernel: each cell says why.
    let kernels = answer(client(&request)?)?;
    let told = kernels[0]["cells"][0]["error"].as_str().unwrap_or_default();
    assert!(told.contains("is not in a clone of Consistency Lab"), "{told}");
    assert!(told.contains("set LAB_PROJECT"), "{told}");
    let empty = folder.0.join("cargo home");
    std::fs::create_dir_all(&empty)?;
    let env = json!({
        // With it a kernel runs anywhere.
        "LAB_PROJECT": project(),
        "CARGO_INCREMENTAL": "0",
        "RUSTFLAGS": "-Ctarget-cpu=not-a-processor",
        "CARGO_ENCODED_RUSTFLAGS": "-Calso\u{1f}--wrong",
        "RUSTC_WRAPPER": "/bin/false",
        "RUSTC_WORKSPACE_WRAPPER": "/bin/false",
        "CARGO_BUILD_RUSTC_WRAPPER": "/bin/false",
        "CARGO_BUILD_TARGET": "riscv64gc-unknown-none-elf",
        "CARGO_TARGET_DIR": folder.0.join("elsewhere"),
        "CARGO_PROFILE_DEV_PANIC": "abort",
        "CARGO_PROFILE_DEV_OPT_LEVEL": "3",
        "RUSTUP_TOOLCHAIN": "nightly",
        "LD_LIBRARY_PATH": "/nonexistent:/also nonexistent",
        "TMPDIR": folder.0,
        "EVCXR_CONFIG_DIR": folder.0,
        "JUPYTER_PATH": folder.0,
        // Nothing waits for the network: none can be reached, and cargo knows no crate.
        "CARGO_HOME": empty,
        "https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9",
        "ALL_PROXY": "http://127.0.0.1:9",
    });
    let mut code: Vec<Value> = GRADIENTS.iter().map(|cell| json!(cell)).collect();
    // A panic keeps the variables.
    code.push(json!("let lost = 1; panic!(\"on purpose\");"));
    code.push(json!("println!(\"{:?}\", w.dims());"));
    let kernels = answer(client(&json!({ "cells": code, "env": env, "cwd": folder.0 }))?)?;
    let ran = kernels[0]["cells"].as_array().cloned().unwrap_or_default();
    let status = |cell: &Value| cell["status"].as_str().unwrap_or_default().to_string();
    let all: Vec<String> = ran.iter().map(status).collect();
    assert_eq!(all, ["ok", "ok", "ok", "ok", "error", "ok"], "{ran:#?}");
    assert_eq!(stdout(&ran[3]), RIGHT);
    let said = ran[4]["error"].as_str().unwrap_or_default();
    assert!(said.ends_with(": on purpose"), "{said}");
    assert_eq!(stdout(&ran[5]), "[2]");
    Ok(())
}
