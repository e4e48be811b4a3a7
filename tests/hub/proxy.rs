//! Proxies are those of the environment, by the Python library's rules; one that cannot be used is
//! refused by its name, and nothing goes around it.

use crate::server::{Reply, Server};
use crate::world::{ID, LARGE, SMALL, TOKEN, World, content, message};
use consistency::hub::{Hub, HubSettings, Token};
use consistency::{Result, ensure};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// A proxy that connects to one address whatever is asked for, and keeps the heads of the requests.
struct Tunnel {
    address: String,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Tunnel {
    fn to(url: &str) -> Result<Self> {
        let target = url.trim_start_matches("http://").to_string();
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&heads);
        // It ends with the process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (target, kept) = (target.clone(), Arc::clone(&kept));
                thread::spawn(move || carry(stream, &target, &kept));
            }
        });
        Ok(Self { address, heads })
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn carry(mut client: TcpStream, target: &str, heads: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    heads.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    let mut server = TcpStream::connect(target)?;
    client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n")?;
    let (mut up, mut down) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || std::io::copy(&mut up, &mut down));
    std::io::copy(&mut server, &mut client)?;
    client.shutdown(std::net::Shutdown::Both)
}

/// Settings for a Hub at an address that only a proxy reaches.
fn settings(world: &World, variables: &[(&str, &str)]) -> Result<HubSettings> {
    let read = HubSettings::from_variables(|name| match name {
        "HOME" => Some("/nowhere".to_string()),
        _ => variables
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| (*value).to_string()),
    })?;
    let mut settings = world.settings();
    settings.endpoint = "http://hub.invalid".to_string();
    settings.retries = 0;
    settings.token = Some(Token::new(TOKEN)?);
    settings.proxies = read.proxies;
    Ok(settings)
}

#[test]
fn files_come_through_the_proxy() -> Result<()> {
    for (name, login) in
        [("http_proxy", "me:secret@"), ("ALL_PROXY", "me:secret@"), ("HTTP_PROXY", "")]
    {
        let world = World::new(&format!("proxy {name}"))?;
        let tunnel = Tunnel::to(&world.hub.url())?;
        // Without a scheme it is HTTP.
        let scheme = if name == "http_proxy" { "" } else { "http://" };
        let value = format!("{scheme}{login}{}", tunnel.address);
        let hub = Hub::new(settings(&world, &[(name, &value)])?)?;
        let file = hub.model(ID, "main")?.file(SMALL)?;
        assert_eq!(std::fs::read(file)?, content(SMALL), "{name}");
        let heads = tunnel.heads();
        ensure!(!heads.is_empty(), "{name}: nothing came to the proxy");
        for head in heads {
            assert!(head.starts_with("CONNECT hub.invalid:80 HTTP/1.1\r\n"), "{head}");
            // me:secret in base64; the token is the Hub's alone.
            assert_eq!(head.contains("bWU6c2VjcmV0"), !login.is_empty(), "{head}");
            assert!(!head.contains(TOKEN), "{head}");
        }
    }
    Ok(())
}

#[test]
fn a_proxy_that_fails_is_named() -> Result<()> {
    let world = World::new("refusing proxy")?;
    let refusing = Server::new(|_| Reply::new(403, "no"))?;
    let value = refusing.url().replace("http://", "http://me:secret@");
    let hub = Hub::new(settings(&world, &[("http_proxy", &value)])?)?;
    let text = message(hub.model(ID, "main")?.file(SMALL));
    assert!(text.contains(&format!("(through http_proxy={})", refusing.url())), "{text}");
    assert!(text.contains("403") && !text.contains("secret"), "{text}");
    Ok(())
}

#[test]
fn what_cannot_be_used_is_refused_by_its_name() -> Result<()> {
    let world = World::new("socks")?;
    for (name, value, wants) in [
        (
            "ALL_PROXY",
            "socks5://me:secret@127.0.0.1:1080",
            "ALL_PROXY=socks5://127.0.0.1:1080 is a",
        ),
        ("all_proxy", "SOCKS5H://127.0.0.1:1080", "all_proxy=SOCKS5H://127.0.0.1:1080 is a SOCKS"),
        ("http_proxy", "socks4://127.0.0.1", "http_proxy=socks4://127.0.0.1 is a SOCKS proxy"),
        (
            "http_proxy",
            "ftp://me:secret@host",
            "http_proxy=ftp://host is not the address of a proxy",
        ),
        ("HTTP_PROXY", "me:secret@no host", "HTTP_PROXY=no host is not the address of a proxy"),
        ("http_proxy", "http://", "http_proxy=http:// is not the address of a proxy"),
    ] {
        let hub = Hub::new(settings(&world, &[(name, value)])?)?;
        let text = message(hub.model(ID, "main")?.file(SMALL));
        assert!(text.starts_with("http://hub.invalid/") && text.contains(wants), "{text}");
        assert!(text.contains(&format!("unset {name}")) && !text.contains("secret"), "{text}");
        // The host by its name: that it does not resolve says that no proxy was in the way.
        let around = settings(&world, &[(name, value), ("no_proxy", "invalid")])?;
        let text = message(Hub::new(around)?.model(ID, "main")?.file(SMALL));
        assert!(!text.contains(name) && !text.contains("it was accepted"), "{text}");
    }
    assert!(world.hub.seen().is_empty(), "nothing goes around a proxy that was refused");
    Ok(())
}

#[test]
fn a_refused_proxy_leaves_the_cache() -> Result<()> {
    let world = World::new("socks and cache")?;
    world.client()?.model(ID, "main")?.file(SMALL)?;
    let hub = Hub::new(settings(&world, &[("ALL_PROXY", "socks5://127.0.0.1:1080")])?)?;
    let model = hub.model(ID, "main")?;
    assert_eq!(std::fs::read(model.file(SMALL)?)?, content(SMALL));
    let text = message(model.file(LARGE));
    assert!(text.contains("ALL_PROXY=socks5://127.0.0.1:1080 is a SOCKS proxy"), "{text}");
    // Offline nothing is needed of it.
    let mut offline = settings(&world, &[("ALL_PROXY", "socks5://127.0.0.1:1080")])?;
    offline.offline = true;
    assert!(message(Hub::new(offline)?.model(ID, "main")?.file(LARGE)).contains("HF_HUB_OFFLINE"));
    Ok(())
}

#[test]
fn no_debug_form_shows_a_password() -> Result<()> {
    let world = World::new("debug proxy")?;
    let variables = [
        ("https_proxy", "http://me:secret@one"),
        ("HTTP_PROXY", "me:secret@two"),
        ("NO_PROXY", "three"),
    ];
    let text = format!("{:?}", settings(&world, &variables)?);
    assert!(!text.contains("secret"), "{text}");
    for part in ["https_proxy=http://one", "HTTP_PROXY=two", "not three"] {
        assert!(text.contains(part), "{text}");
    }
    Ok(())
}
