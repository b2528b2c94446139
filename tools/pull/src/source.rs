//! Where an image comes from: a registry, a layout or an archive.

use std::fmt;
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, bail, ensure};
use layout::{Document, Layout, MANIFEST_LIMIT};
use oci_spec::image::{Descriptor, Digest, ImageIndex, ImageManifest};
use registry::{Access, Body, Failure, Fetched, Patience};

use crate::archive::{ImageArchive, has_tag};
use crate::reference::Reference;
use crate::remote::Remote;

/// An index may hold indexes; deeper ones are no image's. Levels.
pub(crate) const DEPTH: usize = 4;

/// The user's words for an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// A reference to a registry.
    Reference(Reference),
    /// `oci:DIR[:TAG]`.
    Layout(PathBuf, Option<String>),
    /// `oci-archive:FILE[:TAG]`.
    OciArchive(PathBuf, Option<String>),
    /// `docker-archive:FILE[:REF]`.
    DockerArchive(PathBuf, Option<String>),
}

impl Named {
    /// Returns the path of what is no registry's.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::Reference(_) => None,
            Self::Layout(path, _) | Self::OciArchive(path, _) | Self::DockerArchive(path, _) => Some(path),
        }
    }
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once(':').unwrap_or(("", text));
        match scheme {
            "oci" | "oci-archive" | "docker-archive" => {}
            "docker" if rest.starts_with("//") => return parse_reference(&rest[2..]).map(Self::Reference),
            _ => return parse_reference(text).map(Self::Reference),
        }
        let (path, tag) = split_path(rest);
        if path.is_empty() {
            return Err(format!("{text:?} names no file"));
        }
        let (path, tag) = (PathBuf::from(path), tag.map(str::to_owned));
        Ok(match scheme {
            "oci" => Self::Layout(path, tag),
            "oci-archive" => Self::OciArchive(path, tag),
            _ => Self::DockerArchive(path, tag),
        })
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, path, tag) = match self {
            Self::Reference(reference) => return reference.fmt(f),
            Self::Layout(path, tag) => ("oci", path, tag),
            Self::OciArchive(path, tag) => ("oci-archive", path, tag),
            Self::DockerArchive(path, tag) => ("docker-archive", path, tag),
        };
        write!(f, "{scheme}:{}", path.display())?;
        tag.as_ref().map_or(Ok(()), |tag| write!(f, ":{tag}"))
    }
}

fn parse_reference(text: &str) -> Result<Reference, String> {
    text.parse().map_err(|cause| format!("{text:?} is no reference: {cause}"))
}

/// A tag begins at the first colon behind the path; a path that exists with its colon is a path.
fn split_path(text: &str) -> (&str, Option<&str>) {
    match text.split_once(':') {
        Some((path, tag)) if !Path::new(text).exists() => (path, Some(tag)),
        _ => (text, None),
    }
}

/// An opened source.
pub(crate) enum Opened<'a> {
    /// A registry's repository and its mirrors.
    Registry(Box<Remote<'a>>),
    /// A layout, and the image's name in it.
    Layout(Layout, Option<String>),
    /// An archive, and the image's name in it.
    Archive(Box<ImageArchive>, Option<String>),
}

impl<'a> Opened<'a> {
    /// Opens a source.
    pub(crate) fn open(name: &Named, access: &'a Access, directory: &Path) -> anyhow::Result<Self> {
        Ok(match name {
            Named::Reference(reference) => Self::Registry(Box::new(Remote::open(reference, access)?)),
            Named::Layout(path, tag) => Self::Layout(Layout::open(path)?, tag.clone()),
            Named::OciArchive(path, tag) => {
                Self::Archive(Box::new(ImageArchive::open(path, false, directory)?), tag.clone())
            }
            Named::DockerArchive(path, tag) => {
                Self::Archive(Box::new(ImageArchive::open(path, true, directory)?), tag.clone())
            }
        })
    }

    /// Returns what an archive's images are called, one name for each.
    pub(crate) fn all(&self) -> Vec<String> {
        if let Self::Archive(archive, None) = self { archive.all() } else { Vec::new() }
    }

    /// Means another image of the same archive from now on.
    pub(crate) fn turn_to(&mut self, name: String) {
        if let Self::Archive(_, wanted) = self {
            *wanted = Some(name);
        }
    }

    /// Fetches the manifest or index that is named.
    pub(crate) fn root(&self) -> anyhow::Result<Fetched> {
        let descriptor = match self {
            Self::Registry(remote) => return Ok(remote.root().clone()),
            Self::Layout(layout, tag) => layout.resolve(tag.as_deref())?,
            Self::Archive(archive, tag) => archive.resolve(tag.as_deref())?,
        };
        self.child(&descriptor)
    }

