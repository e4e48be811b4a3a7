//! A folder as one commit of a model repository.
//!
//! The Hub decides how each file travels: small texts go in the commit itself, all else goes to the
//! store of git-lfs first, except what it already has. The commit comes last, so a repository never
//! names a file that is not there.

mod api;
mod lfs;
mod plan;

use super::Hub;
use super::client::{Client, Failure};
use super::settings::HubSettings;
use super::target::{Kind, Target, check_id, check_revision, encode};
use crate::{Error, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use plan::LocalFile;
use serde_json::{Value, json};
use std::fmt;
use std::path::Path;

/// How a folder is uploaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// The commit's message.
    pub message: String,
    /// Make the repository private. An existing public one is refused.
    pub private: bool,
    /// The branch, which must exist; `main` always does.
    pub revision: String,
    /// Make no request; report what would be sent.
    pub dry_run: bool,
}

impl Default for Upload {
    fn default() -> Self {
        Self {
            message: "Upload from Consistency Lab".to_string(),
            private: false,
            revision: "main".to_string(),
            dry_run: false,
        }
    }
}

/// How a file travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadMode {
    /// In the commit.
    Regular,
    /// By git-lfs.
    Lfs,
}

impl fmt::Display for UploadMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Regular => "regular",
            Self::Lfs => "lfs",
        })
    }
}

/// What was uploaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uploaded {
    /// Each file's path in the repository, its size in bytes, and how it travelled (in a dry run,
    /// how it most likely would travel).
    pub files: Vec<(String, u64, UploadMode)>,
    /// The commit; none in a dry run.
    pub commit: Option<String>,
    /// The page of the commit, in a dry run that of the repository.
    pub url: String,
}

/// The most files that the Hub takes in one question.
const FILES_A_REQUEST: usize = 256;

impl Hub {
    /// Upload the files in `folder` as one commit to the model repository `id`, which is created if
    /// it does not exist. Files that are in the repository but not in the folder stay.
    ///
    /// # Errors
    /// No token, or one that may not write there; a folder without files, or with names
    /// that a repository cannot have; no such branch; a public repository where a private
    /// one is wanted; a network that fails again and again. Up to the commit, which is the
    /// last request, nothing in the repository has changed.
    pub fn upload(&self, id: &str, folder: &Path, upload: &Upload) -> Result<Uploaded> {
        let client = &*self.client;
        check_id(id)?;
        check_revision(&upload.revision)?;
        ensure!(!upload.message.trim().is_empty(), "the commit's message is empty");
        let files = plan::files(folder)?;
        let url = format!("{}/{id}", client.settings.endpoint);
        if upload.dry_run {
            let files = files.iter().map(|file| Ok((file.name.clone(), file.size, file.guess()?)));
            let files = files.collect::<Result<_>>()?;
            return Ok(Uploaded { files, commit: None, url: client.clean(&url) });
        }
        check_may_write(&client.settings, id)?;
        let destination = Destination { client, id, upload };
        destination.carry_out(&files).map_err(|failure| client.error(failure.error))
    }
}

fn check_may_write(settings: &HubSettings, id: &str) -> Result<()> {
    if settings.offline {
        bail!("{id} cannot be uploaded to while HF_HUB_OFFLINE is set: unset it");
    }
    ensure!(
        settings.token.is_some(),
        "an upload to {id} needs a token that may write: set HF_TOKEN to one from \
         https://huggingface.co/settings/tokens"
    );
    Ok(())
}

/// Where the files go.
struct Destination<'a> {
    client: &'a Client,
    id: &'a str,
    upload: &'a Upload,
}

