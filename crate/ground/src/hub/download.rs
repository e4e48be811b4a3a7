//! A file's content, from the first byte to the verified blob.

use super::client::{Client, Failure, FailureKind, shown, text};
use super::digest::Hash;
use super::folder::{Folder, make_parent};
use super::metadata::Metadata;
use super::progress::Progress;
use super::target::Target;
use crate::{Context, Error, Result};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use ureq::Body;
use ureq::http::{Response, StatusCode};

/// This many new bytes count as progress, which starts the count of attempts anew. (A server that
/// gives one byte per connection is not worth waiting for.)
const PROGRESS: u64 = 1 << 20;

/// One file on its way into the cache.
pub(super) struct Download<'a> {
    pub client: &'a Client,
    pub folder: &'a Folder,
    pub target: &'a Target<'a>,
    pub metadata: &'a Metadata,
}

impl Download<'_> {
    /// Make sure that the content is in the cache, whole and verified.
    pub(super) fn fetch(&self) -> Result<(), Failure> {
        let etag = &self.metadata.etag;
        let blob = self.folder.blob(etag);
        if self.is_whole(&blob) {
            return Ok(());
        }
        let _lock = self.folder.lock(etag, self.client)?;
        if self.is_whole(&blob) {
            return Ok(());
        }
        let part = self.folder.part(etag);
        make_parent(&part)?;
        match self.content(&part) {
            // A part from an earlier day may be what was wrong.
            Err(failure) if failure.kind == FailureKind::Corrupt => self.content(&part),
            other => other,
        }?;
        self.keep(&part, &blob)?;
        Ok(())
    }

    // A blob whose length is not the announced one is not the blob that was put there.
    fn is_whole(&self, blob: &Path) -> bool {
        let length = fs::metadata(blob).ok().filter(fs::Metadata::is_file).map(|data| data.len());
        length.is_some_and(|length| self.metadata.size.is_none_or(|size| size == length))
    }

    // The whole content in the part, verified; a part that is wrong is deleted.
    fn content(&self, part: &Path) -> Result<(), Failure> {
        let mut furthest = length(part);
        let transferred = self.client.retry(self.client.settings.retries, || {
            self.attempt(part).map_err(|failure| {
                let progress = length(part) >= furthest + PROGRESS;
                furthest = furthest.max(length(part));
                (failure, progress)
            })
        });
        transferred.and_then(|()| self.verify(part)).inspect_err(|failure| {
            if failure.kind == FailureKind::Corrupt {
                let _ = fs::remove_file(part);
            }
        })
    }

    // From where the part ends.
    fn attempt(&self, part: &Path) -> Result<(), Failure> {
        let size = self.metadata.size;
        let mut start = length(part);
        if size.is_some_and(|size| start > size) {
            fs::remove_file(part).with_context(|| format!("deleting {}", part.display()))?;
            start = 0;
        }
        if part.is_file() && Some(start) == size {
            return Ok(());
        }
        let url = self.target.url(&self.client.settings.endpoint);
        let range = format!("bytes={start}-");
        let mut headers = vec![("accept-encoding", "identity")];
        if start > 0 {
            headers.push(("range", &range));
        }
        let response = self.client.follow(&url, &headers)?;
        let start = match response.status() {
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT if start > 0 && first_byte(&response) == Some(start) => {
                start
            }
            // What was asked for and what is there do not match: start from the beginning.
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if start > 0 => {
                fs::remove_file(part).with_context(|| format!("deleting {}", part.display()))?;
                let message = format!("{}: the server cannot resume at byte {start}", shown(&url));
                return Err(Failure::passing(message));
            }
            status => {
                return Err(self.client.explain(self.target, &url, status, response.headers()));
            }
        };
        self.check_length(&url, &response, start)?;
        self.receive(&url, response, part, start)
    }

    // Before gigabytes are sent for nothing.
    fn check_length(
        &self,
        url: &str,
        response: &Response<Body>,
        start: u64,
    ) -> Result<(), Failure> {
        let length = text(response.headers(), "content-length").and_then(|text| text.parse().ok());
        match length.zip(self.metadata.size) {
            Some((length, size)) if size.checked_sub(start) != Some(length) => {
                Err(self.corrupt(url, format!("{} bytes were to come", start + length)))
            }
            _ => Ok(()),
        }
    }

    fn receive(
        &self,
        url: &str,
        response: Response<Body>,
        part: &Path,
        start: u64,
    ) -> Result<(), Failure> {
        let size = self.metadata.size;
        let mut file =
            open_at(part, start).with_context(|| format!("opening {}", part.display()))?;
        let mut progress = Progress::new(self.client, self.target.file, size, start);
        let (mut reader, mut done) = (response.into_body().into_reader(), start);
        let mut buffer = vec![0; 1 << 16];
        loop {
            let n = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.client.failed(url, error.into())),
            };
            file.write_all(&buffer[..n]).with_context(|| format!("writing {}", part.display()))?;
            done += n as u64;
            if size.is_some_and(|size| done > size) {
                return Err(self.corrupt(url, format!("more than {done} bytes came")));
            }
            progress.at(done)?;
        }
        match size {
            Some(size) if done < size => Err(Failure::passing(format!(
                "{}: the connection ended after {done} of {size} bytes",
                shown(url)
            ))),
            _ => Ok(()),
        }
    }

    fn verify(&self, part: &Path) -> Result<(), Failure> {
        let url = self.target.url(&self.client.settings.endpoint);
        let etag = &self.metadata.etag;
        let came = length(part);
        if self.metadata.size.is_some_and(|size| size != came) {
            return Err(self.corrupt(&url, format!("{came} bytes came")));
        }
        let Some(hash) = Hash::of_etag(etag) else {
            // Then only the length vouches for it.
            return match self.metadata.size {
                Some(_) => Ok(()),
                None => Err(Error::new(format!(
                    "{}: the server gives neither a length nor a hash of the Hub's (ETag {etag}), \
                     so the file cannot be verified",
                    shown(&url)
                ))
                .into()),
            };
        };
        let found = hash.of_file(part).with_context(|| format!("reading {}", part.display()))?;
        match found == *etag {
            true => Ok(()),
            false => {
                Err(self.corrupt(&url, format!("the {} of what came is {found}", hash.name())))
            }
        }
    }

    fn corrupt(&self, url: &str, came: String) -> Failure {
        let (etag, size) = (&self.metadata.etag, self.metadata.size);
        let announced = match size {
            Some(size) => format!("{size} bytes with the ETag {etag} were announced"),
            None => format!("the ETag {etag} was announced"),
        };
        let message = format!(
            "{}: {announced}, and {came}; twice, so it is not the connection: the file may \
             have just been replaced, or a proxy changes it",
            shown(url)
        );
        Failure::new(FailureKind::Corrupt, message)
    }

    fn keep(&self, part: &Path, blob: &Path) -> Result<()> {
        let place = || -> io::Result<()> {
            File::open(part)?.sync_all()?;
            fs::rename(part, blob)
        };
        place().with_context(|| format!("writing {}", blob.display()))?;
        let folder: PathBuf = blob.parent().map_or_else(PathBuf::new, Path::to_path_buf);
        sync_folder(&folder).with_context(|| format!("writing {}", folder.display()))
    }
}

// The part, to be written from this byte on.
fn open_at(part: &Path, start: u64) -> io::Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(part)?;
    if file.metadata()?.len() != start {
        file.set_len(start)?;
    }
    Ok(file)
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |data| data.len())
}

// N of `Content-Range: bytes N-M/TOTAL`.
fn first_byte(response: &Response<Body>) -> Option<u64> {
    let range = text(response.headers(), "content-range")?.strip_prefix("bytes ")?;
    range.split('-').next()?.trim().parse().ok()
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}
