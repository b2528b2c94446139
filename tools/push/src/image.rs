//! One image: its blobs first, then its manifests, the inner ones before the outer, and last what refers to it.

use std::collections::HashMap;

use anyhow::{Context, ensure};
use layout::{DocumentKind, Layout, Reference};
use oci_spec::image::{Descriptor, Digest};
use registry::{Fetched, Registry, several};

use crate::compress;
use crate::job::PushJob;

/// How the outermost manifest gets its name.
type Put = fn(&Registry, &str, &Fetched) -> anyhow::Result<()>;

impl PushJob<'_> {
    /// Sends an image, and returns the digest that it has there.
    pub(crate) fn push(&self, root: &Descriptor, to: &Reference, referrers: bool) -> anyhow::Result<Digest> {
        let other = to.digest.as_ref().filter(|digest| *digest != root.digest());
        ensure!(other.is_none(), "the image has digest {}", root.digest());
        let digest = root.digest().to_string();
        self.send(root, to.tag.as_ref().unwrap_or(&digest), Registry::put)?;
        if referrers {
            self.send_referrers(root)?;
        }
        Ok(self.now(root.digest().as_ref()).map_or_else(|| root.digest().clone(), |now| now.digest().clone()))
    }

    /// Sends a manifest or an index with all that it needs, and gives it a name.
    fn send(&self, root: &Descriptor, name: &str, put: Put) -> anyhow::Result<()> {
        let (documents, mut blobs): (Vec<_>, Vec<_>) = self.layout.tree(root)?.into_iter().partition(is_document);
        // What only others may distribute.
        blobs.retain(|blob| blob.urls().as_ref().is_none_or(Vec::is_empty) || self.layout.has(blob));
        several(&blobs, self.jobs, |blob, stop| match compress::media_type(blob, self.compression) {
            Some(media_type) => self.upload_compressed(blob, media_type?, stop),
            // The registry hashes it, too.
            None => self.upload(blob, &|| Ok(Box::new(self.layout.follow(blob, self.pipe)?.trusting())), stop),
        })?;
        for document in &documents {
            let digest = document.digest();
            let sent = self.renamed(document, self.layout.read_document(document)?)?;
            let now = sent.descriptor.digest().to_string();
            let is_named = digest == root.digest() && name != digest.as_ref();
            let (name, put) = if is_named { (name, put) } else { (now.as_str(), Registry::put as Put) };
            put(self.registry, name, &sent).with_context(|| format!("manifest {digest}"))?;
        }
        Ok(())
    }

    /// Sends what the layout has of an image's signatures and other referrers, under the tags by which they are found.
    fn send_referrers(&self, root: &Descriptor) -> anyhow::Result<()> {
        let subjects = self.layout.tree(root)?;
        for entry in self.layout.entries()? {
            let subject = entry.subject().filter(|it| subjects.iter().any(|one| one.digest().as_ref() == it));
            if let (Some(subject), Some(tag)) = (subject, entry.name().rsplit(':').next()) {
                let put: Put = if tag.contains('.') { Registry::put } else { Registry::put_referrers };
                self.send(&entry.descriptor, tag, put).with_context(|| format!("what refers to {subject}"))?;
            }
        }
        Ok(())
    }
}

fn is_document(descriptor: &Descriptor) -> bool {
    DocumentKind::of(descriptor.media_type().as_ref()) != DocumentKind::Other
}

/// Returns what other repositories of the same registry have, as far as the layout knows.
pub(crate) fn origins(layout: &Layout, to: &Reference) -> anyhow::Result<HashMap<String, String>> {
    let mut origins = HashMap::new();
    for entry in layout.entries()? {
        let reference = entry.reference.as_deref().and_then(|name| other_repository(name, to));
        // An image that is not whole is no reason to fail.
        let parts = reference.as_ref().and_then(|_| layout.tree(&entry.descriptor).ok());
        if let (Some(repository), Some(parts)) = (reference, parts) {
            origins.extend(parts.into_iter().map(|part| (part.digest().to_string(), repository.clone())));
        }
    }
    Ok(origins)
}

/// Returns the repository of a reference, if it is another one of the same registry.
pub(crate) fn other_repository(name: &str, to: &Reference) -> Option<String> {
    let reference: Reference = name.parse().ok()?;
    (reference.registry == to.registry && reference.repository != to.repository).then_some(reference.repository)
}
