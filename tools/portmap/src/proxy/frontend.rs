//! The host's sockets, as all threads that accept at them share them. A frontend is open only while somebody in the container
//! listens.
//!
//! Opening and shutting race between threads: one that has just accepted finds that nobody listens, while the first
//! opens the frontend for a new listener. Both hold the frontend's lock, so that the socket and `to` always agree.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use log::debug;
use record::Protocol;
use rustix::event::epoll::{self, EventFlags};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::net::{self, Shutdown, SocketFlags, sockopt};

use crate::spec::Served;

use super::destination::{Destination, SocketPath};
use super::token::Token;

/// Connections that wait while all are being served; the kernel takes net.core.somaxconn if that is less.
pub(super) const BACKLOG: i32 = 4096;

/// How a socket came to be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin {
    Port(SocketAddr),
    Path,
    Inherited,
}

/// What it leads to.
#[derive(Clone, Debug)]
pub(super) enum Inside {
    Port(u16),
    Path(SocketPath),
    /// Where the container is reached from outside, whether somebody listens or not.
    Address(SocketAddr),
    /// Nothing: the port is only held.
    Nothing,
}

/// One socket of the host's.
#[derive(Debug)]
pub(crate) struct Frontend {
    pub(super) socket: OwnedFd,
    pub(super) origin: Origin,
    /// What records say of it.
    pub(super) served: Served,
    pub(super) inside: Inside,
    /// Where in the container somebody listens; `None` as long as nobody does.
    to: Mutex<Option<Destination>>,
}

impl Frontend {
    pub(super) fn new(socket: OwnedFd, origin: Origin, served: Served, inside: Inside) -> Self {
        Self { socket, origin, served, inside, to: Mutex::new(None) }
    }

    pub(super) fn is_for_datagrams(&self) -> bool {
        matches!(&self.served, Served::Port(port) if port.protocol == Protocol::Udp)
    }

    pub(super) fn is_open(&self) -> bool {
        self.lock().is_some()
    }

    /// Returns where those who come are led.
    pub(super) fn destination(&self) -> Option<Destination> {
        self.lock().clone()
    }

    pub(super) fn accept(&self) -> Result<OwnedFd, Errno> {
        let client = net::accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        // What a socket of ours was set to, those that it accepts have got.
        if matches!(self.origin, Origin::Inherited) {
            relay_well(&client);
        }
        Ok(client)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Destination>> {
        // A value that is replaced as a whole is never half-written.
        self.to.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self, index: u32, epoll: &OwnedFd) -> Result<(), Errno> {
        // One of those who wait is woken, not all of them.
        // Level-triggered: what one thread leaves in the queue wakes another one.
        let flags = EventFlags::IN | EventFlags::EXCLUSIVE;
        let added = epoll::add(epoll, &self.socket, Token::Frontend(index).data(), flags);
        sys::unless(&[Errno::EXIST], added).map(drop)
    }
}

/// All of them, and the threads that wait at them.
#[derive(Debug)]
pub(super) struct Frontends {
    all: Vec<Frontend>,
    /// Of each thread.
    epolls: Vec<OwnedFd>,
    /// Tells the first thread that a frontend was shut.
    shut: OwnedFd,
    pub(super) room: Room,
}

/// For how many connections there is room.
#[derive(Debug)]
pub(super) struct Room {
    most: usize,
    taken: AtomicUsize,
}

impl Room {
    pub(super) fn is_left(&self) -> bool {
        self.taken.load(Ordering::Relaxed) < self.most
    }

