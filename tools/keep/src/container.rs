//! One run of the container: started by `spawn`, with its output and input in the keeper's hands.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal};

use crate::clock;
use crate::exit::Exit;
use crate::health::Watch;
use crate::job::Job;
use crate::output::Stream;

/// The socket's name in the bundle by which `spawn` hands the terminal over.
const CONSOLE: &str = "console.sock";
/// What is read at the end at most: others may hold the pipe, and write for ever.
const LAST_WORDS: usize = 1 << 20;

/// A container that runs.
pub(crate) struct Container {
    pub(crate) pid: Pid,
    pub(crate) since: Instant,
    /// How it ends, as far as that is known.
    pub(crate) exit: Exit,
    pub(crate) outputs: Vec<Output>,
    /// What an attached client may write to.
    pub(crate) input: Option<OwnedFd>,
    pub(crate) health: Option<Watch>,
    /// When it is killed.
    pub(crate) deadline: Option<Instant>,
}

/// One end of a pipe or terminal.
pub(crate) struct Output {
    file: File,
    pub(crate) stream: Stream,
}

/// How a start went.
pub(crate) enum Started {
    /// `spawn` ended with this code; its words are on stderr.
    Failed(u8),
    Running(Box<Container>),
}

/// Starts the container.
pub(crate) fn start(job: &Job, restarts: u32) -> Result<Started> {
    let pid_file = job.bundle.join("pid");
    let console = job.bundle.join(CONSOLE);
    let mut spawn = job.spawn(["--id", &job.id, "--detach", "--quiet", "--pid-file"]);
    spawn.push([&pid_file]);
    if job.preserve_fds > 0 {
        spawn.push(["--preserve-fds".to_owned(), job.preserve_fds.to_string()]);
    }
    let listener = if job.terminal {
        spawn.push(["--console-socket".as_ref(), console.as_os_str()]);
        Some(listen(&job.bundle)?)
    } else {
        None
    };
    spawn.push([&job.bundle]);
    let mut exit = Exit { started_at: clock::now(), restart_count: restarts, ..Exit::default() };
    let mut command = spawn.command()?;
    let mut outputs = Vec::new();
    let (stdout, stderr) = (pipe(Stream::Stdout, &mut outputs)?, pipe(Stream::Stderr, &mut outputs)?);
    command.stdout(stdout).stderr(stderr).stdin(Stdio::null());
    let mut input = None;
    if job.interactive && !job.terminal {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("pipe")?;
        command.stdin(read);
        input = Some(write);
    }
    // Of a keeper that is killed meanwhile nobody would know the container.
    sys::child::die_with_parent(&mut command, Signal::KILL);
    let status = {
        let _span = trace::span("start the container", &spawn);
        command.status().context("execute spawn")?
    };
    // With the command go its ends of the pipes.
    drop(command);
    if !status.success() {
        for output in &mut outputs {
            output.drain(&mut |_, bytes| io::stderr().write_all(bytes).unwrap_or_default());
        }
        return Ok(Started::Failed(code(status)));
    }
    exit.started_at = clock::now();
    let pid = fs::read_to_string(&pid_file).with_context(|| format!("read {}", pid_file.display()))?;
    let pid = pid.trim().parse().ok().and_then(Pid::from_raw).with_context(|| format!("{pid:?} is no process id"))?;
    if let Some(listener) = listener {
        let master = receive_console(&listener)?;
        // The next start makes its own.
        let _gone = fs::remove_file(&console);
        rustix::io::ioctl_fionbio(&master, true).context("the terminal")?;
        input = Some(master.try_clone().context("the terminal")?);
        outputs = vec![Output { file: master.into(), stream: Stream::Stdout }];
    }
    crate::notify::started(job, pid);
    let since = Instant::now();
    let health = job.health.as_ref().map(|check| Watch::begin(check, &job.bundle));
    let deadline = job.timeout.map(|seconds| since + Duration::from_secs(seconds));
    Ok(Started::Running(Box::new(Container { pid, since, exit, outputs, input, health, deadline })))
}

impl Container {
    /// Returns what an attached client may write to.
    pub(crate) fn input(&self) -> Option<BorrowedFd<'_>> {
        self.input.as_ref().map(AsFd::as_fd)
    }

    /// Copies what has been said; ends that are closed are dropped.
    pub(crate) fn read(&mut self, ready: &[bool], take: &mut dyn FnMut(Stream, &[u8])) {
        let mut ready = ready.iter();
        self.outputs.retain_mut(|output| !ready.next().is_some_and(|ready| *ready) || output.read(take) != Some(0));
    }

    /// Copies the last words.
    pub(crate) fn drain(&mut self, take: &mut dyn FnMut(Stream, &[u8])) {
        self.outputs.iter_mut().for_each(|output| output.drain(take));
    }
}

impl Output {
    /// Copies once: the number of bytes, 0 at the end, `None` if there is nothing now.
    fn read(&mut self, take: &mut dyn FnMut(Stream, &[u8])) -> Option<usize> {
        let mut buffer = [0; 16 << 10];
        match self.file.read(&mut buffer) {
            Ok(count) => {
                if count > 0 {
                    take(self.stream, &buffer[..count]);
                }
                Some(count)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => None,
            // A terminal whose last user has gone answers EIO.
            Err(_) => Some(0),
        }
    }

    fn drain(&mut self, take: &mut dyn FnMut(Stream, &[u8])) {
        let mut left = LAST_WORDS;
        while let Some(count @ 1..) = self.read(take) {
            left = left.saturating_sub(count);
            if left == 0 {
                return;
            }
        }
    }
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Makes a pipe: its reading end becomes one of the outputs, its writing end is returned.
fn pipe(stream: Stream, outputs: &mut Vec<Output>) -> Result<OwnedFd> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("pipe")?;
    // Only the reading end: the container's program may not expect the other to be.
    rustix::io::ioctl_fionbio(&read, true).context("pipe")?;
    outputs.push(Output { file: read.into(), stream });
    Ok(write)
}

/// Returns an exit code for a status, as a shell does.
fn code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(125)
}

/// Makes the socket that the terminal comes through, by the bundle's descriptor: a socket's path may have 107 bytes only.
fn listen(bundle: &Path) -> Result<UnixListener> {
    // A killed start may have left one.
    let _gone = fs::remove_file(bundle.join(CONSOLE));
    let listen = || {
        let directory = File::open(bundle)?;
        UnixListener::bind(format!("/proc/self/fd/{}/{CONSOLE}", directory.as_raw_fd()))
    };
    listen().with_context(|| format!("socket {}", bundle.join(CONSOLE).display()))
}

/// Takes the terminal's master end from spawn: runc, docs/terminals.md, "Detached".
fn receive_console(listener: &UnixListener) -> Result<OwnedFd> {
    let (socket, _) = listener.accept().context("console socket")?;
    let Some(console) = crate::control::input(socket.as_fd()).context("receive the terminal")? else {
        bail!("spawn sent no terminal")
    };
    Ok(console)
}
