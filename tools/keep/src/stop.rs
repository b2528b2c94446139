//! `stop`, `restart`, `wait` and `rm`: what is done to a container, by its keeper where it has one. A container that
//! `run` has in the foreground has none; it gets its signals directly.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::Value;
use stage::claim::{self, Duty};
use stage::{Claim, Stage, Tool};

use crate::control::{self, Answer, Request};
use crate::exit::{self, Exit};
use crate::job::{GRACE, Wishes};
use crate::options::{Containers, Stop};
use crate::place::Place;
use crate::start;

/// `stop`: each container is asked, then all are waited for.
pub(crate) fn stop(options: &Stop) -> Result<ExitCode> {
    let place = Place::of(&options.these.roots);
    each(&options.these.ids, |id| {
        end(&place, id, options.time, options.signal.as_deref())?;
        say(id)
    })
}

/// `restart`.
pub(crate) fn restart(options: &Stop) -> Result<ExitCode> {
    let place = Place::of(&options.these.roots);
    if options.these.ids.iter().any(|id| claim::holder_of(&place.claims, id).is_none()) {
        rootless::enter(&options.these.roots)?;
    }
    each(&options.these.ids, |id| {
        let bundle = place.bundle(id)?;
        let request = Request::Restart(options.time.map(Duration::from_secs), options.signal.clone());
        let Some(keeper) = control::ask(&bundle, id, &request)? else {
            return restart_without_keeper(&place, options, id);
        };
        let mut ended = false;
        loop {
            match control::answer(&keeper)? {
                Answer::Closed if ended => return say(id),
                Answer::Closed => bail!("the keeper of {id} is gone"),
                Answer::Ended(_) => ended = true,
                Answer::Output(..) => {}
            }
        }
    })
}

/// Starts a container again that has ended, or that its `run` has in the foreground.
fn restart_without_keeper(place: &Place, options: &Stop, id: &str) -> Result<()> {
    if let Some(duty) = claim::holder_of(&place.claims, id).filter(Duty::removes_the_bundle) {
        bail!("container {id} is in the foreground of process {}, and goes when it ends (--rm)", duty.pid);
    }
    end(place, id, options.time, options.signal.as_deref())?;
    if start::start_one(place, &options.these.roots, id)? { say(id) } else { bail!("container {id} does not start") }
}

/// `wait`: prints the exit code.
pub(crate) fn wait(these: &Containers) -> Result<ExitCode> {
    let place = Place::of(&these.roots);
    each(&these.ids, |id| {
        let bundle = place.bundle(id)?;
        if let Some(keeper) = control::ask(&bundle, id, &Request::Wait)? {
            loop {
                match control::answer(&keeper)? {
                    Answer::Ended(exit) => return say(&exit.code.to_string()),
                    Answer::Closed => break,
                    Answer::Output(..) => {}
                }
            }
        }
        if let Some(exit) = Exit::of(&bundle)? {
            return say(&exit.code.to_string());
        }
        bail!("container {id} has no keeper that knows how it ends")
    })
}

/// `rm`.
pub(crate) fn remove(these: &Containers, force: bool) -> Result<ExitCode> {
    let place = Place::of(&these.roots);
    each(&these.ids, |id| {
        place.bundle(id)?;
        let holder = claim::holder_of(&place.claims, id);
        let runs = holder.as_ref().is_some_and(|duty| !duty.ending) || process(&place, id).is_some();
        if !force && runs {
            bail!("container {id} runs: stop it first, or use --force");
        }
        // One that is just ending is waited for, below.
        if holder.is_some() {
            end(&place, id, Some(0), Some("KILL"))?;
        }
        // What a killed keeper has left is undone with it.
        let claim = Claim::take(&place.claims, id)?;
        let removed = take_away(&place, id, these.roots.argument().map(|_| these.roots.data()).as_deref());
        claim.release();
        removed?;
        say(id)
    })
}

fn take_away(place: &Place, id: &str, root: Option<&Path>) -> Result<()> {
    let states = place.states.as_os_str();
    execute(&Stage::new(Tool::Spawn, ["--root".as_ref(), states, "delete".as_ref(), "--force".as_ref(), id.as_ref()]))?;
    if !place.bundles.join(id).exists() {
        return Ok(());
    }
    let mut delete = Stage::new(Tool::Bundle, ["delete", "--force"]);
    if let Some(root) = root {
        delete.push(["--root".as_ref(), root.as_os_str()]);
    }
    delete.push([id]);
    execute(&delete)
}

