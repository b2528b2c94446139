//! Authentication (distribution's "Token Authentication Specification"): challenges, and the tokens that answer them.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use ureq::http::{Method, Uri};

use crate::credentials::Credentials;
use crate::http::{Ask, Client, Content, host, read_body, words};

/// What need not be written as a number in a query.
const PLAIN: AsciiSet =
    NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/').remove(b':').remove(b',');
/// A token server's answer is short. Bytes.
const ANSWER_LIMIT: u64 = 1 << 20;
/// A token without a life time lives so long, and no token is said to live shorter.
const LIFE: Duration = Duration::from_secs(60);

/// What a registry's 401 asks for (RFC 9110, "WWW-Authenticate").
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// User and password with each request.
    Basic,
    /// A token from another server.
    Bearer {
        /// The server's URL.
        realm: String,
        /// The registry's name for itself.
        service: Option<String>,
        /// What the token must allow.
        scope: Option<String>,
    },
}

impl Challenge {
    /// Parses a header; `Bearer` is preferred where there are several.
    pub(crate) fn parse<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut basic = None;
        for header in headers {
            let (scheme, parameters) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
            if scheme.eq_ignore_ascii_case("bearer") {
                let mut said = parse_parameters(parameters);
                if let Some(realm) = said.remove("realm") {
                    return Some(Self::Bearer { realm, service: said.remove("service"), scope: said.remove("scope") });
                }
            } else if scheme.eq_ignore_ascii_case("basic") {
                basic = Some(Self::Basic);
            }
        }
        basic
    }

    /// Returns the scopes to ask a token for: the challenge's, then what is needed, which another name of the repository
    /// or a scope that is the same for all may keep the registry from saying.
    pub(crate) fn scopes(&self, needed: &str) -> Vec<String> {
        let asked = if let Self::Bearer { scope: Some(asked), .. } = self { asked.trim() } else { "" };
        // A registry that was asked for less than will be needed.
        let asked = if needed.starts_with(asked) { needed } else { asked };
        let mut scopes = vec![asked.to_owned(), needed.to_owned()];
        scopes.dedup();
        scopes
    }
}

/// Returns the values by their names in small letters.
fn parse_parameters(mut text: &str) -> BTreeMap<String, String> {
    let mut parameters = BTreeMap::new();
    while let Some((name, rest)) = text.split_once('=') {
        let name = name.trim_matches([' ', ',', '\t']).to_ascii_lowercase();
        let (value, rest) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => rest.split_once(',').unwrap_or((rest, "")),
        };
        parameters.insert(name, value.to_owned());
        text = rest;
    }
    parameters
}

/// An `Authorization` header's value, and until when it is good. No `Debug`: it is a secret.
#[derive(Clone)]
pub(crate) struct Authorization {
    /// The header.
    pub(crate) header: String,
    /// When to ask for another one.
    pub(crate) until: Option<Instant>,
}

impl Authorization {
    /// Returns the header while it is good.
    pub(crate) fn good(&self) -> Option<&str> {
        self.until.is_none_or(|until| Instant::now() < until).then_some(&self.header)
    }
}

/// Answers a challenge. `registry` is the URL that was asked, `scope` what is wanted.
pub(crate) fn answer(
    client: &Client,
    challenge: &Challenge,
    registry: &Uri,
    credentials: Option<&Credentials>,
    scope: &str,
) -> anyhow::Result<Authorization> {
    let (realm, service) = match challenge {
        Challenge::Basic => {
            let header = credentials.and_then(Credentials::basic);
            let header = header.with_context(|| format!("{} wants credentials", host(registry)))?;
            return Ok(Authorization { header, until: None });
        }
        Challenge::Bearer { realm, service, .. } => (realm, service),
    };
    if let Some(Credentials::Token(token)) = credentials {
        return Ok(Authorization { header: format!("Bearer {token}"), until: None });
    }
    let realm: Uri = realm.parse().with_context(|| format!("{} names no usable token server", host(registry)))?;
    let is_usable = matches!(realm.scheme_str(), Some("http" | "https")) && realm.host().is_some();
    ensure!(is_usable, "{} names no usable token server", host(registry));
    let credentials = credentials.filter(|_| {
        let trusted = may_see_credentials(&realm, registry)
            || client.is_allowed(&format!("credentials go to token server {}", host(&realm)));
        if !trusted {
            log::warn!("no credentials for token server {}: it is reached over http", host(&realm));
        }
        trusted
    });
    log::debug!("get a token from {}", host(&realm));
    let response =
        client.patience.retry(|| client.send_once(&mut request(&realm, service.as_deref(), scope, credentials)));
    let response = response.context("get a token")?;
    let is_success = response.status().is_success();
    ensure!(is_success, "get a token: {} answers {}{}", host(&realm), response.status(), words(response));
    let body = read_body(response, ANSWER_LIMIT, "the token")?;
    // The parser's words could quote a token.
    let Ok(answer) = serde_json::from_slice::<Value>(&body) else {
        bail!("get a token: {} answers something else", host(&realm));
    };
    let token =
        ["token", "access_token"].iter().find_map(|name| answer.get(name)?.as_str().filter(|it| !it.is_empty()));
    let token = token.with_context(|| format!("get a token: {} gives none", host(&realm)))?;
    // One that no clock has does not end.
    let life =
        answer.get("expires_in").and_then(Value::as_u64).map_or(LIFE, |life| LIFE.max(Duration::from_secs(life)));
    Ok(Authorization { header: format!("Bearer {token}"), until: Instant::now().checked_add(life.mul_f64(0.9)) })
}

