//! Hooks (runtime-spec, config.md, "POSIX-platform Hooks"): programs that get the container's State on stdin.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rustix::process::{PidfdFlags, Signal};
use seccomp::Filter;

use crate::config::Hook;
use crate::foreground::ends_within;

/// Runs hooks in their order; the first failure ends it.
pub(crate) fn run(kind: &str, hooks: &[Hook], state: &record::State) -> anyhow::Result<()> {
    run_all(kind, Inside::default(), hooks, state)
}

/// What hooks have in common with the program in whose container they run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Inside<'a> {
    /// For those that name none of their own.
    pub environment: &'a [String],
    pub filter: Option<&'a Filter>,
}

/// Runs startContainer hooks.
pub(crate) fn run_inside(inside: Inside<'_>, hooks: &[Hook], state: &record::State) -> anyhow::Result<()> {
    run_all("startContainer", inside, hooks, state)
}

fn run_all(kind: &str, inside: Inside<'_>, hooks: &[Hook], state: &record::State) -> anyhow::Result<()> {
    for (index, hook) in hooks.iter().enumerate() {
        log::debug!("run {kind} hook {}", hook.path.display());
        run_one(hook, state, inside).with_context(|| format!("error running {kind} hook #{index}"))?;
    }
    Ok(())
}

/// Runs the hooks whose failure the specification wants only mentioned.
pub(crate) fn run_poststop(hooks: &[Hook], state: &record::State) {
    for (index, hook) in hooks.iter().enumerate() {
        log::debug!("run poststop hook {}", hook.path.display());
        if let Err(error) = run_one(hook, state, Inside::default()) {
            log::warn!("error running poststop hook #{index}: {error:#}");
        }
    }
}

fn run_one(hook: &Hook, state: &record::State, inside: Inside<'_>) -> anyhow::Result<()> {
    ensure!(hook.path.has_root(), "path {} is not absolute", hook.path.display());
    let mut command = Command::new(&hook.path);
    if let Some((name, arguments)) = hook.args.split_first() {
        command.arg0(name).args(arguments);
    }
    let environment = if hook.env.is_empty() { inside.environment } else { hook.env.as_slice() };
    command.env_clear().envs(environment.iter().filter_map(|variable| variable.split_once('=')));
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    sys::child::afresh(&mut command);
    // Who decides about calls from outside expects the program's, and hears of no hook.
    if let Some(filter) = inside.filter.filter(|filter| filter.listener.is_none()) {
        sys::child::with_filter(&mut command, &filter.program, filter.flags);
    }
    let mut child = command.spawn().with_context(|| format!("exec {}", hook.path.display()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook need not read its State.
        match stdin.write_all(&serde_json::to_vec(state)?) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(error).context("write the State"),
            _ => {}
        }
    }
    if let Some(seconds) = hook.timeout {
        let pid = rustix::process::Pid::from_child(&child);
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).context("watch the hook")?;
        if !ends_within(&pidfd, Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))? {
            rustix::process::pidfd_send_signal(&pidfd, Signal::KILL).context("kill the hook")?;
            child.wait()?;
            bail!("hook ran past specified timeout of {seconds}.0s");
        }
    }
    let mut words = String::new();
    if let Some(stderr) = child.stderr.take() {
        // What a hook leaves running may hold its stderr for ever, so only what is there is read once it is gone.
        child.wait()?;
        rustix::io::ioctl_fionbio(&stderr, true)?;
        let _not_text = stderr.take(4096).read_to_string(&mut words);
    }
    let status = child.wait()?;
    let words = words.trim_end();
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => bail!("exit status {code}, stderr: {words}"),
        (None, Some(libc::SIGSYS)) => bail!("bad system call: its seccomp filter forbids it, stderr: {words}"),
        (None, signal) => bail!("killed by signal {}, stderr: {words}", signal.unwrap_or(0)),
    }
}
