//! `run -d`: a small process that stays with the container. It holds the terminal, writes the log, and undoes the
//! stages when the container has ended. It is this program, executed again under the name `run-keeper`, so that it
//! starts with nothing but the job in its memory.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::OFlags;
use rustix::process::{Pid, PidfdFlags, pidfd_open, set_child_subreaper};
use serde::{Deserialize, Serialize};
use stage::{Stage, Undo};

use crate::foreground::code;
use crate::pipeline::wait_for;
use crate::plan::Plan;

/// The name by which the keeper is executed.
pub(crate) const NAME: &str = "run-keeper";
/// What the keeper says when the container runs.
const RUNNING: &str = "running\n";

/// All that the keeper has to know.
#[derive(Debug, Serialize, Deserialize)]
struct Job {
    bundle: PathBuf,
    terminal: bool,
    spawn: Stage,
    undo: Vec<Undo>,
}

/// Starts the keeper and returns when the container runs; else returns the exit code that the failure left.
pub(crate) fn hand_over(plan: &Plan, terminal: bool) -> Result<Option<u8>> {
    let job =
        Job { bundle: plan.bundle.clone(), terminal, spawn: plan.spawn_detached.clone(), undo: plan.undo.clone() };
    let mut command = Command::new(std::env::current_exe().context("find this executable")?);
    command.arg0(NAME).stdin(Stdio::piped()).stdout(Stdio::piped());
    sys::child::in_own_session(&mut command);
    let mut keeper = command.spawn().context("execute the keeper")?;
    let mut input = keeper.stdin.take().context("the keeper's stdin")?;
    input.write_all(&serde_json::to_vec(&job)?).context("write to the keeper")?;
    drop(input);
    let mut answer = String::new();
    keeper.stdout.take().context("the keeper's stdout")?.read_to_string(&mut answer)?;
    if answer == RUNNING {
        return Ok(None);
    }
    Ok(Some(code(keeper.wait().context("wait for the keeper")?)))
}

/// The keeper's own main.
pub(crate) fn main() -> ExitCode {
    match keep() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            cli::complain("run", &error);
            ExitCode::from(125)
        }
    }
}

fn keep() -> Result<u8> {
    let mut text = Vec::new();
    io::stdin().read_to_end(&mut text).context("read the job")?;
    let job: Job = serde_json::from_slice(&text).context("read the job")?;
    let kept = start(&job).and_then(|started| match started {
        Started::Failed(code) => Ok(code),
        Started::Running { pid, console } => {
            io::stdout().write_all(RUNNING.as_bytes()).context("report to run")?;
            leave_the_terminal()?;
            stay(pid, console, &log_path(&job.bundle))?;
            Ok(0)
        }
    });
    let undone = stage::undo::carry_out(&job.undo);
    kept.and_then(|code| undone.map(|()| code))
}

enum Started {
    Failed(u8),
    Running { pid: Pid, console: Option<OwnedFd> },
}

fn start(job: &Job) -> Result<Started> {
    // The container's process becomes this one's child when spawn has ended, so that it can be waited for.
    set_child_subreaper(Some(rustix::process::getpid())).context("become a subreaper")?;
    let pid_file = job.bundle.join("pid");
    let console_path = job.bundle.join("console.sock");
    let listener = if job.terminal { Some(UnixListener::bind(&console_path).context("console socket")?) } else { None };
    let log = open_log(&log_path(&job.bundle))?;
    let mut command = job.spawn.command()?;
    // Options may stand behind the operand.
    command.arg("--pid-file").arg(&pid_file);
    if listener.is_some() {
        command.arg("--console-socket").arg(&console_path);
    }
    let status = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).status().context("execute spawn")?;
    if !status.success() {
        // The container's stderr is spawn's too: the log's text is why it did not start.
        io::stderr().write_all(&std::fs::read(log_path(&job.bundle))?)?;
        return Ok(Started::Failed(code(status)));
    }
    let pid = std::fs::read_to_string(&pid_file).with_context(|| format!("read {}", pid_file.display()))?;
    let pid = pid.trim().parse().ok().and_then(Pid::from_raw).ok_or_else(|| anyhow!("{pid:?} is no process id"))?;
    let console = listener.map(|listener| receive_console(&listener)).transpose()?;
    Ok(Started::Running { pid, console })
}

fn log_path(bundle: &Path) -> PathBuf {
    bundle.join("log")
}

fn open_log(path: &Path) -> Result<File> {
    OpenOptions::new().create(true).append(true).open(path).with_context(|| format!("open {}", path.display()))
}

/// Takes the terminal's master end from spawn: runc, docs/terminals.md, "Detached".
fn receive_console(listener: &UnixListener) -> Result<OwnedFd> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

    let (socket, _) = listener.accept().context("console socket")?;
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut name = [0; 64];
    recvmsg(&socket, &mut [io::IoSliceMut::new(&mut name)], &mut control, RecvFlags::CMSG_CLOEXEC)
        .context("receive the terminal")?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut descriptors) = message {
            if let Some(console) = descriptors.next() {
                return Ok(console);
            }
        }
    }
    bail!("spawn sent no terminal")
}

fn leave_the_terminal() -> Result<()> {
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, rustix::fs::Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}

/// Waits for the container's process, copying what its terminal prints into the log.
fn stay(pid: Pid, console: Option<OwnedFd>, log: &Path) -> Result<()> {
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).with_context(|| format!("pidfd of process {pid:?}"))?;
    let mut console = console.map(File::from);
    let mut log = open_log(log)?;
    loop {
        let mut fds = vec![PollFd::new(&pidfd, PollFlags::IN)];
        fds.extend(console.as_ref().map(|console| PollFd::from_borrowed_fd(console.as_fd(), PollFlags::IN)));
        wait_for(&mut fds)?;
        let printed = fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
        let ended = !fds[0].revents().is_empty();
        if printed && !copy_some(&mut console, &mut log) {
            console = None;
        } else if ended && !printed {
            return Ok(());
        }
    }
}

/// Copies what there is; false when the terminal's other end is closed.
fn copy_some(console: &mut Option<File>, log: &mut File) -> bool {
    let Some(console) = console else { return false };
    let mut buffer = [0; 4096];
    match console.read(&mut buffer) {
        // A terminal whose last user has gone answers EIO.
        Ok(0) | Err(_) => false,
        Ok(count) => {
            // A full disk must not stop the container.
            let _lost = log.write_all(&buffer[..count]);
            true
        }
    }
}
