//! What a status means to the user.

use super::client::{Client, Failure, FailureKind, shown, text};
use super::settings::LONGEST_WAIT;
use super::target::Target;
use crate::Error;
use std::time::Duration;
use ureq::http::{HeaderMap, StatusCode};

impl Client {
    /// The failure behind an answer to a request for a file.
    pub(super) fn explain(
        &self,
        target: &Target<'_>,
        url: &str,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Failure {
        let Target { id, revision, file, .. } = *target;
        let page = target.page(&self.settings.endpoint);
        let code = text(headers, "x-error-code").unwrap_or_default();
        let no_entry = format!("{id} has no file {file} at revision {revision} ({page})");
        match (status.as_u16(), code) {
            (404, "EntryNotFound") => Failure::new(FailureKind::NoEntry, no_entry),
            (404, "RevisionNotFound") => self.stays(
                status,
                headers,
                format!("{id} has no revision {revision}, wanted for {file} ({page})"),
            ),
            (404, "RepoNotFound") | (401 | 403, _) => {
                let what = format!("{file} of {id} at revision {revision}");
                let why = self.no_access(&page, code);
                self.stays(status, headers, format!("{what}: {why}"))
            }
            (404, _) => self.stays(status, headers, format!("{no_entry}, or is not there itself")),
            _ => self.status(url, status, headers),
        }
    }

    /// The failure behind an answer to any request.
    pub(super) fn status(&self, url: &str, status: StatusCode, headers: &HeaderMap) -> Failure {
        let message = match status.as_u16() {
            429 => format!("{}: the server asks for fewer requests", shown(url)),
            _ => shown(url).to_string(),
        };
        if matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504) {
            let after = text(headers, "retry-after").and_then(|text| text.parse().ok());
            let after = after.map(|s: u64| Duration::from_secs(s).min(LONGEST_WAIT));
            return Failure::new(FailureKind::Passing(after), answered(status, headers, &message));
        }
        self.stays(status, headers, message)
    }

    /// Why access to a repository is refused, and how to get it.
    pub(super) fn no_access(&self, page: &str, code: &str) -> String {
        let token = match (&self.settings.token, code) {
            (None, _) => {
                "set HF_TOKEN to a token of yours (https://huggingface.co/settings/tokens)"
            }
            (Some(_), "GatedRepo") => {
                "the token that was sent (HF_TOKEN) has not been granted access"
            }
            (Some(_), _) => {
                "the token that was sent (HF_TOKEN) was refused: it is wrong, has expired or \
                 may not read this"
            }
        };
        match code {
            "GatedRepo" => format!("the repository is gated: accept its terms at {page}; {token}"),
            _ => format!(
                "there is no such repository, or it is private or gated: check its name, accept \
                 its terms at {page}; {token}"
            ),
        }
    }

    pub(super) fn stays(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        message: String,
    ) -> Failure {
        let message = answered(status, headers, &message);
        match text(headers, "x-error-code") {
            // What the Hub says of a repository that is not there depends on the token.
            code if status == StatusCode::NOT_FOUND || code == Some("RepoNotFound") => {
                Error::not_found(message).into()
            }
            _ => Failure::new(FailureKind::Final, message),
        }
    }
}

// With the status, and the server's own words as far as they fit on a line.
fn answered(status: StatusCode, headers: &HeaderMap, message: &str) -> String {
    let said = text(headers, "x-error-message").map(brief).unwrap_or_default();
    let said = if said.is_empty() { said } else { format!(": {said}") };
    format!("{message} [status {}{said}]", status.as_u16())
}

/// The beginning of a server's text, on one line.
pub(super) fn brief(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}
