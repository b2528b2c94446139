//! What `compose` does: it executes `sh` with the project's script, and `keep`.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};
use container::Directories;
use serde_json::Value;
use stage::{Stage, Tool};

use crate::logs;
use crate::options::{Ps, Up};
use crate::project::Project;
use crate::script::command;

/// Starts the services, and unless it is `detach`ed stays until they end or it is interrupted: then it stops them.
pub(crate) fn up(project: &Project, root: &[OsString], script: &str, up: &Up) -> Result<ExitCode> {
    orphans(project, root, up.remove_orphans)?;
    let status = shell(script)?;
    if !status.success() {
        bail!("start {}: see above", project.name);
    }
    if up.detach {
        return Ok(ExitCode::SUCCESS);
    }
    let look = logs::Look { follow: true, restarts: true, tail: "all", prefix: true };
    let ended = logs::print(project, root, &look)?;
    stop(project, root, None)?;
    Ok(ended)
}

/// Names the project's containers whose services the file does not have any more, or removes them.
pub(crate) fn orphans(project: &Project, root: &[OsString], remove: bool) -> Result<()> {
    let of_project = format!("--filter=label=com.docker.compose.project={}", project.name);
    let own = |id: &&String| project.containers.iter().any(|container| **container == **id);
    let mut orphans: Vec<String> = known(root, &["list", "--quiet", &of_project])?.into_iter().collect();
    orphans.retain(|id| !own(&id));
    orphans.sort();
    for id in &orphans {
        if remove {
            let mut rm = command(Tool::Keep, &["rm", "--force"], root);
            rm.push(["--", id]);
            quietly(&rm)?;
        } else {
            log::warn!("container {id} is of no service of the file any more: --remove-orphans removes it");
        }
    }
    Ok(())
}

/// Runs a script by sh, with the tools beside this one in PATH.
fn shell(script: &str) -> Result<ExitStatus> {
    let own = std::env::current_exe().context("find this executable")?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = own.parent().map(Path::to_owned).into_iter().chain(std::env::split_paths(&path));
    Command::new("sh")
        .args(["-c", script])
        .env("PATH", std::env::join_paths(directories).context("PATH")?)
        .stdin(Stdio::null())
        .status()
        .context("execute sh")
}

/// Stops the services and removes their containers, the last one first.
pub(crate) fn down(project: &Project, root: &[OsString], timeout: Option<u32>) -> Result<()> {
    stop(project, root, timeout)?;
    let there = known(root, &["list", "--quiet"])?;
    for service in project.services.iter().rev().filter(|service| there.contains(&*service.container)) {
        let mut remove = command(Tool::Keep, &["rm", "--force"], root);
        remove.push(["--", &*service.container]);
        quietly(&remove)?;
    }
    Ok(())
}

fn stop(project: &Project, root: &[OsString], timeout: Option<u32>) -> Result<()> {
    let ended = known(root, &["list", "--quiet", "--filter=status=exited"])?;
    let mut running = known(root, &["list", "--quiet"])?;
    // One that waits to be started again has not ended.
    running.retain(|id| !ended.contains(id));
    for service in project.services.iter().rev().filter(|service| running.contains(&*service.container)) {
        let mut stop = command(Tool::Keep, &["stop"], root);
        if let Some(timeout) = timeout {
            stop.push(["--time".to_owned(), timeout.to_string()]);
        }
        stop.push(["--", &*service.container]);
        quietly(&stop)?;
    }
    Ok(())
}

/// Removes the project's own volumes; those that others made and named for it stay.
pub(crate) fn remove_volumes(project: &Project, directories: &Directories) -> Result<()> {
    for volume in &project.volumes {
        let path = directories.volume(volume);
        root::remove_tree(&path).with_context(|| format!("remove {}", path.display()))?;
    }
    Ok(())
}

/// Lists the services' containers as `keep list` does.
pub(crate) fn list(project: &Project, root: &[OsString], ps: &Ps) -> Result<()> {
    let own: HashSet<&str> = project.services.iter().map(|service| &*service.container).collect();
    let form: &[&str] = match (ps.json, ps.quiet) {
        (true, _) => &["list", "--json"],
        (_, true) => &["list", "--quiet"],
        _ => &["list"],
    };
    let text = output(&command(Tool::Keep, form, root))?;
    let mut out = std::io::stdout().lock();
    for (number, line) in text.lines().enumerate() {
        let id = if ps.json {
            serde_json::from_str::<Value>(line).ok().and_then(|row| Some(row.get("id")?.as_str()?.to_owned()))
        } else {
            line.split(' ').next().map(str::to_owned)
        };
        let title = number == 0 && !ps.json && !ps.quiet;
        if title || id.is_some_and(|id| own.contains(id.as_str())) {
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}

/// Returns the ids that `keep` knows.
pub(crate) fn known(root: &[OsString], arguments: &[&str]) -> Result<HashSet<String>> {
    Ok(output(&command(Tool::Keep, arguments, root))?.lines().map(str::to_owned).collect())
}

fn output(stage: &Stage) -> Result<String> {
    let output = stage.command()?.stderr(Stdio::inherit()).output().with_context(|| stage.to_string())?;
    if !output.status.success() {
        bail!("{stage}: {}", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Executes a command whose ids nobody wants to read.
fn quietly(stage: &Stage) -> Result<()> {
    output(stage).map(drop)
}
