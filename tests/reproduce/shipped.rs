//! Networks that come with the lab: what is measured is what is kept, and a run starts from one.

use crate::{Folder, TEACHER, by_pixels, message};
use candle_core::{DType, Device, Tensor};
use consistency::Result;
use consistency::experiment::{Experiment, Monitor, Trained, train};
use consistency::record::Budget;
use consistency::reproduce::{Reproduction, reproduce};
use consistency::seam::Denoiser;
use std::path::Path;

fn project() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../reproductions")
}

#[test]
fn what_ships_is_what_the_reproductions_say() -> Result<()> {
    let folder = project();
    let mut size = 0;
    for name in Reproduction::names(&folder)? {
        let file = folder.join(&name).join("model.safetensors");
        let reproduction = Reproduction::read(&folder, &name)?;
        let ships = Trained::shipped_names().any(|known| known == name);
        assert_eq!(reproduction.ship && file.is_file(), ships, "{name}");
        if !ships {
            continue;
        }
        size += std::fs::metadata(&file)?.len();
        let (kept, trained) = (Trained::unpack(&file)?, Trained::shipped(&name)?);
        // The file is of the experiment as it stands there, from a clean commit, with its record.
        let seed = reproduction.seeds[0];
        let configuration = reproduction.configuration(&folder, seed, Budget::Full, "cpu")?;
        let origin = trained.provenance()?;
        assert_eq!((origin.configuration, origin.seed), (configuration, seed), "{name}");
        assert!(!origin.commit.ends_with('+'), "{name}: {}", origin.commit);
        let steps = trained.experiment().training.iterations as f64;
        assert_eq!(trained.table().column("step").last(), Some(&steps), "{name}");
        assert!(trained.costs().iter().all(|cost| cost.seconds > 0.0), "{name}");
        assert_eq!(trained.costs().last().map(|cost| cost.name.as_str()), Some(name.as_str()));
        // No single run is longer than 100 minutes.
        assert!(trained.costs().iter().all(|cost| cost.seconds < 6000.0), "{:?}", trained.costs());
        for (key, tensor) in trained.params().tensors() {
            let same = tensor.eq(&kept.params().tensors()[&key])?.to_dtype(DType::F32)?;
            assert_eq!(same.min_all()?.to_scalar::<f32>()?, 1.0, "{name}: {key}");
        }
    }
    assert!(size > 0 && size <= 16_000_000, "{size} bytes are shipped");
    Ok(())
}

#[test]
fn what_is_measured_has_the_weights_as_they_are_kept() -> Result<()> {
    let folder = Folder::new("ship")?;
    let text = by_pixels(TEACHER).replace("[0, 1]", "[0]");
    folder.put("teacher", &text)?;
    folder.put("kept", &text.replace("seeds = [0]", "seeds = [0]\nship = true"))?;
    let plain = reproduce("teacher", &folder.options(), &mut |_| {})?;
    let rounded = reproduce("kept", &folder.options(), &mut |_| {})?;
    // Half precision has three digits: the numbers differ a little, and are not far off.
    let close = |(a, b): (&f64, &f64)| (a / b - 1.0).abs() < 0.01;
    let of = |rows: &[consistency::reproduce::Row]| -> Vec<f64> {
        rows.iter().map(|row| row.value).collect()
    };
    let (plain, rounded) = (of(&plain), of(&rounded));
    assert!(plain != rounded && plain.iter().zip(&rounded).all(close), "{plain:?} {rounded:?}");
    let file = folder.0.join("kept/model.safetensors");
    let kept = Trained::unpack(&file)?;
    assert_eq!(kept.table().column("step"), [20.0]);
    assert_eq!(kept.costs().len(), 1);
    let x = Tensor::zeros((2, 1, 8, 8), DType::F32, &Device::Cpu)?;
    for (name, tensor) in kept.params().tensors() {
        let half = tensor.to_dtype(DType::F16)?.to_dtype(DType::F32)?;
        let same = tensor.eq(&half)?.to_dtype(DType::F32)?.min_all()?.to_scalar::<f32>()?;
        assert_eq!(same, 1.0, "{name} is not in half precision");
    }
    assert_eq!(kept.denoiser()?.denoise(&x, &[1.0])?.dims(), [2, 1, 8, 8]);

    // What is not such a file says so.
    std::fs::write(&file, b"something else")?;
    let got = message(Trained::unpack(&file));
    assert!(got.contains("model.safetensors"), "{got}");
    let got = message(Trained::shipped("fashion"));
    assert!(got.contains("no trained network 'fashion' comes with the lab; there are"), "{got}");
    Ok(())
}

#[test]
fn a_run_starts_from_the_weights_that_it_names() -> Result<()> {
    let folder = Folder::new("init")?;
    let runs = folder.0.join("runs");
    let text = |init: &str, width: usize, steps: usize| {
        format!(
            "name = 'start'\n{init}\n[data]\nname = 'digits'\n[network]\nkind = 'mlp'\n\
             width = {width}\nblocks = 1\n[method]\nkind = 'score-matching'\n[optimizer]\n\
             learning_rate = 1e-9\n[training]\niterations = {steps}\nbatch = 64\n\
             record_every = 1\n"
        )
    };
    let run = |text: String| train(&Experiment::parse(&text)?, &runs, &Monitor::default(), 1);
    // A rate of 1e-9 moves nothing: the first loss is that of the start.
    let better = text("", 16, 60).replace("1e-9", "1e-2");
    let first = run(better)?;
    let new = run(text("", 16, 1))?.table().column("loss")[0];
    let init = format!("init = '{}'", first.folder());
    let again = run(text(&init, 16, 1))?.table().column("loss")[0];
    assert!(again < 0.8 * new, "{again} from its weights, {new} from new ones");
    let got = message(run(text(&init, 8, 1)));
    assert!(got.contains("has another network or other data"), "{got}");
    let got = message(run(text("init = 'shipped:nothing'", 16, 1)));
    assert!(got.contains("init = 'shipped:nothing'") && got.contains("there are"), "{got}");
    Ok(())
}

#[test]
fn a_student_learns_from_a_teacher_that_ships() -> Result<()> {
    let folder = Folder::new("student of a shipped one")?;
    let network = toml_of(&Trained::shipped("fashion-10k-teacher")?)?;
    let text = format!(
        "name = 'student'\n[data]\nname = 'images'\nof = 'fashion_10k'\n[network]\n{network}\n\
         [method]\nkind = 'distillation'\nteacher = 'shipped:fashion-10k-teacher'\npoints = 18\n\
         mu = 0.95\n[training]\niterations = 1\nbatch = 2\nunlabelled = 0.1\n"
    );
    let runs = folder.0.join("runs");
    let student = train(&Experiment::parse(&text)?, &runs, &Monitor::default(), 1)?;
    assert_eq!(student.params().count(), Trained::shipped("fashion-10k-teacher")?.params().count());
    // Without the class that stands for none, its classes would mean something else.
    let other = text.replace("unlabelled = 0.1", "unlabelled = 0.0");
    let got = message(train(&Experiment::parse(&other)?, &runs, &Monitor::default(), 1));
    assert!(got.contains("training.unlabelled"), "{got}");
    Ok(())
}

fn toml_of(trained: &Trained) -> Result<String> {
    let all = trained.experiment().to_toml()?;
    let of = all.split("[network]\n").nth(1).unwrap_or_default();
    Ok(of.split("\n[").next().unwrap_or_default().to_string())
}