impl Destination<'_> {
    fn carry_out(&self, files: &[LocalFile]) -> Result<Uploaded, Failure> {
        self.make_repository()?;
        let mut modes = Vec::with_capacity(files.len());
        for files in files.chunks(FILES_A_REQUEST) {
            modes.extend(self.ask_modes(files)?);
        }
        // Files that the repository's .gitignore names stay here.
        let travelling = files.iter().zip(modes).filter_map(|(file, mode)| Some((file, mode?)));
        let travelling: Vec<(&LocalFile, UploadMode)> = travelling.collect();
        if travelling.is_empty() {
            let message = format!("the .gitignore of {} names every file of the folder", self.id);
            return Err(Error::new(message).into());
        }
        let large = travelling.iter().filter(|(_, mode)| *mode == UploadMode::Lfs);
        let oids = self.send_large(&large.map(|(file, _)| *file).collect::<Vec<_>>())?;
        let (commit, url) = self.commit(&travelling, oids)?;
        let files = travelling.iter().map(|(file, mode)| (file.name.clone(), file.size, *mode));
        Ok(Uploaded { files: files.collect(), commit: Some(commit), url })
    }

    // Created, or there already. It must not be public if it was to be private.
    fn make_repository(&self) -> Result<(), Failure> {
        let (owner, name) = match self.id.split_once('/') {
            Some((owner, name)) => (Some(owner), name),
            None => (None, self.id),
        };
        let question = json!({
            "type": "model", "name": name, "organization": owner, "private": self.upload.private
        });
        let (status, answer) = self.post_json("/api/repos/create", &question, &[])?;
        // It exists, or this user may not create it; it may exist in that case too.
        let may_be_there = matches!(status, 403 | 409);
        if (200..300).contains(&status) && !self.upload.private {
            return Ok(());
        }
        if !(200..300).contains(&status) && !may_be_there {
            return Err(self.refused("making the repository", status, &answer));
        }
        match self.get_json(&self.api(""))? {
            (200..=299, found) => self.check_private(&found),
            (found, _) if !may_be_there => Err(self.refused("looking at it", found, &answer)),
            _ => Err(self.refused("making the repository", status, &answer)),
        }
    }

    fn check_private(&self, found: &Value) -> Result<(), Failure> {
        if self.upload.private && found["private"] != json!(true) {
            let page = format!("{}/{}", self.client.settings.endpoint, self.id);
            return Err(Error::new(format!(
                "{} is public but should be private: make it private at \
                 {page}/settings, or upload without that wish",
                self.id
            ))
            .into());
        }
        Ok(())
    }

    // How each file travels; `None` for one that the repository ignores.
    fn ask_modes(&self, files: &[LocalFile]) -> Result<Vec<Option<UploadMode>>, Failure> {
        let described = files.iter().map(|file| {
            let sample = BASE64.encode(file.sample()?);
            Ok(json!({"path": file.name, "size": file.size, "sample": sample}))
        });
        let described = described.collect::<Result<Vec<Value>>>()?;
        let path = self.api(&format!("/preupload/{}", encode(&self.upload.revision)));
        let what = "asking how to upload the files";
        let answer = self.expect_json(what, &path, &json!({"files": described}), &[])?;
        let mode = |file: &LocalFile| {
            let said = answer["files"].as_array().into_iter().flatten();
            let said = said.into_iter().find(|said| said["path"] == json!(file.name));
            let mode = match said.and_then(|said| said["uploadMode"].as_str()) {
                Some("lfs") if file.size > 0 => UploadMode::Lfs,
                Some("lfs" | "regular") => UploadMode::Regular,
                other => bail!("{what}: the Hub says {other:?} of {}", file.name),
            };
            let ignored = said.is_some_and(|said| said["shouldIgnore"] == json!(true));
            Ok(Some(mode).filter(|_| !ignored))
        };
        Ok(files.iter().map(mode).collect::<Result<_>>()?)
    }

    // One line of JSON for the message and one for each file.
    fn commit(
        &self,
        files: &[(&LocalFile, UploadMode)],
        oids: Vec<String>,
    ) -> Result<(String, String), Failure> {
        let header = json!({"summary": self.upload.message, "description": ""});
        let mut lines = json!({"key": "header", "value": header}).to_string();
        let mut oids = oids.into_iter();
        for (file, mode) in files {
            let path = &file.name;
            let line = match mode {
                UploadMode::Regular => {
                    let content = BASE64.encode(file.content()?);
                    let value = json!({"content": content, "path": path, "encoding": "base64"});
                    json!({"key": "file", "value": value})
                }
                UploadMode::Lfs => {
                    let (oid, size) = (oids.next().unwrap_or_default(), file.size);
                    let value = json!({"path": path, "algo": "sha256", "oid": oid, "size": size});
                    json!({"key": "lfsFile", "value": value})
                }
            };
            lines.push('\n');
            lines.push_str(&line.to_string());
        }
        lines.push('\n');
        let path = self.api(&format!("/commit/{}", encode(&self.upload.revision)));
        let kind = ("content-type", "application/x-ndjson");
        let (status, answer) = self.post(&path, lines.as_bytes(), &[kind])?;
        if !(200..300).contains(&status) {
            return Err(self.refused("the commit", status, &answer));
        }
        let text = |name: &str| {
            let value = answer[name].as_str().map(|text| self.client.clean(text));
            value.ok_or_else(|| Error::new(format!("the Hub's answer to the commit has no {name}")))
        };
        Ok((text("commitOid")?, text("commitUrl")?))
    }
}
