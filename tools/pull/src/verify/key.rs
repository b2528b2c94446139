//! Public keys (RFC 7468, section 13; RFC 5280, section 4.1) and the signatures that cosign makes with them.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256,
    UnparsedPublicKey, VerificationAlgorithm,
};

/// A key's file is small. Bytes.
const FILE_LIMIT: u64 = 64 << 10;
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const ELLIPTIC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const EDWARDS: &[u8] = &[0x2b, 0x65, 0x70];
const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;
const BIT_STRING: u8 = 0x03;

/// A key that signatures are checked with.
#[derive(Clone)]
pub(crate) struct PublicKey {
    name: String,
    /// cosign signs a SHA-256 whatever the curve; other signers take the curve's own hash.
    algorithms: Vec<&'static dyn VerificationAlgorithm>,
    bytes: Vec<u8>,
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

impl PublicKey {
    /// Reads a PEM file.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let read = || -> anyhow::Result<Self> {
            let mut pem = Vec::new();
            File::open(path)?.take(FILE_LIMIT + 1).read_to_end(&mut pem)?;
            if pem.len() as u64 > FILE_LIMIT {
                bail!("too long for a public key");
            }
            Self::parse(&pem, &path.display().to_string())
        };
        read().with_context(|| format!("read key {}", path.display()))
    }

    /// Parses PEM; `name` is what errors call the key.
    pub(crate) fn parse(pem: &[u8], name: &str) -> anyhow::Result<Self> {
        let text = std::str::from_utf8(pem).context("not PEM")?;
        let (label, rest) =
            text.split_once("-----BEGIN ").and_then(|(_, rest)| rest.split_once("-----")).context("not PEM")?;
        if label != "PUBLIC KEY" {
            bail!("a PUBLIC KEY is wanted, this is a {label:?}");
        }
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
    let (info, rest) = element(der, SEQUENCE)?;
    let (identifier, key) = element(info, SEQUENCE)?;
    let (kind, parameters) = element(identifier, OBJECT_IDENTIFIER)?;
    let (bits, after) = element(key, BIT_STRING)?;
    let (&0, bytes) = bits.split_first()? else { return None };
    if !rest.is_empty() || !after.is_empty() {
        return None;
    }
    let curve = || element(parameters, OBJECT_IDENTIFIER).map(|(curve, _)| curve);
    let algorithms: Vec<&'static dyn VerificationAlgorithm> = match kind {
        RSA => vec![&RSA_PKCS1_2048_8192_SHA256],
        EDWARDS => vec![&ED25519],
        ELLIPTIC => match curve()? {
            P256 => vec![&ECDSA_P256_SHA256_ASN1],
            P384 => vec![&ECDSA_P384_SHA256_ASN1, &ECDSA_P384_SHA384_ASN1],
            _ => return Some(Err(anyhow::anyhow!("its curve is not supported: P-256 and P-384 are"))),
        },
        _ => return Some(Err(anyhow::anyhow!("its kind is not supported: ECDSA, RSA and Ed25519 are"))),
    };
    Some(Ok((algorithms, bytes)))
}

/// Splits off one DER element of kind `tag`: its content, and what follows it (X.690, 8.1 and 10.1).
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = der.split_first()?;
    let (&length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81 => (usize::from(*rest.first()?), &rest[1..]),
        0x82 => (usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?])), &rest[2..]),
        _ => return None,
    };
    (first == tag && rest.len() >= length).then(|| rest.split_at(length))
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
