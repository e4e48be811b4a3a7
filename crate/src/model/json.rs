//! Configurations as others write them: objects of JSON whose errors name the key and its value.

use crate::{Error, Result, bail};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

pub(super) type Keys = Map<String, Value>;

/// How much is shown of a value or a message that comes from a file.
const SHOWN: usize = 400;

/// The keys of a text that is one object. Python writes numbers that JSON does not have (`NaN`,
/// `Infinity`): they become strings here, so that their key refuses them by name.
///
/// # Errors
/// Text that is not JSON, with line and column, or that is not an object.
pub(super) fn object(text: &str) -> Result<Keys> {
    let value = match serde_json::from_str(text) {
        Err(error) => match serde_json::from_str(&quoted(text)) {
            Ok(value) => value,
            // The error of the text as it is.
            Err(_) => return Err(Error::new(error.to_string())),
        },
        Ok(value) => value,
    };
    match value {
        Value::Object(keys) => Ok(keys),
        other => bail!("{}: an object of keys and values is needed", shown(&other)),
    }
}

// The text with quotes around the words, outside strings, that Python takes for numbers.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' => end_of_text(rest),
            _ => {
                let words = ["NaN", "Infinity", "-Infinity"];
                if let Some(word) = words.into_iter().find(|word| rest.starts_with(word)) {
                    out.extend(["\"", word, "\""]);
                    rest = &rest[word.len()..];
                    continue;
                }
                first.len_utf8()
            }
        };
        out.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    out
}

// The place after the closing quote, or the end where there is none.
fn end_of_text(text: &str) -> usize {
    let mut escaped = false;
    for (i, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return i + 1,
            _ => {}
        }
    }
    text.len()
}

/// `T` from these keys, where each key alone makes one (all others have defaults).
///
/// # Errors
/// The key that does not, with its value.
pub(super) fn typed<T: DeserializeOwned>(keys: Keys) -> Result<T> {
    let Err(whole) = serde_json::from_value::<T>(Value::Object(keys.clone())) else {
        return serde_json::from_value(Value::Object(keys)).map_err(|e| cut(&e));
    };
    for (key, value) in keys {
        let alone = Keys::from_iter([(key.clone(), value.clone())]);
        if let Err(error) = serde_json::from_value::<T>(Value::Object(alone)) {
            return Err(cut(&error).context(format!("{key} = {}", shown(&value))));
        }
    }
    Err(cut(&whole))
}

/// The value, or its beginning.
pub(super) fn shown(value: &Value) -> String {
    short(&value.to_string())
}

fn cut(error: &serde_json::Error) -> Error {
    Error::new(short(&error.to_string()))
}

/// The text, or its beginning.
pub(super) fn short(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{} ...", &text[..end]),
        None => text.to_string(),
    }
}
