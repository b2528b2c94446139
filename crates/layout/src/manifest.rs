//! Manifests, indexes and configs (image-spec, manifest.md, image-index.md, config.md; docker's image manifest V2,
//! schema 2), read as what they claim to be and nothing else.

use std::collections::HashSet;

use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType};
use serde::Deserialize;
use serde_json::Value;

use crate::lenient::{self, Lenient};
use crate::{Error, Layout, Platform};

/// No manifest or index is longer (distribution-spec, "Pushing Manifests"). Bytes.
pub const MANIFEST_LIMIT: u64 = 4 << 20;
/// No image config is longer: configs of thousands of layers stay below 1 MiB. Bytes.
pub const CONFIG_LIMIT: u64 = 8 << 20;
/// An index may hold indexes; deeper ones are no image's. Levels.
const DEPTH: usize = 4;

/// What a media type says of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocumentKind {
    /// An image manifest, the OCI's or docker's.
    Manifest,
    /// An image index or docker's manifest list.
    Index,
    /// Anything else.
    Other,
}

impl DocumentKind {
    /// Returns what a media type says, without its parameters.
    pub fn of(media_type: &str) -> Self {
        match essence(media_type) {
            "application/vnd.oci.image.manifest.v1+json" | "application/vnd.docker.distribution.manifest.v2+json" => {
                Self::Manifest
            }
            "application/vnd.oci.image.index.v1+json" | "application/vnd.docker.distribution.manifest.list.v2+json" => {
                Self::Index
            }
            _ => Self::Other,
        }
    }
}

/// Returns a media type without its parameters.
pub fn essence(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim()
}

/// A manifest or an index.
#[derive(Clone, Debug, PartialEq)]
pub enum Document {
    /// One image.
    Manifest(Box<ImageManifest>),
    /// Several.
    Index(Box<ImageIndex>),
}

impl Document {
    /// Parses a document that is said to be of `media_type`. What the document says of itself and how it looks must
    /// be the same (CVE-2021-41190). `object` names it in an error.
    pub fn parse(bytes: &[u8], media_type: &str, object: &str) -> Result<Self, Error> {
        let wrong = |cause: String| Error::Malformed { object: object.to_owned(), cause };
        let value = lenient::parse(bytes).map_err(|error| wrong(format!("not JSON: {error}")))?;
        let said = essence(media_type);
        // By any spelling of a name that some reader knows.
        let is_there = |name: &str| member(&value, name).is_some();
        match member(&value, "mediaType") {
            None => {}
            Some(Value::String(own)) if own == said || own.is_empty() => {}
            Some(own) => return Err(wrong(format!("media type is {own} inside and {said} outside"))),
        }
        if member(&value, "schemaVersion").is_some_and(|version| version != 2) {
            return Err(wrong("schemaVersion is not 2".to_owned()));
        }
        let manifest = is_there("config") || is_there("layers");
        let index = is_there("manifests");
        match (DocumentKind::of(said), manifest, index) {
            (_, true, true) => Err(wrong("both a manifest and an index".to_owned())),
            (DocumentKind::Manifest, _, false) => Ok(Self::Manifest(Box::new(typed(value, object)?))),
            (DocumentKind::Index, false, _) => Ok(Self::Index(Box::new(typed(value, object)?))),
            (DocumentKind::Other, ..) => {
                Err(wrong(format!("media type {said} is neither a manifest's nor an index's")))
            }
            _ => Err(wrong(format!("its form is not that of {said}"))),
        }
    }

