//! What `compose` does: it executes `sh` with the project's script, and `keep`.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Write, stdout};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};
use stage::{Stage, Tool};

use crate::logs;
use crate::project::Project;
use crate::request::ScriptRequest;
use crate::script::{self, created};
use crate::service::Service;
use crate::tool::{command, known, succeeded};

/// Starts the services, and unless it is `detach`ed stays until they end or it is interrupted: then it stops them.
pub(crate) fn up(project: &Project, root: &[OsString], request: &ScriptRequest, detach: bool) -> Result<ExitCode> {
    let fetched = |service: &&Service| service.build.is_some() && !service.has_own_image && !request.build;
    for service in project.services.iter().filter(fetched) {
        let (name, image) = (&service.name, &service.operands[1]);
        log::warn!("service {name}: fetching its image {image} instead of building it (--build builds it)");
    }
    shell(&script::script(project, root, request), "start", project)?;
    if detach {
        return Ok(ExitCode::SUCCESS);
    }
    let look = logs::LogView { follow: true, restarts: true, lines: Vec::new(), prefix: true };
    let ended = logs::print(project, root, &look)?;
    stop(project, root, None)?;
    Ok(ended)
}

/// Names the project's containers whose services the file does not have any more, or removes them.
pub(crate) fn orphans(project: &Project, root: &[OsString], remove: bool) -> Result<()> {
    let of_project = format!("--filter=label=com.docker.compose.project={}", project.name);
    let mut orphans: Vec<String> = known(root, &["list", "--quiet", &of_project])?.into_iter().collect();
    orphans.retain(|id| project.containers.iter().all(|container| **container != **id));
    orphans.sort();
    if remove {
        return each(command(Tool::Keep, &["rm", "--force"], root), &orphans, "removed");
    }
    for id in &orphans {
        log::warn!("container {id} belongs to no service of the file: --remove-orphans removes it");
    }
    Ok(())
}

/// Runs a script by sh, with the tools beside this one in PATH. What fails in it has told why.
fn shell(script: &str, doing: &str, project: &Project) -> Result<()> {
    let own = std::env::current_exe().context("find this executable")?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = own.parent().map(Path::to_owned).into_iter().chain(std::env::split_paths(&path));
    let status = Command::new("sh")
        .args(["-c", script])
        // The tools beside this one come first: a script must not find those of another version.
        .env("PATH", std::env::join_paths(directories).context("PATH")?)
        .envs(project.services.iter().flat_map(|service| &service.files).filter_map(|file| file.variable.clone()))
        .stdin(Stdio::null())
        .status()
        .context("execute sh")?;
    ensure!(status.success(), "{doing} {}: see above", project.name);
    Ok(())
}

/// Stops the services and removes their containers, the last one first.
pub(crate) fn down(project: &Project, root: &[OsString], timeout: Option<u32>) -> Result<()> {
    stop(project, root, timeout)?;
    let mut there = there(project, root)?;
    there.reverse();
    each(command(Tool::Keep, &["rm", "--force"], root), &there, "removed")
}

/// Stops the services, the last one first.
pub(crate) fn stop(project: &Project, root: &[OsString], timeout: Option<u32>) -> Result<()> {
    // One that waits to be started again has not ended.
    let ended = known(root, &["list", "--quiet", "--filter=status=exited"])?;
    let mut running = there(project, root)?;
    running.retain(|id| !ended.contains(*id));
    running.reverse();
    each(timed("stop", timeout, root), &running, "stopped")
}

/// Removes the services' containers that have ended, the last one first, or all by stopping them.
pub(crate) fn remove(project: &Project, root: &[OsString], stops: bool) -> Result<()> {
    if stops {
        stop(project, root, None)?;
    }
    let ended = known(root, &["list", "--quiet", "--filter=status=exited"])?;
    let mut there = there(project, root)?;
    there.retain(|id| ended.contains(*id));
    there.reverse();
    each(command(Tool::Keep, &["rm"], root), &there, "removed")
}

/// Starts the services' containers that are there.
pub(crate) fn start(project: &Project, root: &[OsString]) -> Result<()> {
    each(command(Tool::Keep, &["start"], root), &some(project, root)?, "started")
}

/// Stops them and starts them again.
pub(crate) fn restart(project: &Project, root: &[OsString], timeout: Option<u32>) -> Result<()> {
    each(timed("restart", timeout, root), &some(project, root)?, "started")
}

fn timed(verb: &str, timeout: Option<u32>, root: &[OsString]) -> Stage {
    let mut stage = command(Tool::Keep, &[verb], root);
    stage.push(timeout.map(|seconds| format!("--time={seconds}")));
    stage
}

/// Returns the services' containers that are there, in the order of their start.
fn there<'a>(project: &'a Project, root: &[OsString]) -> Result<Vec<&'a str>> {
    let known = known(root, &["list", "--quiet"])?;
    Ok(project.services.iter().map(|service| &*service.container).filter(|id| known.contains(*id)).collect())
}

