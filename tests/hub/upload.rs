//! An upload is one commit of exactly the folder's bytes, or an error and no commit.

use crate::server::{Fault, Reply};
use crate::store::{COMMIT, Depot, KNOWN, PART, entries};
use crate::world::{TOKEN, message, sha256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use consistency::hub::{Hub, Upload, UploadMode};
use consistency::{Error, Result, ensure};
use serde_json::{Value, json};
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 7 + i / 255) as u8).collect()
}

/// A model with a file of each kind.
fn filled(name: &str) -> Result<Depot> {
    let depot = Depot::new(name)?;
    depot.write("config.json", b"{}\n")?;
    depot.write("unet/small.safetensors", &bytes(1000))?;
    depot.write("unet/large.safetensors", &bytes(2 * PART + 321))?;
    depot.write("unet/same.safetensors", &bytes(1000))?;
    depot.write("known.safetensors", KNOWN)?;
    depot.write("nothing.empty", b"")?;
    depot.write("left.tmp", b"ignored")?;
    depot.write(".git/config", b"never")?;
    Ok(depot)
}

#[test]
fn a_folder_becomes_one_commit() -> Result<()> {
    let depot = filled("whole")?;
    let upload = Upload { message: "First \"model\"".into(), private: true, ..Upload::default() };
    let done = depot.client(TOKEN)?.upload("lab/new", &depot.folder, &upload)?;
    let named = |name: &str, size: usize, mode| (name.to_string(), size as u64, mode);
    assert_eq!(
        done.files,
        [
            named("config.json", 3, UploadMode::Regular),
            named("known.safetensors", KNOWN.len(), UploadMode::Lfs),
            named("nothing.empty", 0, UploadMode::Regular),
            named("unet/large.safetensors", 2 * PART + 321, UploadMode::Lfs),
            named("unet/same.safetensors", 1000, UploadMode::Lfs),
            named("unet/small.safetensors", 1000, UploadMode::Lfs),
        ]
    );
    assert_eq!(done.commit.as_deref(), Some(COMMIT));
    assert_eq!(done.url, format!("{}/lab/new/commit/{COMMIT}", depot.hub.url()));
    check_store(&depot)?;
    check_commit(&depot)?;
    // The Hub alone sees the token.
    let bearer = format!("Bearer {TOKEN}");
    assert!(depot.hub.seen().iter().all(|seen| seen.header("authorization") == Some(&bearer)));
    assert!(depot.storage.seen().iter().all(|seen| seen.header("authorization").is_none()));
    let seen = depot.hub.seen();
    let created: Value = serde_json::from_slice(&seen[0].body).unwrap_or_default();
    let wanted = json!({"type": "model", "name": "new", "organization": "lab", "private": true});
    assert_eq!(created, wanted);
    let asked: Value = serde_json::from_slice(&seen[2].body).unwrap_or_default();
    let large = bytes(2 * PART + 321);
    let described = json!({
        "path": "unet/large.safetensors", "size": large.len(), "sample": BASE64.encode(&large[..512])
    });
    assert!(asked["files"].as_array().is_some_and(|files| files.contains(&described)), "{asked}");
    Ok(())
}

fn check_store(depot: &Depot) -> Result<()> {
    let (small, large) = (bytes(1000), bytes(2 * PART + 321));
    let (basic, multi) = (sha256(&small), sha256(&large));
    depot.got(|got| {
        // The small one once, though two files have its content, and the parts of the large.
        ensure!(got.pieces.len() == 4, "{:?}", got.pieces.keys());
        ensure!(got.pieces[&format!("/{basic}?signature=s")] == small, "small is another");
        let parts = (1..=3).map(|part| got.pieces[&format!("/{multi}/{part}?signature=s")].clone());
        let parts: Vec<Vec<u8>> = parts.collect();
        ensure!(parts.concat() == large, "large is another");
        let etags = parts.iter().zip(1..).map(
            |(part, number)| json!({"partNumber": number, "etag": format!("\"{}\"", sha256(part))}),
        );
        let completion = json!({"oid": multi, "parts": etags.collect::<Vec<_>>()});
        ensure!(got.completions == [completion], "{:?}", got.completions);
        let verified =
            [json!({"oid": multi, "size": 200_321}), json!({"oid": basic, "size": 1000})];
        ensure!(got.verified == verified, "{:?}", got.verified);
        Ok(())
    })?;
    let puts = depot.storage.seen();
    let basic = puts.iter().find(|put| put.path.contains(&basic));
    assert_eq!(basic.and_then(|put| put.header("x-kind")), Some("basic"));
    Ok(())
}

