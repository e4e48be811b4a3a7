//! The proxies that the environment names, by the names and rules of the Python library.

use super::token::scrub;
use crate::{Error, Result, bail};
use std::fmt;
use std::net::IpAddr;
use ureq::http::Uri;

/// Which proxies servers are reached through: `http_proxy`, `https_proxy` and `all_proxy` by the
/// scheme of an address, and `no_proxy` for servers that are reached directly. Each name is read in
/// lower case and in upper case; lower case counts if both are set.
///
/// Its `Debug` form shows no password.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    all: Option<Proxy>,
    /// The entries of `no_proxy`.
    without: Vec<String>,
}

/// A variable and its value.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Proxy {
    name: String,
    value: String,
}

impl Proxies {
    /// Those that the variables name, where `variable` gives the value of a name.
    pub(super) fn from_variables(variable: &dyn Fn(&str) -> Option<String>) -> Self {
        // A lower-case variable that is set to nothing hides the upper-case one.
        let find = |name: &str| -> Option<Proxy> {
            let set = |name: String| Some(Proxy { value: variable(&name)?, name });
            let found = set(name.to_string()).or_else(|| set(name.to_ascii_uppercase()))?;
            (!found.value.trim().is_empty()).then_some(found)
        };
        let without = find("no_proxy").map(|found| found.value).unwrap_or_default();
        let without = without.split(',').map(|entry| entry.trim().to_ascii_lowercase());
        Self {
            http: find("http_proxy"),
            https: find("https_proxy"),
            all: find("all_proxy"),
            without: without.filter(|entry| !entry.is_empty()).collect(),
        }
    }

    /// The proxy that a request for `uri` goes through; none if it goes there directly.
    pub(super) fn of(&self, uri: &Uri) -> Option<&Proxy> {
        let host = uri.host().unwrap_or_default().to_ascii_lowercase();
        // A proxy leads out of the machine; the machine itself is reached directly.
        if matches!(&*host, "localhost" | "127.0.0.1" | "[::1]") {
            return None;
        }
        if self.without.iter().any(|entry| names(entry, &host, uri.port_u16())) {
            return None;
        }
        let own = if uri.scheme_str() == Some("https") { &self.https } else { &self.http };
        own.as_ref().or(self.all.as_ref())
    }
}

// Whether an entry of no_proxy covers this host: `*`, a network of numbers, an address, or a name
// and all below it.
fn names(entry: &str, host: &str, port: Option<u16>) -> bool {
    if entry == "*" {
        return true;
    }
    let number = |text: &str| text.trim_matches(['[', ']']).parse::<IpAddr>().ok();
    if let Some(address) = number(host) {
        return match entry.split_once('/') {
            Some((network, length)) => number(network)
                .zip(length.parse().ok())
                .is_some_and(|(network, length)| holds(network, length, address)),
            None => number(entry) == Some(address),
        };
    }
    let (name, wanted) = match entry.rsplit_once(':') {
        Some((name, wanted)) => (name, wanted.parse().ok()),
        None => (entry, None),
    };
    let name = name.trim_start_matches('*').trim_start_matches('.');
    let below = host.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    !name.is_empty() && below && (wanted.is_none() || wanted == port)
}

// Whether the first `length` bits of both are the same.
fn holds(network: IpAddr, length: u32, address: IpAddr) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(four) => (u128::from(u32::from(four)) << 96, 32),
        IpAddr::V6(six) => (u128::from(six), 128),
    };
    let ((network, whole), (address, other)) = (bits(network), bits(address));
    whole == other && length <= whole && (network ^ address).leading_zeros() >= length
}

