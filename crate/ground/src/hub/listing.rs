//! The files of a repository whose names match a pattern.

use super::Repository;
use super::client::{Failure, FailureKind};
use super::pattern::matches;
use super::target::{encode, is_commit};
use crate::{Result, bail, ensure};
use std::path::Path;

/// A listing holds names; anything larger than this is not one.
const LARGEST: u64 = 64 << 20;

impl Repository {
    /// The files whose names match `pattern`, in the order of their names. `*` stands for
    /// any characters within one folder.
    ///
    /// # Errors
    /// A pattern without a folder's files; what the Hub says; offline, nothing in the cache.
    pub fn matching(&self, pattern: &str) -> Result<Vec<String>> {
        if self.client.settings.offline {
            let names = self.matching_cached(pattern);
            ensure!(
                not_found: !names.is_empty(),
                "no file {pattern} of {} is in the cache, and HF_HUB_OFFLINE forbids to ask for it",
                self.id
            );
            return Ok(names);
        }
        let all = self.list(pattern).map_err(|failure| self.client.error(failure.error))?;
        let mut names: Vec<String> =
            all.into_iter().filter(|name| matches(pattern, name)).collect();
        names.sort();
        if names.is_empty() {
            bail!(not_found: "{} has no file {pattern} at revision {}", self.id, self.revision);
        }
        Ok(names)
    }

    /// The files in the cache whose names match `pattern`, in the order of their names. Does not
    /// use the network.
    pub fn matching_cached(&self, pattern: &str) -> Vec<String> {
        let Some(commit) = self.commit() else { return Vec::new() };
        let folder = pattern.rsplit_once('/').map_or("", |(folder, _)| folder);
        let path = self.folder.at(&commit).join(Path::new(folder));
        let mut names: Vec<String> = std::fs::read_dir(path)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .map(|name| if folder.is_empty() { name } else { format!("{folder}/{name}") })
            .filter(|name| matches(pattern, name))
            .collect();
        names.sort();
        names
    }

    // All names at the revision, of which those like `pattern` are wanted; the commit that it is
    // from then on.
    fn list(&self, pattern: &str) -> Result<Vec<String>, Failure> {
        let revision = self.commit_held().unwrap_or(&self.revision);
        let endpoint = &self.client.settings.endpoint;
        let kind = self.kind.plural();
        let url = format!("{endpoint}/api/{kind}/{}/revision/{}", self.id, encode(revision));
        let target = self.target(revision, pattern);
        let text = self.client.retry(self.client.settings.retries, || {
            let ask = || {
                let response = self.client.follow(&url, &[("accept", "application/json")])?;
                let (parts, body) = response.into_parts();
                if !parts.status.is_success() {
                    return Err(self.client.explain(&target, &url, parts.status, &parts.headers));
                }
                let text = body.into_with_config().limit(LARGEST).read_to_string();
                text.map_err(|error| self.client.failed(&url, error))
            };
            ask().map_err(|failure| (failure, false))
        })?;
        let odd = || {
            let message = format!("{url} does not answer with a list of files");
            Failure::new(FailureKind::Final, message)
        };
        let about: serde_json::Value = serde_json::from_str(&text).map_err(|_| odd())?;
        let siblings = about["siblings"].as_array().ok_or_else(odd)?;
        if let Some(commit) = about["sha"].as_str().filter(|commit| is_commit(commit)) {
            self.hold(commit)?;
        }
        Ok(siblings
            .iter()
            .filter_map(|file| file["rfilename"].as_str())
            .map(str::to_string)
            .collect())
    }
}