fn check_commit(depot: &Depot) -> Result<()> {
    let (header, files) = depot.got(|got| entries(&got.commit))?;
    let value = json!({"summary": "First \"model\"", "description": ""});
    assert_eq!(header, json!({"key": "header", "value": value}));
    assert_eq!(files.len(), 6);
    for (name, text) in [("config.json", "{}\n"), ("nothing.empty", "")] {
        let content = BASE64.encode(text);
        let value = json!({"content": content, "path": name, "encoding": "base64"});
        assert_eq!(files[name], json!({"key": "file", "value": value}));
    }
    for (name, bytes) in [
        ("known.safetensors", KNOWN.to_vec()),
        ("unet/small.safetensors", bytes(1000)),
        ("unet/same.safetensors", bytes(1000)),
        ("unet/large.safetensors", bytes(2 * PART + 321)),
    ] {
        let (oid, size) = (sha256(&bytes), bytes.len());
        let value = json!({"path": name, "algo": "sha256", "oid": oid, "size": size});
        assert_eq!(files[name], json!({"key": "lfsFile", "value": value}));
    }
    Ok(())
}

#[test]
fn faults_that_pass_do_not_harm() -> Result<()> {
    let depot = filled("passing")?;
    let busy: Fault = Arc::new(|_, _| Reply::new(503, "busy"));
    let lost: Fault = Arc::new(|_, reply| Reply { silent: true, ..reply });
    let reset: Fault = Arc::new(|_, reply| Reply { silent: true, reset: true, ..reply });
    let late: Fault = Arc::new(|_, reply| Reply { delay: Duration::from_millis(500), ..reply });
    // Each second request fails, and the last answer is late.
    for number in [0, 2, 4, 8] {
        depot.hub.spoil(number..number + 1, Arc::clone(&busy));
    }
    depot.hub.spoil(6..7, Arc::clone(&lost));
    depot.hub.spoil(10..11, late);
    for number in [0, 2, 5] {
        depot.storage.spoil(number..number + 1, Arc::clone(&reset));
    }
    let upload = Upload { message: "First \"model\"".into(), ..Upload::default() };
    depot.client(TOKEN)?.upload("lab/new", &depot.folder, &upload)?;
    assert_eq!(depot.hub.seen().len(), 11, "a late answer is no lost one");
    check_commit(&depot)
}

#[test]
fn a_refusal_is_said_and_nothing_is_committed() -> Result<()> {
    let says = |status: u16, text: &str| -> Fault {
        let body = json!({"error": format!("{text} {TOKEN}")}).to_string();
        Arc::new(move |_, _| Reply::new(status, body.clone()))
    };
    // Which requests of the Hub are spoilt from where on, and what is said.
    let rows: [(usize, Fault, &[&str]); 7] = [
        (0, says(401, "Invalid"), &["making the repository", "status 401: Invalid", "HF_TOKEN"]),
        (0, says(400, "Bad name"), &["status 400: Bad name"]),
        (0, says(503, "busy"), &["/api/repos/create", "503", "3 attempts"]),
        (1, says(403, "Forbidden"), &["how to upload the files", "403", "right to write"]),
        (2, says(404, "Gone"), &["store of large files", "404"]),
        (2, Arc::new(|_, _| Reply::new(200, "{}")), &["gives no answer about known.safetensors"]),
        (5, says(412, "moved"), &["the commit", "412", "try again"]),
    ];
    for (from, fault, words) in rows {
        let depot = filled(&format!("refused {from} {}", words.len()))?;
        depot.hub.spoil(from..usize::MAX, fault);
        let began = Instant::now();
        let got = depot.client(TOKEN)?.upload("lab/new", &depot.folder, &Upload::default());
        let text = message(got);
        for word in words {
            ensure!(text.contains(word), "no {word:?} in: {text}");
        }
        ensure!(!text.contains(TOKEN), "the token is in: {text}");
        // The last of these is the commit itself.
        let committed = depot.got(|got| !got.commit.is_empty());
        ensure!(committed == (from == 5), "a commit in spite of: {text}");
        ensure!(began.elapsed() < Duration::from_secs(2), "{text} took too long");
    }
    let depot = filled("store")?;
    depot.storage.spoil(0..usize::MAX, says(403, "expired"));
    let got = depot.client(TOKEN)?.upload("lab/new", &depot.folder, &Upload::default());
    let text = message(got);
    assert!(text.contains("the store refuses") && !text.contains("signature"), "{text}");
    depot.got(|got| assert!(got.commit.is_empty()));
    Ok(())
}

