//! The keeper's loop: starts the container, and stays with it until it has ended for good. Nothing is waited for but the
//! loop's own poll, and no error but the end of the bundle leaves it: what fails is told in the log, and tried again.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, set_child_subreaper};
use stage::Claim;
use sys::ready::after;
use sys::signal::SignalFd;

use crate::container::RunningContainer;
use crate::control::{ClientInput, Control, Request};
use crate::errand::Errand;
use crate::exit::{self, Exit};
use crate::health::Watch;
use crate::job::{self, Job};
use crate::launch::{BegunStart, Launched};
use crate::output::{Log, Stream};
use crate::report::Report;
use crate::restart::Restarts;

/// When a system call of the loop's own that has failed is tried again.
const AGAIN: Duration = Duration::from_millis(100);
/// How long taking away what an ended container has left may take.
const CLEARING: Duration = Duration::from_secs(30);

pub(crate) struct Lifetime<'a> {
    job: Job,
    claim: &'a Claim,
    signals: SignalFd,
    pub(crate) control: Control,
    log: Log,
    restarts: Restarts,
    phase: Phase,
    /// The commands that end the container, and have not ended themselves: the next one has the same name.
    ///
    /// A `kill` that came too late would end the next start.
    errands: Vec<Pid>,
    /// Who wanted the end, if it was not the container itself.
    wanted: Wanted,
    /// How the first start went.
    first: Option<First>,
    /// When the loop looks at everything again, after a system call has failed.
    again: Option<Instant>,
    /// How it ended, where that could not be written.
    ///
    /// Until it is, the keeper stays: it is the only one who knows.
    unwritten: Option<Exit>,
    /// The keeper's own exit code, for a service manager: the container's, or 0 if somebody has stopped it.
    pub(crate) code: u8,
}

/// How the first start went, for the caller.
#[derive(Clone, Copy)]
pub(crate) enum First {
    /// The container's process.
    Running(Pid),
    /// The container cannot be started; the reason is on stderr.
    Failed(u8),
}

enum Phase {
    Starting(Box<BegunStart>),
    Running(Box<RunningContainer>),
    /// Ended, to be started again at this moment; what it has left is being taken away.
    Pausing(Instant, Option<Errand>),
    Ended,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Nothing,
    Stop,
    Restart,
}

impl<'a> Lifetime<'a> {
    /// Begins with the first start.
    pub(crate) fn begin(job: Job, claim: &'a Claim, caller: &UnixStream) -> Result<Self> {
        // Ended children and requests to end are both read, never lost.
        let signals =
            SignalFd::block(&[Signal::TERM, Signal::INT, Signal::HUP, Signal::CHILD]).context("block signals")?;
        // The container's process becomes this one's child when spawn has ended, so that it can be waited for.
        // PR_SET_CHILD_SUBREAPER(2const). `spawn` ends when the container runs, and its children come to the nearest
        // subreaper; the status of a process goes to its parent alone.
        set_child_subreaper(Some(rustix::process::getpid())).context("become a subreaper")?;
        let log = Log::open(&job.log, &job.bundle, &job.id)?;
        let control = Control::open(&job.bundle)?;
        let restarts = Restarts::default();
        let (first, again, unwritten, code) = (None, None, None, 0);
        let (phase, errands, wanted) = (Phase::Ended, Vec::new(), Wanted::Nothing);
        let mut lifetime =
            Self { job, claim, signals, control, log, restarts, phase, errands, wanted, first, again, unwritten, code };
        let begun = (|| {
            if lifetime.job.options.attach {
                Report::Open.send(caller)?;
                ensure!(lifetime.control.wait_for_client(caller.as_fd())?, "the caller is gone");
            }
            // Before the container can write anything.
            exit::reserve(&lifetime.job.bundle);
            BegunStart::begin(&lifetime.job, 0)
        })();
        lifetime.phase = Phase::Starting(Box::new(begun.inspect_err(|_| lifetime.control.remove())?));
        Ok(lifetime)
    }

    /// Waits until the container runs, or cannot be started.
    pub(crate) fn first_start(&mut self) -> First {
        loop {
            if let Some(first) = self.first {
                return first;
            }
            self.turn();
        }
    }

    /// Stays with the container until it has ended for good.
    pub(crate) fn stay(&mut self) {
        // Of the start nothing comes back for a long time. Without that it is only larger.
        let _larger = sys::memory::forget_code();
        if let (true, Phase::Running(container)) = (self.job.options.attach && !self.job.terminal, &mut self.phase) {
            // Its end is the container's end of file.
            container.input = None;
        }
        while !matches!(self.phase, Phase::Ended) {
            self.turn();
        }
    }