    /// Goes from the root to an image's manifest, by the entry that is chosen in each index: the documents on the way, and
    /// the last of them parsed.
    pub(crate) fn choose(
        &self,
        root: &Fetched,
        entry: impl for<'i> Fn(&'i ImageIndex) -> anyhow::Result<&'i Descriptor>,
    ) -> anyhow::Result<(Vec<Fetched>, ImageManifest)> {
        let mut chain = vec![root.clone()];
        for depth in 0..DEPTH {
            match chain[depth].parse()? {
                Document::Manifest(manifest) => return Ok((chain, *manifest)),
                Document::Index(index) => chain.push(self.child(entry(&index)?)?),
            }
        }
        bail!("indexes nest too deep")
    }

    /// Fetches a manifest or index by its descriptor, checked. An index need not say its size.
    pub(crate) fn child(&self, descriptor: &Descriptor) -> anyhow::Result<Fetched> {
        let bytes = match self {
            Self::Registry(remote) => remote.document(descriptor)?,
            Self::Layout(layout, _) => layout.read_document(descriptor)?,
            Self::Archive(archive, _) => archive.read(descriptor, MANIFEST_LIMIT)?,
        };
        let mut descriptor = descriptor.clone();
        descriptor.set_size(bytes.len() as u64);
        Ok(Fetched { bytes, descriptor })
    }

    /// Fetches the manifests that have a tag beside the image's; a layout holds several repositories.
    pub(crate) fn tagged(&self, tag: &str) -> anyhow::Result<Vec<Fetched>> {
        let descriptors = match self {
            Self::Registry(remote) => return Ok(remote.tagged(tag)?.into_iter().collect()),
            Self::Layout(layout, _) => {
                let mut entries = layout.entries()?;
                entries.retain(|entry| entry.reference.iter().chain(&entry.tag).any(|name| has_tag(name, tag)));
                entries.into_iter().map(|entry| entry.descriptor).collect()
            }
            Self::Archive(archive, _) => archive.tagged(tag),
        };
        descriptors.iter().map(|descriptor| self.child(descriptor)).collect()
    }

    /// Fetches the indexes of what refers to a manifest.
    pub(crate) fn referrers(&self, digest: &Digest) -> anyhow::Result<Vec<Vec<u8>>> {
        match self {
            Self::Registry(remote) => Ok(remote.referrers(digest)?.into_iter().collect()),
            _ => Ok(self.tagged(&layout::referrers_tag(digest))?.into_iter().map(|index| index.bytes).collect()),
        }
    }

    /// Returns the place where blobs are asked for first.
    pub(crate) fn first_place(&self) -> usize {
        if let Self::Registry(remote) = self { remote.first_place() } else { 0 }
    }

    /// Returns the place to ask after one that did not give a blob; who has `broken` down is not asked again.
    pub(crate) fn next_place(&self, place: usize, broken: bool, error: &anyhow::Error) -> Option<usize> {
        if let Self::Registry(remote) = self { remote.next_place(place, broken, error) } else { None }
    }

    /// Begins the transfer of a blob; it may begin before `offset`.
    pub(crate) fn blob(&self, place: usize, descriptor: &Descriptor, offset: u64) -> Result<Body, Failure> {
        match self {
            Self::Registry(remote) => remote.blob(place, descriptor, offset),
            Self::Layout(layout, _) => open_in(layout, descriptor, offset).map_err(Failure::Final),
            Self::Archive(archive, _) => archive.blob(descriptor, offset).map_err(Failure::Final),
        }
    }

    /// Returns the names that a source on disk has for an image.
    pub(crate) fn names_of(&self, descriptor: &Descriptor) -> Vec<String> {
        match self {
            Self::Registry(..) => Vec::new(),
            Self::Layout(layout, _) => {
                let mut entries = layout.entries().unwrap_or_default();
                entries.retain(|entry| entry.descriptor.digest() == descriptor.digest());
                entries.into_iter().filter_map(|entry| entry.reference.or(entry.tag)).collect()
            }
            Self::Archive(archive, _) => archive.names_of(descriptor),
        }
    }

    /// Returns how long to try; what is on disk does not get better.
    pub(crate) fn patience(&self) -> Patience {
        match self {
            Self::Registry(remote) => remote.patience(),
            _ => Patience::new(1, 0),
        }
    }
}

fn open_in(layout: &Layout, descriptor: &Descriptor, offset: u64) -> anyhow::Result<Body> {
    let path = layout.blob_path(descriptor.digest());
    ensure!(layout.has(descriptor), layout::Error::Missing(descriptor.digest().clone()));
    // The digest is checked by who writes the copy.
    let mut file = std::fs::File::open(&path).with_context(|| format!("open {}", path.display()))?;
    file.seek(SeekFrom::Start(offset)).with_context(|| format!("read {}", path.display()))?;
    Ok(Body { start: offset, reader: Box::new(file) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_and_of_registries() {
        for (text, want) in [
            ("oci:/a/b", Named::Layout("/a/b".into(), None)),
            ("oci:/a/b:c:d", Named::Layout("/a/b".into(), Some("c:d".to_owned()))),
            ("oci-archive:x.tar:1", Named::OciArchive("x.tar".into(), Some("1".to_owned()))),
            ("docker-archive:x.tar:nginx:1", Named::DockerArchive("x.tar".into(), Some("nginx:1".to_owned()))),
            ("docker://nginx", Named::Reference("nginx".parse().unwrap())),
            ("docker://oci", Named::Reference("oci".parse().unwrap())),
        ] {
            assert_eq!(text.parse::<Named>().unwrap(), want, "{text}");
        }
        assert!("oci:".parse::<Named>().is_err());
    }
}
