//! HTTP for a registry: agents with the right certificates, redirects that carry no credentials elsewhere, retries
//! with back-off and jitter.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, anyhow, ensure};
use serde_json::Value;
use ureq::http::header::{AUTHORIZATION, CONTENT_LENGTH, EXPECT, LOCATION};
use ureq::http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{ConnectProxyConnector, Connector, SocksConnector, TcpConnector};
use ureq::{Agent, Proxy, SendBody};

use crate::certificates::{self, Trust};
use crate::proxy;
use crate::retry::{Failure, Patience, retry_after};
use crate::tls::Tls;

/// More redirects are a loop.
const REDIRECTS: usize = 10;
/// What a server says of an error is short. Bytes, and what is shown of it in characters.
const ERROR_LIMIT: u64 = 64 << 10;
const WORDS: usize = 300;

/// Asks servers, one agent for each.
#[derive(Debug)]
pub(crate) struct Client {
    /// The user's.
    pub(crate) patience: Patience,
    trust: Trust,
    agents: Mutex<HashMap<String, Agent>>,
    reached: AtomicBool,
    warned: AtomicBool,
    /// A server has broken off while it was sent something: it may have had an answer before that.
    careful: AtomicBool,
}

/// What a request carries. It can be read once only.
pub(crate) struct Content<'a> {
    reader: Box<dyn Read + 'a>,
    length: u64,
    begun: bool,
}

impl<'a> Content<'a> {
    /// Makes a content of so many bytes.
    pub(crate) fn new(reader: impl Read + 'a, length: u64) -> Self {
        Self { reader: Box::new(reader), length, begun: false }
    }
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.begun |= count > 0;
        Ok(count)
    }
}

/// A request that can be sent more than once, unless it has a content.
#[derive(Default)]
pub(crate) struct Ask<'a> {
    /// GET, or what else.
    pub(crate) method: Method,
    /// Where to.
    pub(crate) url: String,
    /// `Authorization`, for the server of `url` only.
    pub(crate) authorization: Option<String>,
    /// Other headers.
    pub(crate) headers: Vec<(&'static str, String)>,
    /// What is sent.
    pub(crate) content: Option<Content<'a>>,
    /// It holds secrets: it goes to the server that it is for, and nowhere else.
    pub(crate) secret: bool,
}

impl Ask<'_> {
    /// Makes a GET request without credentials.
    pub(crate) fn get(url: String) -> Self {
        Self { url, ..Self::default() }
    }
}

impl Client {
    /// Makes a client; `trust` says what is known of the registry's certificates.
    pub(crate) fn new(patience: Patience, trust: Trust) -> Self {
        let [reached, warned, careful] = [const { AtomicBool::new(false) }; 3];
        Self { patience, trust, agents: Mutex::default(), reached, warned, careful }
    }

