//! Promise: what the training loop does besides a method's steps is configuration: how averages
//! start, how the learning rate falls, and what is held out of training.

#[path = "../support/formula.rs"]
#[allow(dead_code)]
mod formula;

use consistency::Result;
use consistency::experiment::{Experiment, Monitor, Trained, train};
use formula::Folder;

fn run(folder: &Folder, training: &str) -> Result<Trained> {
    train(&experiment(training)?, &folder.0, &Monitor::default(), 1)
}

fn experiment(training: &str) -> Result<Experiment> {
    Experiment::parse(&format!(
        "name = 'configured'\ndata = {{ name = 'moons', count = 40 }}\n\
         network = {{ kind = 'mlp', width = 32, blocks = 1 }}\n\
         method = {{ kind = 'score-matching' }}\noptimizer = {{ kind = 'adam', learning_rate = 2e-3 }}\n\
         training = {{ {training} }}\n"
    ))
}

fn values(trained: &Trained) -> Result<Vec<f32>> {
    let mut all = Vec::new();
    for tensor in trained.params().tensors().values() {
        all.extend(tensor.flatten_all()?.to_vec1::<f32>()?);
    }
    Ok(all)
}

/// After one step an average of rate .9 is theta_1 + .9 (theta_0 - theta_1), and by its warm-up
/// theta_1 + .1 (theta_0 - theta_1).
#[test]
fn an_average_warms_up_unless_told_otherwise() -> Result<()> {
    let folder = Folder::new("configured-ema")?;
    let text = "iterations = 1, batch = 8, ema = [0.9, 0.0]";
    let off = format!("{text}, ema_warm_up = false");
    assert_ne!(experiment(text)?.hash()?, experiment(&off)?.hash()?);
    assert_eq!(
        experiment(text)?.hash()?,
        experiment(&format!("{text}, ema_warm_up = true"))?.hash()?
    );
    let (warmed, plain) = (run(&folder, text)?, run(&folder, &off)?);
    let (a, b) = (values(&warmed)?, values(&plain)?);
    let theta = values(&warmed.with_average(1)?)?;
    assert_eq!(theta, values(&plain.with_average(1)?)?);
    let mut moved = 0;
    for ((a, b), theta) in a.iter().zip(&b).zip(&theta) {
        let (a, b) = (f64::from(a - theta), f64::from(b - theta));
        assert!((b - 9.0 * a).abs() < 1e-6, "{a}, {b}");
        moved += usize::from(b.abs() > 1e-4);
    }
    // The last layer starts at zero, so the first step moves it alone: 2 x 32 weights and 2 biases.
    assert!(moved > 60, "{moved} parameters of {} moved", a.len());
    Ok(())
}

#[test]
fn held_out_samples_are_judged_and_not_trained_on() -> Result<()> {
    let folder = Folder::new("configured-held-out")?;
    let text = "iterations = 400, batch = 8, record_every = 100, checkpoint_every = 100";
    let plain = run(&folder, text)?;
    assert!(plain.table().columns().iter().all(|name| name != "held_out_loss"));

    // Of 40 points one is trained on: it is learnt by heart, the others are not.
    let trained = run(&folder, &format!("{text}, held_out = 39"))?;
    let last = |name: &str| trained.table().column(name).last().copied().unwrap_or(f64::NAN);
    let (loss, held_out) = (last("loss"), last("held_out_loss"));
    assert!(held_out > 3.0 * loss, "{loss}, {held_out}");
    // Held out of many, they are like the others.
    let trained = run(&folder, &format!("{text}, held_out = 8"))?;
    let last = |name: &str| trained.table().column(name).last().copied().unwrap_or(f64::NAN);
    let (loss, held_out) = (last("loss"), last("held_out_loss"));
    assert!(held_out > 0.3 * loss && held_out < 3.0 * loss, "{loss}, {held_out}");

    // The same samples and the same noise each time, however a batch is split.
    let split = run(&folder, &format!("{text}, held_out = 8, accumulate = 3"))?;
    let (a, b) = (trained.table().column("held_out_loss"), split.table().column("held_out_loss"));
    assert_eq!(a.len(), 4);
    for (a, b) in a.iter().zip(b) {
        assert!((a / b - 1.0).abs() < 1e-2, "{a}, {b}");
    }

    let none = run(&folder, &format!("{text}, held_out = 40"));
    let said = none.err().map(|e| e.to_string()).unwrap_or_default();
    assert!(said.contains("training.held_out = 40: of 40 samples none are left"), "{said}");
    Ok(())
}

