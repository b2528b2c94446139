//! A container in the foreground: signals go to it, the user's terminal is joined with its own, and its exit status
//! becomes ours.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, waitpid};
use sys::ready::readable;
use sys::signal::SignalFd;
use sys::terminal::{RawTerminal, write_all};

use crate::notify::Notify;
use crate::tty;

/// As many interrupts within so short a time kill a container whose program ignores them.
const INTERRUPTS: usize = 3;
const IMPATIENCE: Duration = Duration::from_secs(5);

/// Blocks the signals that will be forwarded: before the container exists, so that none is lost. They are all that can be
/// caught but for SIGCHLD, which tells of orphans, and SIGURG, which is of no use to anybody but runtimes of languages.
pub(crate) fn block_signals() -> anyhow::Result<SignalFd> {
    SignalFd::block_all_but(&[Signal::URG]).context("block signals")
}

/// Waits for the end of a process and returns its exit status as a shell would.
pub(crate) fn wait(
    (pid, pidfd): (Pid, &OwnedFd),
    signals: &SignalFd,
    console: Option<OwnedFd>,
    notify: Option<&Notify>,
) -> anyhow::Result<u8> {
    let _span = trace::span("wait for the container's end", pid.as_raw_pid());
    // Raw mode only with a terminal of the container's own: keys are interpreted there, ^C included. Without one, the
    // user's terminal goes on to make signals of them.
    let raw = console.as_ref().and_then(|_| RawTerminal::enter(!rustix::termios::isatty(rustix::stdio::stdout())));
    let mut relay = console.map(Relay::new);
    let mut interrupts = Vec::new();
    loop {
        let mut polled = vec![PollFd::new(pidfd, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        polled.extend(notify.map(|notify| PollFd::new(notify, PollFlags::IN)));
        let relay_at = polled.len();
        if let Some(relay) = &relay {
            polled.extend(relay.polled());
        }
        // A pidfd becomes readable when the process ends (pidfd_open(2)): no SIGCHLD can be lost between a check and
        // a wait, which is how youki hangs, and runc has hung.
        rustix::io::retry_on_intr(|| poll(&mut polled, None)).context("poll")?;
        let events: Vec<PollFlags> = polled.iter().map(PollFd::revents).collect();
        drop(polled);
        if let Some(relay) = &mut relay {
            relay.move_bytes(&events[relay_at..]);
        }
        if let Some(notify) = notify.filter(|_| events[2].contains(PollFlags::IN)) {
            notify.pass_on();
        }
        if events[0].contains(PollFlags::IN) {
            break;
        }
        if events[1].contains(PollFlags::IN) {
            while let Some(received) = signals.read().context("read a signal")? {
                match i32::try_from(received.signal).unwrap_or(0) {
                    // Where no first process of a pid namespace reaps them.
                    // As a subreaper this process inherits what a container in the host's pid namespace leaves
                    // behind.
                    libc::SIGCHLD => sys::child::reap_orphans(pid),
                    signal => forward(signal, pidfd, relay.as_ref(), &mut interrupts)?,
                }
            }
        }
    }
    if let Some(relay) = &mut relay {
        relay.drain();
    }
    drop(raw);
    reap(pid)
}

/// Collects the exit status of a process that has ended.
pub(crate) fn reap(pid: Pid) -> anyhow::Result<u8> {
    let (_, status) = rustix::io::retry_on_intr(|| waitpid(Some(pid), WaitOptions::empty()))
        .context("wait for the container")?
        .context("wait for the container: no status")?;
    Ok(sys::child::exit_code(status))
}

fn forward(signal: i32, pidfd: &OwnedFd, relay: Option<&Relay>, interrupts: &mut Vec<Instant>) -> anyhow::Result<()> {
    if let (libc::SIGWINCH, Some(relay)) = (signal, relay) {
        tty::copy_size(relay.master.as_fd());
    }
    let mut sent = vec![signal];
    if signal == libc::SIGINT {
        interrupts.retain(|before| before.elapsed() < IMPATIENCE);
        interrupts.push(Instant::now());
        match interrupts.len() {
            INTERRUPTS.. => sent.push(libc::SIGKILL),
            2 => cli::eprint_line("spawn: the container goes on; interrupt once more to kill it"),
            _ => {}
        }
    }
    for signal in sent {
        sys::unless(&[Errno::SRCH], sys::signal::send(pidfd.as_fd(), signal)).context("forward a signal")?;
    }
    Ok(())
}

/// Carries bytes between the user's standard descriptors and the container's terminal.
struct Relay {
    master: OwnedFd,
    /// What the user typed and the terminal has not taken yet.
    ///
    /// While there is some, stdin is not read: at most one buffer is ever held, however much is pasted.
    typed: Vec<u8>,
    stdin_open: bool,
    master_open: bool,
}

impl Relay {
    fn new(master: OwnedFd) -> Self {
        // Without this a container that does not read would stop us from reading it.
        // O_NONBLOCK is the open file's, shared with nobody here: the master was opened for us alone. stdin and
        // stdout may be shared with the user's shell, so they are left as they are.
        let _blocking = rustix::io::ioctl_fionbio(&master, true);
        Self { master, typed: Vec::new(), stdin_open: true, master_open: true }
    }

    fn wants_master(&self) -> bool {
        self.master_open || !self.typed.is_empty()
    }

    fn wants_stdin(&self) -> bool {
        self.stdin_open && self.typed.is_empty()
    }

    /// What to wait for; what is closed would be ready for ever.
    fn polled(&self) -> Vec<PollFd<'_>> {
        let mut polled = Vec::with_capacity(2);
        if self.wants_master() {
            let write = if self.typed.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            polled.push(PollFd::new(&self.master, PollFlags::IN | write));
        }
        if self.wants_stdin() {
            polled.push(PollFd::from_borrowed_fd(rustix::stdio::stdin(), PollFlags::IN));
        }
        polled
    }

    fn move_bytes(&mut self, events: &[PollFlags]) {
        let readable = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
        let mut events = events.iter().map(|events| events.intersects(readable));
        let (from_master, wants_stdin) = (self.wants_master() && events.next() == Some(true), self.wants_stdin());
        let from_stdin = wants_stdin && events.next() == Some(true);
        if self.master_open && from_master {
            self.master_open = self.copy_out();
        }
        if from_stdin {
            let mut buffer = [0; 4096];
            match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
                Ok(count) if count > 0 => self.typed.extend_from_slice(&buffer[..count]),
                Err(Errno::AGAIN | Errno::INTR) => {}
                _ => {
                    self.stdin_open = false;
                    // What a terminal's end of input is: control-D.
                    self.typed.push(4);
                }
            }
        }
        if !self.typed.is_empty() {
            match rustix::io::write(&self.master, &self.typed) {
                Ok(count) => drop(self.typed.drain(..count)),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => {
                    self.typed.clear();
                    self.stdin_open = false;
                }
            }
        }
    }

    /// Copies what is there; false once the terminal is closed.
    fn copy_out(&self) -> bool {
        let mut buffer = [0; 16_384];
        match rustix::io::read(&self.master, &mut buffer) {
            Ok(0) => false,
            Ok(count) => write_all(rustix::stdio::stdout(), &buffer[..count]).is_ok(),
            Err(error) => matches!(error, Errno::AGAIN | Errno::INTR),
        }
    }

    /// Copies the container's last words: they stay readable at the master after the last program has closed the
    /// slave.
    fn drain(&mut self) {
        let ready = |master: &OwnedFd| readable([master.as_fd()], Some(Instant::now())).is_ok_and(|ready| ready[0]);
        while self.master_open && ready(&self.master) {
            self.master_open = self.copy_out();
        }
    }
}
