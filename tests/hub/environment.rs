//! The environment has the Python library's names and meanings.

use crate::world::{TOKEN, message};
use consistency::Result;
use consistency::hub::{Hub, HubSettings, Token};
use std::path::Path;
use std::time::Duration;

fn read(variables: &[(&str, &str)]) -> Result<HubSettings> {
    HubSettings::from_variables(|name| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_string())
    })
}

#[test]
fn without_variables_the_defaults_hold() -> Result<()> {
    let settings = read(&[("HOME", "/nowhere")])?;
    assert_eq!(settings.endpoint, "https://huggingface.co");
    assert_eq!(settings.cache, Path::new("/nowhere/.cache/huggingface/hub"));
    assert_eq!((settings.token, settings.offline, settings.quiet), (None, false, false));
    assert_eq!(settings.connect, Duration::from_secs(10));
    assert_eq!(settings.stall, Duration::from_secs(30));
    assert_eq!((settings.retries, settings.backoff), (5, Duration::from_millis(500)));
    assert!(message(read(&[])).contains("set HF_HOME"));
    Ok(())
}

#[test]
fn the_nearest_variable_names_the_cache() -> Result<()> {
    let all = [
        ("HF_HUB_CACHE", "/a"),
        ("HUGGINGFACE_HUB_CACHE", "/b"),
        ("HF_HOME", "~/c"),
        ("XDG_CACHE_HOME", "/d"),
        ("HOME", "/e"),
    ];
    let caches = ["/a", "/b", "/e/c/hub", "/d/huggingface/hub", "/e/.cache/huggingface/hub"];
    for (first, cache) in caches.iter().enumerate() {
        assert_eq!(read(&all[first..])?.cache, Path::new(cache));
    }
    assert_eq!(read(&[("HF_HOME", " "), ("HOME", "/e")])?.cache, Path::new(caches[4]));
    Ok(())
}

#[test]
fn the_token_comes_from_a_variable_or_a_file() -> Result<()> {
    let folder = std::env::temp_dir().join(format!("consistency-{}-token", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("token"), "hf_ofTheHome\n")?;
    std::fs::write(folder.join("other"), "hf_ofThePath")?;
    let (home, other) = (folder.display().to_string(), folder.join("other").display().to_string());
    let all = [
        ("HF_TOKEN", " hf_first\n"),
        ("HUGGING_FACE_HUB_TOKEN", "hf_second"),
        ("HF_TOKEN_PATH", &other),
        ("HF_HOME", &home),
    ];
    for (first, token) in
        ["hf_first", "hf_second", "hf_ofThePath", "hf_ofTheHome"].iter().enumerate()
    {
        assert_eq!(read(&all[first..])?.token, Some(Token::new(token)?));
    }
    let mut none = all.to_vec();
    none.push(("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1"));
    assert_eq!(read(&none)?.token, None);
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

#[test]
fn switches_and_numbers_are_read() -> Result<()> {
    for (text, on) in [
        ("1", true),
        ("True", true),
        ("YES", true),
        ("on", true),
        ("0", false),
        ("", false),
        ("no", false),
    ] {
        let settings = read(&[
            ("HOME", "/e"),
            ("HF_HUB_OFFLINE", text),
            ("HF_HUB_DISABLE_PROGRESS_BARS", text),
        ])?;
        assert_eq!((settings.offline, settings.quiet), (on, on), "{text:?}");
    }
    let settings = read(&[
        ("HOME", "/e"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "2.5"),
        ("HF_ENDPOINT", "http://localhost:8080/hub/"),
        ("REQUESTS_CA_BUNDLE", "/ca.pem"),
    ])?;
    assert_eq!(settings.certificates.as_deref(), Some(Path::new("/ca.pem")));
    assert_eq!(settings.stall, Duration::from_millis(2500));
    assert_eq!(settings.endpoint, "http://localhost:8080/hub");
    Ok(())
}

#[test]
fn a_value_without_a_meaning_names_its_variable() {
    let wrong = [
        ("HF_ENDPOINT", "huggingface.co"),
        ("HF_ENDPOINT", "ftp://huggingface.co"),
        ("HF_ENDPOINT", "https://"),
        ("HF_ENDPOINT", "https://huggingface.co/?x=1"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "soon"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "0"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "-1"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "inf"),
        ("HF_HUB_OFFLINE", "perhaps"),
        ("HF_TOKEN", "hf_two words"),
    ];
    for (name, value) in wrong {
        let text = message(read(&[("HOME", "/e"), (name, value)]));
        assert!(text.contains(name), "{name}={value}: {text}");
        assert!(!text.contains("hf_two"), "{text}");
    }
    let mut settings = HubSettings::new("https://localhost/", "/e");
    settings.certificates = Some("/dev/null".into());
    assert!(message(Hub::new(settings)).contains("certificates in /dev/null: there are none"));
    assert!(message(Hub::new(HubSettings::new("no address", "/e"))).contains("no address"));
    let text = message(read(&[("HOME", "/e"), ("HF_ENDPOINT", &format!("ftp://me:{TOKEN}@host"))]));
    assert!(!text.contains(TOKEN) && text.contains("ftp://host"), "{text}");
}
