//! `--dry-run`: every stage says what it thinks of its command line, and nothing is done.

use std::io::{self, Write};
use std::process::{ExitCode, Stdio};

use anyhow::{Context, Result, ensure};
use stage::{Stage, Tool};

use crate::plan::RunPlan;

/// The stages' exit code for wrong usage.
const USAGE: i32 = 2;

/// Checks the plan and prints it: the stages, the start, and what undoes them.
pub(crate) fn run(plan: &RunPlan, detach: bool) -> Result<ExitCode> {
    let (id, is_free) = (&plan.id, !plan.bundle.exists() || plan.replace.is_some());
    ensure!(is_free, "container {id} already exists: `bundle delete {id}` frees its name");
    plan.stages.iter().try_for_each(check)?;
    let mut stdout = io::stdout().lock();
    let steps = plan.replace.iter().chain(&plan.stages).chain([if detach { &plan.keep } else { &plan.spawn }]);
    steps.map(ToString::to_string).try_for_each(|step| writeln!(stdout, "{step}"))?;
    plan.undo.iter().try_for_each(|undo| writeln!(stdout, "undo: {}", undo.stage))?;
    Ok(ExitCode::SUCCESS)
}

/// Executes a stage without a record, so that it can do nothing, and looks at its exit code only.
fn check(stage: &Stage) -> Result<()> {
    // A stage that gets no record can do nothing: it parses its options, finds stdin empty, and fails with another
    // code than 2.
    let mut harmless = stage.clone();
    match stage.tool {
        // It asks nobody: what is not in the layout is not wrong.
        Tool::Pull => {
            let policy = harmless.arguments.iter().position(|word| word == "--policy");
            if let Some(when) = policy.and_then(|at| harmless.arguments.get_mut(at + 1)) {
                *when = "never".into();
            }
        }
        // A root file system is no record, but has something made of it.
        Tool::Bundle => harmless.arguments.insert(0, "--print".into()),
        _ => {}
    }
    let mut command = harmless.command()?;
    let output = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).output();
    let output = output.with_context(|| stage.to_string())?;
    if output.status.code() == Some(USAGE) {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(cli::Usage(words.trim_end().to_owned()).into());
    }
    Ok(())
}
