//! What is in the cache is not asked for again, and serves when the network does not.

use crate::server::Reply;
use crate::world::{
    COMMIT, ID, LARGE, OTHER_COMMIT, SMALL, World, content, first, git_blob, message, sha256,
};
use consistency::hub::Hub;
use consistency::{Result, ensure};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn offline(world: &World) -> Result<Hub> {
    let mut settings = world.settings();
    settings.offline = true;
    Hub::new(settings)
}

#[test]
fn the_layout_is_the_python_librarys() -> Result<()> {
    let world = World::new("layout")?;
    let toy = world.client()?.model(ID, "main")?;
    for name in [SMALL, LARGE] {
        let path = toy.file(name)?;
        assert_eq!(path, world.folder().join("snapshots").join(COMMIT).join(name));
        assert_eq!(fs::read(path)?, content(name));
    }
    assert_eq!(fs::read_to_string(world.folder().join("refs/main"))?, COMMIT);
    let snapshot = world.folder().join("snapshots").join(COMMIT);
    let target = fs::read_link(snapshot.join(SMALL))?;
    assert_eq!(target, Path::new("../../../blobs").join(git_blob(&content(SMALL))));
    let target = fs::read_link(snapshot.join(LARGE))?;
    assert_eq!(target, Path::new("../../blobs").join(sha256(&content(LARGE))));
    assert_eq!((toy.id(), toy.revision(), toy.commit().as_deref()), (ID, "main", Some(COMMIT)));
    world.client()?.model(ID, "pr/1")?.file(SMALL)?;
    assert_eq!(fs::read_to_string(world.folder().join("refs/pr/1"))?, COMMIT);
    world.client()?.dataset(ID, "main")?.file(SMALL)?;
    assert!(world.cache.join("datasets--lab--toy/refs/main").is_file());
    world.audit()
}

#[test]
fn a_cache_that_python_filled_is_found() -> Result<()> {
    let world = World::new("python")?;
    let (root, etag) = (world.folder(), sha256(b"from python"));
    fs::create_dir_all(root.join("blobs"))?;
    fs::create_dir_all(root.join("refs"))?;
    let snapshot = root.join("snapshots").join(OTHER_COMMIT).join("vae");
    fs::create_dir_all(&snapshot)?;
    fs::write(root.join("blobs").join(&etag), "from python")?;
    fs::write(root.join("refs/main"), OTHER_COMMIT)?;
    std::os::unix::fs::symlink(format!("../../../blobs/{etag}"), snapshot.join("model.bin"))?;
    for revision in ["main", OTHER_COMMIT] {
        let toy = offline(&world)?.model(ID, revision)?;
        assert_eq!(fs::read(toy.file("vae/model.bin")?)?, b"from python");
        assert_eq!(toy.commit().as_deref(), Some(OTHER_COMMIT));
        assert_eq!(toy.file_if_there("vae/none.bin")?, None);
        assert_eq!(toy.cached("vae"), None, "a folder is not a file");
    }
    assert!(world.hub.seen().is_empty());
    Ok(())
}

#[test]
fn a_commit_in_the_cache_asks_nothing() -> Result<()> {
    let world = World::new("pinned")?;
    let toy = world.client()?.model(ID, COMMIT)?;
    assert_eq!(toy.cached(SMALL), None);
    let path = toy.file(SMALL)?;
    let requests = world.hub.seen().len();
    assert_eq!(world.client()?.model(ID, COMMIT)?.file(SMALL)?, path);
    assert_eq!(toy.cached(SMALL), Some(path));
    assert_eq!(world.hub.seen().len(), requests);
    // A commit is no branch, so it gets no reference.
    assert!(!world.folder().join("refs").exists());
    // What a commit lacks, it lacks for ever.
    assert_eq!(toy.file_if_there("none.json")?, None);
    assert_eq!(toy.file_if_there("none.json")?, None);
    assert_eq!(world.hub.seen().len(), requests + 1);
    Ok(())
}

