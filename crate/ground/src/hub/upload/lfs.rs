//! Large files on their way to the store of git-lfs
//! (<https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md>), in one piece or in
//! the parts that the Hub asks for.

use super::Destination;
use super::plan::LocalFile;
use crate::hub::client::{Failure, shown, text};
use crate::hub::digest::Hash;
use crate::hub::explain::brief;
use crate::hub::progress::Progress;
use crate::{Context, Error, Result, bail, ensure};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use ureq::http::{HeaderMap, StatusCode, Uri};

/// The store's addresses are valid only for a while, so few files are asked for at a time.
const FILES_A_BATCH: usize = 16;

const LFS_JSON: [(&str, &str); 2] =
    [("accept", "application/vnd.git-lfs+json"), ("content-type", "application/vnd.git-lfs+json")];

/// A stretch of a file that is sent with one request.
struct Piece<'a> {
    file: &'a LocalFile,
    from: u64,
    length: u64,
}

impl Destination<'_> {
    /// Make sure that these files are in the store; returns their SHA-256 in the same order.
    pub(super) fn send_large(&self, files: &[&LocalFile]) -> Result<Vec<String>, Failure> {
        let mut oids = Vec::with_capacity(files.len());
        for files in files.chunks(FILES_A_BATCH) {
            let hashed = files.iter().map(|file| {
                let oid = Hash::Sha256.of_file(&file.path);
                oid.with_context(|| format!("reading {}", file.path.display()))
            });
            let hashed = hashed.collect::<Result<Vec<String>>>()?;
            let answer = self.ask_store(files, &hashed)?;
            for (i, (file, oid)) in files.iter().zip(&hashed).enumerate() {
                if !hashed[..i].contains(oid) {
                    self.send_file(file, oid, &answer)?;
                }
            }
            oids.extend(hashed);
        }
        Ok(oids)
    }

    fn ask_store(&self, files: &[&LocalFile], oids: &[String]) -> Result<Value, Failure> {
        let objects = files.iter().zip(oids).map(|(f, oid)| json!({"oid": oid, "size": f.size}));
        let question = json!({
            "operation": "upload",
            "transfers": ["basic", "multipart"],
            "hash_algo": "sha256",
            "ref": {"name": self.upload.revision},
            "objects": objects.collect::<Vec<_>>(),
        });
        let path = format!("/{}.git/info/lfs/objects/batch", self.id);
        self.expect_json("asking the store of large files", &path, &question, &LFS_JSON)
    }

    fn send_file(&self, file: &LocalFile, oid: &str, answer: &Value) -> Result<(), Failure> {
        let said = answer["objects"].as_array().into_iter().flatten();
        let Some(object) = said.into_iter().find(|object| object["oid"] == json!(oid)) else {
            let message = format!("the store of large files gives no answer about {}", file.name);
            return Err(Error::new(message).into());
        };
        if let Some(error) = object["error"]["message"].as_str() {
            let message =
                format!("the store of large files refuses {}: {}", file.name, brief(error));
            return Err(Error::new(message).into());
        }
        let upload = &object["actions"]["upload"];
        // No address means that the store has the file.
        let Some(url) = self.address(upload) else { return Ok(()) };
        let url = url.as_str();
        let mut progress = Progress::new(self.client, &file.name, Some(file.size), 0);
        match chunk_size(&upload["header"])? {
            None => {
                let piece = Piece { file, from: 0, length: file.size };
                self.put(url, &headers(&upload["header"]), &piece, &mut progress)?;
            }
            Some(size) => {
                self.send_parts(file, oid, url, &upload["header"], size, &mut progress)?
            }
        }
        let verify = &object["actions"]["verify"];
        let Some(url) = self.address(verify) else { return Ok(()) };
        let headers = [&headers(&verify["header"])[..], &LFS_JSON].concat();
        self.tell(&url, &json!({"oid": oid, "size": file.size}), &headers, file)
    }

    // The address of an action. Behind a mirror, the Hub still gives its own address.
    fn address(&self, action: &Value) -> Option<String> {
        let url = action["href"].as_str()?;
        Some(match url.strip_prefix("https://huggingface.co/") {
            Some(path) => format!("{}/{path}", self.client.settings.endpoint),
            None => url.to_string(),
        })
    }

    // The addresses of the parts stand in the header, by their numbers from 1.
    fn send_parts(
        &self,
        file: &LocalFile,
        oid: &str,
        completion: &str,
        header: &Value,
        size: u64,
        progress: &mut Progress<'_>,
    ) -> Result<(), Failure> {
        let mut addresses = Vec::new();
        for (name, address) in header.as_object().into_iter().flatten() {
            if let Some((number, address)) = name.parse::<u64>().ok().zip(address.as_str()) {
                addresses.push((number, address));
            }
        }
        addresses.sort_unstable();
        let wanted = file.size.div_ceil(size);
        if !addresses.iter().map(|(number, _)| *number).eq(1..=wanted) {
            let message = format!(
                "the store of large files gives {} addresses for the {wanted} parts of {}",
                addresses.len(),
                file.name
            );
            return Err(Error::new(message).into());
        }
        let mut parts = Vec::with_capacity(addresses.len());
        for (number, address) in addresses {
            let from = (number - 1) * size;
            let piece = Piece { file, from, length: size.min(file.size - from) };
            let answer = self.put(address, &[], &piece, progress)?;
            let etag = text(&answer, "etag").map(str::to_string);
            let etag = etag.ok_or_else(|| {
                Error::new(format!("{}: the store gives no ETag of part {number}", shown(address)))
            })?;
            parts.push(json!({"partNumber": number, "etag": etag}));
        }
        self.tell(completion, &json!({"oid": oid, "parts": parts}), &LFS_JSON, file)
    }

    fn tell(
        &self,
        url: &str,
        message: &Value,
        headers: &[(&str, &str)],
        file: &LocalFile,
    ) -> Result<(), Failure> {
        match self.answer("POST", url, message.to_string().as_bytes(), headers)? {
            (200..=299, _) => Ok(()),
            (status, answer) => Err(self.refused(&file.name, status, &answer)),
        }
    }

    // Starts again from the piece's beginning if the connection fails.
    fn put(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        piece: &Piece<'_>,
        progress: &mut Progress<'_>,
    ) -> Result<HeaderMap, Failure> {
        let client = self.client;
        client.retry(client.settings.retries, || {
            self.put_once(url, headers, piece, progress).map_err(|failure| (failure, false))
        })
    }

    fn put_once(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        piece: &Piece<'_>,
        progress: &mut Progress<'_>,
    ) -> Result<HeaderMap, Failure> {
        let mut reader = Reporting { inner: piece.open()?, done: piece.from, progress };
        let response = self.send("PUT", url, headers, &mut reader, piece.length)?;
        match response.status() {
            status if status.is_success() => Ok(response.into_parts().0.headers),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if !self.is_ours(url) => {
                let message = format!("{}: the store refuses {}", shown(url), piece.file.name);
                Err(self.client.stays(response.status(), response.headers(), message))
            }
            status => Err(self.client.status(url, status, response.headers())),
        }
    }

    fn is_ours(&self, url: &str) -> bool {
        url.parse::<Uri>().is_ok_and(|uri| self.client.is_endpoint(&uri))
    }
}

