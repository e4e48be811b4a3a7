//! What is not there, and what cannot be reached: the kinds of the Hub's errors.

use crate::spoil::status_with;
use crate::world::{COMMIT, ID, SMALL, World};
use consistency::hub::Hub;
use consistency::{Error, Result};

fn kinds<T>(result: Result<T>) -> Result<(bool, bool)> {
    match result {
        Ok(_) => Err(Error::new("no error at all")),
        Err(error) => Ok((error.is_not_found(), error.is_offline())),
    }
}

const NOT_FOUND: (bool, bool) = (true, false);
const OFFLINE: (bool, bool) = (false, true);
const NEITHER: (bool, bool) = (false, false);

#[test]
fn what_the_hub_does_not_have_is_not_found() -> Result<()> {
    let world = World::new("kinds")?;
    let hub = world.client()?;
    assert_eq!(kinds(hub.model(ID, "main")?.file("absent.json"))?, NOT_FOUND);
    assert_eq!(kinds(hub.model(ID, "wip")?.file(SMALL))?, NOT_FOUND);
    assert_eq!(kinds(hub.model(ID, "main")?.matching("absent*"))?, NOT_FOUND);
    // A second time the cache knows it.
    let pinned = hub.model(ID, COMMIT)?;
    for _ in 0..2 {
        assert_eq!(kinds(pinned.file("absent.json"))?, NOT_FOUND);
    }
    // A name that leads out of the repository is a mistake, whatever is there.
    assert_eq!(kinds(pinned.file("../absent.json"))?, NEITHER);
    let mut settings = world.settings();
    settings.offline = true;
    assert_eq!(kinds(Hub::new(settings)?.model(ID, "main")?.file(SMALL))?, NOT_FOUND);
    Ok(())
}

#[test]
fn statuses_by_their_kinds() -> Result<()> {
    for (status, code, want) in [
        (404, "RepoNotFound", NOT_FOUND),
        (401, "RepoNotFound", NOT_FOUND),
        (403, "GatedRepo", NEITHER),
        (400, "", NEITHER),
        (503, "", OFFLINE),
        (429, "", OFFLINE),
    ] {
        let world = World::new(&format!("kinds-{status}-{code}"))?;
        world.hub.spoil(0..usize::MAX, status_with(status, "x-error-code", code));
        let found = kinds(world.client()?.model(ID, "main")?.file(SMALL))?;
        assert_eq!(found, want, "{status} {code}");
    }
    Ok(())
}

#[test]
fn a_server_that_is_not_there_is_offline() -> Result<()> {
    let world = World::new("kinds-nobody")?;
    let mut settings = world.settings();
    // Nothing listens on this port.
    settings.endpoint = "http://127.0.0.1:1".into();
    let error = kinds(Hub::new(settings)?.model(ID, "main")?.file(SMALL))?;
    assert_eq!(error, OFFLINE);
    Ok(())
}
