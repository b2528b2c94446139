//! Credentials that the user already has: containers' auth.json and docker's config.json with its helpers.

use std::env;
use std::fmt;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde_json::{Map, Value};

use layout::Reference;
use layout::reference::DOCKER_HUB;

/// Docker's key for its own registry.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// What a registry or its token server is to be shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    /// A user's name and password.
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// A refresh token, which docker calls identity token.
    Refresh(String),
    /// What a token server would give, which docker calls registry token.
    Token(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the secret, not even in a debug line.
        f.write_str(match self {
            Self::Basic { .. } => "Basic",
            Self::Refresh(_) => "Refresh",
            Self::Token(_) => "Token",
        })
    }
}

impl Credentials {
    /// Returns the `Authorization` header's value, for credentials that are sent as they are.
    pub(crate) fn basic(&self) -> Option<String> {
        match self {
            Self::Basic { user, password } => Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))),
            Self::Refresh(_) | Self::Token(_) => None,
        }
    }
}

/// Finds the credentials for a reference: in `file`, or in the files that podman, skopeo and docker read, in their order.
/// What keeps one of these from having them is told, and no more: the image may be there for all.
pub(crate) fn find(reference: &Reference, file: Option<&PathBuf>) -> anyhow::Result<Option<Credentials>> {
    if let Some(file) = file.filter(|file| !file.exists()) {
        bail!("read credentials {}: no such file", file.display());
    }
    let chosen = file.cloned().or_else(|| variable("REGISTRY_AUTH_FILE"));
    for file in chosen.map_or_else(usual_files, |file| vec![file]) {
        let text = match fs::read(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("read credentials {}", file.display())),
        };
        // The parser's words could quote the file.
        let Ok(config) = serde_json::from_slice::<Value>(&text) else {
            bail!("read credentials {}: not JSON", file.display());
        };
        let found = find_in(&config, reference).inspect_err(|error| {
            log::warn!("read credentials {}: {error:#}; going on without", file.display());
        });
        if let Ok(Some(credentials)) = found {
            log::debug!("use credentials for {} from {}", reference.registry, file.display());
            return Ok(Some(credentials));
        }
    }
    Ok(None)
}

/// Returns the path in a variable of the environment that is set.
pub(crate) fn variable(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn usual_files() -> Vec<PathBuf> {
    let home = cli::home().unwrap_or_default();
    let own = match variable("XDG_RUNTIME_DIR") {
        Some(runtime) => runtime.join("containers/auth.json"),
        None => format!("/run/containers/{}/auth.json", rustix::process::getuid().as_raw()).into(),
    };
    let config = cli::config_home();
    let docker = variable("DOCKER_CONFIG").unwrap_or_else(|| home.join(".docker"));
    vec![own, config.join("containers/auth.json"), docker.join("config.json"), home.join(".dockercfg")]
}

fn find_in(config: &Value, reference: &Reference) -> anyhow::Result<Option<Credentials>> {
    let member = |name: &str| config.get(name).and_then(Value::as_object);
    let keys = keys(reference);
    if let Some(helpers) = member("credHelpers") {
        // By the host alone, as docker has it; whoever is asked is asked for what is written there.
        let hosts = keys.iter().filter(|key| !key.contains('/'));
        let helper =
            hosts.filter_map(|host| entry(helpers, host)).find_map(|(key, helper)| Some((key, helper.as_str()?)));
        if let Some((key, helper)) = helper {
            return ask(helper, key);
        }
    }
    // The whole file is the list in docker's first form, and in Kubernetes' secrets of type dockercfg.
    let old = ["auths", "credHelpers", "credsStore"].iter().all(|name| config.get(name).is_none());
    if let Some(auths) = member("auths").or(config.as_object().filter(|_| old)) {
        for found in keys.iter().filter_map(|key| entry(auths, key)) {
            if let Some(credentials) = read_entry(found.1)? {
                return Ok(Some(credentials));
            }
        }
    }
    let host = reference.registry.as_str();
    match config.get("credsStore").and_then(Value::as_str) {
        Some(helper) if !helper.is_empty() => ask(helper, if host == DOCKER_HUB { HUB_KEY } else { host }),
        _ => Ok(None),
    }
}

/// Finds a key in any of its spellings; one with wildcards is the last to be looked at.
fn entry<'a>(entries: &'a Map<String, Value>, key: &str) -> Option<(&'a str, &'a Value)> {
    let found = entries.iter().find(|(name, _)| plain_key(name) == key);
    let found = found.or_else(|| entries.iter().find(|(name, _)| matches_wildcard(plain_key(name), key)));
    found.map(|(name, value)| (name.as_str(), value))
}

/// The repository and each path above it (containers-auth.json(5)), then the host and its other names.
fn keys(reference: &Reference) -> Vec<String> {
    let full = format!("{}/{}", reference.registry, reference.repository);
    let mut keys: Vec<String> = full.match_indices('/').map(|(end, _)| full[..end].to_owned()).collect();
    keys.push(full);
    keys.reverse();
    if reference.registry == DOCKER_HUB {
        keys.extend(["index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"].map(str::to_owned));
    }
    keys
}

/// Docker writes some keys as URLs.
fn plain_key(key: &str) -> &str {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let bare = bare.trim_end_matches('/');
    bare.strip_suffix("/v1").or_else(|| bare.strip_suffix("/v2")).unwrap_or(bare)
}