/// `top`.
pub(crate) fn top(id: &str, roots: &cli::Roots) -> Result<ExitCode> {
    let place = Place::of(roots);
    place.bundle(id)?;
    if process(&place, id).is_none() {
        bail!("container {id} does not run");
    }
    let ps = Stage::new(Tool::Spawn, ["--root".as_ref(), place.states.as_os_str(), "ps".as_ref(), id.as_ref()]);
    // Its words on stderr say what went wrong.
    let status = ps.command()?.status().with_context(|| ps.to_string())?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Ends a container, and returns when all is undone that its owner undoes.
fn end(place: &Place, id: &str, time: Option<u64>, signal: Option<&str>) -> Result<()> {
    let grace = time.map(Duration::from_secs);
    let request = Request::Stop(grace, signal.map(str::to_owned));
    let bundle = place.bundle(id)?;
    if let Some(keeper) = control::ask(&bundle, id, &request)? {
        while !matches!(control::answer(&keeper)?, Answer::Closed) {}
        return Ok(());
    }
    let Some(process) = process(place, id) else { return Ok(()) };
    let wishes = Wishes::of(&bundle)?;
    let own = wishes.stop_signal.unwrap_or_else(|| "SIGTERM".to_owned());
    let grace = grace.unwrap_or(Duration::from_secs(wishes.stop_timeout.unwrap_or(GRACE)));
    kill(place, id, signal.unwrap_or(&own))?;
    if !has_ended(&process, Some(grace))? {
        // It may end in this moment, and cannot be killed then.
        kill(place, id, "KILL")
            .or_else(|error| if has_ended(&process, Some(Duration::ZERO))? { Ok(()) } else { Err(error) })?;
        has_ended(&process, None)?;
    }
    // The `run` that it belongs to undoes the rest.
    let begun = Instant::now();
    while claim::holder_of(&place.claims, id).is_some() && begun.elapsed() < Duration::from_secs(GRACE) {
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn kill(place: &Place, id: &str, signal: &str) -> Result<()> {
    execute(&Stage::new(
        Tool::Spawn,
        ["--root".as_ref(), place.states.as_os_str(), "kill".as_ref(), id.as_ref(), signal.as_ref()],
    ))
}

fn execute(stage: &Stage) -> Result<()> {
    let output = stage.command()?.stdin(Stdio::null()).output().with_context(|| stage.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(anyhow!("{}", String::from_utf8_lossy(&output.stderr).trim_end().to_owned()))
}

/// Returns a descriptor of a container's process, if it has one that lives.
fn process(place: &Place, id: &str) -> Option<OwnedFd> {
    let state: Value = exit::read(&place.states.join(id), "state.json").ok()??;
    let pid = Pid::from_raw(i32::try_from(state["init_process_pid"].as_i64()?).ok()?)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    // Only now it cannot become another process's number unseen.
    let start = claim::start_time(pid.as_raw_pid().unsigned_abs());
    (start == state["init_process_start"].as_u64()).then_some(pidfd)
}

fn has_ended(process: &OwnedFd, limit: Option<Duration>) -> Result<bool> {
    let limit = limit.and_then(|limit| limit.try_into().ok());
    let count = rustix::io::retry_on_intr(|| poll(&mut [PollFd::new(process, PollFlags::IN)], limit.as_ref()));
    Ok(count.context("wait for the container")? > 0)
}

/// Tells whether a container lives, for `list`.
pub(crate) fn is_running(place: &Place, id: &str) -> bool {
    process(place, id).is_some()
}

/// Does it to each; the first failure is told last.
pub(crate) fn each(ids: &[String], mut one: impl FnMut(&str) -> Result<()>) -> Result<ExitCode> {
    let mut failure = None;
    for id in ids {
        if let Err(error) = one(id) {
            if let Some(earlier) = failure.replace(error) {
                cli::complain("keep", &earlier);
            }
        }
    }
    failure.map_or(Ok(ExitCode::SUCCESS), Err)
}

pub(crate) fn say(line: &str) -> Result<()> {
    Ok(writeln!(io::stdout(), "{line}")?)
}
