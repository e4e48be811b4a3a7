//! The access token, and how it is kept out of every text.

use crate::{Result, ensure};
use std::fmt;

/// An access token of the Hub. Neither its `Debug` nor its `Display` form shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The token in `text`, without white space around it.
    ///
    /// # Errors
    /// An empty token, or one that cannot stand in a header. The message does not show it.
    pub fn new(text: &str) -> Result<Self> {
        let text = text.trim();
        ensure!(!text.is_empty(), "the token is empty");
        ensure!(
            text.bytes().all(|b| b.is_ascii_graphic()),
            "the token has white space or other odd characters in it: copy it anew from \
             https://huggingface.co/settings/tokens"
        );
        Ok(Self(text.to_string()))
    }

    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// `text` without the token, and without `user:password@` in addresses. A server may send
/// back what it was sent, so every message goes through here.
pub(super) fn scrub(text: &str, token: Option<&Token>) -> String {
    let text = match token {
        Some(token) => text.replace(token.reveal(), "***"),
        None => text.to_string(),
    };
    let mut rest = text.as_str();
    let mut clean = String::with_capacity(text.len());
    while let Some((before, after)) = rest.split_once("://") {
        clean.push_str(before);
        clean.push_str("://");
        let host = after.find(|c: char| c == '/' || c.is_whitespace()).unwrap_or(after.len());
        rest = match after[..host].rfind('@') {
            Some(at) => &after[at + 1..],
            None => after,
        };
    }
    clean.push_str(rest);
    clean
}
