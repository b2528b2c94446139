//! A registry (distribution-spec, "Pull"): manifests, blobs, tags and referrers of one repository.

#![forbid(unsafe_code)]

mod auth;
mod certificates;
mod credentials;
mod fetched;
mod http;
mod options;
mod pages;
pub mod progress;
mod proxy;
mod registries;
mod retry;
mod tls;
mod transfer;
mod upload;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use flate2::read::GzDecoder;
use layout::reference::DOCKER_HUB;
use layout::{Document, DocumentKind, MANIFEST_LIMIT, Reference};
use oci_spec::image::{Descriptor, Digest, DigestAlgorithm};
use ureq::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, WARNING, WWW_AUTHENTICATE};
use ureq::http::{Response, StatusCode, Uri};

use auth::{Authorization, Challenge};
use certificates::Trust;
use credentials::Credentials;
use http::{Ask, Client, read_body, read_limited, words};

pub use fetched::{Body, Fetched};
pub use options::{ProgressOptions, RegistryOptions};
pub use registries::{Endpoint, Registries};
pub use retry::{Failure, Patience, Retries};
pub use transfer::several;
pub use upload::Upload;

/// A server that speaks https begins to do so within this time.
const PROBE: Duration = Duration::from_secs(5);
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
                      application/vnd.docker.distribution.manifest.list.v2+json, \
                      application/vnd.docker.distribution.manifest.v2+json";

/// A manifest, its media type, and the digest that the registry says it has.
type Received = (Vec<u8>, String, Option<String>);

/// How registries are reached.
pub struct Access {
    /// The user's decisions.
    pub network: RegistryOptions,
    registries: OnceLock<Registries>,
    /// The credentials for a repository, or why there are none to be had, once they were looked for.
    credentials: Mutex<BTreeMap<String, Result<Option<Credentials>, String>>>,
}

impl Access {
    /// Makes one that has read nothing yet.
    pub fn new(network: RegistryOptions) -> Self {
        Self { network, registries: OnceLock::new(), credentials: Mutex::default() }
    }

    /// Returns what registries.conf says; it is read when it is needed first.
    pub fn registries(&self) -> anyhow::Result<&Registries> {
        if let Some(registries) = self.registries.get() {
            return Ok(registries);
        }
        let registries = Registries::read(self.network.registries_conf.as_deref())?;
        Ok(self.registries.get_or_init(|| registries))
    }

    /// Looks for a repository's credentials, so that no helper has to be executed later.
    pub fn learn(&self, reference: &Reference) {
        let mut known = self.credentials.lock().unwrap_or_else(PoisonError::into_inner);
        let find =
            || credentials::find(reference, self.network.authfile.as_ref()).map_err(|error| format!("{error:#}"));
        known.entry(reference.name()).or_insert_with(find);
    }

    fn credentials(&self, reference: &Reference) -> anyhow::Result<Option<Credentials>> {
        self.learn(reference);
        let known = self.credentials.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&reference.name()).cloned().unwrap_or(Ok(None)).map_err(anyhow::Error::msg)
    }
}

/// One repository of a registry.
pub struct Registry {
    client: Client,
    base: Uri,
    reference: Reference,
    credentials: Option<Credentials>,
    /// What a token must allow.
    scope: String,
    authorization: Mutex<Option<Authorization>>,
}

impl Registry {
    /// Finds out how the registry is spoken to: https, and http where there is none of it on the loopback (as docker has
    /// it) or by the user's wish.
    pub fn connect(endpoint: &Endpoint, access: &Access) -> anyhow::Result<Self> {
        let reference = &endpoint.reference;
        let insecure = !access.network.tls_verify || endpoint.insecure;
        let host = if reference.registry == DOCKER_HUB { "registry-1.docker.io" } else { &reference.registry };
        let directory = access.network.cert_dir.clone();
        let trust = Trust { registry: host.to_owned(), anybody: insecure, directory };
        let client = Client::new(access.network.patience(), trust);
        let scheme = if insecure || is_loopback(host) { find_scheme(&client, host) } else { "https" };
        Ok(Self {
            client,
            base: format!("{scheme}://{host}/v2/").parse().with_context(|| format!("{host} is no host"))?,
            reference: reference.clone(),
            credentials: access.credentials(reference)?,
            scope: format!("repository:{}:pull", reference.repository),
            authorization: Mutex::default(),
        })
    }

