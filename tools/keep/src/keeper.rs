//! The keeper: the process that stays with a container. It is this program, executed again under the name
//! `keep-keeper`, apart from its caller. One loop waits for everything: signals, requests, output, and what is due.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::{Errno, FdFlags};
use rustix::process::{Signal, WaitOptions, set_child_subreaper};
use serde::{Deserialize, Serialize};
use stage::claim::Duty;
use stage::{Claim, undo};
use sys::signal::SignalFd;

use crate::container::{self, Container, Started};
use crate::control::{Control, Request};
use crate::exit;
use crate::job::Job;
use crate::output::Log;
use crate::restart::Restarts;

/// The name by which the keeper is executed.
pub(crate) const NAME: &str = "keep-keeper";

/// What the keeper tells its caller, once.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// Who wants to see all of the container can join it now.
    Open,
    /// The container runs as this process.
    Running(i32),
    /// It does not; the reason is on stderr, and this is the exit code for it.
    Failed(u8),
}

struct Keeper<'a> {
    job: Job,
    claim: &'a Claim,
    signals: SignalFd,
    control: Control,
    log: Log,
    restarts: Restarts,
    phase: Phase,
    /// Who wanted the end, if it was not the container itself.
    wanted: Wanted,
}

enum Phase {
    Running(Box<Container>),
    /// Ended, to be started again at this moment.
    Pausing(Instant),
    Ended,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Nothing,
    Stop,
    Restart,
}

/// The keeper's main.
pub(crate) fn main() -> ExitCode {
    // Whoever is to be told of a trace that cannot be written has been told.
    let _untold = trace::begin(NAME);
    match keep() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            cli::complain("keep", &error);
            ExitCode::from(125)
        }
    }
}

fn keep() -> Result<()> {
    let caller = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3).context("the caller")?;
    let mut caller = UnixStream::from(caller);
    let mut text = Vec::new();
    caller.read_to_end(&mut text).context("read the job")?;
    if text.is_empty() {
        // The caller was killed before it said anything.
        return Ok(());
    }
    let job: Job = serde_json::from_slice(&text).context("read the job")?;
    let claim = std::env::args_os().nth(1).map(PathBuf::from).context("no claim")?;
    let claim = Claim::from_stdout(&claim)?;
    // From here on all that is there is this process's to undo, even if its caller is killed.
    if !claim.take_over(&Duty::own(&job.bundle, &job.undo))? {
        // The caller was killed, and what it has left is being undone.
        return Ok(());
    }
    // `bundle prune` takes a bundle that is locked for one in use, even between two starts.
    let held = File::open(&job.bundle).with_context(|| format!("open {}", job.bundle.display()))?;
    let _shared = flock(&held, FlockOperation::NonBlockingLockShared);
    let shared = share([caller.as_fd(), claim.file().as_fd()], &job)?;
    let begun = Keeper::begin(job.clone(), &claim, &caller);
    drop(shared);
    let code = match begun {
        Ok(Begun::Running(mut keeper, pid)) => {
            // A caller that was killed has told nobody of the container: it goes, too.
            let kept = if tell(caller, &Report::Running(pid)).is_ok() { keeper.stay() } else { Ok(()) };
            claim.is_ending();
            crate::notify::ending(&job);
            let undone = undo::carry_out(&job.undo);
            keeper.control.remove();
            // Who sees the socket's end, with the keeper's, may start it again at once.
            drop(held);
            // A claim that is not released is swept by the next run.
            return undone.map(|()| claim.release()).and(kept);
        }
        Ok(Begun::Failed(code)) => code,
        Err(error) => {
            // Before the caller is told, so that it ends after this.
            cli::complain("keep", &error);
            125
        }
    };
    claim.is_ending();
    undo::carry_out(&job.undo).unwrap_or_else(|error| log::warn!("{error:#}"));
    if tell(caller, &Report::Failed(code)).is_err() {
        // It cannot give the name back any more.
        claim.release();
    }
    Ok(())
}