/// eta_k = eta (1 + cos(pi k / K)) / 2, or eta (1 - k / K).
#[test]
fn a_learning_rate_falls_along_a_named_shape() -> Result<()> {
    let folder = Folder::new("configured-decay")?;
    let text = "iterations = 8, batch = 8, record_every = 1, decay = 1.0";
    let linear = format!("{text}, decay_shape = 'linear'");
    assert_eq!(experiment(text)?.hash()?, experiment(&linear)?.hash()?);
    let rates = |text: &str| -> Result<Vec<f64>> {
        Ok(run(&folder, text)?.table().column("learning_rate").to_vec())
    };
    let (line, cosine) = (rates(text)?, rates(&format!("{text}, decay_shape = 'cosine'"))?);
    assert_eq!((line.len(), cosine.len()), (8, 8));
    for k in 0..8 {
        let done = k as f64 / 8.0;
        let half = 1e-3 * (1.0 + (std::f64::consts::PI * done).cos());
        assert!((line[k] - 2e-3 * (1.0 - done)).abs() < 1e-15, "{k}: {}", line[k]);
        assert!((cosine[k] - half).abs() < 1e-15, "{k}: {}", cosine[k]);
    }
    // Over the last half, and behind a warm-up.
    let both = "iterations = 8, batch = 8, record_every = 1, decay = 0.5, warm_up = 0.25";
    let late = rates(&format!("{both}, decay_shape = 'cosine'"))?;
    let want = [0.5, 1.0, 1.0, 1.0, 1.0, 0.5 + 0.125f64.sqrt(), 0.5, 0.5 - 0.125f64.sqrt()];
    for (rate, want) in late.iter().zip(want) {
        assert!((rate - 2e-3 * want).abs() < 1e-15, "{late:?}");
    }
    let idle = experiment("iterations = 8, batch = 8, decay_shape = 'cosine'");
    assert!(idle.is_err_and(|e| e.to_string().contains("give training.decay")));
    Ok(())
}

/// At the end of a stage the held-out loss is still that of the stage: the learning rate has fallen
/// to almost nothing, so the last two rows of a stage are nearly equal, and the next one, against
/// another teacher, is not.
#[test]
fn the_held_out_loss_is_that_of_the_stage() -> Result<()> {
    let folder = Folder::new("configured-stages")?;
    let text =
        "iterations = 40, batch = 8, held_out = 10, ema = 0.0, decay = 1.0, record_every = 1";
    let teacher = run(&folder, text)?;
    let toml = experiment(text)?.to_toml()?;
    let method = toml.find("[method]").map(|at| &toml[at..]).unwrap_or_default();
    let method = method.split("\n\n").next().unwrap_or_default();
    let pd = format!(
        "[method]\nkind = \"progressive-distillation\"\nteacher = \"{}\"\nsteps = 4",
        teacher.folder()
    );
    let student =
        Experiment::parse(&toml.replacen("configured", "stages", 1).replace(method, &pd))?;
    let trained = train(&student, &folder.0, &Monitor::default(), 1)?;
    // Stages end after steps 8, 24 and 40.
    let held_out = trained.table().column("held_out_loss");
    for end in [8, 24, 40] {
        let (before, last) = (held_out[end - 2], held_out[end - 1]);
        assert!((last / before - 1.0).abs() < 0.05, "step {end}: {before}, {last}");
        if let Some(next) = held_out.get(end) {
            assert!((next / last - 1.0).abs() > 0.05, "step {end}: {last}, {next}");
        }
    }
    Ok(())
}

/// With one sample left to train on, the exact teacher is that sample, and Euler's step of
/// distillation is the pair of consistency training. Were the others part of it, it would not be.
#[test]
fn the_exact_teacher_does_not_see_what_is_held_out() -> Result<()> {
    const CD: &str = "{ kind = 'distillation', teacher = 'exact', points = 11, mu = 0.9, \
                      solver = 'euler' }";
    const CT: &str =
        "{ kind = 'consistency-training', schedule = { s0 = 11, s1 = 11, mu0 = 0.9 } }";
    let folder = Folder::new("configured-exact")?;
    let loss = |name: &str, method: &str, held_out: usize| -> Result<f64> {
        let experiment = Experiment::parse(&format!(
            "name = '{name}'\ndata = {{ name = 'moons', count = 40 }}\nmethod = {method}\n\
             network = {{ kind = 'mlp', width = 32, blocks = 1 }}\n\
             training = {{ iterations = 1, batch = 8, held_out = {held_out} }}\n"
        ))?;
        let trained = train(&experiment, &folder.0, &Monitor::default(), 1)?;
        Ok(trained.table().column("loss")[0])
    };
    let (cd, ct) = (loss("cd", CD, 39)?, loss("ct", CT, 39)?);
    assert!((cd / ct - 1.0).abs() < 1e-3, "{cd}, {ct}");
    let (cd, ct) = (loss("cd", CD, 0)?, loss("ct", CT, 0)?);
    assert!((cd / ct - 1.0).abs() > 1e-2, "{cd}, {ct}");
    Ok(())
}
