//! `cargo lab push`: what it lists, and its messages.

use std::path::{Path, PathBuf};
use std::process::Command;

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("push {name} {}", std::process::id()));
        std::fs::create_dir_all(path.join("model/unet"))?;
        std::fs::write(path.join("model/config.json"), "{}\n")?;
        std::fs::write(path.join("model/unet/w.safetensors"), [0; 1234])?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Whether it ended well, and what it said. Nobody listens at its endpoint.
fn push(folder: &Path, arguments: &[&str], token: &str) -> Result<(bool, String)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_consistency-cli"));
    for name in ["HF_HUB_OFFLINE", "HF_TOKEN_PATH", "HUGGING_FACE_HUB_TOKEN"] {
        command.env_remove(name);
    }
    command.env("HF_ENDPOINT", "http://127.0.0.1:9").env("HF_HOME", folder).env("HF_TOKEN", token);
    let output = command.arg("push").args(arguments).current_dir(folder).output()?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8(said)?))
}

#[test]
fn a_dry_run_lists_what_would_go() -> Result {
    let folder = Folder::new("dry")?;
    let (good, said) = push(&folder.0, &["model", "--to", "me/toy", "--dry-run"], "")?;
    let lines: Vec<Vec<&str>> =
        said.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(good && lines.len() == 4, "{said}");
    assert_eq!(lines[0], ["3", "regular", "config.json"]);
    assert_eq!(lines[1], ["1234", "lfs", "unet/w.safetensors"]);
    assert_eq!(lines[2].join(" "), "dry run, nothing was sent: 2 files, 1237 bytes would go to");
    assert_eq!(lines[3], ["http://127.0.0.1:9/me/toy"]);
    Ok(())
}

#[test]
fn mistakes_are_named() -> Result {
    let folder = Folder::new("mistakes")?;
    let says = |arguments: &[&str], token: &str, wanted: &[&str]| -> Result {
        let (good, said) = push(&folder.0, arguments, token)?;
        assert!(!good, "{arguments:?} is no success: {said}");
        assert!(wanted.iter().all(|w| said.contains(w)), "{arguments:?} says {said}");
        assert!(token.is_empty() || !said.contains(token), "{said}");
        Ok(())
    };
    says(&["model", "--to", "me/toy"], "", &["error: ", "set HF_TOKEN"])?;
    says(&["model"], "", &["--to"])?;
    says(&["none", "--to", "me/toy", "--dry-run"], "", &["there is no folder none"])?;
    says(&["model", "--to", "me/toy/x"], "hf_secret", &["me/toy/x", "OWNER/NAME"])?;
    says(&["model", "--to", "me/toy", "--revision", "a b"], "hf_secret", &["is not a revision"])?;
    says(&["model", "--to", "me/toy", "--message", " "], "hf_secret", &["message is empty"])?;
    Ok(())
}
