//! Hooks (runtime-spec, config.md, "POSIX-platform Hooks"): programs that get the container's State on stdin.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal};
use sys::ready::after;

use crate::config::Hook;
use crate::sync::{self, Message};

/// How much of what a hook says is for the error message.
const LONGEST_WORDS: usize = 4096;

/// Makes the launching program of a hook inside the container, which is executed as the container's process would be; it
/// reports a failure to the socket.
pub(crate) type Launcher<'a> = &'a dyn Fn(&Hook, BorrowedFd<'_>) -> Result<OwnedFd>;

/// Runs hooks in their order; the first failure ends it.
pub(crate) fn run(kind: &str, launcher: Option<Launcher<'_>>, hooks: &[Hook], state: &record::State) -> Result<()> {
    for (index, hook) in hooks.iter().enumerate() {
        log::debug!("run {kind} hook {}", hook.path.display());
        run_one(hook, state, launcher).with_context(|| format!("error running {kind} hook #{index}"))?;
    }
    Ok(())
}

/// Runs the hooks whose failure the specification wants only mentioned.
pub(crate) fn run_poststop(hooks: &[Hook], state: &record::State) {
    for (index, hook) in hooks.iter().enumerate() {
        log::debug!("run poststop hook {}", hook.path.display());
        cli::warn(run_one(hook, state, None).with_context(|| format!("error running poststop hook #{index}")));
    }
}

fn run_one(hook: &Hook, state: &record::State, launcher: Option<Launcher<'_>>) -> Result<()> {
    ensure!(hook.path.has_root(), "path {} is not absolute", hook.path.display());
    execute(hook, state, launcher)
}

/// Runs one, whatever it is called, until it has ended.
pub(crate) fn execute(hook: &Hook, state: &record::State, launcher: Option<Launcher<'_>>) -> Result<()> {
    let mut command = Command::new(&hook.path);
    if let Some((name, arguments)) = hook.args.split_first() {
        command.arg0(name).args(arguments);
    }
    if let Some(environment) = &hook.env {
        command.env_clear().envs(environment.iter().filter_map(|variable| variable.split_once('=')));
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    sys::child::afresh(&mut command);
    // Nobody would wait for the hook of a runtime that was killed.
    sys::child::die_with_parent(&mut command, Signal::KILL);
    // Registered last, so that it runs behind the other steps between fork and exec: it does not return.
    let report = launcher.map(|launcher| launch(&mut command, hook, launcher)).transpose()?;
    let deadline = hook.timeout.map(|seconds| after(Duration::from_secs(u64::try_from(seconds).unwrap_or(0))));
    let mut child = command.spawn().with_context(|| format!("exec {}", hook.path.display()))?;
    // With it goes our copy of the hook's end.
    drop(command);
    let talked = talk(&mut child, &serde_json::to_vec(state)?, deadline);
    if !matches!(talked, Ok(Some(_))) {
        // It may have ended by itself.
        let _gone = child.kill();
    }
    // Only the hook itself: what it has left in the background may go on, and keeps its end of the pipe.
    let status = child.wait()?;
    if let Some(Message::Failed(_, error)) = report.map(|report| sync::receive(report.as_fd())).transpose()? {
        return Err(error);
    }
    let Some(words) = talked? else {
        bail!("hook ran past specified timeout of {}.0s", hook.timeout.unwrap_or_default())
    };
    let words = words.trim_end();
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => bail!("exit status {code}, stderr: {words}"),
        (None, Some(libc::SIGSYS)) => bail!("bad system call: its seccomp filter forbids it, stderr: {words}"),
        (None, signal) => bail!("killed by signal {}, stderr: {words}", signal.unwrap_or(0)),
    }
}

/// Has a hook executed by a launching program; returns the socket that hears of its failure.
fn launch(command: &mut Command, hook: &Hook, launcher: Launcher<'_>) -> Result<OwnedFd> {
    let (ours, theirs) = sync::pair().context("make a socket pair")?;
    sys::child::by_launch(command, launcher(hook, theirs.as_fd())?, theirs);
    Ok(ours)
}

/// Gives a hook its State and hears what it says, until it has ended; returns the beginning of that, or nothing at the
/// deadline. A hook need not read, may say more than a pipe holds, and may leave its pipes to others that live on.
fn talk(child: &mut Child, mut state: &[u8], deadline: Option<Instant>) -> Result<Option<String>> {
    let pidfd = rustix::process::pidfd_open(Pid::from_child(child), PidfdFlags::empty()).context("watch the hook")?;
    let (mut stdin, mut stderr) = (child.stdin.take(), child.stderr.take());
    for pipe in [stdin.as_ref().map(AsFd::as_fd), stderr.as_ref().map(AsFd::as_fd)].into_iter().flatten() {
        rustix::io::ioctl_fionbio(pipe, true)?;
    }
    let mut words = Vec::new();
    loop {
        let mut polled = vec![PollFd::new(&pidfd, PollFlags::IN)];
        polled.extend(stdin.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::OUT)));
        polled.extend(stderr.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()).try_into());
        rustix::io::retry_on_intr(|| poll(&mut polled, left.transpose().ok().flatten().as_ref()))?;
        let ended = !polled[0].revents().is_empty();
        if !ended && deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Ok(None);
        }
        if let Some(pipe) = &mut stdin {
            match pipe.write(state) {
                Ok(count) => state = &state[count..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // It has closed its end.
                Err(_) => state = &[],
            }
            stdin = stdin.filter(|_| !state.is_empty());
        }
        // While the hook runs one read each time is enough, since poll(2) comes back; when it has ended, all that is
        // there is read.
        let mut more = true;
        while let (Some(pipe), true) = (&mut stderr, more) {
            let mut buffer = [0; 4096];
            match pipe.read(&mut buffer) {
                Ok(count) if count > 0 => words.extend_from_slice(&buffer[..count.min(LONGEST_WORDS - words.len())]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => more = false,
                _ => stderr = None,
            }
            // Who has it now may go on for ever.
            more &= ended && words.len() < LONGEST_WORDS;
        }
        if ended {
            return Ok(Some(String::from_utf8_lossy(&words).into_owned()));
        }
    }
}
