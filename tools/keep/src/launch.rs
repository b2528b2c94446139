//! A start of the container: `spawn` at work, which the keeper's loop waits for as for any other child.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, WaitStatus, kill_process};
use stage::Process;
use sys::ready::after;

use crate::clock;
use crate::container::RunningContainer;
use crate::control::ClientInput;
use crate::exit::{self, Exit};
use crate::health::Watch;
use crate::job::Job;
use crate::output::Stream;
use crate::pipe::PipeEnd;

/// The socket's name in the bundle by which `spawn` hands the terminal over.
const CONSOLE: &str = "console.sock";
/// The file's name in the bundle in which `spawn` tells of the container's process.
const PID: &str = "pid";

/// A start that has begun.
pub(crate) struct BegunStart {
    /// `spawn`.
    pub(crate) pid: Pid,
    /// When it is given up: somebody wants the container's end.
    pub(crate) deadline: Option<Instant>,
    exit: Exit,
    outputs: Vec<PipeEnd>,
    input: Option<OwnedFd>,
    listener: Option<UnixListener>,
    #[expect(dead_code, reason = "its end is the span's")]
    trace: trace::Timed,
}

/// How a start went.
pub(crate) enum Launched {
    /// `spawn` ended with this code, and said this.
    Failed(u8, Vec<u8>),
    Running(Box<RunningContainer>),
}

impl BegunStart {
    /// Starts the container.
    pub(crate) fn begin(job: &Job, restarts: u32) -> Result<Self> {
        let mut spawn = job.spawn(["--id", &job.id, "--detach", "--quiet", "--pid-file"]);
        spawn.push([job.bundle.join(PID)]);
        spawn.option("--preserve-fds", (job.options.preserve_fds > 0).then(|| job.options.preserve_fds.to_string()));
        spawn.option("--console-socket", job.terminal.then(|| job.bundle.join(CONSOLE)));
        let listener = job.terminal.then(|| listen(&job.bundle)).transpose()?;
        spawn.push([&job.bundle]);
        let exit = Exit { started_at: clock::now(), restart_count: restarts, ..Exit::default() };
        let mut command = spawn.command()?;
        let ((output, stdout), (errors, stderr)) = (PipeEnd::pipe(Stream::Stdout)?, PipeEnd::pipe(Stream::Stderr)?);
        let outputs = vec![output, errors];
        // The container's own streams, but for a terminal, are pipes that `spawn` passes on. What `spawn` itself says
        // comes by them, too: it speaks only where it fails.
        command.stdout(stdout).stderr(stderr).stdin(Stdio::null());
        let mut input = None;
        if job.options.interactive && !job.terminal {
            let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("pipe")?;
            command.stdin(read);
            input = Some(write);
        }
        // Of a keeper that is killed meanwhile nobody would know the container.
        sys::child::die_with_parent(&mut command, Signal::KILL);
        let trace = trace::span("start the container", &spawn);
        // Not waited for: a container can delay its own start as long as it likes, by a hook or a stopped process.
        let pid = Process::start(command)?.pid();
        Ok(Self { pid, deadline: None, exit, outputs, input, listener, trace })
    }

    /// Returns what an attached client may write to. A terminal comes with the container.
    pub(crate) fn input(&self) -> ClientInput<'_> {
        if self.listener.is_some() {
            ClientInput::Awaited
        } else {
            ClientInput::Known(self.input.as_ref().map(AsFd::as_fd))
        }
    }

    /// Gives the start up, if it has taken too long.
    pub(crate) fn act(&mut self) {
        if self.deadline.take_if(|deadline| *deadline <= Instant::now()).is_some() {
            // A child of this process, which nobody else waits for. What it has made is deleted when it has ended.
            let _ended = kill_process(self.pid, Signal::KILL);
        }
    }

    /// Takes over what a `spawn` that has ended has made.
    pub(crate) fn ended(mut self, job: &Job, status: WaitStatus) -> Result<Launched> {
        if status.exit_status() != Some(0) {
            let mut words = Vec::new();
            self.outputs.iter_mut().for_each(|output| output.drain(&mut |_, bytes| words.extend_from_slice(bytes)));
            return Ok(Launched::Failed(sys::child::exit_code(status), words));
        }
        self.exit.started_at = clock::now();
        let pid = exit::read_pid(&job.bundle.join(PID))?;
        if let Some(listener) = self.listener {
            let master = receive_console(&listener)?;
            // The next start makes its own.
            let _gone = fs::remove_file(job.bundle.join(CONSOLE));
            // One that nobody reads from would stop the whole loop.
            rustix::io::ioctl_fionbio(&master, true).context("the terminal")?;
            self.input = Some(master.try_clone().context("the terminal")?);
            self.outputs = vec![PipeEnd::new(master, Stream::Stdout)];
        }
        let since = Instant::now();
        let health = job.health.as_ref().map(|check| Watch::begin(check, &job.bundle));
        let deadline = job.options.timeout.map(|seconds| after(Duration::from_secs(seconds)));
        let (exit, outputs, input) = (self.exit, self.outputs, self.input);
        Ok(Launched::Running(Box::new(RunningContainer { pid, since, exit, outputs, input, health, deadline })))
    }
}

/// Makes the socket that the terminal comes through, by the bundle's descriptor: a socket's path may have 107 bytes only.
fn listen(bundle: &Path) -> Result<UnixListener> {
    // A killed start may have left one.
    let _gone = fs::remove_file(bundle.join(CONSOLE));
    let listen = || {
        let directory = File::open(bundle)?;
        let listener = UnixListener::bind(format!("/proc/self/fd/{}/{CONSOLE}", directory.as_raw_fd()))?;
        // spawn has connected before it ends, or never does.
        listener.set_nonblocking(true).map(|()| listener)
    };
    listen().with_context(|| format!("socket {}", bundle.join(CONSOLE).display()))
}

/// Takes the terminal's master end from spawn: runc, docs/terminals.md, "Detached".
fn receive_console(listener: &UnixListener) -> Result<OwnedFd> {
    let (socket, _) = listener.accept().context("console socket")?;
    socket.set_nonblocking(true).context("console socket")?;
    crate::control::input(socket.as_fd()).context("receive the terminal")?.context("spawn sent no terminal")
}
