//! Requests: who gets the token, which failures are temporary, and when to ask again.

use super::proxy::Proxy;
use super::settings::{HubSettings, LONGEST_WAIT, check_endpoint};
use super::stall::StallLimit;
use super::token::scrub;
use crate::{Context, Error, Result, ensure};
use std::io;
use std::path::Path;
use std::time::Duration;
use ureq::http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector, DefaultConnector};
use ureq::{Agent, Body, SendBody};

/// How many redirects one request may follow.
const REDIRECTS: usize = 5;

/// Settings, and connections that are reused.
pub(super) struct Client {
    pub settings: HubSettings,
    agent: Agent,
    endpoint: Uri,
}

/// Why a request failed, and what follows from it.
#[derive(Debug)]
pub(super) struct Failure {
    pub error: Error,
    pub kind: FailureKind,
}

/// What follows from a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// It will not pass.
    Final,
    /// There is no way to the server until a setting is changed: the cache may serve.
    NoWay,
    /// The repository is there and has no such file.
    NoEntry,
    /// It may pass; the server may have said how long to wait.
    Passing(Option<Duration>),
    /// What arrived is not what was announced.
    Corrupt,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, kind: FailureKind::Final }
    }
}

impl Failure {
    pub(super) fn new(kind: FailureKind, message: String) -> Self {
        let error = match kind {
            FailureKind::NoEntry => Error::not_found(message),
            FailureKind::Passing(_) => Error::offline(message),
            _ => Error::new(message),
        };
        Self { error, kind }
    }

    pub(super) fn passing(message: String) -> Self {
        Self::new(FailureKind::Passing(None), message)
    }

    pub(super) fn passes(&self) -> bool {
        matches!(self.kind, FailureKind::Passing(_))
    }

    /// Whether what is in the cache may serve in place of an answer.
    pub(super) fn leaves_the_cache(&self) -> bool {
        self.passes() || self.kind == FailureKind::NoWay
    }
}

impl Client {
    pub(super) fn new(mut settings: HubSettings) -> Result<Self> {
        settings.endpoint = settings.endpoint.trim_end_matches('/').to_string();
        check_endpoint(&settings.endpoint).context("the Hub's endpoint")?;
        let endpoint: Uri = settings
            .endpoint
            .parse()
            .map_err(|_| Error::new("the Hub's endpoint is not the address of a server"))?;
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            // Followed in `follow`, which knows who may see the token.
            .max_redirects(0)
            .max_redirects_will_error(false)
            // Chosen for each request, by rules that ureq does not have.
            .proxy(None)
            .timeout_resolve(Some(settings.connect))
            .timeout_connect(Some(settings.connect))
            .user_agent(concat!("consistency-lab/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = &settings.certificates {
            let roots =
                roots(path).with_context(|| format!("certificates in {}", path.display()))?;
            config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
        }
        let connector = DefaultConnector::new().chain(StallLimit(settings.stall));
        let agent = Agent::with_parts(config.build(), connector, DefaultResolver::default());
        Ok(Self { settings, agent, endpoint })
    }

    /// `text` as it may be shown: the one place that every message goes through.
    pub(super) fn clean(&self, text: &str) -> String {
        scrub(text, self.settings.token.as_ref())
    }

    /// The error as it may be shown.
    pub(super) fn error(&self, error: Error) -> Error {
        error.reworded(|message| self.clean(message))
    }

    /// A note to the user, on stderr.
    pub(super) fn note(&self, text: &str) {
        eprintln!("{}", self.clean(text));
    }

    /// One request and its answer, whatever its status; redirects are not followed. The token goes
    /// to the endpoint alone.
    pub(super) fn send(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: SendBody<'_>,
    ) -> Result<Response<Body>, Failure> {
        self.send_within(None, method, url, headers, body)
    }

    /// As [`Client::send`], but the whole answer may take as long as `wait`, whatever
    /// [`HubSettings::stall`] says.
    pub(super) fn send_within(
        &self,
        wait: Option<Duration>,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: SendBody<'_>,
    ) -> Result<Response<Body>, Failure> {
        let wrong = |error: &dyn std::fmt::Display| {
            Failure::from(Error::new(format!("{}: {error}", shown(url))))
        };
        let uri: Uri = url.parse().map_err(|error| wrong(&error))?;
        let mut request = Request::builder().method(method).uri(&uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let open = headers.iter().all(|(name, _)| !name.eq_ignore_ascii_case("authorization"));
        let ours = open && self.is_endpoint(&uri);
        if let Some(token) = self.settings.token.as_ref().filter(|_| ours) {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.reveal()))
                .map_err(|error| wrong(&error))?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        let request = request.body(body).map_err(|error| wrong(&error))?;
        let through = self.settings.proxies.of(&uri);
        let proxy = through.map(Proxy::open).transpose().map_err(|error| Failure {
            error: error.context(shown(url)),
            kind: FailureKind::NoWay,
        })?;
        let request = self.agent.configure_request(request);
        let request = request.timeout_recv_response(wait).proxy(proxy).build();
        self.agent.run(request).map_err(|error| {
            let Failure { error, kind } = self.failed(url, error);
            let error = match through {
                Some(proxy) => error.reworded(|error| format!("{error} (through {proxy})")),
                None => error,
            };
            Failure { error, kind }
        })
    }

    /// A GET that follows the server's redirects.
    pub(super) fn follow(
        &self,
        url: &str,
        headers: &[(&str, &str)],
    ) -> Result<Response<Body>, Failure> {
        let mut at = url.to_string();
        for _ in 0..=REDIRECTS {
            let response = self.send("GET", &at, headers, SendBody::none())?;
            match redirect(&at, response.status(), response.headers())? {
                Some(next) => at = next,
                None => return Ok(response),
            }
        }
        Err(Failure::new(
            FailureKind::Final,
            format!("{} is redirected more than {REDIRECTS} times, to {}", shown(url), shown(&at)),
        ))
    }

    /// The result of `attempt`, which is repeated while it fails for a temporary reason: up to
    /// `retries` times, with waits that double. `attempt` is given the number of attempts before
    /// it; `true` in its failure says that it made progress, which starts the count anew.
    pub(super) fn retry<T>(
        &self,
        retries: usize,
        mut attempt: impl FnMut() -> Result<T, (Failure, bool)>,
    ) -> Result<T, Failure> {
        let (mut made, mut since_progress) = (0, 0);
        loop {
            made += 1;
            let (failure, progress) = match attempt() {
                Ok(value) => return Ok(value),
                Err(failed) => failed,
            };
            since_progress = if progress { 0 } else { since_progress };
            let FailureKind::Passing(asked) = failure.kind else { return Err(failure) };
            if since_progress == retries {
                let Failure { error, kind } = failure;
                let error = error.reworded(|error| format!("{error} ({})", attempts(made)));
                return Err(Failure { error, kind });
            }
            let doubled = self.settings.backoff.saturating_mul(1 << since_progress.min(16));
            std::thread::sleep(asked.unwrap_or(doubled).min(LONGEST_WAIT));
            since_progress += 1;
        }
    }

    /// Whether the address is on the endpoint's server.
    pub(super) fn is_endpoint(&self, uri: &Uri) -> bool {
        same_server(uri, &self.endpoint)
    }

    /// The failure of a connection.
    pub(super) fn failed(&self, url: &str, error: ureq::Error) -> Failure {
        let stall = self.settings.stall.as_secs_f64();
        let (why, passes) = match error {
            ureq::Error::Timeout(ureq::Timeout::Connect) => ("no connection was made".into(), true),
            ureq::Error::Timeout(ureq::Timeout::Resolve) => {
                ("its name was not resolved".into(), true)
            }
            ureq::Error::Timeout(ureq::Timeout::RecvResponse) => ("no answer came".into(), true),
            ureq::Error::Timeout(_) => (format!("the server said nothing for {stall} s"), true),
            ureq::Error::HostNotFound => ("its host was not found".into(), true),
            // A certificate that is not valid.
            ureq::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
                (error.to_string(), false)
            }
            ureq::Error::Io(error) => (error.to_string(), true),
            ureq::Error::ConnectionFailed
            | ureq::Error::ConnectProxyFailed(_)
            | ureq::Error::Protocol(_)
            | ureq::Error::BodyStalled => (error.to_string(), true),
            other => (other.to_string(), false),
        };
        let kind = if passes { FailureKind::Passing(None) } else { FailureKind::Final };
        Failure::new(kind, format!("{}: {why}", shown(url)))
    }
}