/// Lets `spawn` inherit copies: if this process is killed, then for the caller and for whoever waits for the claim it is
/// gone only with that. spawn closes them before a hook or the container can see them.
fn share(files: [BorrowedFd<'_>; 2], job: &Job) -> Result<[OwnedFd; 2]> {
    let first = i32::try_from(job.preserve_fds).map_or(i32::MAX, |more| more.saturating_add(3));
    let share = |file| {
        let copy = rustix::io::fcntl_dupfd_cloexec(file, first)?;
        rustix::io::fcntl_setfd(&copy, FdFlags::empty()).map(|()| copy)
    };
    let [caller, claim] = files.map(share);
    Ok([caller.context("the caller")?, claim.context("the claim")?])
}

/// Reports, and lets the caller go. One that was killed is an error.
fn tell(mut caller: UnixStream, report: &Report) -> Result<()> {
    // The caller may be the trace's last.
    trace::end();
    writeln!(caller, "{}", serde_json::to_string(report)?).context("report")?;
    if matches!(report, Report::Running(_)) { leave_the_terminal() } else { Ok(()) }
}

fn leave_the_terminal() -> Result<()> {
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, rustix::fs::Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}

/// How it began.
enum Begun<'a> {
    Running(Box<Keeper<'a>>, i32),
    /// The container cannot be started; the reason is on stderr.
    Failed(u8),
}

impl<'a> Keeper<'a> {
    fn begin(job: Job, claim: &'a Claim, caller: &UnixStream) -> Result<Begun<'a>> {
        // Ended children and requests to end are both read, never lost.
        let signals =
            SignalFd::block(&[Signal::TERM, Signal::INT, Signal::HUP, Signal::CHILD]).context("block signals")?;
        // The container's process becomes this one's child when spawn has ended, so that it can be waited for.
        set_child_subreaper(Some(rustix::process::getpid())).context("become a subreaper")?;
        let log = Log::open(&job)?;
        let control = Control::open(&job.bundle)?;
        if job.attached {
            let mut caller = caller;
            writeln!(caller, "{}", serde_json::to_string(&Report::Open)?).context("report")?;
            ensure!(control.wait_for_client(caller.as_fd())?, "the caller has gone");
        }
        let container = match container::start(&job, 0) {
            Ok(Started::Running(container)) => container,
            Ok(Started::Failed(code)) => {
                control.remove();
                return Ok(Begun::Failed(code));
            }
            Err(error) => {
                control.remove();
                return Err(error);
            }
        };
        let pid = container.pid.as_raw_pid();
        let phase = Phase::Running(container);
        let restarts = Restarts::default();
        let keeper = Self { job, claim, signals, control, log, restarts, phase, wanted: Wanted::Nothing };
        Ok(Begun::Running(Box::new(keeper), pid))
    }

    /// Stays with the container until it has ended for good.
    fn stay(&mut self) -> Result<()> {
        // Of the start nothing comes back for a long time. Without that it is only larger.
        let _larger = sys::memory::forget_code();
        // Who came before the start sees all.
        for request in self.control.serve(input(&self.phase)) {
            self.heed(&request)?;
        }
        if let (true, Phase::Running(container)) = (self.job.attached && !self.job.terminal, &mut self.phase) {
            // Its end is the container's end of file.
            container.input = None;
        }
        loop {
            let ready = self.wait()?;
            self.copy(&ready);
            self.heed_signals()?;
            for request in self.control.serve(input(&self.phase)) {
                self.heed(&request)?;
            }
            self.do_what_is_due()?;
            if matches!(self.phase, Phase::Ended) {
                return Ok(());
            }
        }
    }

    /// Waits until there is something to do, and returns which outputs have something.
    fn wait(&self) -> Result<Vec<bool>> {
        let mut polled = vec![PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN)];
        polled.extend(self.control.polled().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let first = polled.len();
        if let Phase::Running(container) = &self.phase {
            polled.extend(container.outputs.iter().map(|output| PollFd::new(output, PollFlags::IN)));
        }
        let timeout = self.next_due().map(|due| due.saturating_duration_since(Instant::now()));
        // A little later rather than a little too early, and then again.
        let timeout = timeout.and_then(|timeout| (timeout + Duration::from_millis(1)).try_into().ok());
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("poll"),
        }
        Ok(polled[first..].iter().map(|fd| !fd.revents().is_empty()).collect())
    }

    fn next_due(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Running(container) => {
                container.deadline.into_iter().chain(container.health.as_ref().map(|watch| watch.due)).min()
            }
            Phase::Pausing(until) => Some(*until),
            Phase::Ended => None,
        }
    }

    fn copy(&mut self, ready: &[bool]) {
        if let Phase::Running(container) = &mut self.phase {
            container.read(ready, &mut |stream, bytes| {
                self.log.write(stream, bytes);
                self.control.show(stream, bytes);
            });
        }
    }

    fn heed_signals(&mut self) -> Result<()> {
        while let Some(received) = self.signals.read().context("read a signal")? {
            if received.signal != Signal::CHILD.as_raw().unsigned_abs() {
                self.stop(None, None, Wanted::Stop)?;
            }
        }
        // One SIGCHLD may stand for several ends.
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let Phase::Running(container) = &mut self.phase else { continue };
            if container.pid == pid {
                container.exit.set_status(status);
                self.ended()?;
            } else if let Some(watch) = &mut container.health {
                watch.ended(&self.job, pid, status);
            }
        }
        Ok(())
    }

    fn heed(&mut self, request: &Request) -> Result<()> {
        match request {
            Request::Stop(grace, signal) => {
                // A signal to this process is none of that: the machine goes down.
                self.job.stopped = true;
                exit::write(&self.job.bundle, crate::job::FILE, &self.job)?;
                self.stop(*grace, signal.as_deref(), Wanted::Stop)
            }
            Request::Restart(grace, signal) => self.stop(*grace, signal.as_deref(), Wanted::Restart),
            Request::Wait | Request::Attach => Ok(()),
        }
    }

    /// Asks the container to end; it is killed when its time is over.
    fn stop(&mut self, grace: Option<Duration>, signal: Option<&str>, wanted: Wanted) -> Result<()> {
        self.wanted = wanted;
        match &mut self.phase {
            Phase::Running(container) => {
                container.deadline = Some(Instant::now() + grace.unwrap_or_else(|| self.job.grace()));
                signal_container(&self.job, signal.unwrap_or(&self.job.stop_signal));
            }
            Phase::Pausing(_) if wanted == Wanted::Restart => self.start()?,
            Phase::Pausing(_) | Phase::Ended => self.pause(None),
        }
        Ok(())
    }

    fn do_what_is_due(&mut self) -> Result<()> {
        let now = Instant::now();
        match &mut self.phase {
            Phase::Running(container) => {
                if container.deadline.is_some_and(|deadline| deadline <= now) {
                    container.deadline = None;
                    signal_container(&self.job, "KILL");
                }
                if let Some(watch) = &mut container.health {
                    watch.act(&self.job);
                }
            }
            Phase::Pausing(until) if *until <= now => self.start()?,
            _ => {}
        }
        Ok(())
    }

    /// The container has ended: its last words, its status, and what comes next.
    fn ended(&mut self) -> Result<()> {
        let Phase::Running(container) = &mut self.phase else { return Ok(()) };
        container.drain(&mut |stream, bytes| {
            self.log.write(stream, bytes);
            self.control.show(stream, bytes);
        });
        self.log.finish();
        let ran = container.since.elapsed();
        let mut ended = container.exit.clone();
        ended.finished_at = crate::clock::now();
        ended.oom_killed = exit::was_out_of_memory(&self.job.states, &self.job.id);
        exit::write(&self.job.bundle, exit::FILE, &ended)?;
        let pause = match self.wanted {
            Wanted::Stop => None,
            Wanted::Restart => Some(Duration::ZERO),
            Wanted::Nothing => self.restarts.after(self.job.restart, ended.code, ran),
        };
        self.pause(pause);
        self.control.tell(&ended);
        if pause.is_some() {
            self.control.dismiss();
            // The place is needed for the next start.
            let delete = self.job.spawn(["delete", "--force", &self.job.id]);
            undo::carry_out(&[stage::Undo { of: stage::Tool::Spawn, stage: delete }])?;
        }
        Ok(())
    }

    /// What comes after an end: the next start, or nothing, which others are told before the end itself, so that they wait
    /// for the name then.
    fn pause(&mut self, pause: Option<Duration>) {
        if pause.is_none() {
            self.claim.is_ending();
        }
        self.phase = pause.map_or(Phase::Ended, |pause| Phase::Pausing(Instant::now() + pause));
    }

    /// Starts the container again. One that cannot be started has failed, with the code that says why.
    fn start(&mut self) -> Result<()> {
        let restarted = self.wanted == Wanted::Restart;
        self.wanted = Wanted::Nothing;
        match container::start(&self.job, self.restarts.count)? {
            Started::Running(container) => self.phase = Phase::Running(container),
            Started::Failed(code) => {
                let pause = self.restarts.after(self.job.restart, code, Duration::ZERO);
                self.pause(pause);
                let now = crate::clock::now();
                let ended = exit::Exit { code, started_at: now.clone(), finished_at: now, ..exit::Exit::default() };
                exit::write(&self.job.bundle, exit::FILE, &ended)?;
                self.control.tell(&ended);
            }
        }
        if restarted {
            self.control.restarted();
        }
        Ok(())
    }
}

fn input(phase: &Phase) -> Option<BorrowedFd<'_>> {
    match phase {
        Phase::Running(container) => container.input(),
        _ => None,
    }
}

/// Sends a signal through `spawn`, which knows what the container consists of.
fn signal_container(job: &Job, signal: &str) {
    let kill = job.spawn(["kill", &job.id, signal]);
    let done = kill.command().and_then(|mut command| {
        let quiet = std::process::Stdio::null;
        Ok(command.stdin(quiet()).stdout(quiet()).stderr(quiet()).status()?)
    });
    // It may have ended in this moment. A signal that spawn does not know is made up for by the KILL that follows.
    if let Err(error) = done {
        log::warn!("{kill}: {error:#}");
    }
}
