//! `--lock`: a file of digests, so that the same references are the same images tomorrow.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use oci_spec::image::Digest;

use crate::reference::Reference;
use crate::source::Named;

/// The digests by reference, and the file they are kept in.
pub(crate) struct LockFile {
    path: PathBuf,
    digests: BTreeMap<String, Digest>,
}

impl LockFile {
    /// Reads the file; one that is not there yet is empty.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let read = || format!("read {}", path.display());
        let text = sys::file::there(fs::read(path)).with_context(read)?;
        let digests = text.map_or(Ok(BTreeMap::new()), |text| serde_json::from_slice(&text)).with_context(read)?;
        Ok(Self { path: path.to_owned(), digests })
    }

    /// Returns the name with the digest that is kept for it.
    pub(crate) fn pin(&self, name: &Named) -> Named {
        match (name, self.digests.get(&name.to_string())) {
            (Named::Reference(reference), Some(digest)) if reference.digest.is_none() => {
                Named::Reference(Reference { digest: Some(digest.clone()), ..reference.clone() })
            }
            _ => name.clone(),
        }
    }

    /// Keeps a digest.
    pub(crate) fn keep(&mut self, name: &Named, digest: &Digest) -> anyhow::Result<()> {
        if !matches!(name, Named::Reference(reference) if reference.digest.is_none()) {
            return Ok(());
        }
        if self.digests.insert(name.to_string(), digest.clone()).as_ref() == Some(digest) {
            return Ok(());
        }
        let text = serde_json::to_string_pretty(&self.digests)? + "\n";
        output::write(&self.path, text.as_bytes()).with_context(|| format!("write {}", self.path.display()))
    }
}
