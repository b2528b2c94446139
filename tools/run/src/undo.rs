//! Undoes the stages that were done, in reverse. Every step is tried, whatever became of the one before it.

use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::plan::Undo;
use crate::siblings;

/// Carries the steps out; the error names the first one that failed, the others are warned of.
pub(crate) fn carry_out(undo: &[Undo]) -> Result<()> {
    let mut failures = undo.iter().filter_map(|step| one(step).err()).peekable();
    let Some(first) = failures.next() else { return Ok(()) };
    failures.for_each(|error| log::warn!("{error:#}"));
    Err(first)
}

fn one(undo: &Undo) -> Result<()> {
    let words = crate::script::command(&undo.stage);
    log::debug!("{words}");
    let output = siblings::command(&undo.stage)?
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .with_context(|| words.clone())?;
    if output.status.success() {
        return Ok(());
    }
    bail!("{words}: {}", String::from_utf8_lossy(&output.stderr).trim_end())
}
