//! What is left to `pull` once it speaks to a registry: sockets, files to read, and its layout to write. Credential
//! helpers are programs, so they are asked before.

use std::path::{Path, PathBuf};

use anyhow::Context;
use confine::{Calls, FILES};
use registry::Access;

use crate::source::Named;

const ROOM: confine::Room =
    confine::Room { calls: Calls { sockets: true, ..confine::Room::EMPTY.calls }, capabilities: FILES };

/// The room, which is entered when something has to be fetched.
pub(crate) struct PullRoom<'a> {
    access: &'a Access,
    writes: Vec<PathBuf>,
    entered: bool,
}

impl<'a> PullRoom<'a> {
    /// Prepares it for a task.
    pub(crate) fn new(layout: &layout::Layout, files: &[Option<&Path>], access: &'a Access) -> anyhow::Result<Self> {
        let mut writes = vec![layout.path().to_owned()];
        // These are replaced by what is renamed to them.
        for file in files.iter().flatten() {
            let file = std::path::absolute(file).with_context(|| format!("find {}", file.display()))?;
            writes.push(file.parent().unwrap_or(&file).to_owned());
        }
        Ok(Self { access, writes, entered: false })
    }

    /// Prepares it for a look at an image, of which nothing is kept but a copy without a name.
    pub(crate) fn looking(access: &'a Access) -> Self {
        Self { access, writes: vec![std::env::temp_dir()], entered: false }
    }

    /// Looks for the credentials that these names may take, and moves in.
    pub(crate) fn enter(&mut self, names: &[Named]) -> anyhow::Result<()> {
        if self.entered {
            return Ok(());
        }
        self.entered = true;
        let references =
            names.iter().filter_map(|name| if let Named::Reference(one) = name { Some(one) } else { None });
        for reference in references {
            // What may not be asked is told by whoever asks.
            for endpoint in self.access.registries()?.endpoints(reference).into_iter().flatten() {
                self.access.learn(&endpoint.reference);
            }
        }
        confine::enter(&ROOM)?;
        let writes: Vec<&Path> = self.writes.iter().map(PathBuf::as_path).collect();
        confine::files(&writes, None)
    }
}
