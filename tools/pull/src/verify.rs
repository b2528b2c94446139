//! `--verify` and policy.json: an image is used only if the right people have signed it. Signatures are cosign's, made with
//! keys (sigstore/cosign, "Signature Specification"): a manifest with the tag `sha256-<digest>.sig`, or one that refers to
//! the image, whose layers are payloads and carry the signature in an annotation.

mod identity;
mod key;
mod policy;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use layout::{Document, Layout};
use oci_spec::image::{Descriptor, Digest, ImageManifest, MediaType};
use registry::Fetched;
use registry::progress::Progress;
use serde_json::{Value, json};

use crate::blob;
use crate::source::{Named, Opened};
use identity::Written;
use key::PublicKey;
use policy::TrustPolicy;

pub(crate) use identity::Identity;

const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const ARTIFACT: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle";
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// What a payload says that it is.
const KIND: &str = "cosign container image signature";
/// Payloads are short. Bytes.
const PAYLOAD_LIMIT: u64 = 64 << 10;
/// More signatures of one image are not looked at.
const SIGNATURES: usize = 128;

/// What one image must satisfy.
#[derive(Clone, Debug)]
pub(crate) enum Requirement {
    /// Nothing.
    Accept,
    /// It is not to be used.
    Reject,
    /// A signature.
    Signed(Signed),
}

/// A signature by one of the keys, for the right name.
#[derive(Clone, Debug)]
pub(crate) struct Signed {
    keys: Vec<PublicKey>,
    identity: Identity,
}

/// What the user and the system require.
#[derive(Debug)]
pub(crate) struct Rules {
    signed: Option<Signed>,
    policy: Option<TrustPolicy>,
}

/// A signature that was needed: its manifest, and whether it has the tag for signatures or merely refers to the image.
#[derive(Debug)]
pub(crate) struct Proof {
    subject: Digest,
    manifest: Fetched,
    tagged: bool,
}

/// What was signed.
struct Claim {
    signature: Vec<u8>,
    payload: Vec<u8>,
}

impl Rules {
    /// Reads the keys of `--verify`, and the policy's file.
    pub(crate) fn read(keys: &[PathBuf], identity: Option<&Identity>, policy: Option<&Path>) -> anyhow::Result<Self> {
        let keys = keys.iter().map(|path| PublicKey::read(path)).collect::<anyhow::Result<Vec<_>>>()?;
        let identity = identity.cloned().unwrap_or(Identity::Asked);
        let signed = (!keys.is_empty()).then_some(Signed { keys, identity });
        Ok(Self { signed, policy: TrustPolicy::read(policy)? })
    }

    /// Returns all signatures that an image must have.
    pub(crate) fn of(&self, name: &Named) -> anyhow::Result<Vec<Signed>> {
        let mut all = Vec::new();
        for one in self.policy.as_ref().map(|policy| policy.requirements(name)).transpose()?.unwrap_or_default() {
            match one {
                Requirement::Accept => {}
                Requirement::Reject => bail!("the policy rejects {name}"),
                Requirement::Signed(signed) => all.push(signed),
            }
        }
        all.extend(self.signed.clone());
        Ok(all)
    }
}

/// What is to be checked.
pub(crate) struct Subject<'a> {
    /// Where the image comes from, and its signatures with it.
    pub(crate) source: &'a Opened<'a>,
    /// Where payloads are put.
    pub(crate) layout: &'a Layout,
    /// What the user calls the image.
    pub(crate) name: &'a Named,
    /// From what the name stands for to the manifest: a signature of any of them covers the manifest.
    pub(crate) chain: &'a [Descriptor],
}

