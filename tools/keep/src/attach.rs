//! `attach`: the user's terminal, or standard descriptors, joined with those of a container that has a keeper.

use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use container::ContainerId;
use rustix::process::Signal;
use rustix::termios::{tcgetwinsize, tcsetwinsize};
use stage::{Stage, Tool};
use sys::ready::readable;
use sys::signal::SignalFd;
use sys::terminal::{RawTerminal, write_all};

use crate::control::{self, Answer, Request};
use crate::list;
use crate::request::Join;

/// Joins a container and returns its exit code; 0 for who detaches.
pub(crate) fn attach(id: &ContainerId, options: &Join, roots: &cli::Roots) -> Result<ExitCode> {
    let directories = roots.directories();
    let (id, known) = list::named(&directories, id)?;
    let signals = block_signals(options)?;
    let keeper = control::ask(&known.bundle, &id, &Request::Attach)?;
    let Some(keeper) = keeper else { bail!("{}", list::without_keeper(&directories, &id, &known)) };
    join(keeper, &id, options, (&directories.states(), &signals))
}

/// Blocks the signals that are passed on, or else those that end the join.
pub(crate) fn block_signals(options: &Join) -> Result<SignalFd> {
    Ok(if options.sig_proxy {
        SignalFd::block_all_but(&[Signal::CHILD, Signal::URG])?
    } else {
        SignalFd::block(&[Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM, Signal::WINCH])?
    })
}

/// Stays with a container whose keeper has been asked for it.
pub(crate) fn join(
    keeper: OwnedFd,
    id: &ContainerId,
    options: &Join,
    (states, signals): (&Path, &SignalFd),
) -> Result<ExitCode> {
    // The descriptor itself comes over the socket (`SCM_RIGHTS`), so that what is typed does not pass through the
    // keeper.
    let input = control::input(keeper.as_fd())?.filter(|_| !options.no_stdin);
    let raw = input.as_ref().filter(|input| input.is_terminal()).and_then(|_| RawTerminal::enter(false));
    let keys = Pressed { keys: &options.detach_keys.0, pending: Vec::new() };
    let mut joined = Joined { id, sig_proxy: options.sig_proxy, states, keeper, input, keys };
    joined.copy_size();
    let ended = joined.stay(signals);
    drop(raw);
    ended
}

struct Joined<'a> {
    id: &'a ContainerId,
    sig_proxy: bool,
    states: &'a Path,
    keeper: OwnedFd,
    /// The container's input.
    input: Option<OwnedFd>,
    keys: Pressed<'a>,
}

impl Joined<'_> {
    fn stay(&mut self, signals: &SignalFd) -> Result<ExitCode> {
        let mut ended = None;
        loop {
            let stdin = self.input.as_ref().map(|_| rustix::stdio::stdin());
            let fds = [self.keeper.as_fd(), signals.as_fd()].into_iter().chain(stdin);
            let ready = readable(fds, None).context("poll")?;
            if ready[0] {
                match control::answer(&self.keeper)? {
                    Answer::Output(2, bytes) => io::stderr().write_all(&bytes)?,
                    Answer::Output(_, bytes) => {
                        io::stdout().write_all(&bytes)?;
                        io::stdout().flush()?;
                    }
                    // What the keeper undoes now has to be gone for whoever waits for us.
                    Answer::Ended(exit) => ended = Some(exit.code),
                    Answer::Closed if ended.is_some() => return Ok(ExitCode::from(ended.unwrap_or_default())),
                    Answer::Closed => bail!("container {} no longer has a keeper", self.id),
                }
            }
            self.handle(signals)?;
            if ready.get(2) == Some(&true) && self.copy_in()? {
                return Ok(ExitCode::SUCCESS);
            }
        }
    }

    fn handle(&self, signals: &SignalFd) -> Result<()> {
        while let Some(received) = signals.read()? {
            let signal = i32::try_from(received.signal).ok().and_then(Signal::from_named_raw);
            if signal == Some(Signal::WINCH) {
                self.copy_size();
            } else if self.sig_proxy {
                let number = received.signal.to_string();
                let root = self.states.as_os_str();
                let kill = ["--root".as_ref(), root, "kill".as_ref(), self.id.as_ref(), number.as_ref()];
                // It may have ended in this moment.
                // By `spawn`, not by the keeper: its number may have become another process's, which `spawn` looks
                // at.
                let _ended = Stage::new(Tool::Spawn, kill).command()?.output();
            } else {
                bail!("interrupted; container {} goes on", self.id);
            }
        }
        Ok(())
    }

    /// Gives the container what was typed; true when the keys were pressed that end the join.
    fn copy_in(&mut self) -> Result<bool> {
        let Some(input) = &self.input else { return Ok(false) };
        let mut buffer = [0; 4096];
        let count = rustix::io::retry_on_intr(|| rustix::io::read(rustix::stdio::stdin(), &mut buffer)).unwrap_or(0);
        if count == 0 {
            if input.is_terminal() && !rustix::stdio::stdin().is_terminal() {
                // What a terminal's end of input is: control-D.
                let _ended = write_all(input, &[4]);
            }
            self.input = None;
            return Ok(false);
        }
        // Without a terminal on our side, nobody presses keys.
        if !rustix::stdio::stdin().is_terminal() {
            return write_all(input, &buffer[..count]).map(|()| false).or(Ok(false));
        }
        let (typed, detach) = self.keys.take(&buffer[..count]);
        // A container that takes no input any more may go on talking.
        let _closed = write_all(input, &typed);
        Ok(detach)
    }

    fn copy_size(&self) {
        let size = tcgetwinsize(rustix::stdio::stdout()).or_else(|_| tcgetwinsize(rustix::stdio::stdin()));
        if let (Some(input), Ok(size)) = (&self.input, size) {
            // Only a terminal has a size.
            let _not_a_terminal = tcsetwinsize(input, size);
        }
    }
}

/// The keys that end the join, as far as they have been pressed.
struct Pressed<'a> {
    keys: &'a [u8],
    /// What was typed of them.
    pending: Vec<u8>,
}

impl Pressed<'_> {
    /// Returns what goes to the container, and whether all the keys were pressed in a row.
    fn take(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::new();
        for &byte in bytes {
            self.pending.push(byte);
            if self.pending == self.keys {
                self.pending.clear();
                return (passed, true);
            }
            // What cannot become the keys any more was not meant: the container gets it.
            while !self.keys.starts_with(&self.pending) {
                passed.push(self.pending.remove(0));
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_a_row_detach() {
        let pressed = |keys| Pressed { keys, pending: Vec::new() };
        let (none, mut pressed) = (pressed(b"").take(b"a"), pressed(&[16, 17]));
        assert_eq!(none, (b"a".to_vec(), false));
        assert_eq!(pressed.take(b"a\x10b"), (b"a\x10b".to_vec(), false));
        assert_eq!(pressed.take(b"\x10"), (vec![], false));
        assert_eq!(pressed.take(b"\x10"), (vec![16], false));
        assert_eq!(pressed.take(b"\x11z"), (vec![], true));
        let mut pressed = Pressed { keys: b"aab", pending: Vec::new() };
        assert_eq!(pressed.take(b"aaab"), (b"a".to_vec(), true));
    }
}