impl Piece<'_> {
    fn open(&self) -> Result<io::Take<File>> {
        let path = &self.file.path;
        let open = || -> io::Result<(File, u64)> {
            let mut file = File::open(path)?;
            let size = file.metadata()?.len();
            file.seek(SeekFrom::Start(self.from))?;
            Ok((file, size))
        };
        let (file, size) = open().with_context(|| format!("reading {}", path.display()))?;
        let was = self.file.size;
        ensure!(
            size == was,
            "{} had {was} bytes and has {size}: it is being written to",
            path.display()
        );
        Ok(file.take(self.length))
    }
}

// How large the parts are, where the Hub wants parts.
fn chunk_size(header: &Value) -> Result<Option<u64>> {
    let said = match &header["chunk_size"] {
        Value::Null => return Ok(None),
        Value::String(text) => text.parse().ok(),
        number => number.as_u64(),
    };
    match said {
        Some(size) if size > 0 => Ok(Some(size)),
        _ => bail!("the store of large files wants parts of {} bytes", header["chunk_size"]),
    }
}

// The headers to be sent along.
fn headers(header: &Value) -> Vec<(&str, &str)> {
    let all = header.as_object().into_iter().flatten();
    all.filter_map(|(name, value)| Some((name.as_str(), value.as_str()?))).collect()
}

/// A reader that says how far it is.
struct Reporting<'a, 'b> {
    inner: io::Take<File>,
    done: u64,
    progress: &'a mut Progress<'b>,
}

impl Read for Reporting<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.done += n as u64;
        self.progress.at(self.done).map_err(io::Error::other)?;
        Ok(n)
    }
}