impl Proxy {
    /// For ureq.
    ///
    /// # Errors
    /// A SOCKS proxy, or a value that is not a proxy's address; the message names the variable.
    pub(super) fn open(&self) -> Result<ureq::Proxy> {
        let value = self.value.trim();
        let scheme = value.split_once("://").map_or("http", |(scheme, _)| scheme);
        let scheme = scheme.to_ascii_lowercase();
        if scheme.starts_with("socks") {
            bail!(
                "{self} is a SOCKS proxy, which is not used here: set https_proxy to an HTTP proxy \
                 (http://HOST:PORT), unset {}, or name the host in no_proxy to reach it without",
                self.name
            );
        }
        let wrong = || {
            Error::new(format!(
                "{self} is not the address of a proxy: give http://HOST:PORT, or unset {}",
                self.name
            ))
        };
        if scheme != "http" && scheme != "https" {
            return Err(wrong());
        }
        let proxy = ureq::Proxy::new(value).map_err(|_| wrong())?;
        if proxy.host().is_empty() { Err(wrong()) } else { Ok(proxy) }
    }
}

// The variable and its value without a password.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.value.trim();
        let shown = match value.contains("://") {
            true => scrub(value, None),
            false => value.rsplit('@').next().unwrap_or_default().to_string(),
        };
        write!(f, "{}={shown}", self.name)
    }
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [&self.http, &self.https, &self.all].into_iter().flatten();
        f.debug_list()
            .entries(all.map(|proxy| format!("{proxy}")))
            .entries(self.without.iter().map(|entry| format!("not {entry}")))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(variables: &[(&str, &str)], url: &str) -> Option<String> {
        let find = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_string())
        };
        let uri: Uri = url.parse().ok()?;
        Proxies::from_variables(&find).of(&uri).map(|proxy| proxy.value.clone())
    }

    #[test]
    fn the_scheme_of_an_address_chooses_the_proxy() {
        let all = [("http_proxy", "h"), ("https_proxy", "s"), ("all_proxy", "a")];
        let of = |from: usize, url| through(&all[from..], url);
        assert_eq!(of(0, "http://x").as_deref(), Some("h"));
        assert_eq!(of(0, "https://x").as_deref(), Some("s"));
        assert_eq!(of(1, "http://x").as_deref(), Some("a"));
        assert_eq!(of(2, "https://x").as_deref(), Some("a"));
        assert_eq!(through(&all[..1], "https://x"), None, "http_proxy is of http alone");
        assert_eq!(
            through(&[("HTTPS_PROXY", "S"), ("https_proxy", "s")], "https://x").as_deref(),
            Some("s")
        );
        assert_eq!(through(&[("HTTPS_PROXY", "S"), ("https_proxy", "")], "https://x"), None);
        assert_eq!(through(&[("HTTPS_PROXY", "S")], "https://x").as_deref(), Some("S"));
        for here in ["http://localhost:80", "https://127.0.0.1/x", "http://[::1]:8080/"] {
            assert_eq!(of(0, here), None, "{here}");
        }
    }

    #[test]
    fn no_proxy_names_hosts() {
        for (entries, url, around) in [
            ("*", "https://huggingface.co", true),
            ("huggingface.co", "https://huggingface.co/x", true),
            (" a.b , HuggingFace.co", "https://huggingface.co/x", true),
            ("huggingface.co", "https://cdn.huggingface.co", true),
            (".huggingface.co", "https://cdn.huggingface.co", true),
            ("*.huggingface.co", "https://cdn.huggingface.co", true),
            (".huggingface.co", "https://huggingface.co", true),
            ("face.co", "https://huggingface.co", false),
            ("huggingface.co:8443", "https://huggingface.co:8443", true),
            ("huggingface.co:8443", "https://huggingface.co", false),
            ("10.0.0.0/8", "http://10.1.2.3:8080", true),
            ("10.0.0.0/8", "http://11.1.2.3:8080", false),
            ("10.1.2.3", "http://10.1.2.3:8080", true),
            ("10.1.2", "http://10.1.2.3", false),
            ("0.0.0.0/0", "http://10.1.2.3", true),
            ("fd00::/8", "http://[fd12::1]/", true),
            ("10.0.0.0/99", "http://10.1.2.3", false),
            ("", "https://huggingface.co", false),
            (",.,", "https://huggingface.co", false),
        ] {
            let variables = [("all_proxy", "a"), ("no_proxy", entries)];
            assert_eq!(through(&variables, url).is_none(), around, "{entries:?} and {url}");
        }
    }
}
