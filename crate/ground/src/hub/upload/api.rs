//! Requests to the Hub and its answers, in JSON.

use super::{Destination, Kind, Target};
use crate::hub::client::{Failure, FailureKind};
use crate::hub::explain::brief;
use serde_json::Value;
use std::io::Read;
use ureq::http::Response;
use ureq::{Body, SendBody};

/// The most that an answer may be; the addresses of a large file's parts are long.
const LONGEST_ANSWER: u64 = 64 << 20;

/// A status and the answer's JSON; null where it has none.
pub(super) type Answer = (u16, Value);

impl Destination<'_> {
    /// The path of the repository's interface, followed by `rest`.
    pub(super) fn api(&self, rest: &str) -> String {
        format!("/api/models/{}{rest}", self.id)
    }

    /// The answer to a request at this path of the endpoint, once its status is not temporary.
    pub(super) fn post(
        &self,
        path: &str,
        body: &[u8],
        headers: &[(&str, &str)],
    ) -> Result<Answer, Failure> {
        self.answer("POST", &format!("{}{path}", self.client.settings.endpoint), body, headers)
    }

    /// As [`Destination::post`], of JSON.
    pub(super) fn post_json(
        &self,
        path: &str,
        question: &Value,
        headers: &[(&str, &str)],
    ) -> Result<Answer, Failure> {
        let plain = [("content-type", "application/json")];
        let headers = if headers.is_empty() { &plain } else { headers };
        self.post(path, question.to_string().as_bytes(), headers)
    }

    /// What is at this path of the endpoint.
    pub(super) fn get_json(&self, path: &str) -> Result<Answer, Failure> {
        self.answer("GET", &format!("{}{path}", self.client.settings.endpoint), &[], &[])
    }

    /// As [`Destination::post_json`], where anything but success is an error.
    pub(super) fn expect_json(
        &self,
        what: &str,
        path: &str,
        question: &Value,
        headers: &[(&str, &str)],
    ) -> Result<Value, Failure> {
        match self.post_json(path, question, headers)? {
            (200..=299, answer) => Ok(answer),
            (status, answer) => Err(self.refused(what, status, &answer)),
        }
    }

    /// An answer from any server, asked again while its status is temporary.
    pub(super) fn answer(
        &self,
        method: &str,
        url: &str,
        body: &[u8],
        headers: &[(&str, &str)],
    ) -> Result<Answer, Failure> {
        let client = self.client;
        let ask = || {
            let mut reader = body;
            let response = self.send(method, url, headers, &mut reader, body.len() as u64)?;
            let failure = client.status(url, response.status(), response.headers());
            if failure.passes() {
                return Err(failure);
            }
            let status = response.status().as_u16();
            Ok((status, self.read(url, response)?))
        };
        client.retry(client.settings.retries, || ask().map_err(|failure| (failure, false)))
    }

    /// One request with a body of this length, from the beginning of `body`.
    pub(super) fn send(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: &mut dyn Read,
        length: u64,
    ) -> Result<Response<Body>, Failure> {
        // An upload's answer may be late: the Hub checks what it received.
        let wait = Some(self.client.settings.stall.saturating_mul(10));
        if method == "GET" {
            return self.client.send_within(wait, method, url, headers, SendBody::none());
        }
        let length = length.to_string();
        let headers = [headers, &[("content-length", &length)]].concat();
        self.client.send_within(wait, method, url, &headers, SendBody::from_reader(body))
    }

    fn read(&self, url: &str, response: Response<Body>) -> Result<Value, Failure> {
        let body = response.into_body().into_with_config().limit(LONGEST_ANSWER).read_to_vec();
        let bytes = body.map_err(|error| self.client.failed(url, error))?;
        Ok(serde_json::from_slice(&bytes).unwrap_or_default())
    }

    /// The failure behind a status that stays.
    pub(super) fn refused(&self, what: &str, status: u16, answer: &Value) -> Failure {
        let (id, revision) = (self.id, self.upload.revision.as_str());
        let target = Target { kind: Kind::Model, id, revision, file: "" };
        let page = target.page(&self.client.settings.endpoint);
        let said = answer["error"].as_str().map(brief).unwrap_or_default();
        let said = if said.is_empty() { said } else { format!(": {said}") };
        let why = match status {
            401 | 403 => {
                "; the token (HF_TOKEN) was refused: it needs the right to write there, see \
                 https://huggingface.co/settings/tokens"
            }
            404 => "; check the name, and that the revision is there",
            412 => "; the branch has moved meanwhile: try again",
            _ => "",
        };
        let message =
            format!("upload to {page} at {revision}: {what}: [status {status}{said}]{why}");
        Failure::new(FailureKind::Final, message)
    }
}
