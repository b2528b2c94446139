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
use serde::Deserialize;
use serde_json::Value;

use crate::reference::{DOCKER_HUB, Reference};

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
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the secret, not even in a debug line.
        f.write_str(match self {
            Self::Basic { .. } => "Basic",
            Self::Refresh(_) => "Refresh",
        })
    }
}

impl Credentials {
    /// Returns the `Authorization` header's value, for credentials that are sent as they are.
    pub(crate) fn basic(&self) -> Option<String> {
        match self {
            Self::Basic { user, password } => Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))),
            Self::Refresh(_) => None,
        }
    }
}

#[derive(Deserialize)]
struct Helped {
    #[serde(rename = "Username")]
    user: String,
    #[serde(rename = "Secret")]
    secret: String,
}

/// Finds the credentials for a reference: in `file`, or in the files that podman, skopeo and docker read, in their order.
pub(crate) fn find(reference: &Reference, file: Option<&PathBuf>) -> anyhow::Result<Option<Credentials>> {
    let chosen = file.cloned().or_else(|| variable("REGISTRY_AUTH_FILE"));
    let files = match &chosen {
        Some(file) if !file.exists() => bail!("read credentials {}: no such file", file.display()),
        Some(file) => vec![file.clone()],
        None => usual_files(),
    };
    for file in files {
        let text = match fs::read(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("read credentials {}", file.display())),
        };
        // The parser's words could quote the file.
        let Ok(config) = serde_json::from_slice::<Value>(&text) else {
            bail!("read credentials {}: not JSON", file.display());
        };
        let found = find_in(&config, reference).with_context(|| format!("read credentials {}", file.display()))?;
        if let Some(credentials) = found {
            log::debug!("use credentials for {} from {}", reference.registry, file.display());
            return Ok(Some(credentials));
        }
    }
    Ok(None)
}

fn variable(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn usual_files() -> Vec<PathBuf> {
    let home = cli::home().unwrap_or_default();
    let runtime = variable("XDG_RUNTIME_DIR")
        .unwrap_or_else(|| PathBuf::from(format!("/run/containers/{}", rustix::process::getuid().as_raw())));
    let config = cli::config_home();
    let docker = variable("DOCKER_CONFIG").unwrap_or_else(|| home.join(".docker"));
    let own = if variable("XDG_RUNTIME_DIR").is_some() {
        runtime.join("containers/auth.json")
    } else {
        runtime.join("auth.json")
    };
    vec![own, config.join("containers/auth.json"), docker.join("config.json")]
}

fn find_in(config: &Value, reference: &Reference) -> anyhow::Result<Option<Credentials>> {
    let host = reference.registry.as_str();
    let server = if host == DOCKER_HUB { "https://index.docker.io/v1/" } else { host };
    if let Some(helper) = config.pointer("/credHelpers").and_then(|helpers| helpers.get(host)).and_then(Value::as_str) {
        return ask(helper, host);
    }
    if let Some(auths) = config.get("auths").and_then(Value::as_object) {
        for key in keys(reference) {
            let entry = auths.iter().find(|(name, _)| plain_host(name) == key).map(|(_, entry)| entry);
            if let Some(credentials) = entry.map(read_entry).transpose()?.flatten() {
                return Ok(Some(credentials));
            }
        }
    }
    match config.get("credsStore").and_then(Value::as_str) {
        Some(helper) if !helper.is_empty() => ask(helper, server),
        _ => Ok(None),
    }
}

/// The repository and each path above it (containers-auth.json(5)), then the host and its other names.
fn keys(reference: &Reference) -> Vec<String> {
    let full = format!("{}/{}", reference.registry, reference.repository);
    let mut keys: Vec<String> = full.match_indices('/').map(|(end, _)| full[..end].to_owned()).collect();
    keys.push(full);
    keys.reverse();
    if reference.registry == DOCKER_HUB {
        keys.extend(["index.docker.io".to_owned(), "registry-1.docker.io".to_owned()]);
    }
    keys
}

/// Docker writes some keys as URLs.
fn plain_host(key: &str) -> &str {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let bare = bare.strip_suffix('/').unwrap_or(bare);
    bare.strip_suffix("/v1").or_else(|| bare.strip_suffix("/v2")).unwrap_or(bare)
}

fn read_entry(entry: &Value) -> anyhow::Result<Option<Credentials>> {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).filter(|value| !value.is_empty());
    if let Some(token) = text("identitytoken") {
        return Ok(Some(Credentials::Refresh(token.to_owned())));
    }
    if let (Some(user), Some(password)) = (text("username"), text("password")) {
        return Ok(Some(Credentials::Basic { user: user.to_owned(), password: password.to_owned() }));
    }
    let Some(encoded) = text("auth") else { return Ok(None) };
    let decoded = STANDARD.decode(encoded).or_else(|_| STANDARD_NO_PAD.decode(encoded)).ok();
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
        command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(server.as_bytes())?;
        }
        child.wait_with_output()
    };
    let output = run().with_context(|| format!("run {program}"))?;
    if !output.status.success() {
        // That is how a helper says that it has none.
        let said = String::from_utf8_lossy(&output.stdout);
        if said.contains("credentials not found") {
            return Ok(None);
        }
        bail!("{program}: {}", output.status);
    }
    let Ok(answer) = serde_json::from_slice::<Helped>(&output.stdout) else {
        bail!("{program}: its answer is not understood")
    };
    Ok(Some(match answer.user.as_str() {
        "<token>" => Credentials::Refresh(answer.secret),
        _ => Credentials::Basic { user: answer.user, password: answer.secret },
    }))
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
        }});
        for (reference, want) in [
            ("nginx", Some(login("hub", "pw"))),
            ("quay.io/other/app", Some(login("host", "pw"))),
            ("quay.io/team/other", Some(login("team", "p:w"))),
            ("quay.io/team/app", Some(Credentials::Refresh("t".to_owned()))),
            ("host:5000/x", Some(login("host", "pw"))),
            ("host:5001/x", None),
            ("empty.io/x", None),
        ] {
            assert_eq!(find_in(&config, &reference.parse().unwrap()).unwrap(), want, "{reference}");
        }
    }

    #[test]
    fn a_wrong_entry_is_not_quoted() {
        let config = json!({"auths": {"h.io": {"auth": "c2VjcmV0"}}});
        let error = find_in(&config, &"h.io/x".parse().unwrap()).unwrap_err();
        assert_eq!(format!("{error:#}"), "`auth` is not base64 of USER:PASSWORD");
    }
}