#[test]
fn what_cannot_be_uploaded_is_not_begun() -> Result<()> {
    let depot = filled("begun")?;
    let (client, folder) = (depot.client(TOKEN)?, &depot.folder);
    let default = Upload::default;
    let no_token = Hub::new(depot.settings())?;
    assert!(message(no_token.upload("lab/new", folder, &default())).contains("set HF_TOKEN"));
    let mut settings = depot.settings();
    settings.offline = true;
    let offline = Hub::new(settings)?;
    assert!(message(offline.upload("lab/new", folder, &default())).contains("HF_HUB_OFFLINE"));
    assert!(
        message(client.upload("a b", folder, &default())).contains("not the name of a repository")
    );
    let wrong = Upload { revision: "../x".into(), ..default() };
    assert!(message(client.upload("lab/new", folder, &wrong)).contains("is not a revision"));
    let empty = folder.join("empty");
    assert!(message(client.upload("lab/new", &empty, &default())).contains("there is no folder"));
    fs::create_dir(&empty)?;
    assert!(message(client.upload("lab/new", &empty, &default())).contains("has no files"));
    std::os::unix::fs::symlink(folder, empty.join("circle"))?;
    assert!(message(client.upload("lab/new", &empty, &default())).contains("link to a folder"));
    assert!(depot.hub.seen().is_empty());
    Ok(())
}

#[test]
fn a_public_repository_is_not_taken_for_a_private_one() -> Result<()> {
    let public: Fault = Arc::new(|_, _| Reply::new(200, r#"{"private": false}"#));
    let private = Upload { private: true, ..Upload::default() };
    // There already; not this person's to make; made, and the wish not heard.
    for status in [409, 403, 200] {
        let depot = filled(&format!("public {status}"))?;
        depot.hub.spoil(0..1, Arc::new(move |_, _| Reply::new(status, "{}")));
        depot.hub.spoil(1..2, Arc::clone(&public));
        let text = message(depot.client(TOKEN)?.upload("lab/new", &depot.folder, &private));
        assert!(text.contains("lab/new is public but should be private"), "{text}");
        assert_eq!(depot.hub.seen().len(), 2);
    }
    let depot = filled("forbidden")?;
    depot.hub.spoil(0..1, Arc::new(|_, _| Reply::new(403, r#"{"error": "not yours"}"#)));
    depot.hub.spoil(1..2, Arc::new(|_, _| Reply::new(404, "{}")));
    let text = message(depot.client(TOKEN)?.upload("lab/new", &depot.folder, &private));
    assert!(text.contains("making the repository: [status 403: not yours]"), "{text}");
    let depot = filled("there")?;
    depot.hub.spoil(0..1, Arc::new(|_, _| Reply::new(409, "{}")));
    depot.client(TOKEN)?.upload("lab/new", &depot.folder, &Upload::default())?;
    check_files(&depot)
}

fn check_files(depot: &Depot) -> Result<()> {
    let (_, files) = depot.got(|got| entries(&got.commit))?;
    match files.len() {
        6 => Ok(()),
        n => Err(Error::new(format!("{n} files were committed"))),
    }
}

#[test]
fn a_dry_run_sends_nothing() -> Result<()> {
    let depot = filled("dry")?;
    let dry = Upload { dry_run: true, ..Upload::default() };
    // Not even a token is needed.
    let done = Hub::new(depot.settings())?.upload("lab/new", &depot.folder, &dry)?;
    assert!(depot.hub.seen().is_empty());
    let modes: Vec<_> = done.files.iter().map(|(name, _, mode)| format!("{name} {mode}")).collect();
    assert_eq!(
        modes,
        [
            "config.json regular",
            "known.safetensors lfs",
            "left.tmp regular",
            "nothing.empty regular",
            "unet/large.safetensors lfs",
            "unet/same.safetensors lfs",
            "unet/small.safetensors lfs",
        ]
    );
    assert_eq!((done.commit, done.url), (None, format!("{}/lab/new", depot.hub.url())));
    Ok(())
}
