//! One connection: what the client sends to the container and back, moved by splice(2) without a copy.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::epoll::{self, EventFlags};
use rustix::io::Errno;
use rustix::net::{self, SendFlags, Shutdown, sockopt};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use super::destination::Destination;
use super::token::Token;

/// What one turn moves at most, in pieces of a pipe's size, before others have theirs.
const PIECES_EACH_TURN: usize = 16;
const PIPE_SIZE: usize = 1 << 18;
const SPARE_PIPES: usize = 16;

/// Why a connection ends before its time.
#[derive(Debug)]
pub(super) enum Failure {
    /// The container did not take it.
    Unreachable(Errno),
    /// A side broke it off.
    Broken,
}

/// What a turn came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Waiting,
    Unfinished,
    Done,
}

/// A client and the container, connected.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) listener: u32,
    client: OwnedFd,
    server: OwnedFd,
    connecting: bool,
    /// What the container is told before the client's first byte.
    greeting: Vec<u8>,
    there: Direction,
    back: Direction,
}

impl Relay {
    /// Connects an accepted client to the container. Where nobody listens there, the client's connection is reset.
    pub(super) fn connect(
        client: OwnedFd,
        listener: u32,
        to: Option<&Destination>,
        greeting: Vec<u8>,
    ) -> Result<Self, Errno> {
        let connected = to.ok_or(Errno::CONNREFUSED).and_then(Destination::connect);
        let (server, connecting) = match connected {
            Ok(connected) => connected,
            Err(error) => {
                reset(&client);
                return Err(error);
            }
        };
        // None of the three changes what arrives; they only make it arrive sooner, or end what is dead.
        let _kept = sockopt::set_socket_keepalive(&client, true);
        let _sooner = sockopt::set_tcp_nodelay(&client, true);
        let _sooner = sockopt::set_tcp_nodelay(&server, true);
        let (there, back) = (Direction::default(), Direction::default());
        Ok(Self { listener, client, server, connecting, greeting, there, back })
    }

    pub(super) fn register(&self, epoll: &OwnedFd, index: u32, generation: u32) -> Result<(), Errno> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(epoll, &self.client, Token::Client { index, generation }.data(), flags)?;
        epoll::add(epoll, &self.server, Token::Server { index, generation }.data(), flags)
    }

    pub(super) fn turn(&mut self, pipes: &mut Pipes) -> Result<Turn, Failure> {
        if self.connecting {
            match sockopt::socket_error(&self.server) {
                Ok(Ok(())) if net::getpeername(&self.server).is_ok() => self.connecting = false,
                Ok(Ok(())) => return Ok(Turn::Waiting),
                Ok(Err(error)) | Err(error) => {
                    reset(&self.client);
                    return Err(Failure::Unreachable(error));
                }
            }
        }
        if !self.greeting.is_empty() {
            // It is the first that is sent, and shorter than any socket's buffer.
            let greeting = std::mem::take(&mut self.greeting);
            if net::send(&self.server, &greeting, SendFlags::NOSIGNAL) != Ok(greeting.len()) {
                reset(&self.client);
                return Err(Failure::Broken);
            }
        }
        let there = self.there.pump(&self.client, &self.server, pipes);
        let back = self.back.pump(&self.server, &self.client, pipes);
        match (there, back) {
            (Ok(Turn::Done), Ok(Turn::Done)) => Ok(Turn::Done),
            (Ok(Turn::Unfinished), Ok(_)) | (Ok(_), Ok(Turn::Unfinished)) => Ok(Turn::Unfinished),
            (Ok(_), Ok(_)) => Ok(Turn::Waiting),
            _ => {
                // What one side broke off must not look like an end to the other.
                reset(&self.client);
                reset(&self.server);
                Err(Failure::Broken)
            }
        }
    }
}

/// Makes closing a socket a reset of its connection.
fn reset(socket: &OwnedFd) {
    // Where it cannot be, the connection is gone already.
    let _gone = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
}

/// A pipe between two splices.
#[derive(Debug)]
pub(super) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

/// Empty pipes: a connection has one only while its receiver is slower than its sender.
#[derive(Debug, Default)]
pub(super) struct Pipes(Vec<Pipe>);

impl Pipes {
    fn take(&mut self) -> Result<Pipe, Errno> {
        if let Some(pipe) = self.0.pop() {
            return Ok(pipe);
        }
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // A user may have used up what pipes may hold; the smaller one does too.
        let _smaller = fcntl_setpipe_size(&write, PIPE_SIZE);
        Ok(Pipe { read, write })
    }

    fn give_back(&mut self, pipe: Pipe) {
        if self.0.len() < SPARE_PIPES {
            self.0.push(pipe);
        }
    }
}

/// One direction of a connection.
#[derive(Debug, Default)]
struct Direction {
    pipe: Option<Pipe>,
    /// Bytes in the pipe.
    held: usize,
    ended: bool,
    /// Whether the end was passed on.
    closed: bool,
}

impl Direction {
    fn pump(&mut self, from: &OwnedFd, to: &OwnedFd, pipes: &mut Pipes) -> Result<Turn, Errno> {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        for _ in 0..PIECES_EACH_TURN {
            if self.held == 0 {
                if self.ended {
                    return self.close(to);
                }
                let pipe = match self.pipe.take() {
                    Some(pipe) => pipe,
                    None => pipes.take()?,
                };
                match splice(from, None, &pipe.write, None, PIPE_SIZE, flags) {
                    Ok(0) => self.ended = true,
                    Ok(count) => self.held = count,
                    Err(Errno::AGAIN) => {
                        pipes.give_back(pipe);
                        return Ok(Turn::Waiting);
                    }
                    Err(error) => return Err(error),
                }
                if self.held == 0 {
                    pipes.give_back(pipe);
                    continue;
                }
                self.pipe = Some(pipe);
            }
            let Some(pipe) = &self.pipe else { return Ok(Turn::Waiting) };
            match splice(&pipe.read, None, to, None, self.held, flags) {
                Ok(count) => self.held -= count.min(self.held),
                Err(Errno::AGAIN) => return Ok(Turn::Waiting),
                Err(error) => return Err(error),
            }
        }
        Ok(Turn::Unfinished)
    }

    fn close(&mut self, to: &OwnedFd) -> Result<Turn, Errno> {
        if !self.closed {
            self.closed = true;
            match net::shutdown(to, Shutdown::Write) {
                Ok(()) | Err(Errno::NOTCONN) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Turn::Done)
    }
}
