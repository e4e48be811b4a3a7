//! The tests' Hub as a place to upload to: its interface, and the store of large files
//! beside it.

use crate::server::{Reply, Request, Server};
use crate::world::sha256;
use consistency::hub::{Hub, HubSettings, Token};
use consistency::{Context, Error, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub const COMMIT: &str = "abcdef0123456789abcdef0123456789abcdef01";
/// The store wants files above this size in parts of this size.
pub const PART: usize = 100_000;

/// What has come.
#[derive(Default)]
pub struct Got {
    /// Whether the repository is.
    pub private: bool,
    /// By its address in the store.
    pub pieces: BTreeMap<String, Vec<u8>>,
    /// The messages that name a whole file.
    pub completions: Vec<Value>,
    pub verified: Vec<Value>,
    /// The lines of the last commit.
    pub commit: Vec<Value>,
}

/// A Hub that takes uploads, its store, and a folder to upload.
pub struct Depot {
    pub hub: Server,
    pub storage: Server,
    pub folder: PathBuf,
    got: Arc<Mutex<Got>>,
}

impl Depot {
    pub fn new(name: &str) -> Result<Self> {
        let got = Arc::new(Mutex::new(Got::default()));
        let inside = Arc::clone(&got);
        let storage = Server::new(move |request| keep(request, &inside))?;
        let (inside, stored) = (Arc::clone(&got), storage.url());
        let address = Arc::new(Mutex::new(String::new()));
        let own = Arc::clone(&address);
        let hub = Server::new(move |request| {
            let own = own.lock().unwrap_or_else(PoisonError::into_inner).clone();
            interface(request, &inside, &own, &stored)
        })?;
        *address.lock().unwrap_or_else(PoisonError::into_inner) = hub.url();
        let folder = format!("consistency-{}-upload-{name}", std::process::id());
        let folder = std::env::temp_dir().join(folder.replace(' ', "-"));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        Ok(Self { hub, storage, folder, got })
    }

    /// A file of the folder.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.folder.join(name);
        fs::create_dir_all(path.parent().unwrap_or(&self.folder))?;
        fs::write(&path, bytes).with_context(|| path.display().to_string())
    }

    pub fn settings(&self) -> HubSettings {
        let mut settings = HubSettings::new(&self.hub.url(), self.folder.join("none"));
        settings.stall = Duration::from_millis(300);
        settings.retries = 2;
        settings.backoff = Duration::from_millis(2);
        settings.quiet = true;
        settings
    }

    pub fn client(&self, token: &str) -> Result<Hub> {
        let mut settings = self.settings();
        settings.token = Some(Token::new(token)?);
        Hub::new(settings)
    }

    pub fn got<T>(&self, look: impl FnOnce(&Got) -> T) -> T {
        look(&self.got.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Depot {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

// The store: what is put is kept, and its SHA-256 is its ETag.
fn keep(request: &Request, got: &Mutex<Got>) -> Reply {
    let mut got = got.lock().unwrap_or_else(PoisonError::into_inner);
    match request.method.as_str() {
        "PUT" => {
            let etag = format!("\"{}\"", sha256(&request.body));
            got.pieces.insert(request.path.clone(), request.body.clone());
            Reply::new(200, "").with("etag", &etag)
        }
        _ => {
            got.completions.push(parsed(&request.body));
            Reply::new(200, "{}")
        }
    }
}

fn parsed(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_default()
}

fn interface(request: &Request, got: &Mutex<Got>, own: &str, storage: &str) -> Reply {
    let mut got = got.lock().unwrap_or_else(PoisonError::into_inner);
    let body = parsed(&request.body);
    let json = |value: Value| Reply::new(200, value.to_string());
    match (request.method.as_str(), request.path.as_str()) {
        ("POST", "/api/repos/create") => {
            got.private = body["private"] == json!(true);
            json(json!({"url": format!("{own}/lab/new")}))
        }
        ("GET", "/api/models/lab/new") => json(json!({"id": "lab/new", "private": got.private})),
        ("POST", "/api/models/lab/new/preupload/main") => {
            let files = body["files"].as_array().into_iter().flatten().map(mode);
            json(json!({"files": files.collect::<Vec<_>>()}))
        }
        ("POST", "/lab/new.git/info/lfs/objects/batch") => {
            let objects = body["objects"].as_array().into_iter().flatten();
            let objects = objects.map(|object| actions(object, storage));
            json(json!({"transfer": "basic", "objects": objects.collect::<Vec<_>>()}))
        }
        ("POST", "/verify") => {
            got.verified.push(body);
            json(json!({}))
        }
        ("POST", "/api/models/lab/new/commit/main") => {
            let text = String::from_utf8_lossy(&request.body).into_owned();
            got.commit = text.lines().map(|line| parsed(line.as_bytes())).collect();
            let url = format!("{own}/lab/new/commit/{COMMIT}");
            json(json!({"success": true, "commitOid": COMMIT, "commitUrl": url}))
        }
        _ => Reply::new(404, r#"{"error": "Revision not found"}"#),
    }
}

fn mode(file: &Value) -> Value {
    let path = file["path"].as_str().unwrap_or_default();
    let lfs = path.ends_with(".safetensors") || path.ends_with(".empty");
    let mode = if lfs { "lfs" } else { "regular" };
    json!({"path": path, "uploadMode": mode, "shouldIgnore": path.ends_with(".tmp")})
}

/// A file that the store has already has this content.
pub const KNOWN: &[u8] = b"the store has this";

fn actions(object: &Value, storage: &str) -> Value {
    let (oid, size) = (&object["oid"], object["size"].as_u64().unwrap_or(0) as usize);
    let name = oid.as_str().unwrap_or_default();
    if name == sha256(KNOWN) {
        return json!({"oid": oid, "size": size});
    }
    let mut upload =
        json!({"href": format!("{storage}/{name}?signature=s"), "header": {"x-kind": "basic"}});
    if size > PART {
        let mut header = json!({"chunk_size": PART.to_string()});
        for part in 1..=size.div_ceil(PART) {
            header[format!("{part:05}")] = json!(format!("{storage}/{name}/{part}?signature=s"));
        }
        upload = json!({"href": format!("{storage}/complete?signature=s"), "header": header});
    }
    // Behind a mirror, the Hub names itself; the mirror is meant.
    let verify = json!({"href": "https://huggingface.co/verify", "header": {}});
    json!({"oid": oid, "size": size, "actions": {"upload": upload, "verify": verify}})
}

/// The message of the commit and its entries by their paths.
pub fn entries(commit: &[Value]) -> Result<(Value, BTreeMap<String, Value>)> {
    let (header, files) = commit.split_first().ok_or_else(|| Error::new("there was no commit"))?;
    let files = files
        .iter()
        .map(|file| (file["value"]["path"].as_str().unwrap_or_default().to_string(), file.clone()));
    Ok((header.clone(), files.collect()))
}
