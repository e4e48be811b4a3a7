//! Files by pattern: what the Hub lists, and what the cache has.

use crate::server::{Reply, Server};
use crate::world::message;
use consistency::Result;
use consistency::hub::{Hub, HubSettings};
use std::sync::Arc;
use std::time::Duration;

const COMMIT: &str = "00000000000000000000000000000000000000aa";

fn served() -> Result<Server> {
    Server::new(|request| {
        let names = ["data/train-1.parquet", "data/train-0.parquet", "data/test-0.parquet", "x.md"];
        let siblings: Vec<String> =
            names.iter().map(|name| format!("{{\"rfilename\": \"{name}\"}}")).collect();
        let listing = format!("{{\"sha\": \"{COMMIT}\", \"siblings\": [{}]}}", siblings.join(","));
        let files = format!("/datasets/lab/shards/resolve/{COMMIT}/");
        let pinned = format!("/api/datasets/lab/shards/revision/{COMMIT}");
        match request.path.as_str() {
            "/api/datasets/lab/shards/revision/main" => Reply::new(200, listing),
            path if path == pinned => Reply::new(200, listing),
            "/api/datasets/lab/odd/revision/main" => Reply::new(200, "[\"no listing\"]"),
            path if path.strip_prefix(&files).is_some_and(|name| names.contains(&name)) => {
                let name = path.to_string();
                let etag = format!("\"{}\"", name.replace('/', "-"));
                Reply::new(200, name).with("x-repo-commit", COMMIT).with("etag", &etag)
            }
            _ => Reply::new(404, "").with("x-error-code", "RepoNotFound"),
        }
    })
}

#[test]
fn files_by_pattern_online_and_off() -> Result<()> {
    let cache = std::env::temp_dir().join(format!("hub-listing-{}", std::process::id()));
    let server = served()?;
    let mut settings = HubSettings::new(&server.url(), &cache);
    settings.backoff = Duration::from_millis(1);
    settings.quiet = true;
    let hub = Hub::new(settings.clone())?;
    let mut run = || -> Result<()> {
        // It is asked again where a failure passes.
        server.spoil(0..1, Arc::new(|_, _| Reply::new(503, "")));
        let shards = hub.dataset("lab/shards", "main")?;
        let names = shards.matching("data/train-*.parquet")?;
        assert_eq!(names, ["data/train-0.parquet", "data/train-1.parquet"]);
        assert_eq!(shards.commit().as_deref(), Some(COMMIT));
        let got = message(shards.matching("data/validation-*"));
        assert!(got.contains("lab/shards has no file data/validation-* at revision main"), "{got}");
        assert!(shards.matching_cached("data/train-*.parquet").is_empty());
        // The files are of the commit that was listed, whatever the branch is later.
        shards.file(&names[1])?;
        assert_eq!(shards.matching_cached("data/train-*.parquet"), names[1..]);

        settings.offline = true;
        let asked = server.seen().len();
        let offline = Hub::new(settings.clone())?.dataset("lab/shards", "main")?;
        assert_eq!(offline.matching("data/*.parquet")?, names[1..]);
        let got = message(offline.matching("data/test-*"));
        assert!(got.contains("HF_HUB_OFFLINE"), "{got}");
        assert_eq!(server.seen().len(), asked);

        let got = message(hub.dataset("lab/odd", "main")?.matching("*"));
        assert!(got.contains("does not answer with a list of files"), "{got}");
        let got = message(hub.dataset("lab/none", "main")?.matching("*.png"));
        assert!(got.starts_with("*.png of lab/none at revision main: there is no such"), "{got}");
        Ok(())
    };
    let ran = run();
    let _ = std::fs::remove_dir_all(&cache);
    ran
}
