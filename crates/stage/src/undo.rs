//! Undoes the stages that were done, in reverse. Every step is tried, whatever became of the one before it. Undoing what
//! was never done is no failure.

use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::{Stage, Tool};

/// What undoes a stage, if the stage was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undo {
    /// The tool whose stage is undone.
    pub of: Tool,
    /// The command that does it.
    pub stage: Stage,
}

/// Carries the steps out; the error names the first one that failed, the others are warned of.
pub fn carry_out(undo: &[Undo]) -> Result<()> {
    let mut failures = undo.iter().filter_map(|step| one(step).err()).peekable();
    let Some(first) = failures.next() else { return Ok(()) };
    failures.for_each(|error| log::warn!("{error:#}"));
    Err(first)
}

fn one(undo: &Undo) -> Result<()> {
    log::debug!("{}", undo.stage);
    let _span = trace::span("undo", &undo.stage);
    let output = undo
        .stage
        .command()?
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .with_context(|| undo.stage.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    bail!("{}: {}", undo.stage, String::from_utf8_lossy(&output.stderr).trim_end())
}