#[test]
fn a_branch_is_asked_once_a_repository_and_held_to() -> Result<()> {
    let world = World::new("held")?;
    let toy = world.client()?.model(ID, "main")?;
    toy.file(SMALL)?;
    toy.file(SMALL)?;
    assert_eq!(world.hub.seen().len(), 2);
    toy.file(LARGE)?;
    let paths: Vec<_> = world.hub.seen().into_iter().map(|request| request.path).collect();
    assert!(paths[0].contains("/resolve/main/"));
    assert!(paths[1..].iter().all(|path| path.contains(COMMIT)), "{paths:?}");
    world.client()?.model(ID, "main")?.file(SMALL)?;
    assert_eq!(world.hub.seen().len(), 5, "a new value asks what the branch is now");
    Ok(())
}

#[test]
fn offline_the_cache_alone_answers() -> Result<()> {
    let world = World::new("offline")?;
    let text = message(offline(&world)?.model(ID, "main")?.file(SMALL));
    for word in [SMALL, ID, "main", "HF_HUB_OFFLINE", "unset HF_HUB_OFFLINE"] {
        assert!(text.contains(word), "{word} is not in: {text}");
    }
    let path = world.client()?.model(ID, "main")?.file(SMALL)?;
    let requests = world.hub.seen().len();
    let hub = offline(&world)?;
    assert!(hub.offline());
    assert_eq!(hub.model(ID, "main")?.file(SMALL)?, path);
    assert_eq!(hub.model(ID, COMMIT)?.file_if_there(SMALL)?, Some(path));
    assert!(message(hub.model(ID, COMMIT)?.file(LARGE)).contains("not in the cache"));
    assert_eq!(world.hub.seen().len(), requests);
    Ok(())
}

#[test]
fn a_branch_falls_back_to_the_cache_where_the_network_fails() -> Result<()> {
    let world = World::new("fallback")?;
    let path = world.client()?.model(ID, "main")?.file(SMALL)?;
    world.hub.spoil(2..usize::MAX, Arc::new(|_, _| Reply::new(503, "busy")));
    let toy = world.client()?.model(ID, "main")?;
    assert_eq!(toy.file(SMALL)?, path);
    assert_eq!(world.hub.seen().len(), 4, "one retry: the file is at hand");
    assert_eq!(toy.commit().as_deref(), Some(COMMIT));
    assert!(message(toy.file(LARGE)).contains("503"));
    world.hub.heal();
    // A server that says no is not a network that fails.
    world.hub.spoil(0..usize::MAX, Arc::new(|_, _| Reply::new(401, "no")));
    assert!(message(world.client()?.model(ID, "main")?.file(SMALL)).contains("401"));
    // Nobody listens.
    let mut settings = world.settings();
    settings.endpoint = "http://127.0.0.1:9".to_string();
    let hub = Hub::new(settings)?;
    assert_eq!(hub.model(ID, "main")?.file(SMALL)?, path);
    let text = message(hub.model(ID, "main")?.file(LARGE));
    assert!(text.contains("127.0.0.1:9/lab/toy") && text.contains("4 attempts"), "{text}");
    Ok(())
}

#[test]
fn what_was_cut_is_gone_on_with_another_day() -> Result<()> {
    let world = World::new("another day")?;
    let short = |_: &_, reply| Reply { sent: Some(1234), ..reply };
    world.storage.spoil(0..1, Arc::new(short));
    world.storage.spoil(1..4, Arc::new(|_, _| Reply::new(502, "bad")));
    let toy = world.client()?.model(ID, "main")?;
    assert!(message(toy.file(LARGE)).contains("502"));
    world.audit()?;
    assert_eq!(toy.cached(LARGE), None);
    world.storage.heal();
    assert_eq!(fs::read(world.client()?.model(ID, "main")?.file(LARGE)?)?, content(LARGE));
    let ranges: Vec<_> = world.storage.seen().iter().filter_map(|seen| seen.start()).collect();
    assert_eq!(ranges, [1234; 4]);
    world.audit()
}

#[test]
fn a_blob_or_part_that_is_not_the_content_is_replaced() -> Result<()> {
    let world = World::new("damaged")?;
    let blobs = world.folder().join("blobs");
    fs::create_dir_all(&blobs)?;
    let etag = sha256(&content(LARGE));
    fs::write(blobs.join(&etag), "cut by a full disk")?;
    fs::write(blobs.join(format!("{etag}.incomplete")), vec![7; content(LARGE).len()])?;
    assert_eq!(fs::read(world.client()?.model(ID, "main")?.file(LARGE)?)?, content(LARGE));
    world.audit()
}

