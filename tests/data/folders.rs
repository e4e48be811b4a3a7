//! A folder of images: its classes, its splits, and what is not read.

use crate::given::{Folder, fixture, message, pixel, png_of, values};
use consistency::Result;

#[test]
fn a_folder_is_a_dataset_with_its_subfolders_as_classes() -> Result<()> {
    let folder = Folder::new("folder")?;
    for (row, name) in
        ["b/1.png", "a/2.png", "a/1.png", "b/notes.txt", "c/.hidden.png"].iter().enumerate()
    {
        let path = folder.at("set/train").join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(&path))?;
        std::fs::write(path, png_of(row, [3, 4, 6])?)?;
    }
    std::fs::create_dir_all(folder.at("set/test/a"))?;
    std::fs::write(folder.at("set/test/a/x.png"), png_of(9, [3, 4, 6])?)?;
    let dataset = folder.find("set")?;
    let train = dataset.split("train")?;
    assert_eq!(train.labels(), Some(&[0, 0, 1][..]));
    let classes: Vec<String> = (0..3).map(|label| train.classes().name(label)).collect();
    assert_eq!(classes, ["a", "b", "c"]);
    let firsts: Vec<u8> = values(train.pixels())?.into_iter().step_by(3 * 4 * 6).collect();
    assert_eq!(firsts, [2, 1, 0].map(|row| pixel(row, 0, 0, 0)));
    assert_eq!(dataset.split("test")?.len(), 1);
    let wrong = message(dataset.split("tset"));
    assert!(wrong.contains("no split 'tset'") && wrong.contains("test, train"), "{wrong}");
    // Without subfolders there are no classes; with both, nobody knows which.
    std::fs::create_dir_all(folder.at("flat"))?;
    std::fs::write(folder.at("flat/1.png"), png_of(0, [1, 4, 6])?)?;
    assert_eq!(folder.find("flat")?.split("train")?.labels(), None);
    std::fs::create_dir_all(folder.at("flat/more"))?;
    let both = message(folder.find("flat").and_then(|dataset| dataset.split("train")));
    assert!(both.contains("holds images and folders"), "{both}");
    std::fs::create_dir_all(folder.at("empty"))?;
    let none = message(folder.find("empty"));
    assert!(none.contains("holds no images"), "{none}");
    Ok(())
}

fn write(folder: &Folder, name: &str, row: usize) -> Result<()> {
    let path = folder.at(name);
    std::fs::create_dir_all(path.parent().unwrap_or(&path))?;
    Ok(std::fs::write(path, png_of(row, [1, 2, 3])?)?)
}

#[test]
fn a_class_has_one_number_in_all_splits() -> Result<()> {
    let folder = Folder::new("numbers")?;
    for (row, name) in ["train/a/0", "train/b/0", "train/c/0", "test/a/0", "test/c/0", "test/c/1"]
        .iter()
        .enumerate()
    {
        write(&folder, &format!("set/{name}.png"), row)?;
    }
    let dataset = folder.find("set")?;
    let (train, test) = (dataset.split("train")?, dataset.split("test")?);
    assert_eq!(train.labels(), Some(&[0, 1, 2][..]));
    assert_eq!(test.labels(), Some(&[0, 2, 2][..]));
    assert_eq!(train.classes(), test.classes());
    assert_eq!(test.classes().name(2), "c");
    // An empty folder is a class too, from the moment it is there.
    std::fs::create_dir_all(folder.at("set/train/aa"))?;
    let dataset = folder.find("set")?;
    let (more, more_test) = (dataset.split("train")?, dataset.split("test")?);
    assert_eq!(more.classes().count(), 4);
    assert_eq!((more.labels(), more_test.labels()), (Some(&[0, 2, 3][..]), Some(&[0, 3, 3][..])));
    assert_ne!(more.revision(), train.revision());
    assert_ne!(more_test.revision(), test.revision());
    assert_eq!(dataset.describe("train")?.1, more.revision());
    // A split without class folders has no classes.
    write(&folder, "set/val/0.png", 7)?;
    assert_eq!(folder.find("set")?.split("val")?.labels(), None);
    assert_eq!(folder.find("set")?.split("train")?.labels(), Some(&[0, 2, 3][..]));
    Ok(())
}

#[test]
fn what_is_not_read_is_counted_by_kind() -> Result<()> {
    let folder = Folder::new("left-out")?;
    // Each format that is read, and the kinds that are not.
    std::fs::create_dir_all(folder.at("mixed"))?;
    for name in ["colour.bmp", "colour.tif", "colour.gif", "colour.webp", "grey.bmp"] {
        std::fs::write(folder.at("mixed").join(name), fixture(name)?)?;
    }
    for row in 0..3 {
        std::fs::write(folder.at(&format!("mixed/{row}.png")), png_of(row, [3, 4, 6])?)?;
    }
    for name in ["a.svg", "b.SVG", "notes.txt", "README", ".hidden"] {
        std::fs::write(folder.at("mixed").join(name), "words")?;
    }
    let dataset = folder.find("mixed")?;
    assert_eq!(dataset.split("train")?.len(), 8);
    let notes = dataset.notes().join("\n");
    let words = "train: images read: 8; files not read: 4 (2 .svg, 1 .txt, 1 without an ending)";
    assert!(notes.contains(words), "{notes}");
    // Nothing left out, nothing said.
    write(&folder, "whole/0.png", 0)?;
    assert!(folder.find("whole")?.notes().is_empty());
    // Folders that are no split, and folders within those of the classes.
    for name in
        ["train/a/0.png", "train/a/deep/1.png", "train/b/deep/2.png", "masks/0.png", "0.png"]
    {
        write(&folder, &format!("set/{name}"), 0)?;
    }
    let notes = folder.find("set")?.notes().join("\n");
    assert!(notes.contains("beside the splits, and not read: masks, images (1)"), "{notes}");
    assert!(
        notes.contains("train: folders inside class folders, not read: 2 (the first is a/deep)"),
        "{notes}"
    );
    // Where they are all there is, the error says it.
    write(&folder, "deep/a/images/0.png", 0)?;
    let error = message(folder.find("deep"));
    assert!(error.contains("holds no images"), "{error}");
    assert!(
        error.contains("folders inside class folders, not read: 1 (the first is a/images)"),
        "{error}"
    );
    Ok(())
}