/// Tells whether a key of Kubernetes' is for a host: a `*` stands for what is in one part of its name.
fn matches_wildcard(key: &str, wanted: &str) -> bool {
    let (Some((key, path)), Some((wanted, below))) = (split_host(key), split_host(wanted)) else { return false };
    let part = |(pattern, part): (&str, &str)| match pattern.split_once('*') {
        Some((before, after)) => {
            part.len() >= before.len() + after.len() && part.starts_with(before) && part.ends_with(after)
        }
        None => pattern == part,
    };
    key.contains('*')
        && path == below
        && key.split('.').count() == wanted.split('.').count()
        && key.split('.').zip(wanted.split('.')).all(part)
}

fn split_host(key: &str) -> Option<(&str, &str)> {
    Some(key.split_once('/').unwrap_or((key, ""))).filter(|(host, _)| !host.is_empty())
}

fn read_entry(entry: &Value) -> anyhow::Result<Option<Credentials>> {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).filter(|value| !value.is_empty());
    if let Some(token) = text("registrytoken") {
        return Ok(Some(Credentials::Token(token.to_owned())));
    }
    if let Some(token) = text("identitytoken") {
        return Ok(Some(Credentials::Refresh(token.to_owned())));
    }
    if let (Some(user), Some(password)) = (text("username"), text("password")) {
        return Ok(Some(Credentials::Basic { user: user.to_owned(), password: password.to_owned() }));
    }
    let Some(encoded) = text("auth") else { return Ok(None) };
    let encoded: String = encoded.split_ascii_whitespace().collect();
    let decoded = STANDARD.decode(&encoded).or_else(|_| STANDARD_NO_PAD.decode(&encoded)).ok();
    let pair = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    let Some((user, password)) = pair.as_deref().and_then(|pair| pair.split_once(':')) else {
        bail!("`auth` is not base64 of USER:PASSWORD");
    };
    // Docker pads the password with NUL.
    let password = password.trim_end_matches('\0');
    Ok(Some(Credentials::Basic { user: user.to_owned(), password: password.to_owned() }))
}

/// Asks a credential helper (docker-credential-helpers, `get`).
fn ask(helper: &str, server: &str) -> anyhow::Result<Option<Credentials>> {
    let program = format!("docker-credential-{helper}");
    let run = || -> std::io::Result<std::process::Output> {
        let mut command = Command::new(&program);
        command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that does not read fails by its status, if at all.
            let _closed = writeln!(stdin, "{server}");
        }
        child.wait_with_output()
    };
    let output = run().with_context(|| format!("run {program}"))?;
    if !output.status.success() {
        // That is how a helper says that it has none; what else it says goes to the user.
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        if said.contains("credentials not found") {
            return Ok(None);
        }
        let line = said.trim().lines().next().unwrap_or_default().replace(char::is_control, "?");
        bail!("{program}: {}{}", output.status, if line.is_empty() { line } else { format!(": {line}") });
    }
    if output.stdout.trim_ascii().is_empty() {
        return Ok(None);
    }
    let Ok(answer) = serde_json::from_slice::<Value>(&output.stdout) else {
        bail!("{program}: its answer is not understood")
    };
    let word = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (user, secret) = (word("Username"), word("Secret"));
    Ok(match user.as_str() {
        _ if secret.is_empty() => None,
        "<token>" => Some(Credentials::Refresh(secret)),
        _ => Some(Credentials::Basic { user, password: secret }),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn login(user: &str, password: &str) -> Credentials {
        Credentials::Basic { user: user.to_owned(), password: password.to_owned() }
    }

    #[test]
    fn the_longest_key_wins() {
        let config = json!({"auths": {
            "https://index.docker.io/v1/": {"auth": "aHViOnB3"},
            "quay.io": {"auth": "aG9zdDpwdw=="},
            "quay.io/team": {"username": "team", "password": "p:w"},
            "quay.io/team/app": {"identitytoken": "t"},
            "http://host:5000": {"auth": "aG9zdDpwdw"},
            "empty.io": {},
            "*.kube.io": {"username": "any", "password": "pw"},
            "https://url.io:5000/v2/": {"auth": "aG9z\ndDpwdw=="},
            "pass.io": {"registrytoken": "t"},
        }});
        for (reference, want) in [
            ("nginx", Some(login("hub", "pw"))),
            ("quay.io/other/app", Some(login("host", "pw"))),
            ("quay.io/team/other", Some(login("team", "p:w"))),
            ("quay.io/team/app", Some(Credentials::Refresh("t".to_owned()))),
            ("host:5000/x", Some(login("host", "pw"))),
            ("host:5001/x", None),
            ("empty.io/x", None),
            ("a.kube.io/x", Some(login("any", "pw"))),
            ("a.b.kube.io/x", None),
            ("url.io:5000/x", Some(login("host", "pw"))),
            ("pass.io/x", Some(Credentials::Token("t".to_owned()))),
        ] {
            assert_eq!(find_in(&config, &reference.parse().unwrap()).unwrap(), want, "{reference}");
        }
    }

    #[test]
    fn dockers_first_form_has_no_members_around() {
        let config = json!({"https://index.docker.io/v1/": {"auth": "aHViOnB3", "email": "a@b"}, "quay.io": {"auth": "aG9zdDpwdw=="}});
        for (reference, want) in [("nginx", "hub"), ("quay.io/x", "host")] {
            assert_eq!(find_in(&config, &reference.parse().unwrap()).unwrap(), Some(login(want, "pw")));
        }
    }

    #[test]
    fn a_wrong_entry_is_not_quoted() {
        let config = json!({"auths": {"h.io": {"auth": "c2VjcmV0"}}});
        let error = find_in(&config, &"h.io/x".parse().unwrap()).unwrap_err();
        assert_eq!(format!("{error:#}"), "`auth` is not base64 of USER:PASSWORD");
    }
}