#[test]
fn four_threads_fetch_a_file_once() -> Result<()> {
    let world = World::new("threads")?;
    let slow = |_: &_, reply| Reply { pause: Duration::from_millis(100), ..reply };
    world.storage.spoil(0..1, Arc::new(slow));
    let got: Vec<Result<_>> = std::thread::scope(|scope| {
        let one =
            || -> Result<_> { Ok(fs::read(world.client()?.model(ID, "main")?.file(LARGE)?)?) };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(one)).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    assert_eq!(got.len(), 4);
    for bytes in got {
        ensure!(bytes? == content(LARGE), "a thread got another content");
    }
    assert_eq!(world.storage.seen().len(), 1);
    world.audit()
}

#[test]
fn a_lock_that_nobody_gets_on_with_is_given_up() -> Result<()> {
    let world = World::new("lock")?;
    let locks = world.cache.join(".locks/models--lab--toy");
    fs::create_dir_all(&locks)?;
    let path = locks.join(format!("{}.lock", sha256(&content(LARGE))));
    let held = fs::File::create(&path)?;
    held.lock()?;
    let mut settings = world.settings();
    settings.lock = Duration::from_millis(200);
    let (hub, began) = (Hub::new(settings)?, Instant::now());
    let text = message(hub.model(ID, "main")?.file(LARGE));
    assert!(text.contains("is held by another process") && text.contains(".lock"), "{text}");
    assert!(began.elapsed() < Duration::from_secs(2));
    drop(held);
    hub.model(ID, "main")?.file(LARGE)?;
    Ok(())
}

#[test]
fn a_disk_that_cannot_be_written_is_named() -> Result<()> {
    let world = World::new("disk")?;
    fs::create_dir_all(world.folder())?;
    // A file where the folder of the contents belongs.
    fs::write(world.folder().join("blobs"), "")?;
    let text = message(world.client()?.model(ID, "main")?.file(SMALL));
    assert!(text.contains("models--lab--toy/blobs"), "{text}");
    Ok(())
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_said_once_and_leaves_nothing() -> Result<()> {
    let world = World::new("full")?;
    let blobs = world.folder().join("blobs");
    fs::create_dir_all(&blobs)?;
    let part = blobs.join(format!("{}.incomplete", git_blob(&content(SMALL))));
    std::os::unix::fs::symlink("/dev/full", &part)?;
    let text = message(world.client()?.model(ID, "main")?.file(SMALL));
    assert!(text.contains("No space left") && text.contains(".incomplete"), "{text}");
    assert_eq!(world.hub.seen().len(), 2, "more attempts make no room");
    fs::remove_file(&part)?;
    world.audit()?;
    world.client()?.model(ID, "main")?.file(SMALL)?;
    world.audit()
}

#[test]
fn names_stay_in_the_repository() -> Result<()> {
    let world = World::new("names")?;
    let hub = world.client()?;
    let toy = hub.model(ID, "main")?;
    for name in ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", ".", "a\\..\\b", "a\nb"] {
        assert!(message(toy.file(name)).contains("is not a file of a repository"), "{name:?}");
        assert!(message(toy.file_if_there(name)).contains("is not a file"), "{name:?}");
        assert_eq!(toy.cached(name), None);
    }
    for id in ["", "a/b/c", "../b", "a/..", "a b", "a--b", "-a", "a/b.", "a/b?x", "/a", "a/"] {
        assert!(
            message(hub.model(id, "main")).contains("is not the name of a repository"),
            "{id:?}"
        );
    }
    for revision in ["", "../x", "a//b", "/a", "a?b", "a b", ".x", "-x", "a/..", "a\n"] {
        assert!(message(hub.model(ID, revision)).contains("is not a revision"), "{revision:?}");
    }
    assert!(world.hub.seen().is_empty());
    // What is odd and yet a name is encoded in the address.
    let _ = toy.file("a b/ü?#%.json");
    let path = first(&world.hub.seen())?.path;
    assert_eq!(path, "/lab/toy/resolve/main/a%20b/%C3%BC%3F%23%25.json");
    Ok(())
}
