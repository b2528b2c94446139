//! containers' policy.json (containers-policy.json(5)): which images may be used at all, and who must have signed them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;

use super::identity::Identity;
use super::key::PublicKey;
use super::{Requirement, Signed};
use crate::source::Named;

/// What the file says.
#[derive(Debug)]
pub(crate) struct TrustPolicy {
    path: PathBuf,
    file: File,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    default: Vec<Value>,
    #[serde(default)]
    transports: BTreeMap<String, BTreeMap<String, Vec<Value>>>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
enum Entry {
    InsecureAcceptAnything {},
    Reject {},
    SigstoreSigned {
        key_path: Option<PathBuf>,
        key_paths: Option<Vec<PathBuf>>,
        key_data: Option<String>,
        key_datas: Option<Vec<String>>,
        signed_identity: Option<Identity>,
    },
}

impl TrustPolicy {
    /// Reads `file`, or else the user's or the system's file; `None` where there is none.
    pub(crate) fn read(file: Option<&Path>) -> anyhow::Result<Option<Self>> {
        let config = cli::config_home();
        let usual = [config.join("containers/policy.json"), PathBuf::from("/etc/containers/policy.json")];
        for path in file.map_or(usual.to_vec(), |file| vec![file.to_owned()]) {
            let text = match fs::read(&path) {
                Err(error) if file.is_none() && error.kind() == io::ErrorKind::NotFound => continue,
                text => text.with_context(|| format!("read {}", path.display()))?,
            };
            let parsed = serde_json::from_slice(&text).with_context(|| format!("read {}", path.display()))?;
            return Ok(Some(Self { path, file: parsed }));
        }
        Ok(None)
    }

