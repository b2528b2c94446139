//! One direction of a connection. What is small goes through a buffer, which costs less than two splices; who sends more
//! than fits there at once is served by splice(2), without a copy.
//!
//! Events tell only what has changed, so a direction remembers what its two sockets can do.
//!
//! splice(2) needs a pipe between two sockets, which costs two descriptors and two system calls for each piece; from
//! 16 KiB on that is cheaper than copying. A connection borrows one for as long as its receiver is behind.

use std::os::fd::OwnedFd;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags, Shutdown};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// What one turn moves at most, in pieces of a buffer's or pipe's size, before others have theirs.
const PIECES_EACH_TURN: usize = 16;
const BUFFER_SIZE: usize = 1 << 14;
const PIPE_SIZE: usize = 1 << 18;
const SPARE_PIPES: usize = 16;

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Waiting,
    Unfinished,
    /// The sender has ended, and the receiver has all.
    Done,
}

/// What all connections use by turns.
#[derive(Debug)]
pub(super) struct Stores {
    buffer: Box<[u8]>,
    /// Empty ones: a connection has one only while its receiver is slower than its sender.
    pipes: Vec<Pipe>,
}

impl Default for Stores {
    fn default() -> Self {
        Self { buffer: vec![0; BUFFER_SIZE].into_boxed_slice(), pipes: Vec::new() }
    }
}

impl Stores {
    fn pipe(&mut self) -> Result<Pipe, Errno> {
        if let Some(pipe) = self.pipes.pop() {
            return Ok(pipe);
        }
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // A user may have used up what pipes may hold; the smaller one does too.
        let _smaller = fcntl_setpipe_size(&write, PIPE_SIZE);
        Ok(Pipe { read, write })
    }

    fn give_back(&mut self, pipe: Pipe) {
        if self.pipes.len() < SPARE_PIPES {
            self.pipes.push(pipe);
        }
    }
}

/// A pipe between two splices.
#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

/// What the receiver has not taken yet.
#[derive(Debug, Default)]
enum Held {
    #[default]
    Nothing,
    Bytes(Vec<u8>),
    InPipe(Pipe, usize),
}

/// Whether the sender has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum End {
    #[default]
    Open,
    Seen,
    PassedOn,
}

/// One direction of a connection.
#[derive(Debug, Default)]
pub(super) struct Direction {
    held: Held,
    readable: bool,
    writable: bool,
    /// Whether there may be more behind a short read: the sender's end, or what urgent data keep apart.
    to_the_end: bool,
    end: End,
    /// How much came at once last.
    last: usize,
}

impl Direction {
    /// Returns a direction to a receiver that has yet to say that it takes something: bytes of our own are its first.
    pub(super) fn beginning_with(greeting: Vec<u8>) -> Self {
        let held = if greeting.is_empty() { Held::Nothing } else { Held::Bytes(greeting) };
        Self { held, ..Self::default() }
    }

    /// Notes what happened at the sender's side.
    pub(super) fn sender_changed(&mut self, event: EventFlags) {
        let ending = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR | EventFlags::PRI;
        // Edge-triggered epoll (epoll(7)) tells of each change once: a short read is taken for "nothing more" only
        // while no end was told, or the end would never be read.
        self.to_the_end |= event.intersects(ending);
        self.readable |= event.intersects(ending | EventFlags::IN);
    }

    /// Notes what happened at the receiver's side.
    pub(super) fn receiver_changed(&mut self, event: EventFlags) {
        self.writable |= event.intersects(EventFlags::OUT | EventFlags::HUP | EventFlags::ERR);
    }

    /// Moves what can be moved.
    pub(super) fn pump(&mut self, from: &OwnedFd, to: &OwnedFd, stores: &mut Stores) -> Result<Turn, Errno> {
        for _ in 0..PIECES_EACH_TURN {
            // What is held goes first, and nothing is read while there is some: a slow receiver slows its sender by
            // TCP's own window.
            if !self.writable || !self.deliver(to, stores)? {
                return Ok(Turn::Waiting);
            }
            if self.end != End::Open {
                return Ok(Turn::Done);
            }
            if !self.readable {
                return Ok(Turn::Waiting);
            }
            let bulk = self.last >= BUFFER_SIZE;
            let taken = if bulk { self.splice(from, stores) } else { self.copy(from, to, stores) };
            match taken {
                Ok(0) => self.end = End::Seen,
                Ok(count) => self.last = count,
                Err(Errno::AGAIN) => self.readable = false,
                Err(error) => return Err(error),
            }
        }
        Ok(Turn::Unfinished)
    }

    /// Passes the end on, unless that was done.
    pub(super) fn close(&mut self, to: &OwnedFd) -> Result<(), Errno> {
        if std::mem::replace(&mut self.end, End::PassedOn) == End::PassedOn {
            return Ok(());
        }
        // Half-closed: HTTP/1.0 clients and `nc` end their side and still wait for the answer.
        sys::unless(&[Errno::NOTCONN], net::shutdown(to, Shutdown::Write)).map(drop)
    }

    /// Tells whether the receiver has taken what was held for it.
    fn deliver(&mut self, to: &OwnedFd, stores: &mut Stores) -> Result<bool, Errno> {
        loop {
            let sent = match &self.held {
                Held::Nothing => return Ok(true),
                Held::Bytes(bytes) => net::send(to, bytes, SendFlags::NOSIGNAL),
                Held::InPipe(pipe, count) => splice(&pipe.read, None, to, None, *count, SPLICE),
            };
            let Some(sent) = sys::unless(&[Errno::AGAIN], sent)? else {
                self.writable = false;
                return Ok(false);
            };
            self.held = match std::mem::take(&mut self.held) {
                Held::Bytes(mut bytes) if sent < bytes.len() => {
                    bytes.drain(..sent);
                    Held::Bytes(bytes)
                }
                Held::InPipe(pipe, count) if sent < count => Held::InPipe(pipe, count - sent),
                Held::InPipe(pipe, _) => {
                    stores.give_back(pipe);
                    Held::Nothing
                }
                Held::Bytes(_) | Held::Nothing => Held::Nothing,
            };
        }
    }

    /// Reads into the buffer and sends from there. Returns how much was read.
    fn copy(&mut self, from: &OwnedFd, to: &OwnedFd, stores: &mut Stores) -> Result<usize, Errno> {
        let (_, count) = net::recv(from, &mut stores.buffer[..], RecvFlags::empty())?;
        self.readable = count == BUFFER_SIZE || self.to_the_end;
        let bytes = stores.buffer.get(..count).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(0);
        }
        let sent = sys::unless(&[Errno::AGAIN], net::send(to, bytes, SendFlags::NOSIGNAL))?.unwrap_or(0);
        if let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
            self.held = Held::Bytes(rest.to_vec());
        }
        Ok(count)
    }

    fn splice(&mut self, from: &OwnedFd, stores: &mut Stores) -> Result<usize, Errno> {
        let pipe = stores.pipe()?;
        let count = splice(from, None, &pipe.write, None, PIPE_SIZE, SPLICE);
        if let Ok(count @ 1..) = count {
            self.held = Held::InPipe(pipe, count);
        } else {
            stores.give_back(pipe);
        }
        count
    }
}

const SPLICE: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);
