//! Experiments on images of one's own.

use crate::given::{Folder, message, png_of, write_parquet};
use consistency::Result;
use consistency::experiment::{Experiment, Monitor, Trained, train};

#[test]
fn a_network_trains_on_images_of_ones_own() -> Result<()> {
    let folder = Folder::new("train")?;
    let images: Vec<Vec<u8>> = (0..32).map(|row| png_of(row, [1, 8, 8])).collect::<Result<_>>()?;
    write_parquet(&folder.at("own.parquet"), "image", &images, &[0; 32])?;
    let text = format!(
        "name = \"own\"\n[data]\nname = \"images\"\nof = '{}'\nflip = true\nsize = 4\n\
         [network]\nkind = \"mlp\"\nwidth = 16\nblocks = 1\n[method]\nkind = \"score-matching\"\n\
         [training]\niterations = 4\nbatch = 8\n",
        folder.at("own.parquet").display()
    );
    let mut experiment = Experiment::parse(&text)?;
    let whole = train(&experiment, &folder.at("runs"), &Monitor::default(), 1)?;
    assert!(whole.provenance()?.data.starts_with("own: images "), "{:?}", whole.provenance()?);
    // In two parts each, a sample is mirrored or not as before.
    experiment.training.accumulate = 2;
    let parts = train(&experiment, &folder.at("runs"), &Monitor::default(), 1)?;
    let (a, b) = (whole.table().column("loss"), parts.table().column("loss"));
    assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4 * a.abs()), "{a:?} {b:?}");
    Ok(())
}

#[test]
fn a_network_that_knows_classes_is_told_those_of_the_data() -> Result<()> {
    let folder = Folder::new("classes")?;
    let images: Vec<Vec<u8>> = (0..16).map(|row| png_of(row, [1, 8, 8])).collect::<Result<_>>()?;
    let network = "kind = 'unet'\nblock_out_channels = [8]\nlayers_per_block = 1\n\
                   norm_num_groups = 4\nattention_head_dim = 8\n";
    let text = |of: &str, classes: usize, method: &str| {
        format!(
            "name = 'classes'\n[data]\nname = 'images'\nof = '{of}'\n[network]\n{network}\
             num_class_embeds = {classes}\n[method]\n{method}\n[training]\niterations = 3\n\
             batch = 4\naccumulate = 2\n"
        )
    };
    let matching = "kind = 'score-matching'";
    let mut losses = Vec::new();
    // The same images in the same order; only the classes differ.
    for (name, labels) in [("a", [0, 1]), ("b", [2, 3])] {
        let labels: Vec<i64> = (0..16).map(|row| labels[row % 2]).collect();
        write_parquet(&folder.at(&format!("{name}.parquet")), "image", &images, &labels)?;
        let of = folder.at(&format!("{name}.parquet")).display().to_string();
        let teacher = train(
            &Experiment::parse(&text(&of, 4, matching))?,
            &folder.at("runs"),
            &Monitor::default(),
            1,
        )?;
        let distil = format!(
            "kind = 'distillation'\nteacher = '{}'\npoints = 9\nmu = 0.5",
            teacher.folder()
        );
        let student = train(
            &Experiment::parse(&text(&of, 4, &distil))?,
            &folder.at("runs"),
            &Monitor::default(),
            1,
        )?;
        losses.push([&teacher, &student].map(|run| run.table().column("loss").to_vec()));
    }
    assert_ne!(losses[0][0], losses[1][0], "the teacher was not told");
    assert_ne!(losses[0][1], losses[1][1], "the student was not told");
    let of = folder.at("b.parquet").display().to_string();
    let experiment = Experiment::parse(&text(&of, 3, matching))?;
    let few = message(train(&experiment, &folder.at("runs"), &Monitor::default(), 1));
    assert!(few.contains("num_class_embeds = 3: the data have 4 classes"), "{few}");
    let none = text("x", 3, matching).replace("name = 'images'\nof = 'x'", "name = 'digits'");
    let none =
        message(train(&Experiment::parse(&none)?, &folder.at("runs"), &Monitor::default(), 1));
    assert!(none.contains("have no classes"), "{none}");
    Ok(())
}

#[test]
fn a_share_of_the_samples_is_trained_on_as_of_no_class() -> Result<()> {
    let folder = Folder::new("no class")?;
    let images: Vec<Vec<u8>> = (0..16).map(|row| png_of(row, [1, 8, 8])).collect::<Result<_>>()?;
    write_parquet(&folder.at("of.parquet"), "image", &images, &[1; 16])?;
    let of = folder.at("of.parquet").display().to_string();
    let text = |known: usize, unlabelled: f64, steps: usize| {
        format!(
            "name = 'no-class'\n[data]\nname = 'images'\nof = '{of}'\n[network]\nkind = 'unet'\n\
             block_out_channels = [8]\nlayers_per_block = 1\nnorm_num_groups = 4\n\
             attention_head_dim = 8\nnum_class_embeds = {known}\n[method]\n\
             kind = 'score-matching'\n[optimizer]\nkind = 'adam'\nlearning_rate = 1e-2\n\
             [training]\niterations = {steps}\nbatch = 16\nunlabelled = {unlabelled}\n"
        )
    };
    let run = |text: String| {
        let experiment = Experiment::parse(&text)?;
        train(&experiment, &folder.at("runs"), &Monitor::default(), 1)
    };
    // The data's classes are 0 and 1, and 2 is none. What a class's row of the embedding moves by
    // says whether it was trained. (The first step moves none: the network's last layer is 0.)
    let start = Experiment::parse(&text(3, 0.5, 1))?;
    assert_eq!((start.classes(), start.no_class()), (Some(2), Some(2)));
    let rows = |trained: &Trained| -> Result<Vec<Vec<f32>>> {
        let embedding = trained.params().tensors();
        Ok(embedding["class_embedding.weight"].to_vec2()?)
    };
    let moved = |unlabelled: f64| -> Result<Vec<bool>> {
        let (one, two) = (run(text(3, unlabelled, 1))?, run(text(3, unlabelled, 10))?);
        let (one, two) = (rows(&one)?, rows(&two)?);
        // An average that moves by rounding alone has not moved.
        let far = |(a, b): (&f32, &f32)| (a - b).abs() > 1e-6;
        Ok(one.iter().zip(&two).map(|(one, two)| one.iter().zip(two).any(far)).collect())
    };
    assert_eq!(moved(0.5)?, [false, true, true]);
    // Without it, the third class is never seen.
    assert_eq!(moved(0.0)?, [false, true, false]);
    let bad = message(run(text(4, 0.1, 1)));
    assert!(bad.contains("the data have 2 classes, give 3"), "{bad}");
    let bad = message(Experiment::parse(&text(3, 1.0, 1)));
    assert!(bad.contains("training.unlabelled = 1"), "{bad}");
    let none = text(3, 0.1, 1).replace("num_class_embeds = 3\n", "");
    let none = message(Experiment::parse(&none));
    assert!(none.contains("network.num_class_embeds, the classes of the data"), "{none}");
    Ok(())
}