    /// Stays until it is written how the container ended, and tells whoever asks meanwhile.
    pub(crate) fn write_the_end(&mut self) {
        while let Some(exit) = self.unwritten.clone() {
            // Those who have asked since the end, too. Nobody is kept waiting.
            self.control.tell(&exit);
            self.control.let_go();
            if self.job.options.rm || is_gone(&self.job) || exit::write(&self.job.bundle, exit::FILE, &exit).is_ok() {
                return;
            }
            self.again = Some(Instant::now() + AGAIN * 10);
            self.wait();
            let requests = self.control.serve(ClientInput::Known(None));
            if requests.iter().any(|request| matches!(request, Request::Stop(..))) {
                return;
            }
        }
    }

    /// One turn of the loop: waits until there is something to do, and does it.
    fn turn(&mut self) {
        let ready = self.wait();
        if let Phase::Running(container) = &mut self.phase {
            container.read(&ready, &mut |stream, bytes| {
                self.log.write(stream, bytes);
                self.control.show(stream, bytes);
            });
            if let Some(watch) = &mut container.health {
                watch.hear();
            }
        }
        // Output before ends: a container's last words are read while its pipes are known.
        self.handle_signals();
        for request in self.control.serve(input(&self.phase)) {
            self.handle(&request);
        }
        self.do_what_is_due();
    }