    /// Returns what an image must satisfy: all of it.
    pub(crate) fn requirements(&self, name: &Named) -> anyhow::Result<Vec<Requirement>> {
        let (transport, scopes) = scopes(name);
        let own = self.file.transports.get(transport).filter(|scopes| !scopes.is_empty());
        let found = own.and_then(|own| scopes.iter().find_map(|scope| own.get_key_value(scope)));
        let (scope, entries) = match found {
            Some((scope, entries)) => (format!("{transport}:{scope}"), entries),
            None => ("default".to_owned(), &self.file.default),
        };
        let read = || -> anyhow::Result<Vec<Requirement>> {
            ensure!(!entries.is_empty(), "no requirement at all");
            entries.iter().map(requirement).collect()
        };
        read().with_context(|| format!("{}: {scope}", self.path.display()))
    }
}

fn requirement(entry: &Value) -> anyhow::Result<Requirement> {
    let kind = entry.get("type").and_then(Value::as_str).unwrap_or_default();
    ensure!(kind != "signedBy", "signedBy is not supported: sigstoreSigned is");
    let members = entry.as_object().into_iter().flatten();
    if let Some((name, _)) = members.clone().find(|(name, _)| {
        kind == "sigstoreSigned" && (["fulcio", "pki"].contains(&name.as_str()) || name.starts_with("rekor"))
    }) {
        bail!("{kind} with {name} is not supported: keys are");
    }
    let (paths, data, identity) = match serde_json::from_value(entry.clone())? {
        Entry::InsecureAcceptAnything {} => return Ok(Requirement::Accept),
        Entry::Reject {} => return Ok(Requirement::Reject),
        Entry::SigstoreSigned { key_path, key_paths, key_data, key_datas, signed_identity } => {
            let given = [key_path.is_some(), key_paths.is_some(), key_data.is_some(), key_datas.is_some()];
            let is_one = given.iter().filter(|given| **given).count() == 1;
            ensure!(is_one, "sigstoreSigned wants one of keyPath, keyPaths, keyData and keyDatas");
            let paths: Vec<PathBuf> = key_path.into_iter().chain(key_paths.unwrap_or_default()).collect();
            let data: Vec<String> = key_data.into_iter().chain(key_datas.unwrap_or_default()).collect();
            (paths, data, signed_identity.unwrap_or(Identity::RepoDigestOrExact {}))
        }
    };
    let mut keys = paths.iter().map(|path| PublicKey::read(path)).collect::<anyhow::Result<Vec<_>>>()?;
    for text in data {
        let pem = STANDARD.decode(text).context("keyData is not base64")?;
        keys.push(PublicKey::parse(&pem, "keyData").context("keyData")?);
    }
    ensure!(!keys.is_empty(), "sigstoreSigned without a key");
    Ok(Requirement::Signed(Signed { keys, identity }))
}

#[expect(clippy::disallowed_methods, reason = "the user's own path, as the policy's writer knows it")]
fn real(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// Returns the transport and the scopes that an image falls into, the narrowest first.
fn scopes(name: &Named) -> (&'static str, Vec<String>) {
    let (transport, path, tag) = match name {
        Named::Reference(reference) => {
            let name = reference.name();
            let mut scopes = vec![reference.to_string(), name.clone()];
            if let (Some(digest), Some(_)) = (&reference.digest, &reference.tag) {
                scopes.insert(1, format!("{name}@{digest}"));
            }
            scopes.extend(name.char_indices().rev().filter(|(_, c)| *c == '/').map(|(at, _)| name[..at].to_owned()));
            let host = reference.registry.split(':').next().unwrap_or_default();
            scopes.extend(host.char_indices().filter(|(_, c)| *c == '.').map(|(at, _)| format!("*{}", &host[at..])));
            scopes.push(String::new());
            return ("docker", scopes);
        }
        Named::Layout(path, tag) => ("oci", path, tag),
        Named::OciArchive(path, tag) => ("oci-archive", path, tag),
        // Its images have no scopes but the empty one (containers-policy.json(5), "docker-archive:").
        Named::DockerArchive(..) => return ("docker-archive", vec![String::new()]),
    };
    let path = real(path).display().to_string();
    let mut scopes: Vec<String> = tag.iter().map(|tag| format!("{path}:{tag}")).collect();
    scopes.extend(Path::new(&path).ancestors().filter(|path| *path != Path::new("/")).map(|p| p.display().to_string()));
    scopes.push(String::new());
    (transport, scopes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> TrustPolicy {
        TrustPolicy { path: "p".into(), file: serde_json::from_str(text).unwrap() }
    }

    #[test]
    fn the_narrowest_scope_decides() {
        let accept = r#"[{"type":"insecureAcceptAnything"}]"#;
        let reject = r#"[{"type":"reject"}]"#;
        let text = format!(
            r#"{{"default":{reject},"transports":{{"docker":{{"docker.io":{accept},"docker.io/library/nginx":{reject},
                "docker.io/library/nginx:1":{accept},"*.corp":{accept},"a.b.corp:5000":{reject},"quay.io/x":{accept}}},
                "oci":{{"/no/such":{accept}}},"docker-archive":{{"":{accept}}}}}}}"#
        );
        for (name, want) in [
            ("busybox", true),
            ("nginx", false),
            ("nginx:1", true),
            ("b.corp/x", true),
            ("a.b.corp:5000/x", false),
            ("corp/x/y", true),
            ("quay.io/xy/z", false),
            ("quay.io/x/y", true),
            ("ghcr.io/x", false),
            ("oci:/no/such/layout:1", true),
            ("oci:/no/suchlike", false),
            ("oci-archive:/no/such", false),
            ("docker-archive:/x", true),
        ] {
            let got = policy(&text).requirements(&name.parse().unwrap()).unwrap();
            assert_eq!(matches!(got[..], [Requirement::Accept]), want, "{name}");
        }
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        for (entry, want) in [
            (r#"{"type":"signedBy","keyPath":"x"}"#, "signedBy is not supported: sigstoreSigned is"),
            (r#"{"type":"sigstoreSigned","fulcio":{}}"#, "sigstoreSigned with fulcio is not supported: keys are"),
            (
                r#"{"type":"sigstoreSigned","keyData":"","rekorPublicKeyPath":"x"}"#,
                "sigstoreSigned with rekorPublicKeyPath is not supported: keys are",
            ),
            (
                r#"{"type":"sigstoreSigned","keyData":"","keyPath":"x"}"#,
                "sigstoreSigned wants one of keyPath, keyPaths, keyData and keyDatas",
            ),
            (r#"{"type":"sigstoreSigned"}"#, "sigstoreSigned wants one of keyPath, keyPaths, keyData and keyDatas"),
            (r#"{"type":"sigstoreSigned","keyPaths":[]}"#, "sigstoreSigned without a key"),
            (r#"{"type":"reject","x":1}"#, "unknown field `x`"),
            (r#"{"type":"magic"}"#, "unknown variant `magic`"),
        ] {
            let policy = policy(&format!(r#"{{"default":[{entry}]}}"#));
            let error = format!("{:#}", policy.requirements(&"nginx".parse().unwrap()).unwrap_err());
            assert!(error.starts_with("p: default: ") && error.contains(want), "{error}");
        }
        assert!(policy(r#"{"default":[]}"#).requirements(&"nginx".parse().unwrap()).is_err());
    }
}
