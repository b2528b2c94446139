//! What the services say, line by line, each line with its service's name in front.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ExitCode, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use rustix::process::Signal;
use stage::{Stage, Tool};
use sys::ready::{after, readable};
use sys::signal::SignalFd;

use crate::project::Project;
use crate::tool::{command, known};

/// How often it is looked whether all have ended, while nobody interrupts.
const LOOK: Duration = Duration::from_millis(100);

/// How logs are printed.
pub(crate) struct LogView {
    /// Until the containers end.
    pub(crate) follow: bool,
    /// And go on when they are started again.
    pub(crate) restarts: bool,
    /// Options of `keep logs` that say which lines, and how they are shown.
    pub(crate) lines: Vec<String>,
    /// Whether the service's name stands in front.
    pub(crate) prefix: bool,
}

/// Prints the logs of the services that have a container, until they end or a signal comes: the exit code is 128 and its
/// number then.
pub(crate) fn print(project: &Project, root: &[OsString], look: &LogView) -> Result<ExitCode> {
    let signals = SignalFd::block(&[Signal::INT, Signal::TERM, Signal::HUP])?;
    let there = known(root, &["list", "--quiet"])?;
    let services = project.services.iter().filter(|service| there.contains(&*service.container));
    let width = services.clone().map(|service| service.name.len()).max().unwrap_or_default();
    let mut followers = Vec::new();
    for service in services {
        let prefix = if look.prefix { format!("{:width$} | ", service.name) } else { String::new() };
        let source = Source { id: service.container.to_string(), root: root.to_vec(), prefix, restarts: look.restarts };
        let mut logs = command(Tool::Keep, &["logs"], root);
        logs.push(&look.lines);
        logs.push([&source.id]);
        if !look.follow {
            // One after the other, or lines of two would mix.
            source.copy(&logs, &Mutex::default())?;
            continue;
        }
        logs.push(["--follow"]);
        let child = Arc::new(Mutex::new(None));
        let held = Arc::clone(&child);
        let copy = std::thread::Builder::new().spawn(move || source.follow(logs, &held)).context("start a thread")?;
        followers.push((child, copy));
    }
    let received = wait(&signals, &followers)?;
    for (child, copy) in followers {
        if received.is_some() {
            // It may have ended by itself.
            lock(&child).as_mut().map(|child: &mut Child| child.kill().ok());
        } else {
            copy.join().ok();
        }
    }
    Ok(received.map_or(ExitCode::SUCCESS, |signal| ExitCode::from(128 + signal)))
}

/// One service's log.
struct Source {
    id: String,
    root: Vec<OsString>,
    prefix: String,
    restarts: bool,
}

impl Source {
    /// Copies what the container says until it ends for good, or, without restarts, until it ends.
    fn follow(&self, mut logs: Stage, child: &Mutex<Option<Child>>) {
        // What cannot be read has been told by `keep`.
        while self.copy(&logs, child).is_ok() && self.restarts && !self.has_ended() {
            logs = command(Tool::Keep, &["logs", "--follow", "--since"], &self.root);
            logs.push([&humantime::format_rfc3339_nanos(SystemTime::now()).to_string(), &self.id]);
        }
    }

    fn copy(&self, logs: &Stage, held: &Mutex<Option<Child>>) -> Result<()> {
        // A Ctrl-C is for us: what the services say while they stop is still to be seen.
        let mut child = logs.command()?.stdout(Stdio::piped()).process_group(0).spawn().context("execute keep")?;
        let said = child.stdout.take().context("keep's output")?;
        *lock(held) = Some(child);
        copy(said, &self.prefix);
        let child = lock(held).take();
        child.map_or(Ok(()), |mut child| child.wait().map(drop)).context("wait for keep")
    }

    fn has_ended(&self) -> bool {
        let listed = |filter: &[&str]| known(&self.root, &[&["list", "--quiet"], filter].concat());
        let is_in = |ids: HashSet<String>| ids.contains(&self.id);
        listed(&[]).map_or(true, |ids| !is_in(ids)) || listed(&["--filter=status=exited"]).is_ok_and(is_in)
    }
}

type Follower = (Arc<Mutex<Option<Child>>>, JoinHandle<()>);

fn wait(signals: &SignalFd, followers: &[Follower]) -> Result<Option<u8>> {
    while followers.iter().any(|(_, copy)| !copy.is_finished()) {
        readable([signals.as_fd()], Some(after(LOOK))).context("poll")?;
        if let Some(received) = signals.read()? {
            return Ok(Some(u8::try_from(received.signal).unwrap_or_default()));
        }
    }
    Ok(None)
}

fn lock(child: &Mutex<Option<Child>>) -> MutexGuard<'_, Option<Child>> {
    // A value that is replaced as a whole is never half-written.
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Copies whole lines, so that those of several services do not mix. A last line without an end gets one.
fn copy(said: impl std::io::Read, prefix: &str) {
    let mut reader = BufReader::new(said);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
        if line.last() != Some(&b'\n') {
            line.push(b'\n');
        }
        if std::io::stdout().lock().write_all(&[prefix.as_bytes(), &line].concat()).is_err() {
            // Nobody reads any more; what ends this program is its own matter.
            return;
        }
        line.clear();
    }
}
