//! The format of an image, recognised by its first bytes.

use crate::{Error, Result, ensure};
use std::path::Path;

/// The formats that are read, for messages.
pub(crate) const READ: &str = "PNG, JPEG, WebP, BMP, TIFF and GIF are read";

/// The endings of their files.
pub(crate) const ENDINGS: [&str; 8] = ["png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff", "gif"];

/// A format that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Png,
    Jpeg,
    Webp,
    Bmp,
    Tiff,
    Gif,
}

impl Format {
    pub fn name(self) -> &'static str {
        match self {
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::Webp => "WebP",
            Self::Bmp => "BMP",
            Self::Tiff => "TIFF",
            Self::Gif => "GIF",
        }
    }
}

/// The format of an image.
///
/// # Errors
/// Bytes that are not an image, or an image that is not read; the message says what they are.
pub(super) fn of(bytes: &[u8]) -> Result<Format> {
    match bytes {
        [0x89, b'P', b'N', b'G', ..] => Ok(Format::Png),
        [0xff, 0xd8, 0xff, ..] => Ok(Format::Jpeg),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Ok(Format::Webp),
        // Two letters are no proof: the size of the header that follows is one of six.
        [b'B', b'M', ..] if matches!(bytes.get(14), Some(12 | 40 | 52 | 56 | 108 | 124)) => {
            Ok(Format::Bmp)
        }
        [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => Ok(Format::Tiff),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Ok(Format::Gif),
        _ if is_pointer(bytes) => Err(pointer()),
        _ => Err(Error::new(format!("{} ({} bytes); {READ}", other(bytes), bytes.len()))),
    }
}

fn other(bytes: &[u8]) -> String {
    let known = match bytes {
        [] => "nothing",
        [_, _, _, _, b'f', b't', b'y', b'p', b'a', b'v', b'i', ..] => "AVIF",
        [_, _, _, _, b'f', b't', b'y', b'p', b'h' | b'm', ..] => "HEIC",
        [0xff, 0x0a, ..] | [0, 0, 0, 12, b'J', b'X', b'L', ..] => "JPEG XL",
        [0, 0, 0, 12, b'j', b'P', ..] | [0xff, 0x4f, 0xff, 0x51, ..] => "JPEG 2000",
        [b'8', b'B', b'P', b'S', ..] => "a Photoshop document",
        [b'%', b'P', b'D', b'F', ..] => "PDF",
        [b'P', b'K', 3, 4, ..] => "a ZIP archive",
        [0x1f, 0x8b, ..] => "gzip",
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => "a NumPy array",
        _ if bytes.starts_with(b"<svg") => "SVG",
        _ => "",
    };
    if !known.is_empty() {
        return format!("not an image format that is read: {known}");
    }
    let start = &bytes[..bytes.len().min(24)];
    match std::str::from_utf8(start) {
        Ok(text) if !text.chars().any(|c| c.is_control() && !c.is_whitespace()) => {
            format!("not an image: the text {text:?}")
        }
        _ => {
            let hex: Vec<String> = start.iter().take(4).map(|b| format!("{b:02x}")).collect();
            format!("not a known image format: it begins with the bytes {}", hex.join(" "))
        }
    }
}

fn is_pointer(bytes: &[u8]) -> bool {
    bytes.starts_with(b"version https://git-lfs.github.com/spec/")
}

fn pointer() -> Error {
    Error::new(
        "a pointer of Git LFS in place of the file: run `git lfs pull` in the repository that it \
         was cloned from",
    )
}

/// Refuse the file `path`, which begins with `bytes`, if it is a pointer of Git LFS.
pub(crate) fn refuse_pointer(path: &Path, bytes: &[u8]) -> Result<()> {
    ensure!(!is_pointer(bytes), "{} is {}", path.display(), pointer());
    Ok(())
}