    /// Chooses the image for a platform: the best variant, and among equals the first. Without one, an index in the index,
    /// or the only image that names no platform.
    pub fn choose<'a>(index: &'a ImageIndex, platform: &Platform) -> Result<&'a Descriptor, Error> {
        let kind = |entry: &Descriptor| DocumentKind::of(entry.media_type().as_ref());
        let images = index.manifests().iter().filter(|entry| kind(entry) == DocumentKind::Manifest);
        let of = |entry: &&Descriptor| entry.platform().as_ref().map(Platform::from);
        if let Some(chosen) = platform.choose(&images, of) {
            return Ok(chosen);
        }
        let nested = index.manifests().iter().find(|entry| kind(entry) == DocumentKind::Index);
        let mut unnamed = images.clone().filter(|entry| entry.platform().is_none());
        let only = unnamed.next().filter(|_| unnamed.next().is_none());
        nested.or(only).ok_or_else(|| {
            let mut known: Vec<String> =
                images.filter_map(|entry| of(&entry)).map(|platform| platform.to_string()).collect();
            known.retain(|name| name != "unknown/unknown");
            known.dedup();
            Error::NoPlatform { wanted: platform.to_string(), known }
        })
    }

    /// Returns the media type of a document that came without one: what it says of itself, or what it looks like.
    pub fn media_type(bytes: &[u8]) -> MediaType {
        let value = lenient::parse(bytes).unwrap_or_default();
        match member(&value, "mediaType").and_then(Value::as_str) {
            Some(own) if !own.is_empty() => MediaType::from(own),
            _ if member(&value, "manifests").is_some() => MediaType::ImageIndex,
            _ => MediaType::ImageManifest,
        }
    }

    /// Returns what the document needs beside it: the config and the layers of a manifest, the manifests of an index.
    pub fn children(&self) -> Vec<&Descriptor> {
        match self {
            Self::Manifest(manifest) => std::iter::once(manifest.config()).chain(manifest.layers()).collect(),
            Self::Index(index) => index.manifests().iter().collect(),
        }
    }
}

fn typed<T: Lenient>(value: Value, object: &str) -> Result<T, Error> {
    serde_json::from_value(lenient::normal::<T>(value))
        .map_err(|error| Error::Malformed { object: object.to_owned(), cause: error.to_string() })
}

/// Returns a member whatever the case of its name; null is none.
fn member<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    let mut members =
        value.as_object()?.iter().filter(|(key, value)| key.eq_ignore_ascii_case(name) && !value.is_null());
    members.next_back().map(|(_, value)| value)
}

impl Layout {
    /// Reads a manifest or an index.
    pub fn document(&self, descriptor: &Descriptor) -> Result<Document, Error> {
        let bytes = self.read_document(descriptor)?;
        Document::parse(&bytes, descriptor.media_type().as_ref(), descriptor.digest().as_ref())
    }