    /// Returns the user's patience.
    pub fn patience(&self) -> Patience {
        self.client.patience
    }

    /// Fetches the manifest or index that the reference names.
    pub fn root(&self) -> anyhow::Result<Fetched> {
        let digest = self.reference.digest.as_ref().map(Digest::to_string);
        let name = digest.or_else(|| self.reference.tag.clone()).unwrap_or_default();
        let (bytes, media_type, claimed) = self.manifest(&name, MANIFEST_LIMIT)?;
        let own = layout::sha256(&bytes);
        // By tag nothing but the registry's own word tells what is right; what another algorithm gives says nothing.
        let claimed = claimed.and_then(|claimed| claimed.parse::<Digest>().ok());
        let claimed = claimed.filter(|claimed| *claimed.algorithm() == DigestAlgorithm::Sha256);
        if let (None, Some(claimed)) = (&self.reference.digest, claimed.filter(|claimed| *claimed != own)) {
            bail!("manifest {name}: the registry says {claimed}, content has digest {own}");
        }
        Fetched::new(bytes, &media_type, self.reference.digest.as_ref())
    }

    /// Fetches a manifest or index by its descriptor.
    pub fn document(&self, descriptor: &Descriptor) -> anyhow::Result<Vec<u8>> {
        let fits = descriptor.size() <= MANIFEST_LIMIT;
        ensure!(fits, "manifest {} is said to have {} bytes: too many", descriptor.digest(), descriptor.size());
        let limit = if descriptor.size() == 0 { MANIFEST_LIMIT } else { descriptor.size() };
        let (bytes, media_type, _) = self.manifest(descriptor.digest().as_ref(), limit)?;
        let said = layout::essence(&media_type);
        if DocumentKind::of(said) != DocumentKind::Other && said != descriptor.media_type().as_ref() {
            bail!("manifest {} is said to be {} and comes as {said}", descriptor.digest(), descriptor.media_type());
        }
        let size = if descriptor.size() == 0 { bytes.len() as u64 } else { descriptor.size() };
        layout::verify(&Descriptor::new(descriptor.media_type().clone(), size, descriptor.digest().clone()), &bytes)?;
        Ok(bytes)
    }

    /// Fetches the manifest or index with a tag, if there is one.
    pub fn tagged(&self, tag: &str) -> anyhow::Result<Option<Fetched>> {
        let found = self.find_manifest(tag, MANIFEST_LIMIT)?;
        found.map(|(bytes, media_type, _)| Fetched::new(bytes, &media_type, None)).transpose()
    }

    fn manifest(&self, name: &str, limit: u64) -> anyhow::Result<Received> {
        self.find_manifest(name, limit)?.context("not found")
    }

    fn find_manifest(&self, name: &str, limit: u64) -> anyhow::Result<Option<Received>> {
        let headers = vec![("accept", ACCEPT.to_owned())];
        self.patience().retry(|| {
            let Some(response) = self.find(&format!("manifests/{name}"), &headers)? else { return Ok(None) };
            let text = |header: &str| response.headers().get(header)?.to_str().ok().map(str::to_owned);
            let (media_type, claimed) = (text(CONTENT_TYPE.as_str()), text("docker-content-digest"));
            warn(&response);
            let what = format!("manifest {name}");
            let encoded = text(CONTENT_ENCODING.as_str()).is_some_and(|encoding| encoding.ends_with("gzip"));
            let mut bytes = read_body(response, limit, &what).map_err(passing_if_cut)?;
            // Nobody has asked for that, and the digest is of what is inside.
            if encoded && bytes.starts_with(&[0x1f, 0x8b]) {
                bytes = read_limited(GzDecoder::new(bytes.as_slice()), limit, &what).map_err(Failure::Final)?;
            }
            let media_type = media_type.unwrap_or_else(|| Document::media_type(&bytes).to_string());
            Ok(Some((bytes, media_type, claimed)))
        })
    }

