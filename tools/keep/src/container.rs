//! One run of the container, with its output and input in the keeper's hands.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::exit::Exit;
use crate::health::Watch;
use crate::output::Stream;
use crate::pipe::PipeEnd;

/// How long after it was killed it is killed again.
const AGAIN: Duration = Duration::from_secs(1);

/// A container that runs.
pub(crate) struct RunningContainer {
    pub(crate) pid: Pid,
    pub(crate) since: Instant,
    /// How it ends, as far as that is known.
    pub(crate) exit: Exit,
    pub(crate) outputs: Vec<PipeEnd>,
    /// What an attached client may write to.
    pub(crate) input: Option<OwnedFd>,
    pub(crate) health: Option<Watch>,
    /// When it is killed.
    pub(crate) deadline: Option<Instant>,
}

impl RunningContainer {
    /// Kills its first process, again and again until it has ended. That is a child of this process, so that its number
    /// is nobody else's.
    pub(crate) fn kill(&mut self) {
        self.deadline = Some(Instant::now() + AGAIN);
        let _ended = kill_process(self.pid, Signal::KILL);
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
