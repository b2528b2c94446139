//! For which name a signature is good (containers-policy.json(5), "signedIdentity").

use oci_spec::image::Digest;
use serde::Deserialize;

use crate::reference::Reference;

/// Which name a signature must carry.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase", deny_unknown_fields)]
pub(crate) enum Identity {
    /// The repository that was asked for; where the signature names a tag, that one too.
    #[serde(skip)]
    Asked,
    /// Any name: what cosign accepts.
    #[serde(skip)]
    Any,
    /// The same tag of the same repository; an image that was asked for by digest may have any tag.
    #[serde(rename = "matchRepoDigestOrExact")]
    RepoDigestOrExact {},
    /// The same tag or digest of the same repository.
    #[serde(rename = "matchExact")]
    Exact {},
    /// The same repository.
    #[serde(rename = "matchRepository")]
    Repository {},
    /// This reference.
    #[serde(rename = "exactReference")]
    ExactReference {
        /// Tag or digest in it.
        docker_reference: String,
    },
    /// This repository.
    #[serde(rename = "exactRepository")]
    ExactRepository {
        /// Without a tag.
        docker_repository: String,
    },
    /// As [`Identity::RepoDigestOrExact`], where names that begin so were signed under another beginning.
    #[serde(rename = "remapIdentity")]
    Remap {
        /// What the name begins with.
        prefix: String,
        /// What it began with when it was signed.
        signed_prefix: String,
    },
}

/// A name as it was written, normalised, without `latest` being added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl From<&Reference> for Written {
    fn from(reference: &Reference) -> Self {
        Self { repository: reference.name(), tag: reference.tag.clone(), digest: reference.digest.clone() }
    }
}

impl Written {
    /// Parses a name; the missing tag is not made `latest`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut written = Self::from(&text.parse::<Reference>().ok()?);
        let name = text.split('@').next().unwrap_or_default();
        if !name.rsplit('/').next().unwrap_or_default().contains(':') {
            written.tag = None;
        }
        Some(written)
    }
}

impl Identity {
    /// Reads the user's word: a repository, a reference, or `*`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let written = Written::parse(text).ok_or_else(|| format!("{text:?} is no reference"))?;
        Ok(match (written.tag, written.digest) {
            (None, None) => Self::ExactRepository { docker_repository: text.to_owned() },
            _ => Self::ExactReference { docker_reference: text.to_owned() },
        })
    }

    /// Tells whether a signature that carries the name `signed` is good for the image `wanted`.
    pub(crate) fn accepts(&self, wanted: Option<&Written>, signed: &str) -> bool {
        let Some(signed) = Written::parse(signed) else { return *self == Self::Any };
        match self {
            Self::Any => true,
            Self::ExactReference { docker_reference } => Written::parse(docker_reference).as_ref() == Some(&signed),
            Self::ExactRepository { docker_repository } => {
                Written::parse(docker_repository).is_some_and(|own| own.repository == signed.repository)
            }
            _ => wanted.is_some_and(|wanted| self.matches(wanted, &signed)),
        }
    }

    fn matches(&self, wanted: &Written, signed: &Written) -> bool {
        let same = wanted.repository == signed.repository;
        let exact = same
            && match &wanted.digest {
                Some(_) => wanted.digest == signed.digest,
                None => wanted.tag.is_some() && wanted.tag == signed.tag,
            };
        match self {
            Self::Repository {} => same,
            Self::Exact {} => exact,
            Self::Asked => same && (wanted.digest.is_some() || signed.tag.is_none() || wanted.tag == signed.tag),
            Self::Remap { prefix, signed_prefix } => match beginning(&wanted.repository, prefix) {
                Some(rest) => {
                    let repository = format!("{signed_prefix}{rest}");
                    Self::RepoDigestOrExact {}.matches(&Written { repository, ..wanted.clone() }, signed)
                }
                None => Self::RepoDigestOrExact {}.matches(wanted, signed),
            },
            _ => exact || (same && wanted.digest.is_some()),
        }
    }
}

/// Returns what follows a prefix of whole components.
fn beginning<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    let rest = name.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:6c3c624b58dbbcd3c0dd82b4c53f04194d1247c6eebdaab7c610cf7d66709b3b";

    #[test]
    fn a_signature_is_good_for_the_names_that_the_policy_says() {
        let remap = || Identity::Remap { prefix: "m.io/hub".to_owned(), signed_prefix: "docker.io".to_owned() };
        let parsed = |text: &str| Identity::parse(text).unwrap();
        let digest = |name: &str| format!("{name}@{DIGEST}");
        for (identity, wanted, signed, want) in [
            (Identity::Asked, "nginx:1", "index.docker.io/library/nginx", true),
            (Identity::Asked, "nginx:1", "docker.io/library/nginx:1", true),
            (Identity::Asked, "nginx:1", "nginx:2", false),
            (Identity::Asked, &digest("nginx"), "nginx:2", true),
            (Identity::Asked, "nginx:1", "quay.io/library/nginx", false),
            (Identity::Asked, "nginx:1", "", false),
            (Identity::Any, "nginx:1", "", true),
            (parsed("*"), "nginx:1", "x/y", true),
            (parsed("quay.io/a/b"), "nginx:1", "quay.io/a/b:7", true),
            (parsed("quay.io/a/b:7"), "nginx:1", "quay.io/a/b:7", true),
            (parsed("quay.io/a/b:7"), "nginx:1", "quay.io/a/b", false),
            (Identity::Repository {}, "nginx:1", "nginx:2", true),
            (Identity::Repository {}, "nginx:1", "nginx-x:1", false),
            (Identity::Exact {}, "nginx:1", "nginx:1", true),
            (Identity::Exact {}, "nginx:1", "nginx", false),
            (Identity::Exact {}, "nginx", "nginx", false),
            (Identity::Exact {}, &digest("nginx"), "nginx:1", false),
            (Identity::Exact {}, &digest("nginx"), &digest("nginx"), true),
            (Identity::RepoDigestOrExact {}, &digest("nginx"), "nginx:1", true),
            (Identity::RepoDigestOrExact {}, "nginx:1", "nginx:2", false),
            (remap(), "m.io/hub/library/nginx:1", "nginx:1", true),
            (remap(), "m.io/hubris/nginx:1", "docker.io/ris/nginx:1", false),
            (remap(), "m.io/other:1", "m.io/other:1", true),
        ] {
            let written = Written::from(&wanted.parse::<Reference>().unwrap());
            assert_eq!(identity.accepts(Some(&written), signed), want, "{identity:?} {wanted} {signed}");
        }
        assert!(!Identity::Asked.accepts(None, "nginx"));
        assert!(Identity::parse("Not A Name").is_err());
    }
}
