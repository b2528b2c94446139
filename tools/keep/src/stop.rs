//! `stop`, `restart`, `wait` and `rm`: what is done to a container, by its keeper where it has one. A container that
//! `run` has in the foreground has none; it gets its signals directly.

use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use container::{ContainerId, Directories, Known};
use record::{OwnedBy, Record};
use stage::claim::{self, Holder};
use stage::undo::{self, Made};
use stage::{Claim, Stage, Tool};
use sys::child::ends_within;

use crate::control::{self, Answer, Request};
use crate::exit::{self, Exit};
use crate::job::{self, GRACE, Job};
use crate::list::{self, each, process, say};
use crate::request::Stop;
use crate::start;

/// How long whoever has started a container may take to write down how it has ended.
const BEING_WRITTEN: Duration = Duration::from_secs(2);

/// `stop`: each container is asked, then all are waited for.
pub(crate) fn stop(options: &Stop, roots: &cli::Roots) -> Result<ExitCode> {
    let directories = roots.directories();
    each(&directories, &options.ids, |id, _| {
        end(&directories, id, options.time, options.signal.as_deref())?;
        say(id)
    })
}

/// `restart`.
pub(crate) fn restart(options: &Stop, roots: &cli::Roots) -> Result<ExitCode> {
    let directories = roots.directories();
    // A container with a keeper is restarted by that, which is in the user's namespaces already; to enter them
    // executes this program again, and is only done for the others.
    let holder = |text| claim::holder_of(&directories, &list::named(&directories, text)?.0);
    let kept = |text| holder(text).is_ok_and(|holder| holder.is_some());
    if !options.ids.iter().all(|id| kept(id)) {
        rootless::enter(roots)?;
    }
    let put_back = put_back(roots);
    let restarted = each(&directories, &options.ids, |id, _| {
        let bundle = list::bundle(&directories, id)?;
        let request = Request::Restart(options.time.map(Duration::from_secs), options.signal.clone());
        let Some(keeper) = control::ask(&bundle, id, &request)? else {
            return restart_without_keeper(&directories, options, roots, id);
        };
        let mut ended = false;
        loop {
            match control::answer(&keeper)? {
                // The keeper closes the connection when the container runs again. Its end was told before.
                Answer::Closed if ended => return say(id),
                Answer::Closed => bail!("the keeper of {id} is gone"),
                Answer::Ended(exit) if exit.never_ran() => bail!("container {id} does not start: see `keep logs {id}`"),
                Answer::Ended(_) => ended = true,
                Answer::Output(..) => {}
            }
        }
    });
    // What could not be put back has been told.
    put_back.inspect_err(|error| log::warn!("{error:#}")).iter_mut().flatten().for_each(|process| drop(process.wait()));
    restarted
}

/// Begins to put back what somebody has taken from the host's side of networks and ports, by flushing the firewall say: a
/// restart changes nothing there. An ordinary user has nothing that could be taken.
fn put_back(roots: &cli::Roots) -> Result<Option<std::process::Child>> {
    if cli::is_rootless() || !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let mut restore = Stage::new(Tool::Portmap, ["restore"]);
    restore.option("--root", roots.argument());
    let mut command = restore.command()?;
    Ok(Some(command.stdin(Stdio::null()).spawn().with_context(|| restore.to_string())?))
}

/// Starts a container again that has ended, or that its `run` has in the foreground.
fn restart_without_keeper(
    directories: &Directories,
    options: &Stop,
    roots: &cli::Roots,
    id: &ContainerId,
) -> Result<()> {
    if let Some(holder) = claim::holder_of(directories, id)?.filter(Holder::removes_the_bundle) {
        bail!("container {id} is in the foreground of process {}: --rm removes it at its end", holder.process.pid);
    }
    end(directories, id, options.time, options.signal.as_deref())?;
    if start::start_one(roots, id, None)? { say(id) } else { bail!("container {id} does not start") }
}

/// `wait`: prints the exit code.
pub(crate) fn wait(ids: &[ContainerId], roots: &cli::Roots) -> Result<ExitCode> {
    let directories = roots.directories();
    each(&directories, ids, |id, known| {
        let bundle = &known.bundle;
        if let Some(keeper) = control::ask(bundle, id, &Request::Wait)? {
            loop {
                match control::answer(&keeper)? {
                    Answer::Ended(exit) => return say(&exit.code.to_string()),
                    Answer::Closed => break,
                    Answer::Output(..) => {}
                }
            }
        }
        // A pidfd: the process may end and its number be another's before it is waited for.
        if let Some(process) = process(&directories, id)? {
            ends_within(&process, None)?;
            let code = after_its_end(bundle)?;
            return say(&code.with_context(|| format!("container {id} has ended, exit code unknown"))?.to_string());
        }
        match exit::read::<Exit>(bundle, exit::FILE)? {
            Some(exit) => say(&exit.code.to_string()),
            None => bail!("{}", list::without_keeper(&directories, id, known)),
        }
    })
}