    /// Begins the transfer of a blob at `offset`. One that knows no ranges, or does not want to hear of them, begins at 0.
    pub fn open(&self, descriptor: &Descriptor, offset: u64) -> Result<Body, Failure> {
        match self.open_at(descriptor, offset) {
            Err(Failure::Refused(error) | Failure::Final(error)) if offset > 0 => {
                log::debug!("ask for all of it: {error:#}");
                self.open_at(descriptor, 0)
            }
            opened => opened,
        }
    }

    fn open_at(&self, descriptor: &Descriptor, offset: u64) -> Result<Body, Failure> {
        let digest = descriptor.digest();
        let mut headers = vec![("accept", "*/*".to_owned()), ("accept-encoding", "identity".to_owned())];
        if offset > 0 {
            headers.push(("range", format!("bytes={offset}-")));
        }
        let found = self.find(&format!("blobs/{digest}"), &headers)?;
        let response = found.context("not found").map_err(Failure::Final)?;
        let partial = response.status() == StatusCode::PARTIAL_CONTENT;
        let start = if partial { range_start(&response).filter(|start| *start <= offset) } else { Some(0) };
        let Some(start) = start else {
            return Err(Failure::Final(anyhow!("blob {digest}: the registry sends another range than was asked for")));
        };
        let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let length: Option<u64> = text(CONTENT_LENGTH).and_then(|length| length.parse().ok());
        let encoded = text(CONTENT_ENCODING).is_some_and(|encoding| encoding.ends_with("gzip"));
        // It may be said of a layer that merely is gzip.
        if encoded && !partial && length != Some(descriptor.size()) && !is_gzip(descriptor, length) {
            let reader = GzDecoder::new(response.into_body().into_with_config().limit(u64::MAX).reader());
            return Ok(Body { start: 0, reader: Box::new(reader) });
        }
        if let Some(got) = length.map(|length| start.saturating_add(length)).filter(|end| *end != descriptor.size()) {
            let (digest, want) = (digest.clone(), descriptor.size());
            return Err(Failure::Final(layout::Error::Size { digest, want, got }.into()));
        }
        let reader = response.into_body().into_with_config().limit(u64::MAX).reader();
        Ok(Body { start, reader: Box::new(reader) })
    }

    /// Asks for something that need not be there.
    fn find(&self, path: &str, headers: &[(&'static str, String)]) -> Result<Option<Response<ureq::Body>>, Failure> {
        let response = self.request(&mut Ask { headers: headers.to_vec(), ..Ask::get(self.url(path)) })?;
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(Some(response)),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(unexpected(response)),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{}/{path}", self.base, self.reference.repository)
    }

    /// Sends a request with what authorization there is, and once more with what the registry asks for.
    fn request(&self, ask: &mut Ask<'_>) -> Result<Response<ureq::Body>, Failure> {
        let _span = trace::span("request", &ask.url);
        ask.authorization = self.held_authorization();
        let mut response = self.client.send_once(ask)?;
        if response.status() == StatusCode::UNAUTHORIZED {
            let challenge = challenge(&response);
            let mut failed = None;
            for scope in challenge.scopes(&self.scope) {
                match self.authorize(&challenge, ask.authorization.as_deref(), &scope) {
                    Ok(authorization) => ask.authorization = Some(authorization),
                    Err(error) => {
                        failed.get_or_insert(error);
                        continue;
                    }
                }
                failed = None;
                response = self.client.send_once(ask)?;
                if !matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
                    break;
                }
            }
            if let Some(error) = failed {
                return Err(Failure::Final(error));
            }
        }
        if !matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Ok(response);
        }
        let advice = if self.credentials.is_some() {
            "the credentials do not allow it"
        } else {
            "not found, or it needs credentials"
        };
        Err(Failure::Final(anyhow!("{advice}{}", words(response))))
    }

