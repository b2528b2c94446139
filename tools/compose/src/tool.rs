//! The tools that are executed, and what they answer.

use std::collections::HashSet;
use std::ffi::OsString;
use std::process::{ExitStatus, Stdio};

use anyhow::{Context, Result, bail};
use stage::{Stage, Tool};

/// Begins a command line of a tool; `root` stands behind the verb.
pub(crate) fn command(tool: Tool, arguments: &[&str], root: &[OsString]) -> Stage {
    let mut stage = Stage::new(tool, arguments.iter().copied());
    stage.push(root.iter().cloned());
    stage
}

pub(crate) fn succeeded(stage: &Stage, status: ExitStatus) -> Result<()> {
    if status.success() { Ok(()) } else { bail!("{stage}: {status}") }
}

/// Returns the ids that `keep` knows.
pub(crate) fn known(root: &[OsString], arguments: &[&str]) -> Result<HashSet<String>> {
    let list = command(Tool::Keep, arguments, root);
    let output = list.command()?.stderr(Stdio::inherit()).output().with_context(|| list.to_string())?;
    succeeded(&list, output.status)?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}
