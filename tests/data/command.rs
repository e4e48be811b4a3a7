//! `cargo lab data show`: what it says of a file and of a folder, and the columns it is given.
//! The Parquet files are pyarrow's.

use std::path::{Path, PathBuf};
use std::process::Command;

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("data {name} {}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    /// Whether it ended well, what it printed, and what it said on standard error.
    fn show(&self, arguments: &[&str]) -> Result<(bool, String, String)> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_consistency-cli"));
        command.args(["data", "show"]).args(arguments).current_dir(&self.0);
        let output = command.env("CONSISTENCY_CACHE", self.0.join("cache")).output()?;
        let text = String::from_utf8;
        Ok((output.status.success(), text(output.stdout)?, text(output.stderr)?))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/data").join(name);
    path.display().to_string()
}

#[test]
fn columns_are_said_and_given() -> Result {
    let folder = Folder::new("columns")?;
    let file = fixture("mask-first.parquet");
    let (good, printed, said) = folder.show(&[&file])?;
    assert!(good && said.is_empty(), "{said}");
    assert!(printed.contains("images: the column image, and not annotation"), "{printed}");
    assert!(printed.contains("3 x 8 x 8") && printed.contains("3 classes"), "{printed}");
    let (good, printed, said) = folder.show(&[&file, "--image", "annotation"])?;
    assert!(good, "{said}");
    assert!(printed.contains("images: the column annotation, as asked"), "{printed}");
    let file = fixture("two-labels.parquet");
    let (good, printed, said) = folder.show(&[&file])?;
    assert!(good, "{said}");
    assert!(printed.contains("no classes: fine_label, coarse_label"), "{printed}");
    assert!(printed.contains("6 images, no classes"), "{printed}");
    let (good, printed, said) = folder.show(&[&file, "--label", "coarse_label"])?;
    assert!(good && printed.contains("classes: the column coarse_label"), "{printed} {said}");
    let (good, _, said) = folder.show(&[&file, "--label", "label"])?;
    assert!(!good && said.contains("no column label; there are img, fine_label"), "{said}");
    Ok(())
}

#[test]
fn what_a_folder_holds_besides_is_counted() -> Result {
    let folder = Folder::new("folder")?;
    std::fs::create_dir_all(folder.0.join("own"))?;
    for name in ["colour.webp", "colour.bmp", "colour.tif"] {
        std::fs::copy(fixture(name), folder.0.join("own").join(name))?;
    }
    std::fs::write(folder.0.join("own/a.svg"), "<svg/>")?;
    let (good, printed, said) = folder.show(&["own"])?;
    assert!(good, "{said}");
    assert!(printed.contains("images read: 3; files not read: 1 (1 .svg)"), "{printed}");
    assert!(printed.contains("3 images, no classes"), "{printed}");
    assert!(folder.0.join("own.png").is_file());
    Ok(())
}