impl Subject<'_> {
    /// Checks all requirements; returns the signatures that did it.
    pub(crate) fn check(&self, requirements: &[Signed]) -> anyhow::Result<Vec<Proof>> {
        requirements.iter().map(|signed| self.prove(signed)).collect()
    }

    fn prove(&self, signed: &Signed) -> anyhow::Result<Proof> {
        let mut reasons: Vec<String> = Vec::new();
        for tagged in [true, false] {
            for subject in self.chain.iter().map(Descriptor::digest) {
                let found =
                    if tagged { self.source.tagged(&tag(subject)) } else { self.referring(subject, &mut reasons) };
                for manifest in found.context("find signatures")? {
                    match self.judge(&manifest, subject, signed) {
                        Ok(()) => return Ok(Proof { subject: subject.clone(), manifest, tagged }),
                        Err(reason) => reasons.push(format!("{reason:#}")),
                    }
                }
            }
        }
        let keys: Vec<&str> = signed.keys.iter().map(PublicKey::name).collect();
        let digest = self.chain.first().map(|root| root.digest().to_string()).unwrap_or_default();
        reasons.sort();
        reasons.dedup();
        reasons.truncate(4);
        ensure!(!reasons.is_empty(), "verify {digest}: it has no signature");
        bail!("verify {digest}: no signature that {} is good for: {}", keys.join(" or "), reasons.join("; "))
    }

    fn referring(&self, subject: &Digest, reasons: &mut Vec<String>) -> anyhow::Result<Vec<Fetched>> {
        let mut manifests = Vec::new();
        for bytes in self.source.referrers(subject)? {
            let media_type = Document::media_type(&bytes).to_string();
            let Document::Index(index) = Document::parse(&bytes, &media_type, "the referrers")? else { continue };
            for entry in index.manifests() {
                let kind = entry.artifact_type().as_ref().map(ToString::to_string).unwrap_or_default();
                if kind.starts_with(BUNDLE) {
                    reasons.push(format!("one is a bundle ({kind}), which is not supported"));
                } else if kind == ARTIFACT && manifests.len() < SIGNATURES {
                    manifests.push(self.source.child(entry)?);
                }
            }
        }
        Ok(manifests)
    }

    /// Tells whether one of a manifest's signatures is what is required; the error says why the best of them is not.
    fn judge(&self, manifest: &Fetched, subject: &Digest, signed: &Signed) -> anyhow::Result<()> {
        let Document::Manifest(document) = manifest.parse()? else { bail!("an index has the signature's tag") };
        let mut reason = anyhow::anyhow!("nothing is signed in {}", manifest.descriptor.digest());
        for claim in self.claims(&document)? {
            if !signed.keys.iter().any(|key| key.signed(&claim.payload, &claim.signature)) {
                reason = anyhow::anyhow!("one is by another key");
                continue;
            }
            match self.fits(&claim.payload, subject, &signed.identity) {
                Ok(()) => return Ok(()),
                Err(other) => reason = other,
            }
        }
        Err(reason)
    }

    fn claims(&self, manifest: &ImageManifest) -> anyhow::Result<Vec<Claim>> {
        let mut claims = Vec::new();
        for layer in manifest.layers().iter().take(SIGNATURES) {
            let annotation = layer.annotations().as_ref().and_then(|annotations| annotations.get(SIGNATURE));
            let signature = annotation.and_then(|text| STANDARD.decode(text).ok());
            let (Some(signature), PAYLOAD) = (signature, layer.media_type().as_ref()) else { continue };
            if layer.size() > PAYLOAD_LIMIT {
                continue;
            }
            blob::fetch_all(self.source, self.layout, std::slice::from_ref(layer), 1, &Progress::None)?;
            claims.push(Claim { signature, payload: self.layout.read(layer, PAYLOAD_LIMIT)? });
        }
        Ok(claims)
    }

    fn fits(&self, payload: &[u8], subject: &Digest, identity: &Identity) -> anyhow::Result<()> {
        let payload: Value = serde_json::from_slice(payload).context("one has a payload that is not understood")?;
        let said = |member: &str| {
            let said = payload.pointer(&format!("/critical/{member}")).and_then(Value::as_str);
            said.with_context(|| format!("one has a payload that is not understood: it has no {member}"))
        };
        let (kind, image, name) =
            (said("type")?, said("image/docker-manifest-digest")?, said("identity/docker-reference")?);
        ensure!(kind == KIND, "one is a {kind:?}");
        ensure!(image == subject.as_ref(), "one is for {image:?}");
        let wanted = if let Named::Reference(reference) = self.name { Some(Written::from(reference)) } else { None };
        ensure!(identity.accepts(wanted.as_ref(), name), "one is for the name {name:?}");
        Ok(())
    }
}

/// Keeps the signatures in the layout, under the names by which they are found there.
pub(crate) fn keep(subject: &Subject, proofs: Vec<Proof>) -> anyhow::Result<()> {
    let layout = subject.layout;
    let mut referring: Vec<(Digest, Descriptor)> = Vec::new();
    for Proof { subject: image, manifest, tagged } in proofs {
        layout.write_as(&manifest.descriptor, &manifest.bytes)?;
        let document = layout.document(&manifest.descriptor)?;
        let children: Vec<Descriptor> = document.children().into_iter().cloned().collect();
        blob::fetch_all(subject.source, layout, &children, 1, &Progress::None)?;
        if tagged {
            layout.tag(&name_in_layout(subject.name, &tag(&image)), &manifest.descriptor)?;
        } else if referring.iter().all(|(_, known)| known.digest() != manifest.descriptor.digest()) {
            referring.push((image, manifest.descriptor));
        }
    }
    if let Some((image, _)) = referring.first() {
        let manifests: Vec<Descriptor> = referring.iter().map(|(_, descriptor)| descriptor.clone()).collect();
        let index = json!({"schemaVersion": 2, "mediaType": MediaType::ImageIndex, "manifests": manifests});
        let index = layout.write(index.to_string().as_bytes(), MediaType::ImageIndex)?;
        layout.tag(&name_in_layout(subject.name, &layout::referrers_tag(image)), &index)?;
    }
    Ok(())
}

/// Returns the tag that cosign gives the signatures of an image.
fn tag(subject: &Digest) -> String {
    format!("{}.sig", layout::referrers_tag(subject))
}

fn name_in_layout(name: &Named, tag: &str) -> String {
    match name {
        Named::Reference(reference) => reference.with_tag(tag).to_string(),
        _ => tag.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_is_cosigns() {
        let digest: Digest = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
        assert_eq!(tag(&digest), format!("sha256-{}.sig", "0".repeat(64)));
        let name = "nginx:1".parse().unwrap();
        assert_eq!(name_in_layout(&name, "x"), "docker.io/library/nginx:x");
    }
}