    fn held_authorization(&self) -> Option<String> {
        let held = self.authorization.lock().unwrap_or_else(PoisonError::into_inner);
        held.as_ref().and_then(Authorization::good).map(str::to_owned)
    }

    fn authorize(&self, challenge: &Challenge, refused: Option<&str>, scope: &str) -> anyhow::Result<String> {
        let mut held = self.authorization.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have got a new token while this one was refused.
        if let Some(newer) = held.as_ref().and_then(Authorization::good).filter(|held| Some(*held) != refused) {
            return Ok(newer.to_owned());
        }
        let new = auth::answer(&self.client, challenge, &self.base, self.credentials.as_ref(), scope)?;
        Ok(held.insert(new).header.clone())
    }
}

fn unexpected(response: Response<ureq::Body>) -> Failure {
    Failure::Refused(anyhow!("the registry answers {}{}", response.status(), words(response)))
}

/// A registry that wants credentials and does not say which takes user and password: what others learn at /v2/.
fn challenge(response: &Response<ureq::Body>) -> Challenge {
    let challenges = response.headers().get_all(WWW_AUTHENTICATE);
    Challenge::parse(challenges.iter().filter_map(|value| value.to_str().ok())).unwrap_or(Challenge::Basic)
}

/// Tells a layer that comes compressed, where its length does not show that it is compressed once more.
fn is_gzip(descriptor: &Descriptor, length: Option<u64>) -> bool {
    length.is_none() && descriptor.media_type().to_string().ends_with("gzip")
}

/// A body that was cut off may come whole another time; one that is too long may not.
fn passing_if_cut(error: anyhow::Error) -> Failure {
    match error.downcast_ref::<std::io::Error>() {
        Some(_) => Failure::Passing(error, None),
        None => Failure::Final(error),
    }
}

/// Tells a host on this machine's loopback.
pub fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Asks without credentials what is spoken: https first, so that what only forwards or lies on another port is not taken
/// for the registry. Whose certificate it is does not matter yet.
fn find_scheme(client: &Client, host: &str) -> &'static str {
    // Who is asked something strange may wait for more of it.
    let patience = Patience { timeout: client.patience.timeout.min(PROBE), ..client.patience };
    let anybody = Client::new(patience, Trust { anybody: true, ..Trust::default() });
    let Err(error) = anybody.probe(&format!("https://{host}/v2/")) else { return "https" };
    log::debug!("no https: {:#}", error.into_error());
    let plain = || client.probe(&format!("http://{host}/v2/"));
    let asked = match plain() {
        // An answer that was cut off says nothing, and nobody asks for the scheme again.
        Err(Failure::Passing(..)) => plain(),
        asked => asked,
    };
    match asked {
        // So a TLS server answers http on its port: what keeps it from speaking TLS with us is the thing to tell.
        Ok(StatusCode::BAD_REQUEST) | Err(_) => "https",
        Ok(_) => "http",
    }
}

fn range_start(response: &Response<ureq::Body>) -> Option<u64> {
    let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

/// Passes the registry's warnings on (distribution-spec, "Warnings").
fn warn(response: &Response<ureq::Body>) {
    for warning in response.headers().get_all(WARNING) {
        if let Some(text) = warning.to_str().ok().and_then(|text| text.strip_prefix("299 - ")) {
            log::warn!("the registry says: {}", text.trim_matches('"').chars().take(200).collect::<String>());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_loopback_is_plain() {
        for (host, want) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("127.9.9.9", true),
            ("[::1]:5000", true),
            ("localhost.example.com", false),
            ("10.0.0.1:5000", false),
            ("[fe80::1]", false),
        ] {
            assert_eq!(is_loopback(host), want, "{host}");
        }
    }
}