    /// Reads a manifest or an index as it is. An index need not say its size: the digest is enough.
    pub fn read_document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
        if descriptor.size() > 0 {
            return self.read(descriptor, MANIFEST_LIMIT);
        }
        let there = std::fs::metadata(self.blob_path(descriptor.digest()));
        let mut descriptor = descriptor.clone();
        descriptor.set_size(there.map_or(0, |file| file.len()));
        self.read(&descriptor, MANIFEST_LIMIT)
    }

    /// Returns a document and all that it needs, each once; what others need comes before them.
    pub fn tree(&self, root: &Descriptor) -> Result<Vec<Descriptor>, Error> {
        let mut parts = Vec::new();
        self.collect(root, &mut HashSet::new(), &mut parts)?;
        Ok(parts)
    }

    fn collect(&self, root: &Descriptor, seen: &mut HashSet<String>, parts: &mut Vec<Descriptor>) -> Result<(), Error> {
        if !seen.insert(root.digest().to_string()) {
            return Ok(());
        }
        if DocumentKind::of(root.media_type().as_ref()) != DocumentKind::Other {
            self.document(root)?.children().into_iter().try_for_each(|child| self.collect(child, seen, parts))?;
        }
        parts.push(root.clone());
        Ok(())
    }

    /// Reads an image's manifest.
    pub fn manifest(&self, descriptor: &Descriptor) -> Result<ImageManifest, Error> {
        match self.document(descriptor)? {
            Document::Manifest(manifest) => Ok(*manifest),
            Document::Index(_) => Err(Error::Malformed {
                object: descriptor.digest().to_string(),
                cause: "an index, not an image's manifest".to_owned(),
            }),
        }
    }

    /// Reads an image's config.
    pub fn config(&self, manifest: &ImageManifest) -> Result<ImageConfiguration, Error> {
        typed(self.config_value(manifest)?, manifest.config().digest().as_ref())
    }

    /// Reads an image's config with all members, also those that no type has: in the form of [`lenient::normal`].
    pub fn config_value(&self, manifest: &ImageManifest) -> Result<Value, Error> {
        let descriptor = manifest.config();
        let wrong = |cause: String| Error::Malformed { object: descriptor.digest().to_string(), cause };
        let config = lenient::parse(&self.read(descriptor, CONFIG_LIMIT)?);
        let said = descriptor.media_type().as_ref();
        let is_image = matches!(
            said,
            "application/vnd.oci.image.config.v1+json" | "application/vnd.docker.container.image.v1+json" | ""
        );
        // What is named otherwise is an image if it looks like one.
        if !is_image && !config.as_ref().is_ok_and(|config| member(config, "rootfs").is_some()) {
            return Err(wrong(format!("not an image's config but {said}: an artifact")));
        }
        let config = config.map(lenient::normal::<ImageConfiguration>);
        let config = config.and_then(|config| ImageConfiguration::deserialize(&config).map(|_| config));
        config.map_err(|error| wrong(error.to_string()))
    }

    /// Returns the manifest's descriptor for a platform, from a manifest's or an index's.
    pub fn image(&self, descriptor: &Descriptor, platform: &Platform) -> Result<Descriptor, Error> {
        let mut descriptor = descriptor.clone();
        for _ in 0..DEPTH {
            match self.document(&descriptor)? {
                Document::Manifest(_) => return Ok(descriptor),
                Document::Index(index) => descriptor = Document::choose(&index, platform)?.clone(),
            }
        }
        Err(Error::Malformed { object: descriptor.digest().to_string(), cause: "indexes nest too deep".to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    const LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

    #[test]
    fn a_document_is_what_it_says_inside_outside_and_by_its_form() {
        let hex = "0".repeat(64);
        let config = format!(r#""config":{{"mediaType":"a/b","digest":"sha256:{hex}","size":2}},"layers":[]"#);
        for (text, media_type, want) in [
            (format!(r#"{{"schemaVersion":2,{config}}}"#), MANIFEST, Ok(DocumentKind::Manifest)),
            (
                format!(r#"{{"schemaVersion":2,{config}}}"#),
                "application/vnd.oci.image.manifest.v1+json; charset=utf-8",
                Ok(DocumentKind::Manifest),
            ),
            (
                format!(r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}",{config}}}"#),
                MANIFEST,
                Ok(DocumentKind::Manifest),
            ),
            (r#"{"schemaVersion":2,"manifests":[]}"#.to_owned(), LIST, Ok(DocumentKind::Index)),
            (
                format!(r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}",{config}}}"#),
                INDEX,
                Err(
                    "media type is \"application/vnd.oci.image.manifest.v1+json\" inside and application/vnd.oci.image.index.v1+json outside",
                ),
            ),
            (format!(r#"{{"schemaVersion":2,"manifests":[],{config}}}"#), INDEX, Err("both a manifest and an index")),
            (
                format!(r#"{{"schemaVersion":2,"Manifests":[],{config}}}"#),
                MANIFEST,
                Err("both a manifest and an index"),
            ),
            (format!(r#"{{"mediaType":null,"manifests":null,{config}}}"#), MANIFEST, Ok(DocumentKind::Manifest)),
            (
                r#"{"schemaVersion":2,"manifests":[]}"#.to_owned(),
                MANIFEST,
                Err("its form is not that of application/vnd.oci.image.manifest.v1+json"),
            ),
            (
                format!(r#"{{"schemaVersion":2,{config}}}"#),
                INDEX,
                Err("its form is not that of application/vnd.oci.image.index.v1+json"),
            ),
            (format!(r#"{{"schemaVersion":1,{config}}}"#), MANIFEST, Err("schemaVersion is not 2")),
            (
                r#"{"schemaVersion":2,"manifests":[]}"#.to_owned(),
                "text/html",
                Err("media type text/html is neither a manifest's nor an index's"),
            ),
        ] {
            let got = Document::parse(text.as_bytes(), media_type, "m").map(|document| match document {
                Document::Manifest(_) => DocumentKind::Manifest,
                Document::Index(_) => DocumentKind::Index,
            });
            assert_eq!(got.map_err(|error| error.to_string()), want.map_err(|cause| format!("m: {cause}")), "{text}");
        }
    }
}
