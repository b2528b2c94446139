//! Where things are.

use std::path::PathBuf;

use anyhow::{Result, bail};

/// The directories of one root.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The bundles.
    pub(crate) bundles: PathBuf,
    /// The claims on names.
    pub(crate) claims: PathBuf,
    /// The runtime's states.
    pub(crate) states: PathBuf,
}

impl Place {
    /// Returns the directories below the roots.
    pub(crate) fn of(roots: &cli::Roots) -> Self {
        let (data, run) = (roots.data(), roots.run());
        Self { bundles: data.join("containers"), claims: run.join("claims"), states: run.join("spawn") }
    }

    /// Returns a container's bundle, if there is one of this id.
    pub(crate) fn bundle(&self, id: &str) -> Result<PathBuf> {
        // An id is a name, never a path.
        let bundle = self.bundles.join(id);
        if id.is_empty() || id.contains('/') || id.starts_with('.') || !bundle.is_dir() {
            bail!("no container {id}");
        }
        Ok(bundle)
    }
}
