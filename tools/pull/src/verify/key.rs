//! Public keys (RFC 7468, section 13; RFC 5280, section 4.1) and the signatures that cosign makes with them.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256,
    UnparsedPublicKey, VerificationAlgorithm,
};
use spki::{ObjectIdentifier, SubjectPublicKeyInfoRef};

/// A key's file is small. Bytes.
const FILE_LIMIT: u64 = 64 << 10;
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const ELLIPTIC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const EDWARDS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// A key that signatures are checked with.
#[derive(Clone, Debug)]
pub(crate) struct PublicKey {
    name: String,
    /// cosign signs a SHA-256 whatever the curve; other signers take the curve's own hash.
    algorithms: Vec<&'static dyn VerificationAlgorithm>,
    bytes: Vec<u8>,
}

impl PublicKey {
    /// Reads a PEM file.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let read = || -> anyhow::Result<Self> {
            let mut pem = Vec::new();
            File::open(path)?.take(FILE_LIMIT + 1).read_to_end(&mut pem)?;
            ensure!(pem.len() as u64 <= FILE_LIMIT, "too long for a public key");
            Self::parse(&pem, &path.display().to_string())
        };
        read().with_context(|| format!("read key {}", path.display()))
    }

    /// Parses PEM; `name` is what errors call the key.
    pub(crate) fn parse(pem: &[u8], name: &str) -> anyhow::Result<Self> {
        let text = std::str::from_utf8(pem).context("not PEM")?;
        let (label, rest) =
            text.split_once("-----BEGIN ").and_then(|(_, rest)| rest.split_once("-----")).context("not PEM")?;
        ensure!(label == "PUBLIC KEY", "a PUBLIC KEY is wanted, this is a {label:?}");
        let (body, _) = rest.split_once("-----END PUBLIC KEY-----").context("PEM without its end")?;
        let compact: String = body.split_ascii_whitespace().collect();
        let der = STANDARD.decode(compact).context("not PEM")?;
        let (algorithms, bytes) = read_info(&der).context("not a SubjectPublicKeyInfo")??;
        Ok(Self { name: name.to_owned(), algorithms, bytes: bytes.to_vec() })
    }

    /// Tells whether the key's owner signed the message.
    pub(crate) fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let by = |algorithm: &&'static dyn VerificationAlgorithm| {
            UnparsedPublicKey::new(*algorithm, &self.bytes).verify(message, signature).is_ok()
        };
        self.algorithms.iter().any(by)
    }

    /// Returns what the user calls the key.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

type Key<'a> = (Vec<&'static dyn VerificationAlgorithm>, &'a [u8]);

/// Takes a key's DER apart; `None` is malformed, an error a kind of key that is not supported.
fn read_info(der: &[u8]) -> Option<anyhow::Result<Key<'_>>> {
    let info = SubjectPublicKeyInfoRef::try_from(der).ok()?;
    let bytes = info.subject_public_key.as_bytes()?;
    let algorithms: Vec<&'static dyn VerificationAlgorithm> = match info.algorithm.oid {
        RSA => vec![&RSA_PKCS1_2048_8192_SHA256],
        EDWARDS => vec![&ED25519],
        ELLIPTIC => match info.algorithm.parameters_oid().ok()? {
            P256 => vec![&ECDSA_P256_SHA256_ASN1],
            P384 => vec![&ECDSA_P384_SHA256_ASN1, &ECDSA_P384_SHA384_ASN1],
            _ => return Some(Err(anyhow::anyhow!("its curve is not supported: P-256 and P-384 are"))),
        },
        _ => return Some(Err(anyhow::anyhow!("its kind is not supported: ECDSA, RSA and Ed25519 are"))),
    };
    Some(Ok((algorithms, bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";

    #[test]
    fn what_is_no_public_key_is_told_apart() {
        assert!(PublicKey::parse(ED.as_bytes(), "k").is_ok());
        let broken = ED.replace("MCow", "MCov");
        let private = ED.replace("PUBLIC", "ENCRYPTED SIGSTORE PRIVATE");
        let cut = ED.replace("-----END", "-----");
        // Ed448: 1.3.101.113.
        let strange = ED.replace("MCowBQYDK2VwAyEA", "MCowBQYDK2VxAyEA");
        for (pem, want) in [
            ("", "not PEM"),
            (broken.as_str(), "not a SubjectPublicKeyInfo"),
            (private.as_str(), "a PUBLIC KEY is wanted, this is a \"ENCRYPTED SIGSTORE PRIVATE KEY\""),
            (cut.as_str(), "PEM without its end"),
            (strange.as_str(), "its kind is not supported: ECDSA, RSA and Ed25519 are"),
        ] {
            assert_eq!(PublicKey::parse(pem.as_bytes(), "k").unwrap_err().to_string(), want);
        }
    }
}