/// Credentials go to a token server over TLS, or where the registry itself is plain and on the same machine.
fn may_see_credentials(realm: &Uri, registry: &Uri) -> bool {
    realm.scheme_str() == Some("https") || (registry.scheme_str() == Some("http") && realm.host() == registry.host())
}

fn request(realm: &Uri, service: Option<&str>, scope: &str, credentials: Option<&Credentials>) -> Ask<'static> {
    let mut query: Vec<_> = service.map(|service| ("service", service.to_owned())).into_iter().collect();
    if let Some(Credentials::Refresh(token)) = credentials {
        query.push(("grant_type", "refresh_token".to_owned()));
        query.push(("client_id", "drayage".to_owned()));
        query.push(("refresh_token", token.clone()));
        query.push(("scope", scope.to_owned()));
        let form = encode(&query);
        let length = form.len() as u64;
        let content = Some(Content::new(Cursor::new(form), length));
        let headers = vec![("content-type", "application/x-www-form-urlencoded".to_owned())];
        return Ask { method: Method::POST, headers, content, secret: true, ..Ask::get(realm.to_string()) };
    }
    if let Some(Credentials::Basic { user, .. }) = credentials {
        query.push(("account", user.clone()));
    }
    // Only a form has them in one word.
    query.extend(scope.split(' ').map(|scope| ("scope", scope.to_owned())));
    let separator = if realm.query().is_some() { '&' } else { '?' };
    let mut ask = Ask::get(format!("{realm}{separator}{}", encode(&query)));
    ask.authorization = credentials.and_then(Credentials::basic);
    ask
}

fn encode(pairs: &[(&str, String)]) -> String {
    let pairs: Vec<String> =
        pairs.iter().map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, &PLAIN))).collect();
    pairs.join("&")
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn challenges_are_parsed() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| {
            let owned = |text: Option<&str>| text.map(str::to_owned);
            Some(Challenge::Bearer { realm: realm.to_owned(), service: owned(service), scope: owned(scope) })
        };
        for (headers, want) in [
            (
                &[r#"Bearer realm="https://a/t",service="s",scope="repository:x:pull,push""#][..],
                bearer("https://a/t", Some("s"), Some("repository:x:pull,push")),
            ),
            (&[r#"bearer service=s, realm="https://a/t""#], bearer("https://a/t", Some("s"), None)),
            (&[r#"Basic realm="r""#, r#"Bearer realm="https://a/t""#], bearer("https://a/t", None, None)),
            (&[r#"Basic realm="r""#], Some(Challenge::Basic)),
            (&["Negotiate"], None),
            (&["Bearer"], None),
            (&[r#"Bearer realm="unfinished"#], bearer("unfinished", None, None)),
        ] {
            assert_eq!(Challenge::parse(headers.iter().copied()), want, "{headers:?}");
        }
    }

    #[test]
    fn the_own_scope_follows_the_challenges() {
        let own = "repository:x:pull";
        for (scope, want) in [
            (None, &[own][..]),
            (Some(""), &[own]),
            (Some(own), &[own]),
            (Some("aws"), &["aws", own]),
            (Some("repository:x:pull,push"), &["repository:x:pull,push", own]),
        ] {
            let scope = scope.map(str::to_owned);
            let challenge = Challenge::Bearer { realm: "https://a/t".to_owned(), service: None, scope };
            assert_eq!(challenge.scopes(own), want);
        }
        assert_eq!(Challenge::Basic.scopes(own), [own]);
    }

    #[test]
    fn credentials_are_not_sent_in_the_clear_to_strangers() {
        for (realm, registry, want) in [
            ("https://auth.docker.io/token", "https://registry-1.docker.io/v2/", true),
            ("http://auth.a.io/token", "https://a.io/v2/", false),
            ("http://a.io/token", "https://a.io/v2/", false),
            ("http://b.io/token", "http://a.io/v2/", false),
            ("http://127.0.0.1:5002/token", "http://127.0.0.1:5001/v2/", true),
        ] {
            let url = |text: &str| text.parse::<Uri>().unwrap();
            assert_eq!(may_see_credentials(&url(realm), &url(registry)), want, "{realm}");
        }
    }

    #[test]
    fn a_token_is_asked_for_with_what_there_is() {
        let realm: Uri = "https://a/t?x=1".parse().unwrap();
        let basic = Credentials::Basic { user: "a&b".to_owned(), password: "p".to_owned() };
        let ask = request(&realm, Some("s s"), "repository:x:pull repository:y:pull", Some(&basic));
        let query = "service=s%20s&account=a%26b&scope=repository:x:pull&scope=repository:y:pull";
        assert_eq!(ask.url, format!("https://a/t?x=1&{query}"));
        assert_eq!(ask.authorization.as_deref(), Some("Basic YSZiOnA="));
        let ask = request(&realm, None, "q", Some(&Credentials::Refresh("r+".to_owned())));
        let form = "grant_type=refresh_token&client_id=drayage&refresh_token=r%2B&scope=q";
        let mut sent = String::new();
        ask.content.unwrap().read_to_string(&mut sent).unwrap();
        assert_eq!((sent.as_str(), ask.authorization, ask.secret), (form, None, true));
    }
}