    /// Sends a request and follows redirects. Any status but those that ask to come again is a success here.
    pub(crate) fn send_once(&self, ask: &mut Ask<'_>) -> Result<Response<ureq::Body>, Failure> {
        let mut url: Uri = ask.url.parse().with_context(|| format!("{} is no URL", ask.url)).map_err(Failure::Final)?;
        let home = url.clone();
        for _ in 0..REDIRECTS {
            let response = self.send_to(&url, ask, same_server(&url, &home))?;
            let status = response.status();
            self.reached.store(true, Ordering::Relaxed);
            if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
                let next = redirect(&url, response.headers()).map_err(Failure::Final)?;
                self.check_clear(&home, &next).map_err(Failure::Final)?;
                log::trace!("redirect to {}", host(&next));
                url = next;
                continue;
            }
            // Some are brought to their knees by a range alone; who asks for one knows what to do then.
            let by_range =
                status == StatusCode::INTERNAL_SERVER_ERROR && ask.headers.iter().any(|(name, _)| *name == "range");
            if passing(status) && !by_range {
                let pause = retry_after(response.headers());
                return Err(Failure::Passing(anyhow!("{} answers {status}{}", host(&url), words(response)), pause));
            }
            return Ok(response);
        }
        Err(Failure::Final(anyhow!("{} redirects without end", host(&home))))
    }

    /// Tells whether a server speaks the scheme of a URL at all, and with which status.
    pub(crate) fn probe(&self, url: &str) -> Result<StatusCode, Failure> {
        let mut ask = Ask::get(url.to_owned());
        let url: Uri = ask.url.parse().with_context(|| format!("{url} is no URL")).map_err(Failure::Final)?;
        let response = self.send_to(&url, &mut ask, true)?;
        self.reached.store(true, Ordering::Relaxed);
        Ok(response.status())
    }

    /// Tells whether something may be done in the clear: by the user's wish, who is warned once.
    pub(crate) fn is_allowed(&self, what: &str) -> bool {
        if self.trust.anybody && !self.warned.swap(true, Ordering::Relaxed) {
            log::warn!("without TLS, as --tls-verify=false or registries.conf allow: {what}");
        }
        self.trust.anybody
    }

    /// Refuses to be led from https to http.
    pub(crate) fn check_clear(&self, from: &Uri, to: &Uri) -> anyhow::Result<()> {
        let clear = from.scheme_str() == Some("https") && to.scheme_str() != Some("https");
        let is_allowed = !clear || self.is_allowed(&format!("{} redirects to http", host(from)));
        ensure!(is_allowed, "{} redirects from https to {}", host(from), to.scheme_str().unwrap_or("nothing"));
        Ok(())
    }

    fn send_to(&self, url: &Uri, ask: &mut Ask<'_>, at_home: bool) -> Result<Response<ureq::Body>, Failure> {
        let agent = self.agent(url).map_err(Failure::Final)?;
        let mut request = Request::builder().method(ask.method.clone()).uri(url.clone());
        for (name, value) in &ask.headers {
            request = request.header(*name, value);
        }
        if let (Some(authorization), true) = (&ask.authorization, at_home) {
            request = request.header(AUTHORIZATION, authorization);
        }
        if ask.secret && !at_home {
            return Err(Failure::Final(anyhow!("{} redirects a request that holds credentials", host(url))));
        }
        let sent = match &mut ask.content {
            None => request.body(()).map_err(ureq::Error::from).and_then(|request| agent.run(request)),
            Some(content) if content.begun => {
                // The next time it is asked before anything is sent.
                self.careful.store(true, Ordering::Relaxed);
                Err(Failure::Passing(anyhow!("{} is to have what another has taken", host(url)), None))?
            }
            Some(content) => {
                request = request.header(CONTENT_LENGTH, content.length);
                if content.length > 0 && self.careful.load(Ordering::Relaxed) {
                    request = request.header(EXPECT, "100-continue");
                }
                let request = request.body(SendBody::from_reader(content)).map_err(ureq::Error::from);
                let sent = request.and_then(|request| agent.run(request));
                sent.inspect_err(|_| self.careful.store(true, Ordering::Relaxed))
            }
        };
        sent.map_err(|error| self.classify(url, agent.config().proxy(), error))
    }

    fn classify(&self, url: &Uri, proxy: Option<&Proxy>, error: ureq::Error) -> Failure {
        let first = !self.reached.load(Ordering::Relaxed);
        let is_final = match &error {
            // A registry that was never there is not waited for.
            ureq::Error::HostNotFound
            | ureq::Error::ConnectionFailed
            | ureq::Error::ConnectProxyFailed(_)
            | ureq::Error::Timeout(_) => first,
            // TLS that fails is invalid data.
            ureq::Error::Io(error) => error.kind() == io::ErrorKind::InvalidData || (first && !is_interruption(error)),
            _ => true,
        };
        let way =
            proxy.map(|proxy| format!(" through the proxy {}:{}", proxy.host(), proxy.port())).unwrap_or_default();
        let error = anyhow!(describe(error)).context(format!("connect to {}{way}", host(url)));
        if is_final { Failure::Final(error) } else { Failure::Passing(error, None) }
    }

    fn agent(&self, url: &Uri) -> anyhow::Result<Agent> {
        let name = host(url);
        let key = format!("{}://{name}", url.scheme_str().unwrap_or_default());
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = agents.get(&key) {
            return Ok(agent.clone());
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_per_read(Some(self.patience.timeout))
            .timeout_per_write(Some(self.patience.timeout))
            .timeout_connect(Some(self.patience.timeout))
            .timeout_recv_response(Some(self.patience.timeout))
            .max_idle_connections_per_host(8)
            .user_agent(concat!("drayage/", env!("CARGO_PKG_VERSION")))
            .proxy(proxy::of(url)?);
        let tls = match url.scheme_str() {
            Some("https") => Tls::new(certificates::find(&self.trust, &name)?)?,
            _ => Tls::none(),
        };
        let connector =
            ().chain(SocksConnector::default())
                .chain(ConnectProxyConnector::default())
                .chain(TcpConnector::default())
                .chain(tls);
        let agent = Agent::with_parts(config.build(), connector, DefaultResolver::default());
        agents.insert(key, agent.clone());
        Ok(agent)
    }
}

/// Reads a small body, never more than `limit` bytes of it.
pub(crate) fn read_body(response: Response<ureq::Body>, limit: u64, what: &str) -> anyhow::Result<Vec<u8>> {
    read_limited(response.into_body().into_with_config().limit(u64::MAX).reader(), limit, what)
}

/// Reads what is small, never more than `limit` bytes of it.
pub(crate) fn read_limited(reader: impl Read, limit: u64, what: &str) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(limit + 1).read_to_end(&mut bytes).with_context(|| format!("read {what}"))?;
    ensure!(bytes.len() as u64 <= limit, "{what} is longer than {limit} bytes");
    Ok(bytes)
}

/// Returns what a server says of its refusal, in brackets: people search for these words. The first of a registry's errors
/// (distribution-spec, "Error Codes"), what token servers have in their place, or a line of plain text.
pub(crate) fn words(response: Response<ureq::Body>) -> String {
    let mut body = Vec::new();
    // Without the words there is the status.
    let _cut = response.into_body().into_reader().take(ERROR_LIMIT).read_to_end(&mut body);
    let said = said(&body);
    if said.is_empty() { said } else { format!(" ({said})") }
}

