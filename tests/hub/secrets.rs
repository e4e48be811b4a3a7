//! The token goes to the Hub and nowhere else: no other server, no message, no file.

use crate::server::{Fault, Reply};
use crate::world::{ID, LARGE, SMALL, TOKEN, World, message};
use consistency::hub::{Hub, Token};
use consistency::{Result, ensure};
use std::sync::Arc;

#[test]
fn the_token_goes_to_the_endpoint_alone() -> Result<()> {
    let world = World::new("endpoint")?;
    world.client()?.model(ID, "main")?.file(LARGE)?;
    let bearer = format!("Bearer {TOKEN}");
    let (hub, storage) = (world.hub.seen(), world.storage.seen());
    assert_eq!((hub.len(), storage.len()), (2, 1));
    assert!(hub.iter().all(|seen| seen.header("authorization") == Some(&bearer)));
    assert!(storage.iter().all(|seen| seen.header("authorization").is_none()), "{storage:?}");
    assert!(storage.iter().all(|seen| seen.path == "/blob?signature=abc"));
    // Without a token none is made up.
    let world = World::new("no token")?;
    Hub::new(world.settings())?.model(ID, "main")?.file(SMALL)?;
    assert!(world.hub.seen().iter().all(|seen| seen.header("authorization").is_none()));
    Ok(())
}

// Servers that send back what they were sent, in every place that reaches a message.
fn echoes() -> Vec<Fault> {
    let said = |status: u16, name: &'static str, value: String| -> Fault {
        Arc::new(move |_, _| Reply::new(status, TOKEN).with(name, &value))
    };
    let header = |name: &'static str| -> Fault {
        Arc::new(move |_, reply| reply.with(name, &format!("\"{TOKEN}\"")))
    };
    vec![
        said(401, "x-error-message", format!("token {TOKEN} is bad")),
        said(403, "x-error-message", format!("Bearer {TOKEN}")),
        said(500, "x-error-message", TOKEN.to_string()),
        said(302, "location", format!("http://user:{TOKEN}@127.0.0.1:9/{TOKEN}?token={TOKEN}")),
        said(302, "location", format!("/lab/{TOKEN}/x")),
        said(404, "x-error-code", TOKEN.to_string()),
        header("etag"),
        header("x-repo-commit"),
    ]
}

#[test]
fn no_message_and_no_file_shows_the_token() -> Result<()> {
    for (number, echo) in echoes().into_iter().enumerate() {
        for from in [0, 1] {
            let world = World::new(&format!("echo {number} {from}"))?;
            world.hub.spoil(from..usize::MAX, Arc::clone(&echo));
            let got = world.client()?.model(ID, "main")?.file(SMALL);
            if from == 0 {
                ensure!(got.is_err(), "echo {number} was taken for a file");
            }
            let text = message(got);
            ensure!(!text.contains(TOKEN), "echo {number} from {from}: {text}");
            ensure!(!text.contains("user:"), "echo {number} from {from}: {text}");
            world.audit()?;
        }
    }
    Ok(())
}

#[test]
fn no_debug_form_shows_a_secret() -> Result<()> {
    let world = World::new("debug")?;
    let mut settings = world.settings();
    settings.token = Some(Token::new(TOKEN)?);
    settings.endpoint = settings.endpoint.replace("http://", "http://me:password@");
    let hub = Hub::new(settings.clone())?;
    let repository = hub.model(ID, "main")?;
    let token = Token::new(TOKEN)?;
    for text in [
        format!("{settings:?}"),
        format!("{hub:#?}"),
        format!("{repository:?}"),
        format!("{token:?} {token}"),
        message(repository.file("none.json")),
    ] {
        assert!(!text.contains(TOKEN) && !text.contains("password"), "{text}");
    }
    assert!(format!("{repository:?}").contains(ID));
    Ok(())
}