/// Returns the same, at least one.
fn some<'a>(project: &'a Project, root: &[OsString]) -> Result<Vec<&'a str>> {
    let there = there(project, root)?;
    ensure!(!there.is_empty(), "project {} has no such container: `compose up` makes them", project.name);
    Ok(there)
}

/// Has `keep` do something to each container, and says of each that it is done.
fn each(mut stage: Stage, ids: &[impl AsRef<OsStr>], done: &str) -> Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    stage.push(["--"]);
    stage.push(ids.iter().map(AsRef::as_ref));
    let mut child = stage.command()?.stdout(Stdio::piped()).spawn().context("execute keep")?;
    // Line by line as `keep` prints them: each container takes its time to stop, and the user sees which.
    for id in BufReader::new(child.stdout.take().context("keep's output")?).lines() {
        cli::eprint_line(&format!("{} {done}", id?));
    }
    succeeded(&stage, child.wait().context("wait for keep")?)
}

/// Executes a command in the one service's container; the exit code is the command's.
pub(crate) fn exec(
    project: &Project,
    root: &[OsString],
    states: Option<&Path>,
    options: &[String],
    words: &[String],
) -> Result<ExitCode> {
    let [service] = project.services.as_slice() else { bail!("no service {}", words[0]) };
    let runs = known(root, &["list", "--quiet", "--running"])?.contains(&*service.container);
    ensure!(runs, "service {} does not run", service.name);
    let mut stage = Stage::new(Tool::Spawn, ["exec"]);
    stage.push(states.into_iter().flat_map(|states| ["--root".as_ref(), states.as_os_str()]));
    stage.push(options);
    stage.push([&*service.container]);
    stage.push(&words[1..]);
    // It becomes this process: signals and the terminal are its own.
    Err(stage.command()?.exec()).with_context(|| stage.to_string())
}

/// Builds the images.
pub(crate) fn build(project: &Project, root: &[OsString]) -> Result<()> {
    shell(&format!("set -eu\n{}", script::build(project, root, false)), "build", project)
}

/// Fetches the images that are not built, each once.
pub(crate) fn pull(project: &Project, root: &[OsString]) -> Result<()> {
    let mut fetched = HashSet::new();
    for service in project.services.iter().filter(|service| !service.has_own_image) {
        let platform = service.options.iter().skip_while(|option| *option != "--platform").take(2);
        let mut pull = command(Tool::Pull, &[], root);
        pull.push(platform);
        pull.push(&service.operands[..2]);
        if fetched.insert(pull.to_string()) {
            execute(&pull, Stdio::null())?;
        }
    }
    Ok(())
}

/// Prints the files as one, or what is asked of them.
pub(crate) fn config(project: &Project, quiet: bool, names: bool, images: bool) -> Result<()> {
    let lines: Vec<&str> = match (quiet, names, images) {
        (true, ..) => Vec::new(),
        (_, true, _) => project.services.iter().map(|service| &*service.name).collect(),
        (_, _, true) => project.services.iter().map(|service| &*service.operands[1]).collect(),
        _ => return Ok(writeln!(stdout(), "{:#}", project.file)?),
    };
    lines.iter().try_for_each(|line| Ok(writeln!(stdout(), "{line}")?))
}

/// Removes the networks that were created for the project.
pub(crate) fn remove_networks(project: &Project, root: &[OsString]) -> Result<()> {
    let created = created(project);
    each_quietly(command(Tool::Ns, &["network", "rm", "--force"], root), created.iter().map(|network| &*network.name))
}

/// Removes the files that were made for the project.
pub(crate) fn remove_files(directory: &Path) -> Result<()> {
    let removed = sys::file::there(std::fs::remove_dir_all(directory));
    removed.map(drop).with_context(|| format!("remove {}", directory.display()))
}

/// Removes the project's own volumes; those that others made and named for it stay.
pub(crate) fn remove_volumes(project: &Project, root: &[OsString]) -> Result<()> {
    each_quietly(command(Tool::Bundle, &["volume", "rm", "--force"], root), project.volumes.iter().map(|name| &**name))
}

/// Does something to each name, if there are any.
fn each_quietly<'a>(mut stage: Stage, names: impl ExactSizeIterator<Item = &'a str>) -> Result<()> {
    if names.len() == 0 {
        return Ok(());
    }
    stage.push(names);
    execute(&stage, Stdio::null())
}

fn execute(stage: &Stage, output: Stdio) -> Result<()> {
    let status = stage.command()?.stdout(output).status().with_context(|| stage.to_string())?;
    succeeded(stage, status)
}

/// Lists the services' containers as `keep list` does.
pub(crate) fn list(project: &Project, root: &[OsString], json: bool, quiet: bool) -> Result<()> {
    let mut list = command(Tool::Keep, &["list"], root);
    list.push([(json, "--json"), (quiet, "--quiet")].into_iter().filter(|(set, _)| *set).map(|(_, form)| form));
    list.push(project.services.iter().map(|service| &*service.container));
    execute(&list, Stdio::inherit())
}