    /// Waits until there is something to do, and returns which outputs have something.
    fn wait(&mut self) -> Vec<bool> {
        // Made anew each time: clients and outputs come and go, and there are few of them.
        let mut polled = vec![PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN)];
        polled.extend(self.control.polled().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let first = polled.len();
        if let Phase::Running(container) = &self.phase {
            let probe = container.health.as_ref().and_then(Watch::probe_output);
            polled.extend(container.outputs.iter().chain(probe).map(|output| PollFd::new(output, PollFlags::IN)));
        }
        let due = self.next_due();
        let timeout = due.map(|due| due.saturating_duration_since(Instant::now()));
        // A little later rather than a little too early, and then again.
        let timeout = timeout.and_then(|timeout| (timeout + Duration::from_millis(1)).try_into().ok());
        let polled = match poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => polled[first..].iter().map(|fd| !fd.revents().is_empty()).collect(),
            Err(_) => {
                // More descriptors than there may be by now, or no memory.
                std::thread::sleep(AGAIN);
                vec![true; polled.len() - first]
            }
        };
        self.again = self.again.filter(|again| *again > Instant::now());
        polled
    }

    fn next_due(&self) -> Option<Instant> {
        let own = match &self.phase {
            Phase::Starting(start) => start.deadline,
            Phase::Running(container) => {
                container.deadline.into_iter().chain(container.health.as_ref().map(|watch| watch.due)).min()
            }
            Phase::Pausing(until, None) => Some(*until),
            Phase::Pausing(until, Some(_)) => Some(*until + CLEARING),
            Phase::Ended => None,
        };
        own.into_iter().chain(self.again).chain(self.control.closed).min()
    }

    fn handle_signals(&mut self) {
        loop {
            match self.signals.read() {
                Ok(None) => break,
                Ok(Some(received)) if received.signal == Signal::CHILD.as_raw().unsigned_abs() => {}
                Ok(Some(_)) => self.stop(None, None, Wanted::Stop),
                Err(error) => return self.fault("read a signal", &error.into()),
            }
        }
        loop {
            // One SIGCHLD may stand for several ends.
            // Any child: orphans of the container, which come to this subreaper, are reaped here, too.
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => self.child_ended(pid, status),
                Ok(None) | Err(Errno::CHILD) => return,
                Err(error) => return self.fault("wait for a process", &error.into()),
            }
        }
    }

    fn child_ended(&mut self, pid: Pid, status: WaitStatus) {
        self.errands.retain(|errand| *errand != pid);
        match &mut self.phase {
            Phase::Starting(start) if start.pid == pid => self.spawn_ended(status),
            Phase::Running(container) if container.pid == pid => {
                container.exit.signal = status.terminating_signal();
                container.exit.code = sys::child::exit_code(status);
                self.ended();
            }
            Phase::Running(container) => {
                if let Some(watch) = &mut container.health {
                    watch.ended(&self.job, pid, status);
                }
            }
            Phase::Pausing(_, errand) => {
                if let Some(failure) = errand.take_if(|errand| errand.pid == pid).and_then(|gone| gone.failure(status))
                {
                    self.note(&failure);
                }
            }
            _ => {}
        }
    }

    fn handle(&mut self, request: &Request) {
        match request {
            Request::Stop(grace, signal) => {
                // A signal to this process is none of that: the machine goes down.
                self.job.stopped = true;
                if let Err(error) = exit::write(&self.job.bundle, job::FILE, &self.job) {
                    self.note(&format!("{error:#}"));
                }
                self.stop(*grace, signal.as_deref(), Wanted::Stop);
            }
            Request::Restart(grace, signal) => self.stop(*grace, signal.as_deref(), Wanted::Restart),
            Request::Wait | Request::Attach => {}
        }
    }

    /// Asks the container to end; it is killed when its time is over.
    fn stop(&mut self, grace: Option<Duration>, signal: Option<&str>, wanted: Wanted) {
        let deadline = after(grace.unwrap_or_else(|| self.job.grace()));
        match &mut self.phase {
            // It will be as good as started again.
            Phase::Starting(_) if wanted == Wanted::Restart => return,
            // `spawn` is killed then, and what it has made is deleted with the container.
            Phase::Starting(start) => start.deadline = Some(deadline),
            Phase::Running(container) => {
                container.deadline = Some(deadline);
                let signal = signal.unwrap_or(&self.job.stop_signal).to_owned();
                // One that spawn does not know, or that cannot be sent now, is made up for by the KILL that follows.
                // `spawn kill` signals the first process alone; whether it ends is for the deadline to see.
                self.begin_errand("kill", &signal);
            }
            // When what the container has left is gone.
            Phase::Pausing(until, _) if wanted == Wanted::Restart => *until = Instant::now(),
            Phase::Pausing(..) | Phase::Ended => self.pause(None),
        }
        self.wanted = wanted;
    }

    /// Begins a command of `spawn` that ends the container or takes it away.
    fn begin_errand(&mut self, verb: &str, argument: &str) -> Option<Errand> {
        let begun = Errand::begin(&self.job.spawn([verb, &self.job.id, argument]));
        let begun = begun.inspect_err(|error| self.note(&format!("{error:#}"))).ok();
        self.errands.extend(begun.iter().map(|errand| errand.pid));
        begun
    }

    fn do_what_is_due(&mut self) {
        let now = Instant::now();
        match &mut self.phase {
            Phase::Starting(start) => start.act(),
            Phase::Running(container) => {
                if let Some(watch) = &mut container.health {
                    watch.act(&self.job);
                }
                if container.deadline.is_some_and(|deadline| deadline <= now) {
                    // It may be frozen, or have processes beside the first: spawn knows. And it may not be able to.
                    // By the keeper itself first: this needs neither memory nor a descriptor.
                    container.kill();
                    self.begin_errand("kill", "KILL");
                }
            }
            Phase::Pausing(until, clearing) if *until <= now => {
                if clearing.as_ref().is_none_or(|_| *until + CLEARING <= now) {
                    self.start();
                }
            }
            Phase::Pausing(..) | Phase::Ended => {}
        }
    }

    /// The container has ended: its last words, its status, and what comes next.
    fn ended(&mut self) {
        let Phase::Running(container) = &mut self.phase else { return };
        container.drain(&mut |stream, bytes| {
            self.log.write(stream, bytes);
            self.control.show(stream, bytes);
        });
        // Both pipes have been read to what was there; the rest belongs to processes that outlive the container's
        // first.
        self.log.finish();
        let ran = container.since.elapsed();
        let mut ended = container.exit.clone();
        ended.finished_at = crate::clock::now();
        ended.oom_killed = exit::was_out_of_memory(&self.job.states, &self.job.id);
        // A stop wins over any policy, as with docker.
        let pause = match self.wanted {
            Wanted::Stop => None,
            Wanted::Restart => Some(Duration::ZERO),
            Wanted::Nothing => self.restarts.after(self.job.options.restart, Some(ended.code), ran),
        };
        self.conclude(ended, pause);
    }

    /// What was to end a container that has ended must not meet the next one of its name. They are our children:
    /// their numbers are theirs until the loop has reaped them.
    fn kill_errands(&mut self) {
        for errand in self.errands.drain(..) {
            // That it has ended is heard as of any other child.
            let _gone = kill_process(errand, Signal::KILL);
        }
    }

    /// Writes down and tells how it ended, and prepares what comes next: a start after a pause, or nothing.
    fn conclude(&mut self, ended: Exit, pause: Option<Duration>) {
        self.kill_errands();
        let written = exit::write(&self.job.bundle, exit::FILE, &ended);
        if let Err(error) = &written {
            self.note(&format!("{error:#}"));
        }
        // Before `tell`: who hears of the end and looks at the claim has to find it ending.
        self.pause(pause);
        self.control.tell(&ended);
        self.code = if self.wanted == Wanted::Stop { 0 } else { ended.code };
        self.unwritten = written.is_err().then_some(ended);
        if let Phase::Pausing(until, _) = self.phase {
            self.control.dismiss();
            // The place is needed for the next start.
            self.phase = Phase::Pausing(until, self.begin_errand("delete", "--force"));
        }
    }

    /// What comes after an end: the next start, or nothing, which others are told before the end itself, so that they wait
    /// for the name then.
    fn pause(&mut self, pause: Option<Duration>) {
        if pause.is_none() {
            self.claim.is_ending();
        }
        self.phase = pause.map_or(Phase::Ended, |pause| Phase::Pausing(Instant::now() + pause, None));
    }

    /// Starts the container again.
    fn start(&mut self) {
        self.wanted = Wanted::Nothing;
        self.kill_errands();
        exit::reserve(&self.job.bundle);
        match BegunStart::begin(&self.job, self.restarts.count) {
            Ok(start) => self.phase = Phase::Starting(Box::new(start)),
            Err(error) => self.failed(125, format!("keep: {error:#}\n").as_bytes()),
        }
    }

    fn spawn_ended(&mut self, status: WaitStatus) {
        let Phase::Starting(start) = std::mem::replace(&mut self.phase, Phase::Ended) else { return };
        let deadline = start.deadline;
        match start.ended(&self.job, status) {
            Ok(Launched::Running(container)) => self.running(container, deadline),
            Ok(Launched::Failed(code, words)) => self.failed(code, &words),
            Err(error) => self.failed(125, format!("keep: {error:#}\n").as_bytes()),
        }
    }

    /// `deadline` is when it has to have ended, where that was asked for while it was being started.
    fn running(&mut self, mut container: Box<RunningContainer>, deadline: Option<Instant>) {
        match self.first {
            // Told by the keeper, when it has become the manager's child.
            None => self.first = Some(First::Running(container.pid)),
            Some(_) => crate::notify::started(self.job.options.sdnotify, container.pid),
        }
        self.control.join(container.input.as_ref().map(AsFd::as_fd));
        self.control.restarted();
        container.deadline = deadline.or(container.deadline);
        self.phase = Phase::Running(container);
        if deadline.is_some() {
            self.begin_errand("kill", &self.job.stop_signal.clone());
        }
    }

    /// A start that failed, with the code that says why. The first is the caller's; a later one is tried again.
    fn failed(&mut self, code: u8, words: &[u8]) {
        if self.first.is_none() {
            self.first = Some(First::Failed(code));
            // Nobody may be there any more to read it.
            let _read = io::stderr().write_all(words);
            self.phase = Phase::Ended;
            return;
        }
        self.log.write(Stream::Stderr, words);
        self.control.show(Stream::Stderr, words);
        let pause = match self.wanted {
            Wanted::Stop => None,
            _ if is_gone(&self.job) => None,
            // That one of its own programs failed is no failure of the container's.
            _ => self.restarts.after(self.job.options.restart, (code != 125).then_some(code), Duration::ZERO),
        };
        let now = crate::clock::now();
        self.conclude(Exit { code, started_at: now.clone(), finished_at: now, ..Exit::default() }, pause);
        self.control.restarted();
    }

    /// A system call of the loop's own has failed: it is told, and everything is looked at again soon.
    fn fault(&mut self, what: &str, error: &anyhow::Error) {
        self.again = Some(Instant::now() + AGAIN);
        self.note(&format!("{what}: {error}"));
    }

    /// Tells in the log what the keeper could not do.
    fn note(&mut self, words: &str) {
        let line = format!("keep: {words}\n");
        self.log.write(Stream::Stderr, line.as_bytes());
        self.control.show(Stream::Stderr, line.as_bytes());
    }
}

/// Returns what an attached client may write to.
fn input(phase: &Phase) -> ClientInput<'_> {
    match phase {
        Phase::Starting(start) => start.input(),
        Phase::Running(container) => ClientInput::Known(container.input.as_ref().map(AsFd::as_fd)),
        _ => ClientInput::Known(None),
    }
}

/// Tells whether the bundle is certainly gone: an error is not that.
fn is_gone(job: &Job) -> bool {
    matches!(job.bundle.join("config.json").try_exists(), Ok(false))
}