/// Returns the exit code of a container that has just ended without a keeper, when whoever started it has written it down.
fn after_its_end(bundle: &Path) -> Result<Option<u8>> {
    let begun = Instant::now();
    loop {
        match exit::read::<Exit>(bundle, exit::FILE)? {
            Some(exit) => return Ok(Some(exit.code)),
            None if bundle.is_dir() && begun.elapsed() < BEING_WRITTEN => std::thread::sleep(Duration::from_millis(1)),
            None => return Ok(None),
        }
    }
}

/// `rm`.
pub(crate) fn remove(ids: &[ContainerId], force: bool, roots: &cli::Roots) -> Result<ExitCode> {
    let directories = roots.directories();
    each(&directories, ids, |id, _| {
        let holder = claim::holder_of(&directories, id)?;
        // Between two starts there is no process, but a keeper.
        let runs = holder.is_some_and(|holder| !holder.ending) || process(&directories, id)?.is_some();
        ensure!(force || !runs, "container {id} runs: stop it first, or use --force");
        let begun = Instant::now();
        // One that is just ending is waited for; a keeper that is just beginning does not listen yet, and is asked
        // again. The claim is what makes the removal exclusive: with it nobody can start or remove the container
        // meanwhile.
        let claim = loop {
            if claim::holder_of(&directories, id)?.is_some() && sys::file::may_be_there(&directories.bundle(id)) {
                end(&directories, id, Some(0), Some("KILL"))?;
            }
            // What a killed keeper has left is undone with it.
            match Claim::take(&directories, id) {
                Err(_) if force && begun.elapsed() < Duration::from_secs(GRACE) => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                claim => break claim?,
            }
        };
        // The claim is released in any case. What was not removed can be seen, and be removed again.
        let removed = take_away(&directories, id, roots.argument().map(|_| directories.data()));
        claim.release();
        removed?;
        say(id)
    })
}

fn take_away(directories: &Directories, id: &ContainerId, root: Option<&Path>) -> Result<()> {
    let (states, bundle) = (directories.states(), directories.bundle(id));
    // What is not readable may be a container's of an earlier version.
    let record = Record::of_bundle(&bundle).unwrap_or_default();
    let owner = record.find::<OwnedBy>().ok().flatten().map(|owned| owned.0);
    // A keeper has undone all but these two.
    let left = undo::is_left(directories, id) || !bundle.join(job::FILE).exists();
    let made = Made { id, owner, root, states: Some(&states), runtime: None, keeps_bundle: false };
    let undo = made.undo(|tool| match tool {
        Tool::Spawn => true,
        Tool::Bundle => sys::file::may_be_there(&bundle),
        _ => left && (undo::is_in(&record, tool) || record == Record::default()),
    });
    undo::carry_out(&undo)
}

/// `top`.
pub(crate) fn top(id: &ContainerId, directories: &Directories) -> Result<ExitCode> {
    let (id, _) = list::named(directories, id)?;
    ensure!(process(directories, &id)?.is_some(), "container {id} does not run");
    let ps = job::spawn(&directories.states(), ["ps", &id]);
    // Its words on stderr say what went wrong.
    let status = ps.command()?.status().with_context(|| ps.to_string())?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Ends a container, and returns when all is undone that its owner undoes.
fn end(directories: &Directories, id: &ContainerId, time: Option<u64>, signal: Option<&str>) -> Result<()> {
    let grace = time.map(Duration::from_secs);
    let request = Request::Stop(grace, signal.map(str::to_owned));
    let (_, Known { bundle, pid, .. }) = list::named(directories, id)?;
    // The keeper stops the container itself, and knows then that the end was wanted: a signal from elsewhere would be
    // a crash that its policy answers with a restart.
    if let Some(keeper) = control::ask(&bundle, id, &request)? {
        while !matches!(control::answer(&keeper)?, Answer::Closed) {}
        return Ok(());
    }
    let Some(process) = process(directories, id)? else {
        return match (pid, claim::holder_of(directories, id)?) {
            (Some(_), Some(holder)) => {
                bail!("container {id} is another runtime's: it ends with its `run`, process {}", holder.process.pid)
            }
            (Some(pid), None) => bail!("container {id} is another runtime's, process {pid}"),
            (None, _) => Ok(()),
        };
    };
    let job = Job::plain(id, &bundle, directories)?;
    // By `spawn`, which looks whether the number is still the container's process.
    kill(directories, id, signal.unwrap_or(&job.stop_signal))?;
    if !ends_within(&process, Some(grace.unwrap_or_else(|| job.grace())))? {
        // It may end in this moment, and cannot be killed then.
        kill(directories, id, "KILL")
            .or_else(|error| if ends_within(&process, Some(Duration::ZERO))? { Ok(()) } else { Err(error) })?;
        ends_within(&process, None)?;
    }
    // The `run` that it belongs to undoes the rest.
    claim::wait_while(directories, id, |_| true)
}

fn kill(directories: &Directories, id: &ContainerId, signal: &str) -> Result<()> {
    job::spawn(&directories.states(), ["kill", id, signal]).execute()
}