fn said(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let json: Value = serde_json::from_str(&text).unwrap_or_default();
    let word = |place: &Value, name: &str| place.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let parts = match (&json, json.pointer("/errors/0")) {
        (_, Some(error)) => [word(error, "code"), word(error, "message")],
        (Value::Object(_), _) => {
            let names = ["error_description", "message", "details", "detail"];
            let message = names.iter().map(|name| word(&json, name)).find(|word| !word.is_empty());
            [word(&json, "error"), message.unwrap_or_default()]
        }
        // Pages for people are none of ours.
        _ if text.trim_start().starts_with(['<', '[', '{']) => Default::default(),
        _ => [text.lines().next().unwrap_or_default().to_owned(), String::new()],
    };
    let parts: Vec<&str> = parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty()).collect();
    let plain = |c: char| if c.is_control() { '?' } else { c };
    parts.join(": ").chars().take(WORDS).map(plain).collect()
}

/// Returns the host of a URL, with its port.
pub(crate) fn host(url: &Uri) -> String {
    let authority = url.authority().map_or("", |authority| authority.as_str());
    // What stands before an @ could be a password.
    authority.rsplit('@').next().unwrap_or_default().to_owned()
}

pub(crate) fn same_server(a: &Uri, b: &Uri) -> bool {
    let port = |url: &Uri| url.port_u16().unwrap_or(if url.scheme_str() == Some("https") { 443 } else { 80 });
    a.scheme() == b.scheme() && a.host() == b.host() && port(a) == port(b)
}

/// Returns where a response leads.
pub(crate) fn redirect(from: &Uri, headers: &HeaderMap) -> anyhow::Result<Uri> {
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
    let location = location.with_context(|| format!("{} names no place", host(from)))?;
    let scheme = from.scheme_str().unwrap_or("https");
    let absolute = if location.contains("://") {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{}{location}", host(from))
    } else {
        let path = from.path().rsplit_once('/').map_or("", |(path, _)| path);
        format!("{scheme}://{}{path}/{location}", host(from))
    };
    let url: Uri = absolute.parse().with_context(|| format!("{} redirects to no URL", host(from)))?;
    let is_http = matches!(url.scheme_str(), Some("http" | "https"));
    ensure!(is_http, "{} redirects to {}:", host(from), url.scheme_str().unwrap_or("nothing"));
    Ok(url)
}

fn passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502..=504)
}

fn is_interruption(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof)
}

/// ureq's words without its own prefixes.
fn describe(error: ureq::Error) -> String {
    match error {
        ureq::Error::Io(error) => error.to_string().split(" (os error").next().unwrap_or_default().to_owned(),
        ureq::Error::HostNotFound => "host is not known".to_owned(),
        ureq::Error::Timeout(_) => "no answer in time".to_owned(),
        ureq::Error::ConnectProxyFailed(said) => said,
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_resolved_and_only_http_is_followed() {
        let from: Uri = "https://user:pw@a.io:5000/v2/x/blobs/sha256:00".parse().unwrap();
        for (location, want) in [
            ("https://b.io/y?z=1", Some("https://b.io/y?z=1")),
            ("//b.io/y", Some("https://b.io/y")),
            ("/y", Some("https://a.io:5000/y")),
            ("y", Some("https://a.io:5000/v2/x/blobs/y")),
            ("file:///etc/passwd", None),
            ("gopher://x/", None),
        ] {
            let headers = HeaderMap::from_iter([(LOCATION, location.parse().unwrap())]);
            assert_eq!(redirect(&from, &headers).ok().map(|url| url.to_string()).as_deref(), want, "{location}");
        }
    }

    #[test]
    fn a_refusal_is_told_in_the_servers_words() {
        for (body, want) in [
            (
                r#"{"errors":[{"code":"DENIED","message":"rate limit \u001b[31m","detail":null}]}"#,
                "DENIED: rate limit ?[31m",
            ),
            (r#"{"errors":[{"code":"DENIED"}]}"#, "DENIED"),
            (r#"{"details":"incorrect username or password"}"#, "incorrect username or password"),
            (r#"{"error":"invalid_grant","error_description":"it is old"}"#, "invalid_grant: it is old"),
            ("Blocked by policy\nmore", "Blocked by policy"),
            ("<html>no</html>", ""),
            (r#"{"errors":[]}"#, ""),
            ("", ""),
        ] {
            assert_eq!(said(body.as_bytes()), want);
        }
    }

    #[test]
    fn credentials_stay_with_their_server() {
        let url = |text: &str| text.parse::<Uri>().unwrap();
        for (a, b, want) in [
            ("https://a.io/x", "https://a.io:443/y", true),
            ("https://a.io/x", "http://a.io/x", false),
            ("https://a.io/x", "https://b.a.io/x", false),
            ("http://127.0.0.1:1/x", "http://127.0.0.1:2/x", false),
        ] {
            assert_eq!(same_server(&url(a), &url(b)), want, "{a} {b}");
        }
    }
}