    /// Counts one that has come.
    pub(super) fn take(&self) {
        self.taken.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one that has gone.
    pub(super) fn give_back(&self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Frontends {
    /// Makes them ready for so many threads and connections.
    pub(super) fn new(all: Vec<Frontend>, threads: usize, most: usize) -> Result<Self, Errno> {
        let epolls =
            (0..threads.max(1)).map(|_| epoll::create(epoll::CreateFlags::CLOEXEC)).collect::<Result<_, _>>()?;
        let shut = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let frontends = Self { all, epolls, shut, room: Room { most, taken: AtomicUsize::new(0) } };
        epoll::add(frontends.epoll(0), &frontends.shut, Token::Shut.data(), EventFlags::IN | EventFlags::ET)?;
        Ok(frontends)
    }

    /// Returns what a thread waits with.
    pub(super) fn epoll(&self, thread: usize) -> &OwnedFd {
        &self.epolls[thread]
    }

    pub(super) fn get(&self, index: u32) -> Option<&Frontend> {
        self.all.get(index as usize)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Frontend)> {
        (0..).zip(&self.all)
    }

    /// Begins to take connections, for somebody who listens in the container.
    pub(super) fn open(&self, index: u32, to: Destination) -> Result<(), Errno> {
        let Some(frontend) = self.get(index) else { return Ok(()) };
        let mut led = frontend.lock();
        if !sockopt::socket_acceptconn(&frontend.socket)? {
            // Before listen(2), since the sockets that it accepts inherit the option.
            hold_alone(&frontend.socket, false)?;
            net::listen(&frontend.socket, BACKLOG)?;
        }
        for epoll in &self.epolls {
            frontend.watch(index, epoll)?;
        }
        *led = Some(to);
        Ok(())
    }

    /// Takes no connections any more, since nothing listens in the container, and still holds the port: a listening socket
    /// that is shut down stays bound. One in the file system would not listen again, and an inherited one is others' too:
    /// there clients wait.
    pub(super) fn shut(&self, index: u32, reason: Errno) {
        let Some(frontend) = self.get(index).filter(|frontend| !matches!(frontend.inside, Inside::Address(_))) else {
            return;
        };
        let mut led = frontend.lock();
        if led.take().is_none() {
            return;
        }
        debug!("{}: {reason}", frontend.served);
        for epoll in &self.epolls {
            // A thread that has enough to do has left it already.
            let _left = epoll::delete(epoll, &frontend.socket);
        }
        if matches!(frontend.origin, Origin::Port(_)) {
            // shutdown(2) ends listening on Linux, keeps the port bound, and resets those who wait in the queue;
            // close(2) would give the port away.
            let stopped = net::shutdown(&frontend.socket, Shutdown::Read);
            cli::warn(stopped.with_context(|| format!("stop listening for {}", frontend.served)));
            let held = hold_alone(&frontend.socket, true);
            cli::warn(held.with_context(|| format!("hold the port of {}", frontend.served)));
        }
        // It is only full when it tells already.
        let _told = rustix::io::write(&self.shut, &1_u64.to_ne_bytes());
    }

    /// Has a thread wait at no frontend.
    pub(super) fn leave(&self, thread: usize) {
        for frontend in &self.all {
            let _unknown = epoll::delete(self.epoll(thread), &frontend.socket);
        }
    }

    /// Has a thread wait at every open frontend again.
    pub(super) fn come_back(&self, thread: usize) {
        for (index, frontend) in self.iter() {
            let led = frontend.lock();
            if led.is_some() {
                let watched = frontend.watch(index, self.epoll(thread));
                cli::warn(watched.with_context(|| format!("listen for {}", frontend.served)));
            }
        }
    }
}

/// Keeps others from binding to the port of a socket that does not listen: the kernel lets them share it as long as both
/// may be bound anew and nobody listens (`socket(7)`, `SO_REUSEADDR`). While it listens it is alone anyway, and then
/// connections, which inherit the option, must not keep the next proxy from the port when they have ended.
pub(super) fn hold_alone(socket: &OwnedFd, alone: bool) -> Result<(), Errno> {
    sockopt::set_socket_reuseaddr(socket, !alone)
}

/// Has what is sent go at once, and what is dead end. Neither changes what arrives.
pub(super) fn relay_well(socket: &OwnedFd) {
    let _sooner = sockopt::set_tcp_nodelay(socket, true);
    let _kept = sockopt::set_socket_keepalive(socket, true);
}
