//! Whether a container runs from a bundle, by what its runtime has noted.

use std::path::Path;

use ::container::{ContainerId, Directories, RuntimeId};
use anyhow::{Context, Result};

/// Returns the process that runs from a bundle. A container of that id that another bundle is noted for is another's.
pub(crate) fn runner(bundle: &Path, directories: &Directories) -> Result<Option<i32>> {
    let Ok(id) = ContainerId::of_path(bundle) else { return Ok(None) };
    let noted = ::container::of_id(&directories.states(), &id.into()).context("check whether its container runs")?;
    Ok(noted.filter(|noted| noted.bundle.as_ref().is_none_or(|noted| noted == bundle)).map(|noted| noted.pid))
}

/// Returns the pid of another container, which a namespace is to be shared with.
pub(crate) fn require_pid(directories: &Directories, id: &RuntimeId) -> Result<i32> {
    let noted = ::container::of_id(&directories.states(), id)?;
    Ok(noted.with_context(|| format!("container `{id}` does not run"))?.pid)
}