// The authorities to trust, in PEM.
fn roots(path: &Path) -> Result<RootCerts> {
    let mut found = Vec::new();
    for item in parse_pem(&std::fs::read(path)?) {
        if let PemItem::Certificate(one) = item.map_err(|error| Error::new(error.to_string()))? {
            found.push(one);
        }
    }
    ensure!(!found.is_empty(), "there are none: give a file of certificates in PEM");
    Ok(RootCerts::new_with_certs(&found))
}

/// Where an answer redirects its request to.
pub(super) fn redirect(
    from: &str,
    status: StatusCode,
    headers: &HeaderMap,
) -> Result<Option<String>, Failure> {
    if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let to = text(headers, "location").and_then(|location| join(from, location));
    let wrong = |why: &str| {
        let message = format!("{} answers {} {why}", shown(from), status.as_u16());
        Err(Failure::new(FailureKind::Final, message))
    };
    match to {
        None => wrong("and gives no address to redirect to"),
        Some(to) if from.starts_with("https:") && !to.starts_with("https:") => {
            wrong("and redirects to an address without encryption")
        }
        Some(to) => Ok(Some(to)),
    }
}

/// `location` resolved against the address `from`.
pub(super) fn join(from: &str, location: &str) -> Option<String> {
    let (scheme, rest) = from.split_once("://")?;
    if location.starts_with("http://") || location.starts_with("https://") {
        return Some(location.to_string());
    }
    if location.starts_with("//") {
        return Some(format!("{scheme}:{location}"));
    }
    let host = &rest[..rest.find('/').unwrap_or(rest.len())];
    if location.starts_with('/') {
        return Some(format!("{scheme}://{host}{location}"));
    }
    let path = from.split(['?', '#']).next()?;
    let folder = path.rfind('/').filter(|at| *at > scheme.len() + 2).map(|at| &path[..at]);
    Some(format!("{}/{location}", folder.unwrap_or(path)))
}

/// Same scheme, host and port.
fn same_server(a: &Uri, b: &Uri) -> bool {
    let port = |uri: &Uri| {
        uri.port_u16().or(if uri.scheme_str() == Some("https") { Some(443) } else { Some(80) })
    };
    let host = |uri: &Uri| uri.host().map(str::to_ascii_lowercase);
    a.scheme_str() == b.scheme_str() && host(a) == host(b) && port(a) == port(b)
}

/// An address as it may be shown: what follows `?` may be a signature.
pub(super) fn shown(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or(url)
}

/// A header's text, where there is one.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim).filter(|text| !text.is_empty())
}

fn attempts(made: usize) -> String {
    if made == 1 { "1 attempt".into() } else { format!("{made} attempts") }
}
