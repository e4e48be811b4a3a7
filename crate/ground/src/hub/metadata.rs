//! What the Hub says about a file before it sends it.

use super::client::{Client, Failure, FailureKind, redirect, shown, text};
use super::target::{Target, is_commit};
use crate::Error;
use ureq::SendBody;
use ureq::http::{HeaderMap, StatusCode, Uri};

/// What the Hub says about a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Metadata {
    /// The commit that the revision points to now.
    pub commit: String,
    /// The hash of the content; it becomes the blob's name.
    pub etag: String,
    /// In bytes.
    pub size: Option<u64>,
}

// What the answers along a chain of redirects say. For a file that is stored elsewhere, the Hub
// itself answers in X-Linked-*, which take precedence over what a storage server says.
#[derive(Default)]
struct Said {
    commit: Option<String>,
    linked_etag: Option<String>,
    linked_size: Option<u64>,
    etag: Option<String>,
    size: Option<u64>,
}

impl Client {
    /// Ask what `target` is, and retry up to `retries` times if a failure is temporary.
    pub(super) fn metadata(
        &self,
        target: &Target<'_>,
        retries: usize,
    ) -> Result<Metadata, Failure> {
        let said = self.retry(retries, || self.ask(target).map_err(|failure| (failure, false)))?;
        Ok(self.checked(target, said)?)
    }

    // Relative redirects are followed (a renamed repository), and so are those on the same
    // server; one to another server is where the content lies.
    fn ask(&self, target: &Target<'_>) -> Result<Said, Failure> {
        let mut said = Said::default();
        let mut url = target.url(&self.settings.endpoint);
        for _ in 0..=5 {
            let (status, headers) = self.head(&url)?;
            let next = redirect(&url, status, &headers)?;
            let good = status.is_success() || status == StatusCode::RANGE_NOT_SATISFIABLE;
            if next.is_none() && !good {
                return Err(self.explain(target, &url, status, &headers));
            }
            said.hear(&headers, next.is_some());
            match next {
                Some(next) if next.parse::<Uri>().is_ok_and(|uri| self.is_endpoint(&uri)) => {
                    url = next;
                }
                _ => return Ok(said),
            }
        }
        let first = target.url(&self.settings.endpoint);
        let message = format!("{} is redirected in a circle, to {}", shown(&first), shown(&url));
        Err(Failure::new(FailureKind::Final, message))
    }

    // Servers that do not know HEAD are asked for the first byte.
    fn head(&self, url: &str) -> Result<(StatusCode, HeaderMap), Failure> {
        let plain = [("accept-encoding", "identity")];
        let mut response = self.send("HEAD", url, &plain, SendBody::none())?;
        if matches!(response.status().as_u16(), 405 | 501) {
            let first = [("accept-encoding", "identity"), ("range", "bytes=0-0")];
            response = self.send("GET", url, &first, SendBody::none())?;
        }
        let (parts, _) = response.into_parts();
        Ok((parts.status, parts.headers))
    }

    fn checked(&self, target: &Target<'_>, said: Said) -> Result<Metadata, Error> {
        let url = target.url(&self.settings.endpoint);
        let refuse = |why: String| {
            let message = format!("{}: {why}; is HF_ENDPOINT a server of the Hub?", shown(&url));
            Err(Error::new(message))
        };
        let pinned = is_commit(target.revision);
        let commit = match said.commit {
            Some(commit) if !is_commit(&commit) => {
                return refuse(format!("the server names the commit {commit:?}"));
            }
            Some(commit) if pinned && commit != target.revision => {
                return refuse(format!(
                    "commit {} was asked for, and the server has {commit}",
                    target.revision
                ));
            }
            Some(commit) => commit,
            None if pinned => target.revision.to_string(),
            None => return refuse("the server gives no commit (X-Repo-Commit)".into()),
        };
        let Some(etag) = said.linked_etag.or(said.etag) else {
            return refuse("the server gives no hash of the file (ETag)".into());
        };
        if !is_blob_name(&etag) || self.clean(&etag) != etag {
            return refuse(format!("its ETag {etag:?} cannot be the name of a file"));
        }
        Ok(Metadata { commit, etag, size: said.linked_size.or(said.size) })
    }
}

impl Said {
    fn hear(&mut self, headers: &HeaderMap, redirect: bool) {
        let number = |name| text(headers, name).and_then(|text| text.parse().ok());
        let etag = |name| text(headers, name).map(|text| plain_etag(text).to_string());
        let commit = text(headers, "x-repo-commit").map(str::to_string);
        self.commit = self.commit.take().or(commit);
        self.linked_etag = self.linked_etag.take().or(etag("x-linked-etag"));
        self.linked_size = self.linked_size.or(number("x-linked-size"));
        self.etag = etag("etag").or(self.etag.take());
        // The length of a redirect's own body is not the file's.
        if !redirect {
            let total = text(headers, "content-range").and_then(|range| range.rsplit('/').next());
            self.size = total.map_or(number("content-length"), |total| total.parse().ok());
        }
    }
}

/// An ETag without its mark of weakness and its quotes.
fn plain_etag(text: &str) -> &str {
    text.strip_prefix("W/").unwrap_or(text).trim_matches('"')
}

/// Whether an ETag may become the name of a file.
fn is_blob_name(etag: &str) -> bool {
    (1..=128).contains(&etag.len())
        && etag.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        && !etag.starts_with('.')
        && !etag.ends_with(".incomplete")
}
